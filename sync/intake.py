"""Intake: from the inbox to the log. Accepted events are taken, coalesced by record, read back, applied, published.

One batch of a source at a time in this process, so what is ordered per record stays so; other processes may apply to the same record,
and the version decides. A source that fails holds up nobody else: its events wait, longer each time, and are parked in the end, counted
and kept. What happens at a crash: docs/live.md.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.exc import InterfaceError, OperationalError

from adapters.changes import Change
from model.clock import Clock
from model.errors import (
    C360Error,
    ExhaustedError,
    MappingError,
    ProtocolError,
    RejectedError,
    SourceError,
    ThrottledError,
    UnsupportedError,
)
from model.events import Event, Origin
from model.records import Kind, Record, Ref
from sources.reading import Reading as Terms
from sources.registry import Registry
from sources.source import Source
from store.dead_letters import DeadLetter, DeadLetterRows
from store.inbox import Arrived, InboxRows, Waiting
from sync.applying import Applied, Applier, Reading
from sync.log import EventLog

log = logging.getLogger(__name__)

TAKEN = timedelta(seconds=60)  # how long events are one process's before another may take them
READ_WITHIN = 20.0  # seconds for reading one batch back
LOOK = 1.0  # seconds between two looks at the inbox without a signal
BATCH = 500
ATTEMPTS = 15  # about an hour and a half, with the waits below
_LONGEST = 600.0  # seconds between two attempts
_NOT_YET = timedelta(seconds=2)  # a record that was announced and is not there yet
_STRENGTH = {"CHANGED": 0, "DELETED": 1, "ERASED": 1, "MERGED": 2}


class Intake:
    """See the module's text.

    Args:
        owner: names this process among those that share the inbox.
        count: told ("APPLIED" | "SUPERSEDED" | "DUPLICATE" | "PARKED", how many, origin).
        erase: carries out what a person asked for through a system's compliance channel.
    """

    def __init__(
        self, rows: InboxRows, applier: Applier, events: EventLog, letters: DeadLetterRows, registry: Registry, *, owner: str,
        clock: Clock, rng: random.Random, count: Callable[[str, int, str], None], erase: Callable[[str, Ref], Any],
    ) -> None:  # fmt: skip
        self._rows, self._applier, self._events, self._letters, self._registry = rows, applier, events, letters, registry
        self._owner, self._clock, self._rng, self._count, self._erase = owner, clock, rng, count, erase
        self._wake = asyncio.Event()
        self._busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop taking events; what is being applied is finished."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def wake(self) -> None:
        """Hear that events came in."""
        self._wake.set()

    async def accept(self, arrived: Sequence[Arrived]) -> int:
        """Keep events, and return how many were not known. They are durable when this returns; applying follows by itself.

        Raises:
            Exception: the store cannot keep them.
        """
        fresh = await self._rows.accept(arrived)
        if arrived and fresh < len(arrived):
            self._count("DUPLICATE", len(arrived) - fresh, arrived[0].origin)
        self._wake.set()
        return fresh

    async def written(self, source: Source, kind: Kind, native_id: str, mark: str) -> None:
        """Hear of a write of our own, so that its echo is known for what it is. `mark`: of this write and no other."""
        now = self._clock.now()
        await self.accept([
            Arrived(
                workspace=source.workspace, source=source.id, event=f"write:{mark}", kind=kind, native_id=native_id, op="CHANGED",
                origin="LOCAL_WRITE", received_at=now, at=now,
            )
        ])  # fmt: skip

    async def apply(
        self, source: Source, kind: Kind, changes: Sequence[Change], brought: dict[str, Record], *, origin: Origin,
        quiet: bool = False, known_all: bool = False, lane: str = "sync",
    ) -> Applied:  # fmt: skip
        """Apply what a feed told, before its cursor moves on. What it did not bring is read.

        Raises:
            SourceError: nothing was applied.
        """
        now = self._clock.now()
        heard: dict[str, _Heard] = {}
        for change in changes:
            heard.setdefault(change.native_id, _Heard("CHANGED", None, None, now)).strengthen(change.op, change.into, change.at)
        for change in changes:
            if change.op == "MERGED" and change.into is not None and change.into not in heard:
                heard[change.into] = _Heard("CHANGED", None, change.at, now)
        missing = [id for id, each in heard.items() if id not in brought or each.op != "CHANGED"]
        if missing and source.reads(kind):
            brought = {id: each for id, each in brought.items() if id not in set(missing)}
            terms = Terms(deadline=self._clock.monotonic() + 120, lane=lane, policy="SURE")  # type: ignore[arg-type]
            found, misfits = await source.whole(kind, missing, terms)
            brought |= found
            heard = self._fitting(source, kind, heard, misfits)
        await source.touched(kind, heard)
        readings = await self._readings(source, kind, heard, brought, origin=origin, quiet=quiet)
        applied = await self._applier.apply(source.workspace, readings, owner=self._owner, known_all=known_all)
        await self._events.publish(applied.events)
        for change in changes:
            if change.op == "ERASED":
                await self._erase(source.workspace, Ref(source.id, kind, change.native_id))
        return applied

    def _fitting(self, source: Source, kind: Kind, heard: "dict[str, _Heard]", misfits: Collection[str]) -> "dict[str, _Heard]":
        """Leave out records that are there and do not fit their mapping: nothing can be said of them, least of all that they are gone."""
        if misfits:
            log.warning("records do not fit their mapping", extra={"system": source.system, "kind": kind, "count": len(misfits)})
        return {id: each for id, each in heard.items() if id not in misfits}

    # ---- the line ----

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                while await self._take():
                    pass
            except Exception as error:  # noqa: BLE001 - a store in trouble: look again
                log.warning("the inbox cannot be read", extra={"error.type": type(error).__name__})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK)

    async def _take(self) -> bool:
        """Take what is due, and let it be worked at by source; False when there was nothing."""
        now = self._clock.now()
        taken = await self._rows.claim(self._owner, now=now, until=now + TAKEN, limit=BATCH, without=list(self._busy))
        by_source: dict[tuple[str, str], list[Waiting]] = {}
        for each in taken:
            by_source.setdefault((each.workspace, each.source), []).append(each)
        for of, some in by_source.items():
            self._busy[of] = asyncio.create_task(self._batch(of, some))
        return bool(taken)

    async def _batch(self, of: tuple[str, str], taken: list[Waiting]) -> None:
        try:
            source = next((each for each in self._registry.of(of[0]) if each.id == of[1]), None)
            for nth, kind in enumerate(dict.fromkeys(each.kind for each in taken)):
                some = [each for each in taken if each.kind == kind]
                if nth:
                    await self._rows.prolong([each.id for each in some], self._owner, until=self._clock.now() + TAKEN)
                if source is None or not source.reads(kind):
                    await self._park(some, UnsupportedError("the source is not there any more, or does not read this kind"))
                else:
                    await self._settle(source, kind, some)
        except Exception as error:  # noqa: BLE001 - the store failed: they are taken again when their time is over
            log.warning("events could not be applied", extra={"error.type": type(error).__name__})
            await asyncio.sleep(LOOK)
        finally:
            del self._busy[of]
            self._wake.set()

    async def _settle(self, source: Source, kind: Kind, taken: list[Waiting]) -> None:
        try:
            taken = await self._named(source, kind, taken)
        except SourceError as error:
            await self._again(taken, error)
            return
        erased = [each for each in taken if each.op == "ERASED"]
        for each in erased:
            await self._erase(source.workspace, Ref(source.id, kind, each.native_id))
        taken = [each for each in taken if each.op != "ERASED"] + [_changed(each) for each in erased]
        heard: dict[str, _Heard] = {}
        for each in taken:
            heard.setdefault(each.native_id, _Heard("CHANGED", None, None, each.received_at)).hear(each)
        for each in taken:
            if each.op == "MERGED" and each.into is not None and each.into not in heard:
                heard[each.into] = _Heard("CHANGED", None, each.at, each.received_at)
        try:
            gone = {each.native_id for each in erased}
            found, misfits = await self._read(source, kind, [id for id in heard if id not in gone])
            if bad := [each for each in taken if each.native_id in misfits]:
                await self._park(bad, MappingError("the record does not fit its mapping", field="native_id"))
                heard = {id: each for id, each in heard.items() if id not in misfits}
            news = {each.native_id for each in taken if each.attempts == 0 and each.native_id not in gone}
            soon = {id for id, each in heard.items() if id in news and id not in found and each.op == "CHANGED"}
            if early := [each for each in taken if each.native_id in soon]:  # announced, and perhaps only not there yet
                await self._rows.put_back(
                    [each.id for each in early], self._owner, due_at=self._clock.now() + _NOT_YET, tried=True
                )
                for each in early:
                    heard.pop(each.native_id, None)
            await self._applied(source, kind, heard, found, taken)
        except (RejectedError, ProtocolError) as error:
            if len(taken) > 1:
                await self._one_by_one(source, kind, taken)
            else:
                await self._again(taken, error)
        except SourceError as error:
            await self._again(taken, error)
        except (OperationalError, InterfaceError, OSError):
            raise  # the store is away
        except Exception as error:  # noqa: BLE001 - a poisonous event must not stop the line
            log.warning(
                "an event cannot be applied", extra={"system": source.system, "kind": kind, "error.type": type(error).__name__}
            )
            if len(taken) > 1:
                await self._one_by_one(source, kind, taken)
            else:
                await self._park(taken, error if isinstance(error, C360Error) else C360Error("the event cannot be applied"))

    async def _named(self, source: Source, kind: Kind, taken: list[Waiting]) -> list[Waiting]:
        """Give what webhooks told the native ids of its records. A name that is nobody's stays, and changes nothing."""
        names = list(dict.fromkeys(each.native_id for each in taken if each.origin == "WEBHOOK"))
        if not names:
            return taken
        terms = Terms(deadline=self._clock.monotonic() + READ_WITHIN, lane="webhook", policy="SURE")
        ids = dict(zip(names, await source.named(kind, names, terms), strict=True))
        return [_named(each, ids[each.native_id]) if each.origin == "WEBHOOK" else each for each in taken]

    async def _applied(
        self, source: Source, kind: Kind, heard: "dict[str, _Heard]", found: dict[str, Record], taken: Sequence[Waiting]
    ) -> None:
        origin = taken[0].origin if len({each.origin for each in taken}) == 1 else None
        readings = await self._readings(source, kind, heard, found, origin=origin)
        applied = await self._applier.apply(source.workspace, readings, owner=self._owner)
        await self._events.publish(applied.events)
        for state in ("APPLIED", "SUPERSEDED"):
            if many := sum(each == state for each in applied.ended.values()):
                self._count(state, many, origin or "WEBHOOK")

    async def _one_by_one(self, source: Source, kind: Kind, taken: list[Waiting]) -> None:
        """Find which events are the poisonous ones, so that the others go on."""
        for each in taken:
            await self._rows.prolong([each.id], self._owner, until=self._clock.now() + TAKEN)
            await self._settle(source, kind, [each])

    async def _read(self, source: Source, kind: Kind, ids: list[str]) -> tuple[dict[str, Record], frozenset[str]]:
        # Before the read: what is fetched from here on knows of the change, whatever was fetched before does not.
        await source.touched(kind, ids)
        terms = Terms(deadline=self._clock.monotonic() + READ_WITHIN, lane="webhook", policy="SURE")
        return await source.whole(kind, ids, terms)

    async def _readings(
        self, source: Source, kind: Kind, heard: "dict[str, _Heard]", found: dict[str, Record], *, origin: Origin | None,
        quiet: bool = False,
    ) -> list[Reading]:  # fmt: skip
        terms = Terms(deadline=self._clock.monotonic() + READ_WITHIN, lane="webhook")
        made: list[Reading] = []
        for id, each in heard.items():
            record = found.get(id)
            custom = {}
            if record is not None:
                with contextlib.suppress(UnsupportedError):
                    custom = {value.field.name: value.value for value in await source.custom_values(record, None, terms)}
            made.append(
                Reading(
                    ref=Ref(source.id, kind, id), system=source.system, record=record, custom=custom, ids=tuple(each.ids), op=each.op,
                    into=each.into, at=each.at, received_at=each.received_at, origin=each.origin or origin or "WEBHOOK", quiet=quiet,
                )
            )  # fmt: skip
        return made

    # ---- what fails ----

    async def _again(self, taken: Sequence[Waiting], error: SourceError) -> None:
        """Let events wait for their source: as long as it says, or longer each time; park those that were tried enough."""
        waits_for_quota = isinstance(error, (ExhaustedError, ThrottledError))
        tired = [] if waits_for_quota else [each for each in taken if each.attempts + 1 >= ATTEMPTS]
        if tired:
            await self._park(tired, error)
        worn = {each.id for each in tired}
        by_attempts: dict[int, list[int]] = {}
        for each in taken:
            if each.id not in worn:
                by_attempts.setdefault(each.attempts, []).append(each.id)
        for attempts, ids in by_attempts.items():
            wait = error.retry_after
            if wait is None:
                wait = self._rng.uniform(0.5, 1.0) * min(_LONGEST, 2.0**attempts)
            due = self._clock.now() + timedelta(seconds=wait)
            await self._rows.put_back(ids, self._owner, due_at=due, tried=not waits_for_quota)

    async def _park(self, taken: Sequence[Waiting], error: C360Error) -> None:
        now = self._clock.now()
        letters = [
            DeadLetter(
                workspace=each.workspace, id=f"inbox:{each.id}", source=each.source, operation="intake", kind=each.kind,
                native_id=each.native_id, inbox=each.id, code=error.code, message=error.message, attempts=each.attempts + 1,
                first_at=each.received_at, last_at=now,
            )
            for each in taken
        ]  # fmt: skip
        await self._letters.park(letters, now=now, owner=self._owner)
        self._count("PARKED", len(taken), taken[0].origin)


