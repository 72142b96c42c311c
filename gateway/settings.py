"""Settings: `C360_*` in the environment over `c360.toml`. Nothing below this package reads either.

A mistake stops the start with one line that names the key.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from model.errors import ConfigurationError

PREFIX = "C360_"
_NOT_SETTINGS = frozenset({"CONFIG", "API_KEY"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AuthSettings(_Strict):
    """The secrets of one source. Each may instead be named by `<name>_env` (a variable) or `<name>_file` (a path)."""

    scheme: str
    client_id: SecretStr | None = None
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    token: SecretStr | None = None
    token_secret: SecretStr | None = None
    username: SecretStr | None = None
    password: SecretStr | None = None

    def secrets(self) -> dict[str, str]:
        said = {name: getattr(self, name) for name in type(self).model_fields if name != "scheme"}
        return {"scheme": self.scheme} | {name: value.get_secret_value() for name, value in said.items() if value is not None}


class SourceSettings(_Strict):
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    system: str
    base_url: AnyHttpUrl | None = None  # None: the credentials tell it, where the system has it so
    auth: AuthSettings
    label: str | None = None
    api_version: str | None = None
    region: str = Field(default="US", pattern=r"^[A-Z]{2}$")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    web_url: AnyHttpUrl | None = None
    options: dict[str, str] = Field(default_factory=dict)


class AppSettings(_Strict):
    """One of our apps at a vendor that serves several sources: systems deliver to /webhooks/<id>.

    Attributes:
        secrets: the current client secret, and during a rotation the one before it.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    system: str
    secrets: tuple[SecretStr, ...] = Field(min_length=1, max_length=5)


class Settings(_Strict):
    """
    Attributes:
        public_url: where systems reach us from outside, for their webhooks; None: they are not subscribed to.
        follow: hear of changes by webhooks and feeds; off: nothing is asked but what callers ask for.
        max_webhook: bytes of a delivery.
        keep_events: days for which events can be resumed from; keep_most: at most so many of them.
        database_url: sqlite:///… or postgresql://…; default a file in `data_dir`.
        key: 32 bytes in base64, or several separated by commas, the first one sealing; default a file in `data_dir`.
        require_key: callers need an API key; off only for the demo, which then checks Host and Origin instead.
        max_body: bytes of a GraphQL request.
        deadline: seconds a request has by default.
        max_operations: that one WebSocket may run at a time.
        subscriber_queue: results that may wait for a subscriber; one more, and it is cut off and told where to resume.
        adapters: Python files with further adapters.
        webhook_private_hosts: host names, addresses and networks (CIDR) that outbound webhooks may go to although they are private, and
            without TLS.
    """

    data_dir: Path = Path(".c360")
    database_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    key: SecretStr | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    cors_origins: tuple[str, ...] = ()
    require_key: bool = True
    graphiql: bool = True
    introspection: bool = True
    email_key: bool = True
    deadline: float = Field(default=5.0, gt=0, le=60)
    max_body: int = Field(default=262_144, ge=1024, le=10_485_760)
    max_tokens: int = Field(default=4000, ge=10)
    max_depth: int = Field(default=15, ge=1)
    max_aliases: int = Field(default=30, ge=0)
    max_operations: int = Field(default=100, ge=1)
    subscriber_queue: int = Field(default=1000, ge=1)
    adapters: tuple[Path, ...] = ()
    webhook_private_hosts: tuple[str, ...] = ()
    public_url: AnyHttpUrl | None = None
    follow: bool = True
    max_webhook: int = Field(default=1_048_576, ge=1024, le=26_214_400)
    keep_events: int = Field(default=7, ge=1, le=365)
    keep_most: int = Field(default=1_000_000, ge=1000)
    apps: tuple[AppSettings, ...] = ()
    log_level: str = Field(default="INFO", pattern=r"(?i)^(debug|info|warning|error)$")
    sources: tuple[SourceSettings, ...] = ()

    @field_validator("cors_origins", "allowed_hosts", "adapters", "webhook_private_hosts", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("sources")
    @classmethod
    def _distinct(cls, value: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        ids = [each.id for each in value]
        if doubled := {id for id in ids if ids.count(id) > 1}:
            raise ValueError(f"the id {doubled.pop()!r} is used twice")
        return value

    def database(self) -> str:
        return self.database_url.get_secret_value() if self.database_url else f"sqlite:///{self.data_dir / 'c360.db'}"


def load(path: Path | None = None, environment: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings.

    Args:
        path: of the configuration file; None takes C360_CONFIG, else ./c360.toml if there is one.
        environment: instead of the process's own; then ./c360.toml is not looked for.
        overrides: what the command line said; it wins over both.

    Raises:
        ConfigurationError: naming the key that is unknown, missing or wrong.
    """
    said = dict(os.environ if environment is None else environment)
    named = path or (Path(said["C360_CONFIG"]) if "C360_CONFIG" in said else None)
    values = _file(named or Path("c360.toml"), required=named is not None) if environment is None or named else {}
    for name, value in said.items():
        key = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and key not in _NOT_SETTINGS:
            if key.lower() not in Settings.model_fields or key.lower() == "sources":
                raise ConfigurationError(f"{name} is no setting")
            values[key.lower()] = value
    values["sources"] = [_indirect(each, said) for each in values.get("sources", ())]
    values |= {name: value for name, value in overrides.items() if value is not None}
    return _validated(values)


def parse_sources(said: list[dict[str, Any]]) -> tuple[SourceSettings, ...]:
    """Return sources given on the command line. Raises as `load` does."""
    return _validated({"sources": [_indirect(each, dict(os.environ)) for each in said]}).sources


def _validated(values: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_told(error, values)) from None


def _file(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"the configuration file {path} does not exist") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None


def _indirect(source: Any, environment: dict[str, str]) -> Any:
    """Replace `<name>_env` and `<name>_file` in a source's auth by what they point to."""
    if not isinstance(source, dict) or not isinstance(source.get("auth"), dict):
        return source
    auth: dict[str, Any] = {}
    for name, value in source["auth"].items():
        where = f"sources.{source.get('id', '?')}.auth.{name}"
        if name.endswith("_env"):
            if value not in environment:
                raise ConfigurationError(f"{where}: the variable {value} is not set")
            auth[name.removesuffix("_env")] = environment[value]
        elif name.endswith("_file"):
            try:
                auth[name.removesuffix("_file")] = Path(value).read_text().strip()
            except OSError as error:
                raise ConfigurationError(f"{where}: the file cannot be read ({error.strerror})") from None
        else:
            auth[name] = value
    return {**source, "auth": auth}


def _told(error: ValidationError, values: dict[str, Any]) -> str:
    """Return one line about the first mistake, without the value: it may be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    steps = list(first["loc"])
    if steps[:1] == ["sources"] and len(steps) > 1 and isinstance(steps[1], int):
        source = values["sources"][steps[1]]
        steps[1] = str(source.get("id", steps[1])) if isinstance(source, dict) else str(steps[1])
    key = ".".join(str(step) for step in steps)
    reason = {"extra_forbidden": "is no setting", "missing": "is missing"}.get(first["type"], first["msg"])
    return f"{key} {reason}" if first["type"] in {"extra_forbidden", "missing"} else f"{key}: {reason}"
