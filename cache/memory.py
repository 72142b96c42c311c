"""A bounded cache in this process: the least recently used entry goes first."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from cache.entries import Entry
from model.clock import Clock


class MemoryCache:
    """Entries of one process.

    Args:
        max_rows: how many rows are kept in all; an entry counts as its rows, at least one.
    """

    def __init__(self, *, clock: Clock, max_rows: int = 200_000) -> None:
        self._clock = clock
        self._max_rows = max_rows
        self._entries: OrderedDict[str, tuple[float, Entry]] = OrderedDict()
        self._rows = 0

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        return [self._get(key) for key in keys]

    async def set_many(self, entries: Mapping[str, Entry], *, ttl: float) -> None:
        until = self._clock.monotonic() + ttl
        for key, entry in entries.items():
            self._drop(key)
            self._entries[key] = (until, entry)
            self._rows += _weight(entry)
        while self._rows > self._max_rows and len(self._entries) > 1:
            self._drop(next(iter(self._entries)))

    async def drop(self, prefix: str) -> None:
        for key in [key for key in self._entries if key.startswith(prefix)]:
            self._drop(key)

    async def close(self) -> None:
        self._entries.clear()
        self._rows = 0

    def _get(self, key: str) -> Entry | None:
        kept = self._entries.get(key)
        if kept is None:
            return None
        if kept[0] <= self._clock.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept[1]

    def _drop(self, key: str) -> None:
        kept = self._entries.pop(key, None)
        if kept is not None:
            self._rows -= _weight(kept[1])


def _weight(entry: Entry) -> int:
    return max(1, len(entry.rows))
