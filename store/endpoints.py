"""Endpoints of our users: where events are sent, what each is still to be sent, and every attempt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.database import Database
from store.tables import attempts, deliveries, endpoints

EndpointState = Literal["ACTIVE", "FAILING", "DISABLED"]
DeliveryState = Literal["PENDING", "DONE", "PARKED"]
T = TypeVar("T")
_CHUNK = 500  # numbers per statement


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRow:
    """
    Attributes:
        events: patterns such as "contact.*".
        sealed: its secrets, in an envelope that is bound to the row.
        policy: how it is sent to, and again, as JSON.
        state: FAILING: a delivery was given up since the last that arrived. DISABLED: nothing is sent until it is saved anew.
        position: the number of the last event that it was looked at for.
        missed: events that were no longer kept when it came to them.
    """

    id: str
    url: str
    events: tuple[str, ...]
    sealed: bytes
    policy: Mapping[str, Any]
    state: EndpointState = "ACTIVE"
    reason: str | None = None
    position: int
    missed: int = 0
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be sent: an event's number, and the body, which stays the same byte for byte however often it is sent."""

    seq: int
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """
    Attributes:
        attempts: sends since ever.
        spent: those of them that do not count any more, because it was replayed since.
        body: None once it arrived.
    """

    seq: int
    state: DeliveryState
    attempts: int
    spent: int
    body: str | None
    due_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One send.

    Attributes:
        bytes: of the body.
        status: None where no answer came.
        code: one of the graph's ErrorCode; None when it arrived.
        backoff: seconds until the next send; None where there is none.
    """

    seq: int
    number: int
    at: datetime
    bytes: int
    status: int | None
    code: str | None
    backoff: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How an endpoint stands: deliveries that wait and that are parked; sends of late, and how many of them failed."""

    waiting: int = 0
    parked: int = 0
    sends: int = 0
    failed: int = 0


