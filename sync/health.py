"""How changes of each source are heard of: its webhooks, its feeds, what waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sources.source import Source
from store.hooks import HookState
from store.inbox import InboxRows
from sync.feeds import Feeds, feeds
from sync.hooks import Hooks


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedHealth:
    """One kind's feed. `updated_at`: when the last pass that got through began; `rows`: how many were listed at first."""

    object: str
    mode: str
    pace: timedelta
    updated_at: datetime | None
    failure: str | None
    backfilled: bool
    rows: int
    reconciled_at: datetime | None
    drift: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookHealth:
    state: HookState
    reason: str | None
    address: str | None
    subscriptions: int
    checked_at: datetime | None
    heard_at: datetime | None
    expires_at: datetime | None


class HealthBook:
    def __init__(self, hooks: Hooks, asked: Feeds, inbox: InboxRows) -> None:
        self._hooks, self._feeds, self._inbox = hooks, asked, inbox

    def webhooks(self, source: Source) -> HookHealth | None:
        """Return None where the system sends none."""
        if source.adapter.push is None:
            return None
        row, address = self._hooks.state(source.id), self._hooks.address(source.id)
        if row is None:
            return HookHealth(
                state="OFF", reason=None, address=address, subscriptions=0, checked_at=None, heard_at=None, expires_at=None
            )
        return HookHealth(
            state=row.state, reason=row.reason, address=address, subscriptions=len(row.watches), checked_at=row.checked_at,
            heard_at=row.heard_at, expires_at=row.expires_at,
        )  # fmt: skip

    async def cursors(self, source: Source) -> list[FeedHealth]:
        await self._feeds.refresh()
        found = []
        for kind, feed in feeds(source):
            row = self._feeds.known.get((source.id, kind))
            filled = (row.backfill if row is not None else None) or {}
            found.append(
                FeedHealth(
                    object=kind, mode=feed.how, pace=timedelta(seconds=(row.pace if row is not None else 0) or feed.interval),
                    updated_at=row.passed_at if row is not None else None, failure=row.failure if row is not None else None,
                    backfilled=bool(filled.get("done")), rows=int(filled.get("rows", 0)),
                    reconciled_at=row.reconciled_at if row is not None else None, drift=row.drift if row is not None else None,
                )
            )  # fmt: skip
        return found

    async def waiting(self, source: Source) -> int:
        return (await self._inbox.waiting(source.workspace)).get(source.id, 0)
