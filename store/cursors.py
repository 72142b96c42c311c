"""Where each feed was left, how it is doing, and how far a source is known."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import delete, insert, select, update

from model.records import Kind
from store.database import Database
from store.tables import cursors


class CursorRow(Struct, frozen=True, kw_only=True):
    """One (source, kind).

    Attributes:
        cursor: the adapter's own; None: not begun.
        pace: seconds between two passes now.
        began_at: when the last pass began; passed_at: when the last one that got through began.
        failure: why the last pass did not get through.
        backfill: {"done": bool, "after": …, "rows": n} of the first listing of everything; None: not begun.
        reconciled_at, drift: when everything was compared last, and how many records differed.
    """

    workspace: str
    source: str
    kind: Kind
    cursor: str | None = None
    pace: float = 0.0
    began_at: datetime | None = None
    passed_at: datetime | None = None
    failure: str | None = None
    backfill: Mapping[str, Any] | None = None
    reconciled_at: datetime | None = None
    drift: int | None = None

    @property
    def known_all(self) -> bool:
        return self.backfill is not None and bool(self.backfill.get("done"))


class CursorRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, workspace: str) -> list[CursorRow]:
        async with self._database.read() as connection:
            found = await connection.execute(select(cursors).where(cursors.c.workspace == workspace))
            return [CursorRow(**row) for row in found.mappings()]

    async def get(self, workspace: str, source: str, kind: Kind) -> CursorRow:
        """Return the row; one that is not begun where there is none."""
        query = select(cursors).where(*_one(workspace, source, kind))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return CursorRow(**row) if row is not None else CursorRow(workspace=workspace, source=source, kind=kind)

    async def change(self, workspace: str, source: str, kind: Kind, **values: Any) -> None:
        """Write some of its values; the row comes about with the first."""
        one = _one(workspace, source, kind)
        async with self._database.write() as connection:
            if (await connection.execute(update(cursors).where(*one).values(**values))).rowcount == 0:
                row = {"workspace": workspace, "source": source, "kind": kind, "pace": 0.0, **values}
                await connection.execute(insert(cursors).values(**row))

    async def forget(self, workspace: str, source: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(cursors).where(cursors.c.workspace == workspace, cursors.c.source == source))


def _one(workspace: str, source: str, kind: Kind) -> tuple[Any, ...]:
    return (cursors.c.workspace == workspace, cursors.c.source == source, cursors.c.kind == kind)
