"""The log of events: numbered by one sequencer, kept for a while, read from any place that is still kept."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from model.events import Event
from model.records import Ref
from store.database import Database
from store.tables import events, sequences


class EventRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, workspace: str, seq: int, *, limit: int = 1000) -> list[Event]:
        """Return the events after number `seq`, in order."""
        query = select(events).where(events.c.workspace == workspace, events.c.seq > seq).order_by(events.c.seq).limit(limit)
        async with self._database.read() as connection:
            return [_event(row) for row in (await connection.execute(query)).mappings()]

    async def bounds(self, workspace: str) -> tuple[int, int]:
        """Return (first, last): the number of the oldest event that is kept, and of the youngest ever; (1, 0) for a new log.

        Where none is kept, `first` is the next number.
        """
        async with self._database.read() as connection:
            last = (await connection.execute(select(sequences.c.value).where(sequences.c.workspace == workspace))).scalar()
            first = (await connection.execute(select(func.min(events.c.seq)).where(events.c.workspace == workspace))).scalar()
        return (first if first is not None else (last or 0) + 1), last or 0

    async def clear(self, workspace: str, *, before: datetime, most: int) -> int:
        """Forget events applied before, and the oldest beyond `most`; return how many that were. Numbers are never given again."""
        async with self._database.write() as connection:
            last = (await connection.execute(select(sequences.c.value).where(sequences.c.workspace == workspace))).scalar() or 0
            old = and_(events.c.workspace == workspace, (events.c.applied_at < before) | (events.c.seq <= last - most))
            return (await connection.execute(delete(events).where(old))).rowcount


async def append(connection: AsyncConnection, workspace: str, found: Sequence[Event], *, now: datetime) -> list[Event]:
    """Number events and enter them, in the caller's transaction, in the order given.

    The row of the sequencer stays locked until that transaction ends, so numbers become visible in their order, and none is lost
    when it is undone. Take it last, and end soon.
    """
    if not found:
        return []
    last = await _advance(connection, workspace, len(found))
    numbered = [replace(event, seq=last - len(found) + 1 + at) for at, event in enumerate(found)]
    await connection.execute(insert(events), [_row(event, now) for event in numbered])
    return numbered


async def _advance(connection: AsyncConnection, workspace: str, by: int) -> int:
    step = update(sequences).where(sequences.c.workspace == workspace).values(value=sequences.c.value + by)
    if (last := (await connection.execute(step.returning(sequences.c.value))).scalar()) is not None:
        return int(last)
    try:
        async with connection.begin_nested():
            await connection.execute(insert(sequences).values(workspace=workspace, value=by))
    except IntegrityError:  # another process entered it between our look and our insert
        return int((await connection.execute(step.returning(sequences.c.value))).scalar_one())
    return by


def _row(event: Event, now: datetime) -> dict[str, Any]:
    return {
        "workspace": event.workspace, "seq": event.seq, "op": event.op, "source": event.ref.source, "kind": event.ref.kind,
        "native_id": event.ref.native_id, "system": event.system, "customer": event.customer,
        "changed": list(event.changed) if event.changed is not None else None, "into": event.into, "origin": event.origin,
        "at": event.at, "received_at": event.received_at, "applied_at": now,
    }  # fmt: skip


def _event(row: Any) -> Event:
    return Event(
        workspace=row["workspace"], seq=row["seq"], op=row["op"], ref=Ref(row["source"], row["kind"], row["native_id"]), system=row["system"],
        customer=row["customer"], changed=tuple(row["changed"]) if row["changed"] is not None else None, into=row["into"], at=row["at"],
        received_at=row["received_at"], origin=row["origin"],
    )  # fmt: skip
