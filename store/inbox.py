"""The inbox: events that were accepted from systems, and are the queue of what is to be applied.

A row holds ids and times, and nothing that anybody said. It is unique by (workspace, source, event), and kept for a while after its
end, so that what is delivered again is known.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import and_, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from model.events import Origin
from model.records import Kind
from store.database import Database
from store.tables import inbox

Ended = Literal["APPLIED", "SUPERSEDED", "PARKED"]
CHANNEL = "c360_inbox"  # PostgreSQL notifies here of rows that came in
_CHUNK = 500  # rows per statement
_GROUP = 2000  # rows per commit


class Arrived(Struct, frozen=True, kw_only=True):
    """An event as it comes in. `event` is its id, unique within the source."""

    workspace: str
    source: str
    event: str
    kind: Kind
    native_id: str
    op: str
    origin: Origin
    received_at: datetime
    into: str | None = None
    at: datetime | None = None


class Waiting(Arrived, frozen=True, kw_only=True):
    """An event that is to be applied. `attempts`: how often it was tried before."""

    id: int
    attempts: int


class InboxRows:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[tuple[Sequence[Arrived], asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def accept(self, arrived: Sequence[Arrived]) -> int:
        """Keep events; return how many of them were not known before. They are durable when this returns.

        Whoever calls while another commit is under way shares the next one.
        """
        if not arrived:
            return 0
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append((arrived, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await done

    async def claim(
        self, owner: str, *, now: datetime, until: datetime, limit: int, without: Iterable[tuple[str, str]] = ()
    ) -> list[Waiting]:
        """Take the oldest events that are due, and those whose taker let its time pass; no two processes take the same.

        Args:
            until: they are the owner's until then.
            without: (workspace, source) whose events are left where they are.
        """
        due = and_(inbox.c.state.in_(("NEW", "TAKEN")), inbox.c.due_at <= now)
        for workspace, source in without:
            due = and_(due, ~and_(inbox.c.workspace == workspace, inbox.c.source == source))
        chosen = select(inbox.c.id).where(due).order_by(inbox.c.id).limit(limit).with_for_update(skip_locked=True)
        taken = update(inbox).where(inbox.c.id.in_(chosen.scalar_subquery())).values(state="TAKEN", owner=owner, due_at=until)
        async with self._database.write() as connection:
            rows = (await connection.execute(taken.returning(*inbox.c))).mappings().all()
        return sorted((_waiting(row) for row in rows), key=lambda each: each.id)

    async def put_back(self, ids: Iterable[int], owner: str, *, due_at: datetime, tried: bool) -> None:
        """Let events be taken again from `due_at` on. `tried` counts as an attempt."""
        async with self._database.write() as connection:
            for some in _chunks(list(ids)):
                change = update(inbox).where(inbox.c.id.in_(some), inbox.c.owner == owner, inbox.c.state == "TAKEN")
                more = inbox.c.attempts + (1 if tried else 0)
                await connection.execute(change.values(state="NEW", owner=None, due_at=due_at, attempts=more))

    async def prolong(self, ids: Iterable[int], owner: str, *, until: datetime) -> None:
        """Let events be the owner's for longer."""
        async with self._database.write() as connection:
            for some in _chunks(list(ids)):
                mine = update(inbox).where(inbox.c.id.in_(some), inbox.c.owner == owner, inbox.c.state == "TAKEN")
                await connection.execute(mine.values(due_at=until))

    async def release(self, *, now: datetime) -> None:
        """Let everything that was taken be taken again: for a process that knows itself to be the only one."""
        async with self._database.write() as connection:
            await connection.execute(update(inbox).where(inbox.c.state == "TAKEN").values(state="NEW", owner=None, due_at=now))

    async def waiting(self, workspace: str) -> dict[str, int]:
        """Return how many events wait, by source."""
        query = (
            select(inbox.c.source, func.count())
            .where(inbox.c.workspace == workspace, inbox.c.state.in_(("NEW", "TAKEN")))
            .group_by(inbox.c.source)
        )
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def counted(self, workspace: str) -> dict[str, int]:
        """Return how many deliveries there were by what became of them; "DUPLICATE" counts those after an event's first."""
        query = (
            select(inbox.c.state, func.count(), func.sum(inbox.c.deliveries))
            .where(inbox.c.workspace == workspace)
            .group_by(inbox.c.state)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        found = {row[0]: row[1] for row in rows}
        return {**found, "DUPLICATE": sum(int(row[2]) - row[1] for row in rows)}

    async def clear(self, *, before: datetime, most: int) -> int:
        """Forget what ended before, and the oldest ended ones beyond `most`; return how many."""
        async with self._database.write() as connection:
            last = (await connection.execute(select(func.max(inbox.c.id)))).scalar() or 0
            old = and_(inbox.c.ended_at.is_not(None), (inbox.c.ended_at < before) | (inbox.c.id <= last - most))
            return (await connection.execute(delete(inbox).where(old))).rowcount

    async def _write(self) -> None:
        while self._queue:
            taken: list[tuple[Sequence[Arrived], asyncio.Future[int]]] = []
            while self._queue and sum(len(each) for each, _ in taken) < _GROUP:
                taken.append(self._queue.pop(0))
            try:
                fresh = await self._insert([each for arrived, _ in taken for each in arrived])
            except BaseException as error:
                for _, done in taken:
                    if not done.done():
                        done.set_exception(error if isinstance(error, Exception) else ConnectionError("the store is closing"))
                if not isinstance(error, Exception):
                    raise
                continue
            for arrived, done in taken:
                mine = {_key(each) for each in arrived} & fresh
                fresh -= mine
                if not done.done():  # its caller may have hung up; the events are kept all the same
                    done.set_result(len(mine))

    async def _insert(self, arrived: Sequence[Arrived]) -> set[tuple[str, str, str]]:
        """Enter events in one transaction; return the keys of those that are new."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for each in arrived:
            row = rows.setdefault(_key(each), {**_row(each), "deliveries": 0})
            row["deliveries"] += 1
        ordered = [rows[key] for key in sorted(rows)]  # one order for all writers: no two wait for each other
        insert = postgresql_insert if self._database.is_postgresql else sqlite_insert
        fresh: set[tuple[str, str, str]] = set()
        async with self._database.write() as connection:
            for some in _chunks(ordered):
                entered = insert(inbox).values(some)
                again = entered.on_conflict_do_update(
                    index_elements=["workspace", "source", "event"],
                    set_={"deliveries": inbox.c.deliveries + entered.excluded.deliveries},
                )
                told = again.returning(inbox.c.workspace, inbox.c.source, inbox.c.event, inbox.c.deliveries)
                for workspace, source, event, deliveries in await connection.execute(told):
                    if deliveries == rows[(workspace, source, event)]["deliveries"]:
                        fresh.add((workspace, source, event))
            if self._database.is_postgresql and fresh:
                await connection.execute(text(f"notify {CHANNEL}"))
        return fresh


async def still_mine(connection: AsyncConnection, ids: Sequence[int], owner: str) -> set[int]:
    """Return which events are still the owner's, and keep them so until the caller's transaction ends."""
    mine: set[int] = set()
    for some in _chunks(list(ids)):
        query = select(inbox.c.id).where(inbox.c.id.in_(some), inbox.c.owner == owner, inbox.c.state == "TAKEN")
        mine |= set((await connection.execute(query.order_by(inbox.c.id).with_for_update())).scalars())
    return mine


async def end(connection: AsyncConnection, ended: Mapping[int, Ended], *, now: datetime) -> None:
    """Enter what became of events, in the caller's transaction."""
    for state in set(ended.values()):
        for some in _chunks([id for id, each in ended.items() if each == state]):
            await connection.execute(update(inbox).where(inbox.c.id.in_(some)).values(state=state, ended_at=now, owner=None))


def _key(arrived: Arrived) -> tuple[str, str, str]:
    return (arrived.workspace, arrived.source, arrived.event)


def _row(arrived: Arrived) -> dict[str, Any]:
    return {
        "workspace": arrived.workspace, "source": arrived.source, "event": arrived.event, "kind": arrived.kind,
        "native_id": arrived.native_id, "op": arrived.op, "into": arrived.into, "origin": arrived.origin, "at": arrived.at,
        "received_at": arrived.received_at, "state": "NEW", "attempts": 0, "due_at": arrived.received_at,
    }  # fmt: skip


def _waiting(row: Any) -> Waiting:
    return Waiting(**{name: row[name] for name in Waiting.__struct_fields__})


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
