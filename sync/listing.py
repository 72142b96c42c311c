"""Listing everything of a source, page by page: to learn it the first time (backfill), and to find what was missed (reconcile).

Each function does one page and can be done again: what it does twice is done once. The place is stored, so a killed process goes on
from there.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from adapters.base import OrderField, Position, Scan
from adapters.changes import Change
from model.clock import Clock
from model.errors import NotFoundError
from model.records import Kind, Ref
from sources.reading import Reading
from sources.registry import Registry
from sources.source import Source
from store.cursors import CursorRows
from store.versions import VersionRows
from sync.intake import Intake

PAGE = 500  # rows of one page; systems may give fewer
_DEADLINE = 600.0  # seconds for one page, at the lowest lane
BRAKE_SHARE, BRAKE_LEAST = 0.2, 50  # more deletions than this share of what is known, and than so many, are not believed
_CHECKED = 500  # records that are looked for at once before they count as deleted


class Listing:
    """See the module's text."""

    def __init__(
        self, rows: CursorRows, versions: VersionRows, intake: Intake, registry: Registry, *, workspace: str, clock: Clock
    ) -> None:
        self._rows, self._versions, self._intake, self._registry = rows, versions, intake, registry
        self._workspace, self._clock = workspace, clock

    def can(self, source: Source, kind: Kind) -> bool:
        """Tell whether a system lists a kind in an order that can be gone on with."""
        return _order(source, kind) is not None

    async def backfill_page(self, source_id: str, kind: Kind) -> bool:
        """Learn the next page of a kind, quietly; return whether there is more.

        Raises:
            SourceError: nothing was learned; do it again later.
        """
        source = self._source(source_id)
        row = await self._rows.get(self._workspace, source_id, kind)
        said = dict(row.backfill or {})
        if said.get("done"):
            return False
        place, _ = await self._page(source, kind, said, quiet=True)
        await self._rows.change(self._workspace, source_id, kind, backfill=place)
        return not place["done"]

    async def reconcile_page(self, source_id: str, kind: Kind, said: Mapping[str, Any]) -> dict[str, Any]:
        """Compare the next page with what is known, and repair it.

        Args:
            said: what this returned before; {"since": …} to begin with, the time from which records count as seen.

        Returns:
            The place: {"since", "after", "rows", "drift", "done"}.
        """
        place, drift = await self._page(self._source(source_id), kind, said, quiet=False)
        return {**place, "since": said["since"], "drift": int(said.get("drift", 0)) + drift}

    async def reconcile_gone(self, source_id: str, kind: Kind, said: Mapping[str, Any]) -> int:
        """Find known records that the listing did not show, make sure of each, and apply that they are gone; return how many.

        Much more than usual is not believed: nothing is applied, and the feed tells why.
        """
        source, since = self._source(source_id), datetime.fromisoformat(said["since"])
        unseen = await self._versions.unseen(self._workspace, source_id, kind, since=since)
        gone: list[str] = []
        for start in range(0, len(unseen), _CHECKED):
            some = unseen[start : start + _CHECKED]
            found, misfits = await source.whole(kind, some, self._terms())
            gone += [id for id in some if id not in found and id not in misfits]
        known = await self._versions.count(self._workspace, source_id, kind)
        drift = int(said.get("drift", 0))
        if len(gone) > BRAKE_LEAST and len(gone) > BRAKE_SHARE * known:
            told = f"{len(gone)} of {known} records are gone at once: not believed; reconcile with force once that is right"
            await self._rows.change(self._workspace, source_id, kind, failure=told)
        else:
            changes = [Change(kind=kind, native_id=id, op="DELETED") for id in gone]
            applied = await self._intake.apply(source, kind, changes, {}, origin="RECONCILE")
            drift += applied.changed
        await self._rows.change(self._workspace, source_id, kind, reconciled_at=self._clock.now(), drift=drift)
        return drift

    async def _page(self, source: Source, kind: Kind, said: Mapping[str, Any], *, quiet: bool) -> tuple[dict[str, Any], int]:
        order = _order(source, kind)
        if order is None:
            return {"of": said.get("of"), "done": True, "rows": 0}, 0
        after = Position.of(datetime.fromisoformat(said["after"][0]), said["after"][1]) if said.get("after") else None
        scan = Scan(order=order, after=after, size=min(PAGE, source.adapter.kinds[kind].page))
        began = self._clock.now()
        walked = await source.everything(kind, scan, self._terms())
        brought = {place.native_id: record for place, record in walked.rows if record is not None}
        changes = [Change(kind=kind, native_id=id, at=record.updated_at) for id, record in brought.items()]
        applied = await self._intake.apply(source, kind, changes, brought, origin="RECONCILE", quiet=quiet)
        await self._versions.seen(self._workspace, [Ref(source.id, kind, id) for id in brought], at=began)
        rows = int(said.get("rows", 0)) + len(walked.rows)
        last = walked.rows[-1][0] if walked.rows else None
        done = walked.end or last is None or (after is not None and last <= after)
        place: dict[str, Any] = {"of": said.get("of"), "done": done, "rows": rows}
        if not done and last is not None:
            place["after"] = [last.at.isoformat(), last.native_id]
        return place, applied.changed

    def _terms(self) -> Reading:
        return Reading(deadline=self._clock.monotonic() + _DEADLINE, lane="sync", policy="SURE")

    def _source(self, id: str) -> Source:
        source = next((each for each in self._registry.of(self._workspace) if each.id == id), None)
        if source is None:
            raise NotFoundError("the source is not there any more")
        return source


def _order(source: Source, kind: Kind) -> OrderField | None:
    if not source.reads(kind):
        return None
    orders: tuple[OrderField, ...] = ("created", "updated")
    return next((order for order in orders if source.orders(kind, order)), None)
