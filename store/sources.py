"""Sources as a workspace connected them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, delete, insert, select, update

from store.database import Database
from store.tables import credentials, sources


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """
    Attributes:
        config: adapter settings besides the address, such as api_version, region, currency.
        state: CONNECTED, PAUSED, RECONNECT_REQUIRED or DISCONNECTED.
        account: whose it is at its system, once that was asked; webhooks name it.
    """

    workspace: str
    id: str
    system: str
    label: str
    base_url: str
    rank: int
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = "CONNECTED"
    reason: str | None = None
    account: str | None = None


class SourceRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, workspace: str) -> list[SourceRow]:
        """Return the sources by rank."""
        query = select(sources).where(sources.c.workspace == workspace).order_by(sources.c.rank, sources.c.id)
        async with self._database.read() as connection:
            return [SourceRow(**row) for row in (await connection.execute(query)).mappings()]

    async def put(self, row: SourceRow) -> None:
        """Add the source, or replace what is known of it; its account stays known while its address is the same."""
        values = {name: getattr(row, name) for name in SourceRow.__slots__}
        one = and_(sources.c.workspace == row.workspace, sources.c.id == row.id)
        async with self._database.write() as connection:
            kept = select(sources.c.account).where(one, sources.c.system == row.system, sources.c.base_url == row.base_url)
            values["account"] = row.account or (await connection.execute(kept)).scalar()
            await connection.execute(delete(sources).where(one))
            await connection.execute(insert(sources).values(**values))

    async def set_account(self, workspace: str, id: str, account: str) -> None:
        change = update(sources).where(sources.c.workspace == workspace, sources.c.id == id).values(account=account)
        async with self._database.write() as connection:
            await connection.execute(change)

    async def set_state(self, workspace: str, id: str, state: str, reason: str | None = None) -> bool:
        """Change the state; False when there is no such source."""
        change = update(sources).where(sources.c.workspace == workspace, sources.c.id == id).values(state=state, reason=reason)
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def remove(self, workspace: str, id: str) -> bool:
        """Forget the source and its credentials; False when there was none."""
        async with self._database.write() as connection:
            await connection.execute(delete(credentials).where(credentials.c.workspace == workspace, credentials.c.source == id))
            gone = await connection.execute(delete(sources).where(sources.c.workspace == workspace, sources.c.id == id))
            return gone.rowcount == 1
