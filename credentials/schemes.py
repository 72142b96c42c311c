"""What an adapter declares about how its system authorises calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Encoding = Literal["form", "json", "query", "basic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """OAuth 2 at this system.

    Attributes:
        token_path: below the source's base address.
        lifetime: seconds to assume where the token answer names no `expires_in`.
        body: how the token request's fields are sent; "query": in the address, for those who document nothing else; "basic": as a form,
            the client beside it as HTTP Basic (RFC 6749, 2.3.1).
        learns_host: the answer's field with the address to call from now on, such as "instance_url".
        first_grant: how a token comes about where there is no refresh token; "password" also begins anew when the refresh
            token has died, since the password lives on.
        public_client: the client id that the vendor has for everybody, where a source needs none of its own.
        extra: what each token request says besides, such as {"platform": "…"}; a source's option of that name wins.
    """

    token_path: str
    lifetime: float = 3600.0
    body: Encoding = "form"
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    dead_grant: frozenset[str] = frozenset({"invalid_grant"})  # `error` (or `status`) values that end a grant
    first_grant: Literal["client_credentials", "password"] = "client_credentials"
    public_client: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user name and a password that are exchanged for a token which ends; a new one is had the same way.

    Attributes:
        token: the answer's field with the token; None where the whole answer is the token, a JSON string.
        The rest is as with OAuth.
    """

    token_path: str
    lifetime: float = 3600.0
    body: Encoding = "json"
    token: str | None = None
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth1:
    """OAuth 1.0 (RFC 5849), one-legged: every request is signed with the secrets of a client and of a token that does not end."""

    method: Literal["HMAC-SHA256", "HMAC-SHA1"] = "HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A fixed secret in a header, such as a private-app token."""

    header: str = "Authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """User name and password; `user_suffix` is what some vendors append, such as "/token"."""

    user_suffix: str = ""


Auth = OAuth | Login | OAuth1 | Token | Basic
