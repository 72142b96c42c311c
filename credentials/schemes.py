"""What an adapter declares about how its system authorises calls."""

from dataclasses import dataclass
from typing import Literal

Encoding = Literal["form", "json", "query"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """OAuth 2 at this system.

    Attributes:
        token_path: below the source's base address.
        lifetime: seconds to assume where the token answer names no `expires_in`.
        body: how the token request's fields are sent; "query": in the address, for those who document nothing else.
        client: where the token request names the client: in its fields, or as HTTP Basic (RFC 6749, 2.3.1).
        learns_host: the answer's field with the address to call from now on, such as "instance_url".
    """

    token_path: str
    lifetime: float = 3600.0
    body: Encoding = "form"
    client: Literal["body", "basic"] = "body"
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    dead_grant: frozenset[str] = frozenset({"invalid_grant"})  # `error` (or `status`) values that end a grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A fixed secret in a header, such as a private-app token."""

    header: str = "Authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """User name and password; `user_suffix` is what some vendors append, such as "/token"."""

    user_suffix: str = ""


Auth = OAuth | Token | Basic