class _Heard:
    """Everything that was heard of one record in a batch."""

    __slots__ = ("at", "ids", "into", "op", "origin", "received_at")

    def __init__(self, op: str, into: str | None, at: datetime | None, received_at: datetime) -> None:
        self.op, self.into, self.at, self.received_at = op, into, at, received_at
        self.ids: list[int] = []
        self.origin: Origin | None = None

    def strengthen(self, op: str, into: str | None, at: datetime | None) -> None:
        if _STRENGTH[op] > _STRENGTH[self.op]:
            self.op, self.into = op, into
        if at is not None and (self.at is None or at > self.at):
            self.at = at

    def hear(self, waiting: Waiting) -> None:
        self.ids.append(waiting.id)
        self.strengthen(waiting.op, waiting.into, waiting.at)
        # A stranger's change that comes with one of ours is a stranger's.
        self.origin = waiting.origin if self.origin in {None, "LOCAL_WRITE"} else self.origin
        self.received_at = min(self.received_at, waiting.received_at)


def _named(waiting: Waiting, native_id: str | None) -> Waiting:
    """Return an event under its record's native id. Where there is none, nothing is known to be deleted either."""
    other = {"op": "CHANGED"} if native_id is None else {"native_id": native_id}
    return msgspec.structs.replace(waiting, **other)


def _changed(waiting: Waiting) -> Waiting:
    return Waiting(**{name: getattr(waiting, name) for name in waiting.__struct_fields__} | {"op": "DELETED"})


__all__ = ["Event", "Intake"]
