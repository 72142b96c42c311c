"""One list over many streams of rows, in one total order, resumable and without loss.

Every stream answers in the order (time, id); the merge adds the stream's rank between the two. A stream that fails keeps
its place and is asked again on the next page: its rows then come late, but they come. Nothing is remembered between
pages but the mark; vendor pages that were half used are taken from the page cache again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from adapters.base import Position
from model.errors import SourceError
from resolvers.cursors import Mark, StreamMark

R = TypeVar("R")
Key = tuple[datetime, int, int, str]  # (time, rank, length of the id, id)


@dataclass(frozen=True, slots=True)
class Chunk(Generic[R]):
    """Rows in order; `end`: nothing comes after them. A row is None where it cannot be shown."""

    rows: Sequence[tuple[Position, R | None]]
    end: bool


Fetch = Callable[[Position | None], Awaitable[Chunk[R] | SourceError]]


@dataclass(slots=True)
class Stream(Generic[R]):
    """One source's rows of one kind.

    Attributes:
        rank: unique among the streams of a list.
        fetch: the rows strictly after a place (None: from the start), or the error that kept them away.
    """

    name: str
    rank: int
    fetch: Fetch[R]
    buffer: deque[tuple[Position, R | None]] = field(default_factory=deque)
    page: Position | None = None  # where the page at hand started
    last: Position | None = None  # last row taken
    fetched: bool = False
    end: bool = False  # the page at hand is the last one
    failure: SourceError | None = None
    late: int = 0

    @property
    def done(self) -> bool:
        return self.end and not self.buffer

    def taken(self, place: Position, *, descending: bool) -> bool:
        """Tell whether a row at this place has been passed already."""
        return self.last is not None and (place >= self.last if descending else place <= self.last)


@dataclass(frozen=True, slots=True)
class Taken(Generic[R]):
    """One row of the merged list, and where the list stands after it."""

    stream: Stream[R]
    place: Position
    row: R | None
    key: Key


class Merge(Generic[R]):
    """The merged list, from a mark on.

    Args:
        mark: where an earlier page ended; None from the start.
        as_of: rows created later are left out (only where `created` orders the list).
    """

    def __init__(
        self, streams: Sequence[Stream[R]], *, mark: Mark | None, as_of: datetime, descending: bool, bounded: bool
    ) -> None:
        self.streams: Mapping[str, Stream[R]] = {each.name: each for each in streams}
        self._descending, self._bounded = descending, bounded
        self.as_of = mark.as_of if mark else as_of
        self.last: Key | None = mark.last if mark else None
        for name, kept in (mark.streams if mark else {}).items():
            if (stream := self.streams.get(name)) is not None:
                stream.page, stream.last, stream.end = kept.page, kept.last, kept.done

    async def take(self, count: int) -> list[Taken[R]]:
        """Return up to `count` further rows; fewer only when no stream has any, or those that have failed."""
        found: list[Taken[R]] = []
        while len(found) < count:
            await self._fill()
            heads = [stream for stream in self.streams.values() if stream.buffer]
            if not heads:
                break
            stream = (max if self._descending else min)(heads, key=lambda each: self._key(each, each.buffer[0][0]))
            place, row = stream.buffer.popleft()
            key = self._key(stream, place)
            if self.last is not None and (key > self.last if self._descending else key < self.last):
                stream.late += 1
            else:
                self.last = key
            stream.last = place
            found.append(Taken(stream, place, row, key))
        return found

    def mark(self) -> Mark:
        """Return where the list stands now."""
        return Mark(
            as_of=self.as_of,
            streams={name: StreamMark(each.page, each.last, each.done) for name, each in self.streams.items()},
            last=self.last,
        )

    @property
    def more(self) -> bool:
        """There may be further rows: a stream has some, or failed before its end."""
        return any(not stream.done for stream in self.streams.values())

    async def _fill(self) -> None:
        empty = [each for each in self.streams.values() if not each.buffer and not each.end and each.failure is None]
        if empty:
            await asyncio.gather(*(self._refill(each) for each in empty))

    async def _refill(self, stream: Stream[R]) -> None:
        # The first fetch of a resumed list asks for the page it was in, which the page cache holds, and skips what was taken.
        start = stream.last if stream.fetched else stream.page
        while True:
            chunk = await stream.fetch(start)
            if isinstance(chunk, SourceError):
                stream.failure = chunk
                return
            stream.page, stream.fetched, stream.end = start, True, chunk.end
            rows = [pair for pair in chunk.rows if not stream.taken(pair[0], descending=self._descending)]
            if self._bounded:
                beyond = next((at for at, (place, _) in enumerate(rows) if place.at > self.as_of), None)
                if beyond is not None and not self._descending:
                    rows, stream.end = rows[:beyond], True
                elif self._descending:
                    rows = [pair for pair in rows if pair[0].at <= self.as_of]
            stream.buffer.extend(rows)
            if rows or stream.end or not chunk.rows:
                # A page without rows that is not the end would be asked for again and again.
                stream.end = stream.end or not chunk.rows
                return
            start = chunk.rows[-1][0]

    def _key(self, stream: Stream[R], place: Position) -> Key:
        return (place.at, stream.rank, place.id_length, place.native_id)
