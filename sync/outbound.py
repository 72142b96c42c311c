"""The deliverer: sends the log of events to the endpoints of our users.

What it promises. An event that an endpoint wants is sent at least once: it is entered as a delivery in the transaction that moves
the endpoint's position, and stays one until the endpoint answered 2xx. A crash at any point loses nothing, and at worst sends once
more, under the same `webhook-id` with the same body. First sends leave in the order of events, each after the answer to the one
before (unless the endpoint's `parallel` says otherwise); a send that failed is repeated beside them, so it does not hold up later
events, and comes after them. What failed `maxAttempts` times is parked, never dropped, and its endpoint FAILING until something
arrives. An endpoint that answers 410 is DISABLED: it is sent nothing, keeps what waits, and goes on when it is saved anew. One that
answers 429, 502, 503 or 504 with `Retry-After` is sent nothing until then.

Each process has one deliverer. A lease per endpoint sees to it that of all replicas one delivers; a replica that is gone is followed
by another when its lease ends. Should one only have been asleep, it may send once more what another sends, and cannot undo what the
other noted.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime

import httpx

from adapters.wire import Response
from model.clock import Clock
from model.errors import DestinationError, SlowSubscriberError
from sources.client import client
from store.endpoints import AttemptRow, DeliveryRow, DeliveryState, EndpointRow, EndpointRows, EndpointState, Entry
from store.events import EventRows
from store.ledger import LedgerRows
from sync.destinations import Destinations, Pinned
from sync.endpoints import DeliveryPolicy, Endpoints, wanted
from sync.envelope import body_of, headers
from sync.log import EventLog
from sync.retry import wait

log = logging.getLogger(__name__)

KEPT = timedelta(days=7)  # that deliveries which arrived can be looked at
LEASE = 15.0  # seconds
_LOOK = 1.0  # seconds between two looks for endpoints, and for work that nobody told us of
_TIDY = 3600.0  # seconds
_GRACE = 5.0  # seconds that sends under way are given when the process stops
_PAGE = 500  # events read at once
_ROUND = 50  # deliveries read at once
_AGAIN = 4  # repeated sends under way at once, per endpoint
_SPAN = 1.0  # seconds after which a round takes a fresh look at its endpoint
_ANSWER = 65_536  # bytes of an answer that are read, so that the line can be used again
_ANSWERING = 1.0  # seconds that this may take: what counts is the status, which came before
_OBEYED = frozenset({429, 502, 503, 504})  # statuses whose `Retry-After` counts
_CODES = {429: "RATE_LIMITED", 401: "UNAUTHENTICATED", 403: "FORBIDDEN", 404: "NOT_FOUND", 408: "TIMEOUT", 410: "NOT_FOUND", 504: "TIMEOUT"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """`code`: None for 2xx."""

    status: int | None = None
    code: str | None = None
    retry_after: float | None = None


@dataclass(slots=True)
class _Tended:
    """One endpoint's worker. The bells wake those who send for the first time, and those who send again."""

    task: "asyncio.Task[None] | None" = None
    first: asyncio.Event = field(default_factory=asyncio.Event)
    again: asyncio.Event = field(default_factory=asyncio.Event)

    def ring(self) -> None:
        self.first.set()
        self.again.set()


