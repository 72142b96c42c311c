"""Sealed credentials, one row per source, replaced by compare-and-swap."""

from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from store.database import Database
from store.tables import credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    version: int
    sealed: bytes


class CredentialRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, workspace: str, source: str) -> Sealed | None:
        query = select(credentials.c.version, credentials.c.sealed).where(
            credentials.c.workspace == workspace, credentials.c.source == source
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        return Sealed(version=row.version, sealed=row.sealed) if row else None

    async def replace(self, workspace: str, source: str, sealed: bytes, *, version: int) -> bool:
        """Write version `version` in the place of the one before it; False when another writer was faster.

        It is durable when this returns.
        """
        row = {"workspace": workspace, "source": source}
        async with self._database.write() as connection:
            if version == 1:
                known = await connection.execute(select(credentials.c.version).filter_by(**row))
                if known.first() is not None:
                    return False
                await connection.execute(insert(credentials).values(**row, version=1, sealed=sealed))
                return True
            change = update(credentials).where(
                credentials.c.workspace == workspace, credentials.c.source == source, credentials.c.version == version - 1
            )
            return (await connection.execute(change.values(version=version, sealed=sealed))).rowcount == 1

    async def remove(self, workspace: str, source: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(
                delete(credentials).where(credentials.c.workspace == workspace, credentials.c.source == source)
            )
