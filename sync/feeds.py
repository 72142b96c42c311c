"""Change feeds: each source is asked what changed, at a pace between the bounds that its adapter states.

One process at a time asks a source (a lease), and stores the place only once the changes before it are applied: what is told twice is
applied once. Sources that send webhooks are asked too, seldom: webhooks are hints, and some get lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from adapters.changes import Feed
from model.clock import Clock
from model.errors import C360Error, CursorExpiredError, ExhaustedError, SourceError
from model.records import Kind
from sources.reading import Reading
from sources.registry import Registry
from sources.source import Source
from store.cursors import CursorRow, CursorRows
from store.ledger import LedgerRows
from sync.intake import Intake

log = logging.getLogger(__name__)

_SOON = 1.0  # seconds between two looks at what is due
_PASS = 120.0  # seconds for one page of a pass
_PAGES = 1000  # of one pass; what is left comes with the next
SLACK = 1.5  # a feed counts as followed for so many times its longest pace, and SPARE seconds
SPARE = 30.0
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_FASTER, _SLOWER = 0.5, 1.5


class Feeds:
    """See the module's text.

    Args:
        told_anyway: tells whether a source's webhooks work, so that it need not be asked often.
    """

    def __init__(
        self, rows: CursorRows, intake: Intake, ledger: LedgerRows, registry: Registry, *, workspace: str, owner: str, clock: Clock,
        told_anyway: Callable[[Source, Kind], bool], count: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._rows, self._intake, self._ledger, self._registry = rows, intake, ledger, registry
        self._workspace, self._owner, self._clock = workspace, owner, clock
        self._told_anyway, self._count = told_anyway, count
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.Task[None] | None = None
        self.known: dict[tuple[str, Kind], CursorRow] = {}

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._asking.values(), *([self._loop] if self._loop is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Learn how feeds are doing, whichever process asks them, and let caches live as long as that allows."""
        for row in await self._rows.all(self._workspace):
            self.known[(row.source, row.kind)] = row
        now = self._clock.now()
        for source in self._registry.of(self._workspace):
            for kind, feed in feeds(source):
                known = self.known.get((source.id, kind))
                if known is not None and known.passed_at is not None and known.cursor is not None:
                    left = SLACK * feed.longest + SPARE - (now - known.passed_at).total_seconds()
                    source.followed(kind, seconds=left)

    async def ask(self, source: Source, kind: Kind) -> int:
        """Make one pass now; return how many records turned out to have changed.

        Raises:
            SourceError: the source failed; what was applied stays, and the next pass goes on from there.
        """
        row = await self._rows.get(self._workspace, source.id, kind)
        began, changed = self._clock.now(), 0
        await self._rows.change(self._workspace, source.id, kind, began_at=began)
        cursor = row.cursor
        for _ in range(_PAGES):
            terms = Reading(deadline=self._clock.monotonic() + _PASS, lane="sync", policy="SURE")
            try:
                said, brought = await source.changes(kind, cursor, terms)
            except CursorExpiredError:
                # Begin anew, and let everything be compared: what was missed meanwhile is found so, deletions too.
                await self._rows.change(self._workspace, source.id, kind, cursor=None, reconciled_at=LONG_AGO)
                raise
            # A feed may only be able to begin by listing everything: nothing of it has changed.
            first = not row.known_all and row.passed_at is None and (row.cursor is None or _feed(source, kind).how == "delta")
            origin = "CDC" if source.adapter.kinds[kind].feed is not None and _feed(source, kind).how != "keyset" else "POLL"
            applied = await self._intake.apply(
                source, kind, said.changes, brought, origin=origin, quiet=first, known_all=row.known_all  # type: ignore[arg-type]
            )  # fmt: skip
            changed += applied.changed
            cursor = said.cursor
            await self._rows.change(self._workspace, source.id, kind, cursor=cursor)
            if not said.more:
                break
        pace = self._pace(source, kind, row.pace, changed)
        if row.cursor is None:
            await source.forget()  # what changed between a read and the place where the feed begins is told by nobody
        fill = {} if row.backfill is not None else {"backfill": {"of": began.isoformat(), "done": False}}
        await self._rows.change(self._workspace, source.id, kind, passed_at=began, pace=pace, failure=None, **fill)
        self.known[(source.id, kind)] = await self._rows.get(self._workspace, source.id, kind)
        source.followed(kind, seconds=SLACK * _feed(source, kind).longest + SPARE)
        self._count(source.system, "passed")
        return changed

    def _pace(self, source: Source, kind: Kind, pace: float, changed: int) -> float:
        """Return the seconds until the next pass: sooner where much changes, later where nothing does, or webhooks tell it."""
        feed = _feed(source, kind)
        if self._told_anyway(source, kind):
            return feed.longest
        wanted = (pace or feed.interval) * (_FASTER if changed else _SLOWER)
        return min(max(wanted, feed.interval), feed.longest)

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
                for source in self._registry.of(self._workspace):
                    due = [kind for kind, _ in feeds(source) if self._due(source, kind)]
                    if due and source.state == "CONNECTED" and source.id not in self._asking:
                        self._asking[source.id] = asyncio.create_task(self._alone(source, due))
            except Exception as error:  # noqa: BLE001 - a store in trouble: look again
                log.warning("feeds cannot be looked after", extra={"error.type": type(error).__name__})
            await asyncio.sleep(_SOON)

    def _due(self, source: Source, kind: Kind) -> bool:
        row = self.known.get((source.id, kind))
        if row is None or row.began_at is None:
            return True
        wait = row.pace or _feed(source, kind).interval
        return self._clock.now() - row.began_at >= timedelta(seconds=wait)

    async def _alone(self, source: Source, kinds: Iterable[Kind]) -> None:
        """Ask a source about kinds, one after the other, if no other process does."""
        name, owner = f"feed:{source.id}", self._owner
        try:
            for kind in kinds:
                now = self._clock.now()
                if not await self._ledger.lease(self._workspace, name, owner, now=now, until=now + timedelta(seconds=2 * _PASS)):
                    return
                try:
                    await self.ask(source, kind)
                except SourceError as error:
                    self._count(source.system, "failed")
                    feed = _feed(source, kind)
                    wait = error.retry_after if error.retry_after is not None else feed.interval
                    pace = min(max(wait, feed.interval), 86_400.0 if isinstance(error, ExhaustedError) else feed.longest)
                    told = f"{error.code}: {error.message}"[:500]
                    await self._rows.change(self._workspace, source.id, kind, failure=told, pace=pace)
            await self._ledger.release(self._workspace, name, owner)
        except C360Error as error:
            log.warning("a feed failed", extra={"system": source.system, "code": error.code})
        except Exception as error:  # noqa: BLE001 - the store failed: the next look asks again
            log.warning("a feed failed", extra={"system": source.system, "error.type": type(error).__name__})
        finally:
            del self._asking[source.id]


def feeds(source: Source) -> list[tuple[Kind, Feed]]:
    """Return the kinds whose changes a source can be asked for."""
    return [(kind, facts.feed) for kind, facts in source.adapter.kinds.items() if facts.feed is not None and source.reads(kind)]


def bound(source: Source) -> float:
    """Return the seconds that an answer from the cache may at most be behind the source, whatever its webhooks do."""
    return max(
        [60.0, *(SLACK * feed.longest + SPARE + source.adapter.kinds[kind].lag + feed.overlap for kind, feed in feeds(source))]
    )


def _feed(source: Source, kind: Kind) -> Feed:
    feed = source.adapter.kinds[kind].feed
    if feed is None:
        raise LookupError(kind)
    return feed