class Outbound:
    """
    Args:
        events: followed to hear of new events at once; without it the rows are looked at every second.
        owner: this process's own name, for leases.
        counted: told "delivered", "failed" or "parked" after each send.
    """

    def __init__(
        self, rows: EndpointRows, endpoints: Endpoints, events: EventRows, leases: LedgerRows, workspace: str, *,
        network: httpx.AsyncBaseTransport, destinations: Destinations, owner: str, clock: Clock, rng: random.Random,
        follow: EventLog | None = None, lease: float = LEASE, counted: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._rows, self._endpoints, self._events, self._leases = rows, endpoints, events, leases
        self._workspace, self._owner, self._lease = workspace, owner, lease
        self._clock, self._rng, self._follow, self._counted = clock, rng, follow, counted
        self._http = client(Pinned(network, destinations))
        self._tended: dict[str, _Tended] = {}
        self._held: dict[str, datetime] = {}  # endpoints that asked us to wait
        self._sending: set[asyncio.Task[bool]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._watch())]
        if self._follow is not None:
            self._tasks.append(asyncio.create_task(self._hear(self._follow)))

    async def stop(self) -> None:
        """End; what is on its way may still arrive and be noted."""
        self._ending = True
        if self._sending:
            await asyncio.wait(self._sending, timeout=_GRACE)
        tasks = [*self._tasks, *(each.task for each in self._tended.values() if each.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one round, as the workers and tests call it ----

    async def enter(self, id: str) -> bool | None:
        """Enter the next events that the endpoint was not looked at for; tell whether there were any. None: it is gone, or disabled."""
        row = await self._active(id)
        if row is None:
            return None
        page = await self._events.since(self._workspace, row.position, limit=_PAGE)
        if not page:
            return False
        missed = 0
        if page[0].seq > row.position + 1:
            oldest, _ = await self._events.bounds(self._workspace)
            missed = max(oldest - row.position - 1, 0)
            if missed:
                log.error("events were no longer kept for an endpoint", extra={"endpoint": id, "events": missed})
        takes = wanted(row.events)
        entries = [Entry(seq=event.seq, body=body_of(event)) for event in page if takes(event)]
        return await self._rows.enter(
            self._workspace, id, entries, since=row.position, upto=page[-1].seq, missed=missed, now=self._clock.now()
        )

    async def send_first(self, id: str) -> bool | None:
        """Send what was never sent, in the order of events; tell whether anything was. None as in `enter`."""
        row = await self._active(id)
        if row is None:
            return None
        due = await self._rows.due_first(self._workspace, id, limit=_ROUND)
        return await self._round(row, due, DeliveryPolicy.parse(row.policy).parallel)

    async def send_again(self, id: str) -> bool | None:
        """Send what is to be sent again by now; tell whether anything was. None as in `enter`."""
        row = await self._active(id)
        if row is None:
            return None
        due = await self._rows.due_again(self._workspace, id, now=self._clock.now(), limit=_ROUND)
        return await self._round(row, due, _AGAIN)

    async def _active(self, id: str) -> EndpointRow | None:
        row = await self._rows.get(self._workspace, id)
        return row if row is not None and row.state != "DISABLED" else None

    async def _round(self, row: EndpointRow, due: Sequence[DeliveryRow], parallel: int) -> bool:
        """Send some deliveries, `parallel` at a time, begun in their order; stop when the endpoint is to be looked at anew."""
        policy, waiting, began = DeliveryPolicy.parse(row.policy), iter(due), self._clock.monotonic()
        sent = False

        async def lane() -> None:
            nonlocal sent
            for delivery in waiting:
                if self._ending or self._pause(row.id) > 0 or self._clock.monotonic() - began > _SPAN:
                    return
                sent = True
                sending = asyncio.create_task(self._send(row, policy, delivery))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)
                if not await sending:
                    return

        async with asyncio.TaskGroup() as lanes:
            for _ in range(min(parallel, len(due))):
                lanes.create_task(lane())
        return sent

    async def _send(self, row: EndpointRow, policy: DeliveryPolicy, delivery: DeliveryRow) -> bool:
        """Send once and note it; tell whether the endpoint may be sent more."""
        at = self._clock.now()
        body, id = (delivery.body or "").encode(), f"event:{delivery.seq}"
        keys = self._endpoints.secrets(self._workspace, row).signing(at)
        answer = await self._post(row.url, body, headers(id, body, keys, now=at), policy.timeout)
        now, number = self._clock.now(), delivery.attempts + 1
        state, flag, pause = self._outcome(row, policy, delivery, answer)
        if answer.retry_after is not None and pause is not None:
            self._held[row.id] = now + timedelta(seconds=pause)
        attempt = AttemptRow(
            seq=delivery.seq, number=number, at=at, bytes=len(body), status=answer.status, code=answer.code, backoff=pause
        )
        noted = await self._rows.settle(
            self._workspace, row.id, attempt, state=state, due_at=now + timedelta(seconds=pause or 0.0), flag=flag, now=now
        )
        self._counted({"DONE": "delivered", "PENDING": "failed", "PARKED": "parked"}[state])
        if state != "DONE":
            log.warning(
                "delivery parked" if state == "PARKED" else "delivery failed",
                extra={
                    "endpoint": row.id,
                    "event": delivery.seq,
                    "attempt": number,
                    "status": answer.status,
                    "code": answer.code,
                },
            )
            if (tended := self._tended.get(row.id)) is not None:
                tended.again.set()
        return noted and answer.status != 410

    def _outcome(
        self, row: EndpointRow, policy: DeliveryPolicy, delivery: DeliveryRow, answer: _Answer
    ) -> tuple[DeliveryState, tuple[EndpointState, str | None] | None, float | None]:
        """Return what becomes of a delivery and of its endpoint, and the seconds until the next send."""
        if answer.code is None:
            return "DONE", ("ACTIVE", None) if row.state == "FAILING" else None, None
        if answer.status == 410:
            return "PENDING", ("DISABLED", "it answered 410: it wants no more. Save it anew to go on where it stopped."), 0.0
        sends = delivery.attempts - delivery.spent + 1
        pause = wait(policy, sends, self._rng, retry_after=answer.retry_after)
        if pause is None:
            said = f"HTTP {answer.status}" if answer.status is not None else answer.code
            return "PARKED", ("FAILING", f"event {delivery.seq} was sent {sends} times in vain, at last: {said}"), None
        return "PENDING", None, pause

    async def _post(self, url: str, body: bytes, said: dict[str, str], timeout: float) -> _Answer:
        try:
            async with (
                asyncio.timeout(timeout),
                self._http.stream("POST", url, content=body, headers=said, timeout=timeout) as response,
            ):
                await _drained(response)
        except DestinationError as error:
            return _Answer(code=error.code)
        except (TimeoutError, httpx.TimeoutException):
            return _Answer(code="TIMEOUT")
        except (httpx.HTTPError, httpx.InvalidURL, OSError):
            return _Answer(code="NETWORK")
        status = response.status_code
        if 200 <= status < 300:
            return _Answer(status=status)
        # A date without the answer's own `Date` counts from our clock.
        facts = {"date": format_datetime(self._clock.now(), usegmt=True), **response.headers}
        pause = Response(status=status, headers=facts, body=b"").retry_after if status in _OBEYED else None
        code = _CODES.get(status, "UPSTREAM" if status >= 500 or status < 400 else "VALIDATION")
        return _Answer(status=status, code=code, retry_after=pause)

    # ---- who works when ----

    def _pause(self, id: str) -> float:
        """Return the seconds for which an endpoint asked us to wait, 0 for none."""
        until = self._held.get(id)
        return max((until - self._clock.now()).total_seconds(), 0.0) if until is not None else 0.0

    async def _watch(self) -> None:
        """Keep one worker per endpoint, and wake those who have work."""
        tidied = self._clock.monotonic()
        while True:
            try:
                found = {row.id for row in await self._rows.all(self._workspace) if row.state != "DISABLED"}
                for id in found:
                    tended = self._tended.setdefault(id, _Tended())
                    if tended.task is None or tended.task.done():
                        tended.task = asyncio.create_task(self._tend(id, tended))
                for id in [id for id in self._tended if id not in found]:
                    if (task := self._tended.pop(id).task) is not None:
                        task.cancel()
                    self._held.pop(id, None)
                _, last = await self._events.bounds(self._workspace)
                for id in await self._rows.with_work(self._workspace, last=last, now=self._clock.now()):
                    if id in self._tended:
                        self._tended[id].ring()
                if self._clock.monotonic() - tidied > _TIDY:
                    tidied = self._clock.monotonic()
                    await self._rows.clear(self._workspace, before=self._clock.now() - KEPT)
            except Exception as error:  # noqa: BLE001 - a database in trouble: look again
                log.warning("endpoints cannot be read", extra={"error.type": type(error).__name__})
            await asyncio.sleep(_LOOK)

    async def _hear(self, events: EventLog) -> None:
        while True:
            try:
                async for _ in events.follow():
                    for each in self._tended.values():
                        each.first.set()
            except SlowSubscriberError:
                continue  # it only tells that there is something: the rows are read
            else:
                return

    async def _tend(self, id: str, tended: _Tended) -> None:
        """Deliver to one endpoint whenever its lease is ours."""
        while True:
            try:
                if await self._leased(id):
                    await self._hold(id, tended)
            except Exception as error:  # noqa: BLE001 - a database in trouble, or a secret that cannot be opened: try again
                log.warning("deliveries stopped for a moment", extra={"endpoint": id, "error.type": type(error).__name__})
            await asyncio.sleep(self._lease / 3)

    async def _hold(self, id: str, tended: _Tended) -> None:
        """Deliver while the lease can be prolonged."""
        work = asyncio.create_task(self._work(id, tended))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=self._lease / 3)
                if not work.done() and not await self._leased(id):
                    return
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._leases.release(self._workspace, _lease_name(id), self._owner)

    async def _work(self, id: str, tended: _Tended) -> None:
        """Send for the first time and again, side by side, until the endpoint is gone or disabled."""
        loops = [
            asyncio.create_task(self._loop(id, tended.first, self._first)),
            asyncio.create_task(self._loop(id, tended.again, self.send_again, repeats=True)),
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in done:
                loop.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _first(self, id: str) -> bool | None:
        entered = await self.enter(id)
        sent = await self.send_first(id)
        return None if sent is None else bool(entered or sent)

    async def _loop(
        self, id: str, bell: asyncio.Event, work: Callable[[str], Awaitable[bool | None]], *, repeats: bool = False
    ) -> None:
        """Work until the endpoint is gone or disabled; rest while there is nothing to do."""
        while True:
            bell.clear()
            worked = await work(id)
            if worked is None:
                return
            if worked and not self._ending:
                continue
            rest: float | None = self._pause(id) or None
            if (
                repeats
                and not self._ending
                and rest is None
                and (due := await self._rows.next_again(self._workspace, id)) is not None
            ):
                rest = max((due - self._clock.now()).total_seconds(), 0.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), rest)

    async def _leased(self, id: str) -> bool:
        now = self._clock.now()
        return await self._leases.lease(
            self._workspace, _lease_name(id), self._owner, now=now, until=now + timedelta(seconds=self._lease)
        )


async def _drained(response: httpx.Response) -> None:
    read = 0
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_ANSWERING):
            async for chunk in response.aiter_raw():
                if (read := read + len(chunk)) > _ANSWER:
                    return


def _lease_name(id: str) -> str:
    return f"outbound:{id}"
