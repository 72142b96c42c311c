"""Dead letters: what could not be applied and was not thrown away."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import delete, insert, select, update

from store.database import Database
from store.inbox import still_mine
from store.tables import dead_letters, inbox


class DeadLetter(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        operation: what failed: "intake" of an event, or "webhook", whose body could not be understood.
        sealed: the body of such a webhook, sealed; None: nothing was said that could not be read again.
    """

    workspace: str
    id: str
    source: str
    operation: str
    code: str
    message: str
    attempts: int
    first_at: datetime
    last_at: datetime
    kind: str | None = None
    native_id: str | None = None
    inbox: int | None = None
    sealed: bytes | None = None


class DeadLetterRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def park(self, letters: Sequence[DeadLetter], *, now: datetime, owner: str | None = None) -> None:
        """Keep letters, and end the inbox's events that they are of, in one transaction. The same letter again replaces the first.

        Args:
            owner: whose the events are; letters of those that are not (any more) are left out.
        """
        async with self._database.write() as connection:
            mine = await still_mine(connection, [each.inbox for each in letters if each.inbox is not None], owner or "")
            letters = [each for each in letters if each.inbox is None or each.inbox in mine]
            if not letters:
                return
            for each in letters:
                one = (dead_letters.c.workspace == each.workspace, dead_letters.c.id == each.id)
                await connection.execute(delete(dead_letters).where(*one))
            await connection.execute(insert(dead_letters), [_row(each) for each in letters])
            ids = [each.inbox for each in letters if each.inbox is not None]
            await connection.execute(update(inbox).where(inbox.c.id.in_(ids)).values(state="PARKED", ended_at=now, owner=None))

    async def all(self, workspace: str, *, limit: int = 1000) -> list[DeadLetter]:
        """Return letters, the oldest first."""
        query = select(dead_letters).where(dead_letters.c.workspace == workspace).order_by(dead_letters.c.first_at).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [DeadLetter(**row) for row in rows]


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}
