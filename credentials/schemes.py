"""What an adapter declares about how its system authorises calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Literal

from model.errors import ConfigurationError

Encoding = Literal["form", "json", "query", "basic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """OAuth 2 at this system.

    Attributes:
        token_path: below the source's base address, or a whole address where tokens come from another host. It and the values of
            `fields` may name `{base_url}` and the source's options, such as "https://login.example/{tenant}/token".
        fields: what a token request says besides, such as {"scope": "{base_url}/.default"}.
        defaults: of options that need not be said.
        lifetime: seconds to assume where the token answer names no `expires_in`.
        body: how the token request's fields are sent; "query": in the address, for those who document nothing else; "basic": as a form,
            the client beside it as HTTP Basic (RFC 6749, 2.3.1).
        learns_host: the answer's field with the address to call from now on, such as "instance_url".
        first_grant: how a token comes about where there is no refresh token; "password" also begins anew when the refresh
            token has died, since the password lives on.
        public_client: the client id that the vendor has for everybody, where a source needs none of its own.
    """

    token_path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    lifetime: float = 3600.0
    body: Encoding = "form"
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    dead_grant: frozenset[str] = frozenset({"invalid_grant"})  # `error` (or `status`) values that end a grant
    first_grant: Literal["client_credentials", "password"] = "client_credentials"
    public_client: str = ""

    def at(self, base_url: str, options: Mapping[str, str]) -> "OAuth":
        """Return the scheme of one source: its address and fields without names to fill in.

        Raises:
            ConfigurationError: an option is missing; the message ends with its name.
        """
        known = {**self.defaults, **options, "base_url": base_url}

        def filled(text: str) -> str:
            if missing := [name for _, name, _, _ in Formatter().parse(text) if name and not known.get(name)]:
                raise ConfigurationError(f"the option is missing by which tokens are asked for: {missing[0]}")
            return text.format_map(known)

        return replace(
            self, token_path=filled(self.token_path), fields={name: filled(value) for name, value in self.fields.items()}
        )


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
