"""What an adapter declares about how its system authorises calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Literal

from model.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """OAuth 2 at this system.

    Attributes:
        token_path: below the source's base address, or a whole address where tokens come from another host. It and the values of
            `fields` may name `{base_url}` and the source's options, such as "https://login.example/{tenant}/token".
        fields: what a token request says besides, such as {"scope": "{base_url}/.default"}.
        defaults: of options that need not be said.
        lifetime: seconds to assume where the token answer names no `expires_in`.
        body: how the token request is encoded.
        learns_host: the answer's field with the address to call from now on, such as "instance_url".
    """

    token_path: str
    fields: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    lifetime: float = 3600.0
    body: Literal["form", "json"] = "form"
    learns_host: str | None = None
    header: str = "Authorization"
    prefix: str = "Bearer "
    dead_grant: frozenset[str] = frozenset({"invalid_grant"})  # `error` (or `status`) values that end a grant

    def at(self, base_url: str, options: Mapping[str, str]) -> "OAuth":
        """Return the scheme of one source: a whole address, and fields without names to fill in.

        Raises:
            ConfigurationError: an option is missing; the message ends with its name.
        """
        known = {**self.defaults, **options, "base_url": base_url}

        def filled(text: str) -> str:
            if missing := [name for _, name, _, _ in Formatter().parse(text) if name and not known.get(name)]:
                raise ConfigurationError(f"the option is missing by which tokens are asked for: {missing[0]}")
            return text.format_map(known)

        path = filled(self.token_path)
        return replace(
            self,
            token_path=path if "://" in path else base_url + path,
            fields={name: filled(value) for name, value in self.fields.items()},
        )


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
