"""The engine for long work, and the only module that knows which: DBOS Transact, embedded.

What is started runs once over all replicas, whatever its id was started by, and is gone on with after a kill. A dead replica's work is
taken over by another once its heartbeat is old. Work is done in the process's own loop; the engine's threads only wait for it.

DBOS is one per Python process, so only the process that serves launches it.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from model.clock import Clock
from model.errors import C360Error, SourceError, UnsupportedError
from model.records import Kind
from store.cursors import CursorRow
from store.ledger import LedgerRows
from sync.listing import Listing

log = logging.getLogger(__name__)
T = TypeVar("T")

VERSION = "1"  # of the workflows below: work begun under another one is not gone on with
BEAT, DEAD = timedelta(seconds=15), timedelta(seconds=60)
_PAUSE, _LONGEST = 2.0, 600.0  # seconds between two tries of one page whose source fails, doubling
COMPARED = timedelta(hours=24)  # between two comparisons of everything
_EXECUTORS = "_engine"  # workspace under which heartbeats are leased


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the engine keeps its own tables: a file beside SQLite's, so that neither waits for the other, or PostgreSQL itself."""

    file: Path | None = None
    url: str | None = None


class LongWork:
    """Long work of one process.

    Args:
        executor: names the process: the same after a restart where there is one process, its own where there are several.
    """

    def __init__(self, place: Place, listing: Listing, ledger: LedgerRows, *, executor: str, clock: Clock) -> None:
        self._place, self._listing, self._ledger = place, listing, ledger
        self._executor, self._clock = executor, clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat: asyncio.Task[None] | None = None
        self._stopping = False
        self._waiting: set[concurrent.futures.Future[Any]] = set()

    async def start(self) -> None:
        """Launch, and go on with what was begun; once is enough."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        await self._ledger.lease(
            _EXECUTORS, self._executor, self._executor, now=self._clock.now(), until=self._clock.now() + DEAD
        )
        try:
            await asyncio.to_thread(_launch, self)
        except BaseException:
            self._loop = None
            raise
        self._beat = asyncio.create_task(self._beating())

    async def stop(self) -> None:
        """Stop; what is not done is gone on with at the next start."""
        self._stopping = True
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.gather(self._beat, return_exceptions=True)
        for waiting in list(self._waiting):
            waiting.cancel()
        if self._loop is not None:
            await asyncio.to_thread(_destroy)

    async def begin_what_is_due(self, rows: Sequence[CursorRow]) -> None:
        """Begin the listings that sources need: each once, also where several processes ask for it."""
        for row in rows:
            filled, of = row.backfill, str((row.backfill or {}).get("of"))
            if filled is None:
                continue
            if not row.known_all:
                await self.backfill(row.source, row.kind, of=of)
            elif self._clock.now() - (row.reconciled_at or datetime.fromisoformat(of)) >= COMPARED:
                await self.reconcile(row.source, row.kind, of=f"{self._clock.now():%Y-%m-%d}:{row.reconciled_at or of}")

    async def backfill(self, source: str, kind: Kind, *, of: str) -> None:
        """List everything of a kind once. `of` tells this time from others; the same again does nothing."""
        await asyncio.to_thread(_begin, _backfill, f"backfill:{source}:{kind}:{of}", source, kind)

    async def reconcile(self, source: str, kind: Kind, *, of: str) -> None:
        """Compare everything of a kind with what is known, and repair it. `of` tells this time from others."""
        await asyncio.to_thread(
            _begin, _reconcile, f"reconcile:{source}:{kind}:{of}", source, kind, self._clock.now().isoformat()
        )

    def run(self, work: Callable[[Listing], Awaitable[T]]) -> T:
        """Do a step's work in the process's loop, from one of the engine's threads, trying again while its source fails.

        Raises:
            C360Error: it cannot be done.
        """
        if self._loop is None or self._stopping:
            raise _StoppedError("the engine is stopping")

        async def tried() -> T:
            pause = _PAUSE
            while True:  # a source may be down, or out of quota, for as long as it likes
                try:
                    return await work(self._listing)
                except SourceError as error:
                    if isinstance(error, UnsupportedError):
                        raise
                    await asyncio.sleep(pause if error.retry_after is None else error.retry_after)
                    pause = min(2 * pause, _LONGEST)
                except C360Error:
                    raise
                except Exception as error:  # noqa: BLE001 - the store is away: work that failed for good would never be begun again
                    log.warning("a listing waits", extra={"error.type": type(error).__name__})
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST)

        waiting = asyncio.run_coroutine_threadsafe(tried(), self._loop)
        self._waiting.add(waiting)
        try:
            return waiting.result()
        except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            raise _StoppedError("the engine is stopping") from error
        finally:
            self._waiting.discard(waiting)

    async def _beating(self) -> None:
        while True:
            now = self._clock.now()
            try:
                await self._ledger.lease(_EXECUTORS, self._executor, self._executor, now=now, until=now + DEAD)
                if self._place.url is not None:
                    await self._take_over()
            except Exception as error:  # noqa: BLE001 - the store or the engine in trouble: beat again
                log.warning("the engine's heartbeat failed", extra={"error.type": type(error).__name__})
            await asyncio.sleep(BEAT.total_seconds())

    async def _take_over(self) -> None:
        """Go on with the work of processes whose heartbeat is old."""
        pending = await asyncio.to_thread(_pending)
        for executor in {executor for executor in pending.values() if executor != self._executor}:
            now = self._clock.now()
            if await self._ledger.lease(_EXECUTORS, executor, self._executor, now=now, until=now + DEAD):
                ids = [id for id, theirs in pending.items() if theirs == executor]
                await asyncio.to_thread(_resume, ids)
                log.info("work of a process that is gone was taken over", extra={"count": len(ids)})
                await self._ledger.release(_EXECUTORS, executor, self._executor)


class _StoppedError(BaseException):
    """Not an Exception: the engine must not take it for the outcome of the work."""


_engine: LongWork | None = None


def _launch(engine: LongWork) -> None:
    """Import, configure and launch DBOS. Slow to import, so this is done in a thread and as late as can be."""
    global _engine, _backfill, _reconcile
    from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
    from sqlalchemy import create_engine, event

    _engine = engine
    config = DBOSConfig(
        name="customer360", application_version=VERSION, executor_id=engine._executor, serializer=DBOSPortableJSONSerializer(),  # noqa: SLF001
        enable_otlp=False, max_executor_threads=64, log_level="ERROR",
    )  # fmt: skip
    place = engine._place  # noqa: SLF001
    if place.file is not None:
        file = create_engine(f"sqlite:///{place.file}", pool_size=1, max_overflow=0, connect_args={"check_same_thread": False})

        @event.listens_for(file, "connect")
        def connected(connection: Any, _: object) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
                connection.execute(f"PRAGMA {pragma}")

        config["system_database_engine"] = file
        config["system_database_url"] = f"sqlite:///{place.file}"
    else:
        config["system_database_url"] = place.url
    DBOS(config=config)
    if not _REGISTERED:
        _REGISTERED.append(True)

        def backfill_page(source: str, kind: Kind) -> bool:
            return _running().run(lambda listing: listing.backfill_page(source, kind))

        def reconcile_page(source: str, kind: Kind, said: dict[str, Any]) -> dict[str, Any]:
            return _running().run(lambda listing: listing.reconcile_page(source, kind, said))

        def reconcile_gone(source: str, kind: Kind, said: dict[str, Any]) -> int:
            return _running().run(lambda listing: listing.reconcile_gone(source, kind, said))

        page, compare, gone = (DBOS.step(name=each.__name__)(each) for each in (backfill_page, reconcile_page, reconcile_gone))

        def backfill(source: str, kind: Kind) -> None:
            while page(source, kind):
                pass

        def reconcile(source: str, kind: Kind, since: str) -> int:
            said: dict[str, Any] = {"since": since}
            while not said.get("done"):
                said = dict(compare(source, kind, said))  # type: ignore[call-overload]
            drift: Any = gone(source, kind, said)
            return int(drift)

        _backfill = DBOS.workflow(name="backfill")(backfill)
        _reconcile = DBOS.workflow(name="reconcile")(reconcile)
    DBOS.launch()


_REGISTERED: list[bool] = []
_backfill: Any = None
_reconcile: Any = None


def _running() -> LongWork:
    if _engine is None:
        raise _StoppedError("the engine is not launched")
    return _engine


def _begin(workflow: Any, id: str, *arguments: str) -> None:
    from dbos import DBOS, SetWorkflowID

    with SetWorkflowID(id):
        DBOS.start_workflow(workflow, *arguments)


def _pending() -> dict[str, str]:
    """Return the ids of work that is under way, and whose it is."""
    from dbos import DBOS

    found = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    return {each.workflow_id: each.executor_id or "" for each in found}


def _resume(ids: list[str]) -> None:
    from dbos import DBOS

    DBOS.resume_workflows(ids)


def _destroy() -> None:
    from dbos import DBOS

    DBOS.destroy(workflow_completion_timeout_sec=0)
