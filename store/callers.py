"""Who may call: API keys, kept as hashes."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, update

from store.database import Database
from store.tables import callers


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRow:
    id: str
    workspace: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


class CallerRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, workspace: str, name: str, scopes: Sequence[str], *, now: datetime) -> tuple[CallerRow, str]:
        """Return a new caller and its key; the key is told this once and never again."""
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = f"c360_{id}_{secret}"
        row = CallerRow(id=id, workspace=workspace, name=name, scopes=tuple(scopes), created_at=now, revoked_at=None)
        async with self._database.write() as connection:
            values = {
                "id": id,
                "workspace": workspace,
                "name": name,
                "hash": _hash(key),
                "scopes": list(scopes),
                "created_at": now,
            }
            await connection.execute(insert(callers).values(**values))
        return row, key

    async def find(self, key: str) -> CallerRow | None:
        """Return the caller whose key this is, None when there is none or it was revoked.

        Keys hold 256 bits of chance, so looking their hash up tells nothing by its timing.
        """
        query = select(callers).where(callers.c.hash == _hash(key), callers.c.revoked_at.is_(None))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return _caller(row) if row else None

    async def all(self, workspace: str) -> list[CallerRow]:
        query = select(callers).where(callers.c.workspace == workspace).order_by(callers.c.created_at)
        async with self._database.read() as connection:
            return [_caller(row) for row in (await connection.execute(query)).mappings()]

    async def revoke(self, workspace: str, id: str, *, now: datetime) -> bool:
        """Make the key useless at once; False when there is no such key."""
        change = update(callers).where(callers.c.workspace == workspace, callers.c.id == id, callers.c.revoked_at.is_(None))
        async with self._database.write() as connection:
            return (await connection.execute(change.values(revoked_at=now))).rowcount == 1


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _caller(row: object) -> CallerRow:
    said = dict(row)  # type: ignore[call-overload]
    return CallerRow(
        id=said["id"], workspace=said["workspace"], name=said["name"], scopes=tuple(said["scopes"]), created_at=said["created_at"],
        revoked_at=said["revoked_at"],
    )  # fmt: skip
