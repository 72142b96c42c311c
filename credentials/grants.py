"""A source's secrets in the clear, and their way in and out of the store."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs

from credentials.vault import Vault
from store.credentials import CredentialRows


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a source authorises with; which fields are set depends on `scheme`.

    Attributes:
        scheme: name of one of the adapter's auth schemes.
        expires_at: of the access token, seconds since 1970.
        lives: seconds the access token was good for when it was issued; 0 where the vendor gives out the same one until its end.
        host: the address learned with the token, to call from then on.
        made_from: digest of the secrets as they were configured, to tell whether they changed since; tokens rotate.
    """

    scheme: str
    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    token: str = ""
    token_secret: str = ""
    username: str = ""
    password: str = ""
    access_token: str = ""
    expires_at: float = 0.0
    lives: float = 0.0
    host: str = ""
    made_from: str = ""

    @classmethod
    def of(cls, secrets: Mapping[str, str]) -> "Grant":
        """Return the grant of configured secrets, one of them `scheme`."""
        return cls(**secrets, made_from=_digest(secrets))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Grant(scheme={self.scheme!r}, …)"  # secrets must not reach a log through a traceback

    def __rich_repr__(self) -> Any:
        yield "scheme", self.scheme

    def same_secrets(self, said: Mapping[str, str]) -> bool:
        """Tell whether configuration still says what this grant was made from."""
        return self.made_from == _digest(said)

    def changed(self, **fields: Any) -> "Grant":
        return structs.replace(self, **fields)


class GrantStore:
    """Grants by (workspace, source), sealed at rest."""

    def __init__(self, rows: CredentialRows, vault: Vault) -> None:
        self._rows, self._vault = rows, vault

    async def load(self, workspace: str, source: str) -> tuple[int, Grant] | None:
        """Return the version and the grant, None when the source has none.

        Raises:
            ConfigurationError: it cannot be opened with this key.
        """
        row = await self._rows.load(workspace, source)
        if row is None:
            return None
        plain = self._vault.open(row.sealed, bound_to=_bound(workspace, source, row.version))
        return row.version, msgspec.msgpack.decode(plain, type=Grant)

    async def save(self, workspace: str, source: str, grant: Grant, *, version: int) -> bool:
        """Write the grant as `version` (1 for the first); False when another process wrote that version already."""
        sealed = self._vault.seal(msgspec.msgpack.encode(grant), bound_to=_bound(workspace, source, version))
        return await self._rows.replace(workspace, source, sealed, version=version)

    async def remove(self, workspace: str, source: str) -> None:
        await self._rows.remove(workspace, source)


def _digest(secrets: Mapping[str, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(sorted(secrets.items()))).hexdigest()


def _bound(workspace: str, source: str, version: int) -> str:
    return f"{workspace}/{source}/{version}"
