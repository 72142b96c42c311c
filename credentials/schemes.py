"""What an adapter declares about how its system authorises calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """OAuth 2 at this system.

    Attributes:
        token_path: below the source's base address.
        lifetime: seconds to assume where the token answer names no `expires_in`.
        body: how the token request is encoded.
        learns_host: the answer's field with the address to call from now on, such as "instance_url".
        first_grant: how a token comes about where there is no refresh token; "password" also begins anew when the refresh
            token has died, since the password lives on.
        client: the client id that the vendor has for everybody, where a source needs none of its own.
        extra: what each token request says besides, such as {"platform": "…"}; a source's option of that name wins.
    """

    token_path: str
    lifetime: float = 3600.0
    body: Literal["form", "json"] = "form"
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    dead_grant: frozenset[str] = frozenset({"invalid_grant"})  # `error` (or `status`) values that end a grant
    first_grant: Literal["client_credentials", "password"] = "client_credentials"
    client: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """The secrets without which nothing can be authorised."""
        client = () if self.client else ("client_id", "client_secret")
        return (*client, "username", "password") if self.first_grant == "password" else client


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A fixed secret in a header, such as a private-app token."""

    header: str = "Authorization"
    prefix: str = "Bearer "

    @property
    def needed(self) -> tuple[str, ...]:
        return ("token",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """User name and password; `user_suffix` is what some vendors append, such as "/token"."""

    user_suffix: str = ""

    @property
    def needed(self) -> tuple[str, ...]:
        return ("username", "password")


Auth = OAuth | Token | Basic