class EndpointRows:
    """Whoever locks rows of several tables does so in the order endpoints, deliveries, attempts: so no two wait for each other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- endpoints ----

    async def add(self, workspace: str, row: EndpointRow) -> None:
        async with self._database.write() as connection:
            values = {
                "workspace": workspace, "id": row.id, "url": row.url, "events": list(row.events), "sealed": row.sealed,
                "policy": dict(row.policy), "state": row.state, "reason": row.reason, "position": row.position, "missed": row.missed,
                "created_at": row.created_at,
            }  # fmt: skip
            await connection.execute(insert(endpoints).values(**values))

    async def all(self, workspace: str) -> list[EndpointRow]:
        """Return the endpoints, oldest first."""
        query = select(endpoints).where(endpoints.c.workspace == workspace).order_by(endpoints.c.created_at, endpoints.c.id)
        async with self._database.read() as connection:
            return [_endpoint(row) for row in (await connection.execute(query)).mappings()]

    async def get(self, workspace: str, id: str) -> EndpointRow | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(endpoints).where(_one(workspace, id)))).mappings().first()
        return _endpoint(row) if row else None

    async def change(self, workspace: str, id: str, *, url: str, events: Sequence[str], policy: Mapping[str, Any]) -> bool:
        """Replace what a user may set, and make it ACTIVE; False when there is none."""
        values = {"url": url, "events": list(events), "policy": dict(policy), "state": "ACTIVE", "reason": None}
        async with self._database.write() as connection:
            return (await connection.execute(update(endpoints).where(_one(workspace, id)).values(**values))).rowcount == 1

    async def reseal(self, workspace: str, id: str, sealed: bytes, *, was: bytes) -> bool:
        """Replace the secrets; False when others were put there since `was` was read."""
        change = update(endpoints).where(_one(workspace, id), endpoints.c.sealed == was).values(sealed=sealed)
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def remove(self, workspace: str, id: str) -> bool:
        """Forget an endpoint and all that it was sent or was to be sent; False when there is none."""
        async with self._database.write() as connection:
            known = (await connection.execute(delete(endpoints).where(_one(workspace, id)))).rowcount == 1
            for table in (deliveries, attempts):
                await connection.execute(delete(table).where(table.c.workspace == workspace, table.c.endpoint == id))
        return known

    # ---- deliveries ----

    async def enter(
        self, workspace: str, id: str, entries: Sequence[Entry], *, since: int, upto: int, missed: int = 0, now: datetime
    ) -> bool:
        """Enter deliveries and move the position from `since` to `upto`, both or neither; False when it stands elsewhere by now."""
        moved = update(endpoints).where(_one(workspace, id), endpoints.c.position == since, endpoints.c.state != "DISABLED")
        async with self._database.write() as connection:
            values = moved.values(position=upto, missed=endpoints.c.missed + missed)
            if (await connection.execute(values)).rowcount != 1:
                return False
            if entries:
                await connection.execute(insert(deliveries), [_pending(workspace, id, entry, now) for entry in entries])
        return True

    async def enter_again(self, workspace: str, id: str, entries: Sequence[Entry], *, now: datetime) -> int:
        """Make deliveries of past events due, whatever became of them; return how many. Those that wait already stay as they are."""
        async with self._database.write() as connection:
            # The row of the endpoint is the lock: two who replay at once would enter the same.
            if (await connection.execute(select(endpoints.c.id).where(_one(workspace, id)).with_for_update())).first() is None:
                return 0
            known: dict[int, str] = {}
            for some in _chunks([entry.seq for entry in entries]):
                query = select(deliveries.c.seq, deliveries.c.state).where(_of(workspace, id), deliveries.c.seq.in_(some))
                known |= {row.seq: row.state for row in await connection.execute(query)}
            fresh = [_pending(workspace, id, entry, now) for entry in entries if entry.seq not in known]
            if fresh:
                await connection.execute(insert(deliveries), fresh)
            ended = [entry for entry in entries if known.get(entry.seq) in ("DONE", "PARKED")]
            for entry in ended:
                change = update(deliveries).where(_of(workspace, id), deliveries.c.seq == entry.seq)
                await connection.execute(change.values(body=entry.body, **_due_again(now)))
        return len(fresh) + len(ended)

    async def unpark(self, workspace: str, id: str, *, now: datetime) -> int:
        """Make every parked delivery due; return how many there were."""
        change = update(deliveries).where(_of(workspace, id), deliveries.c.state == "PARKED").values(**_due_again(now))
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount

    async def due_first(self, workspace: str, id: str, *, limit: int) -> list[DeliveryRow]:
        """Return deliveries that were never sent, in the order of their events."""
        return await self._pending(workspace, id, deliveries.c.attempts == 0, order=(deliveries.c.seq,), limit=limit)

    async def due_again(self, workspace: str, id: str, *, now: datetime, limit: int) -> list[DeliveryRow]:
        """Return deliveries that are to be sent again by now, those first that are due longest."""
        late = and_(deliveries.c.attempts > 0, deliveries.c.due_at <= now)
        return await self._pending(workspace, id, late, order=(deliveries.c.due_at, deliveries.c.seq), limit=limit)

    async def next_again(self, workspace: str, id: str) -> datetime | None:
        """Return when the next delivery is to be sent again, None where none is."""
        found = await self._pending(workspace, id, deliveries.c.attempts > 0, order=(deliveries.c.due_at,), limit=1)
        return found[0].due_at if found else None

    async def with_work(self, workspace: str, *, last: int, now: datetime) -> set[str]:
        """Return the endpoints that have a delivery to be sent by now, or whose position stands before event `last`."""
        late = select(deliveries.c.endpoint).where(
            deliveries.c.workspace == workspace, deliveries.c.state == "PENDING", deliveries.c.due_at <= now
        )
        behind = select(endpoints.c.id).where(endpoints.c.workspace == workspace, endpoints.c.position < last)
        async with self._database.read() as connection:
            return {row[0] for query in (late.distinct(), behind) for row in await connection.execute(query)}

    async def settle(
        self, workspace: str, id: str, attempt: AttemptRow, *, state: DeliveryState, due_at: datetime,
        flag: tuple[EndpointState, str | None] | None, now: datetime,
    ) -> bool:  # fmt: skip
        """Keep an attempt and what follows from it; False, and nothing kept, when someone else was faster or the endpoint is gone.

        Args:
            flag: state and reason of the endpoint from now on, None to leave them; one that is DISABLED stays so.
        """
        change = update(deliveries).where(
            _of(workspace, id), deliveries.c.seq == attempt.seq, deliveries.c.state == "PENDING",
            deliveries.c.attempts == attempt.number - 1,
        )  # fmt: skip
        values: dict[str, Any] = {"state": state, "attempts": attempt.number, "due_at": due_at}
        if state != "PENDING":
            values["ended_at"] = now
        if state == "DONE":
            values["body"] = None
        async with self._database.write() as connection:
            if flag is not None:
                await connection.execute(select(endpoints.c.id).where(_one(workspace, id)).with_for_update())
            if (await connection.execute(change.values(**values))).rowcount != 1:
                return False
            await connection.execute(insert(attempts).values(workspace=workspace, endpoint=id, **_columns(attempt)))
            if flag is not None:
                told = update(endpoints).where(_one(workspace, id), endpoints.c.state != "DISABLED")
                await connection.execute(told.values(state=flag[0], reason=flag[1]))
        return True

    # ---- what is shown ----

    async def deliveries(
        self, workspace: str, id: str, *, states: Sequence[DeliveryState] | None = None, limit: int
    ) -> list[DeliveryRow]:
        """Return deliveries, youngest event first."""
        query = select(deliveries).where(_of(workspace, id)).order_by(deliveries.c.seq.desc()).limit(limit)
        if states is not None:
            query = query.where(deliveries.c.state.in_(states))
        async with self._database.read() as connection:
            return [_delivery(row) for row in (await connection.execute(query)).mappings()]

    async def attempts(self, workspace: str, id: str, seqs: Iterable[int]) -> list[AttemptRow]:
        """Return every attempt that is kept for some events, in the order (event, number)."""
        found: list[AttemptRow] = []
        async with self._database.read() as connection:
            for some in _chunks(sorted(seqs)):
                query = select(attempts).where(
                    attempts.c.workspace == workspace, attempts.c.endpoint == id, attempts.c.seq.in_(some)
                )
                rows = await connection.execute(query.order_by(attempts.c.seq, attempts.c.number))
                found += [_attempt(row) for row in rows.mappings()]
        return found

    async def tallies(self, workspace: str, *, since: datetime) -> dict[str, Tally]:
        """Return by endpoint how it stands, sends counted since a moment; endpoints with nothing to tell are left out."""
        open_ = (
            select(deliveries.c.endpoint, deliveries.c.state, func.count())
            .where(deliveries.c.workspace == workspace, deliveries.c.state != "DONE")
            .group_by(deliveries.c.endpoint, deliveries.c.state)
        )
        late = (
            select(attempts.c.endpoint, func.count(), func.count(attempts.c.code))  # only a failure has a code
            .where(attempts.c.workspace == workspace, attempts.c.at >= since)
            .group_by(attempts.c.endpoint)
        )
        async with self._database.read() as connection:
            counts = {(row[0], row[1]): row[2] for row in await connection.execute(open_)}
            sends = {row[0]: (row[1], row[2]) for row in await connection.execute(late)}
        return {
            id: Tally(
                waiting=counts.get((id, "PENDING"), 0), parked=counts.get((id, "PARKED"), 0),
                sends=sends.get(id, (0, 0))[0], failed=sends.get(id, (0, 0))[1],
            )
            for id in {id for id, _ in counts} | set(sends)
        }  # fmt: skip

    async def clear(self, workspace: str, *, before: datetime) -> int:
        """Forget deliveries that arrived before, and attempts made before; return how many deliveries that were.

        What waits or is parked is never forgotten.
        """
        async with self._database.write() as connection:
            await connection.execute(delete(attempts).where(attempts.c.workspace == workspace, attempts.c.at < before))
            old = and_(deliveries.c.workspace == workspace, deliveries.c.state == "DONE", deliveries.c.ended_at < before)
            return (await connection.execute(delete(deliveries).where(old))).rowcount

    async def _pending(self, workspace: str, id: str, *which: Any, order: Sequence[Any], limit: int) -> list[DeliveryRow]:
        query = select(deliveries).where(_of(workspace, id), deliveries.c.state == "PENDING", *which)
        async with self._database.read() as connection:
            rows = await connection.execute(query.order_by(*order).limit(limit))
            return [_delivery(row) for row in rows.mappings()]


async def forget(connection: AsyncConnection, workspace: str, traces: Sequence[str]) -> int:
    """Forget, in the caller's transaction, what is kept to be sent and has one of these texts in its body; return how much it was."""
    gone = 0
    for some in _chunks(traces, size=50):
        found = or_(*(deliveries.c.body.contains(trace, autoescape=True) for trace in some))
        gone += (await connection.execute(delete(deliveries).where(deliveries.c.workspace == workspace, found))).rowcount
    return gone


