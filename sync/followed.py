"""Customers that are followed by id, while the identity index merges and splits them.

What an id resolves to is looked up when the index of this process moves, and every second for the sake of others. Where it has
changed, its follower goes back to the last look and on from there, so that nothing that happened between is lost.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from identity.index import IdentityIndex
from model.events import Event
from sync.interest import Interest
from sync.log import QUEUE, EventLog, Stop

log = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between two looks
_MANY = 1000
_TICK = 0.1  # seconds in which a move of our own index is seen


class Followed:
    """One workspace's followed customers."""

    def __init__(self, events: EventLog, index: IdentityIndex, workspace: str) -> None:
        self._events, self._index, self._workspace = events, index, workspace
        self._watched: set[_Watched] = set()
        self._looking: asyncio.Task[None] | None = None
        self._mark = 0  # the youngest event at the last look: whatever happened by then was seen by it

    async def follow(self, ids: frozenset[str], *, since: int | None, queue: int = QUEUE) -> AsyncGenerator[Event, None]:
        """Yield the events of these customers, under whatever ids of theirs they were entered, as `EventLog.follow` does."""
        mark = self._events.last
        watched = _Watched(ids, await self._names(ids), mark)
        self._watched.add(watched)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        place = since if since is not None else mark
        given: set[int] = set()
        try:
            while True:
                watched.moved = Stop()
                stream = self._events.follow(
                    since=place, wants=Interest(customers=watched.names), queue=queue, stop=watched.moved
                )
                async with aclosing(stream):
                    async for event in stream:
                        if event.seq not in given:
                            # Looks only go forward, so nothing before the last one can come again.
                            given = {seq for seq in given if seq > watched.mark} if len(given) > _MANY else given
                            given.add(event.seq)
                            yield event
                if not watched.moved.asked:  # the log has stopped
                    return
                place = watched.back
        finally:
            self._watched.discard(watched)
            if not self._watched and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        seen, rested = self._index.moves, 0.0
        while True:
            await asyncio.sleep(_TICK)
            rested += _TICK
            if self._index.moves == seen and rested < _LOOK:
                continue
            seen, rested = self._index.moves, 0.0
            mark = self._events.last
            watched = list(self._watched)
            try:
                known = await self._index.aliases(self._workspace, {id for each in watched for id in each.ids})
            except Exception as error:  # noqa: BLE001 - a database in trouble: look again
                log.warning("the identity index cannot be read", extra={"error.type": type(error).__name__})
                continue
            for each in watched:
                names = _all(each.ids, known)
                back, each.mark = each.mark, mark
                if names != each.names:
                    each.names, each.back = names, back
                    each.moved.ask()

    async def _names(self, ids: frozenset[str]) -> frozenset[str]:
        return _all(ids, await self._index.aliases(self._workspace, ids))


class _Watched:
    """
    Attributes:
        names: every id under which these customers' events may be entered.
        mark: the youngest event at the last look.
        back: where to go back to when `moved` is set.
    """

    def __init__(self, ids: frozenset[str], names: frozenset[str], mark: int) -> None:
        self.ids, self.names, self.mark, self.back = ids, names, mark, mark
        self.moved = Stop()


def _all(ids: Iterable[str], known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset(name for id in ids for name in known.get(id, (id,)))