def _one(workspace: str, id: str) -> Any:
    return and_(endpoints.c.workspace == workspace, endpoints.c.id == id)


def _of(workspace: str, id: str) -> Any:
    return and_(deliveries.c.workspace == workspace, deliveries.c.endpoint == id)


def _pending(workspace: str, id: str, entry: Entry, now: datetime) -> dict[str, Any]:
    return {
        "workspace": workspace, "endpoint": id, "seq": entry.seq, "state": "PENDING", "attempts": 0, "spent": 0, "body": entry.body,
        "due_at": now,
    }  # fmt: skip


def _due_again(now: datetime) -> dict[str, Any]:
    return {"state": "PENDING", "spent": deliveries.c.attempts, "due_at": now, "ended_at": None}


def _chunks(values: Sequence[T], *, size: int = _CHUNK) -> Iterable[Sequence[T]]:
    return (values[at : at + size] for at in range(0, len(values), size))


def _columns(attempt: AttemptRow) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in ("seq", "number", "at", "bytes", "status", "code", "backoff")}


def _endpoint(row: Any) -> EndpointRow:
    return EndpointRow(
        id=row["id"], url=row["url"], events=tuple(row["events"]), sealed=bytes(row["sealed"]), policy=row["policy"], state=row["state"],
        reason=row["reason"], position=row["position"], missed=row["missed"], created_at=row["created_at"],
    )  # fmt: skip


def _delivery(row: Any) -> DeliveryRow:
    return DeliveryRow(
        seq=row["seq"], state=row["state"], attempts=row["attempts"], spent=row["spent"], body=row["body"], due_at=row["due_at"],
        ended_at=row["ended_at"],
    )  # fmt: skip


def _attempt(row: Any) -> AttemptRow:
    return AttemptRow(**{name: row[name] for name in ("seq", "number", "at", "bytes", "status", "code", "backoff")})
