"""The rows of one object at one system: compact entries rendered on demand, with the indexes its dialect searches by.

A hundred thousand people must fit, so a native row exists only while someone looks at it, or once it was changed.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

Row = dict[str, Any]
E = TypeVar("E")
Watcher = Callable[[str, Row | None, Row | None], None]
OrderKey = tuple[Any, int, str]  # (value, length of the id, id): numbers in text sort as numbers


class Field(NamedTuple, Generic[E]):
    """How to take one value from an entry, and the same value from a rendered row."""

    entry: Callable[[E], Any]
    row: Callable[[Row], Any]


class Table(Generic[E]):
    """One object's rows by native id.

    Args:
        entries: native id → compact entry.
        render: makes the native row of an entry; called per look, so it must be quick and pure.
        indexes: name → the value (or tuple of values) rows can be looked up by.
        orders: name → the value rows can be walked in the order of.
    """

    def __init__(
        self,
        entries: Mapping[str, E],
        render: Callable[[E], Row],
        *,
        indexes: Mapping[str, Field[E]] | None = None,
        orders: Mapping[str, Field[E]] | None = None,
    ) -> None:
        self._entries = dict(entries)
        self._render = render
        self._fields = indexes or {}
        self._order_fields = orders or {}
        self.watcher: Watcher | None = None  # told of each change: (native id, row before, row after), None where there is none
        self._changed: dict[str, Row] = {}  # what no longer is what its entry says
        self._indexes: dict[str, dict[Hashable, list[str]]] = {}  # of entries; asked for, then kept
        self._changed_indexes: dict[str, dict[Hashable, dict[str, None]]] = {}  # of changed rows
        self._orders: dict[str, list[OrderKey]] = {}

    @property
    def indexed(self) -> Iterable[str]:
        """The names of the indexes."""
        return self._fields.keys()

    def __len__(self) -> int:
        return len(self._entries.keys() | self._changed.keys())

    def __iter__(self) -> Iterator[Row]:
        """Walk all rows, in no stated order."""
        for native_id in (*self._entries, *(key for key in self._changed if key not in self._entries)):
            row = self.get(native_id)
            if row is not None:
                yield row

    def get(self, native_id: str) -> Row | None:
        """Return a row of its own, free to change; None when there never was one or it was removed."""
        if (changed := self._changed.get(native_id)) is not None:
            return dict(changed)
        entry = self._entries.get(native_id)
        return None if entry is None else self._render(entry)

    def knows(self, native_id: str) -> bool:
        return native_id in self._changed or native_id in self._entries

    def entry(self, native_id: str) -> E | None:
        return self._entries.get(native_id)

    def entries(self) -> Iterator[tuple[str, E]]:
        """Walk what the table was made from, rows that were changed since included."""
        yield from self._entries.items()

    def put(self, native_id: str, row: Row) -> None:
        """Add or replace a row. Orders and indexes that were built follow; a row costs about what a look-up costs."""
        before = self.get(native_id) if self.watcher is not None else None
        for name in tuple(self._orders):
            self._reorder(name, native_id, row)
        for name, found in self._changed_indexes.items():
            for value in _several(self._fields[name].row(row)):
                found.setdefault(value, {})[native_id] = None  # a value it no longer has is left behind; `having` looks again
        self._changed[native_id] = row
        if self.watcher is not None:
            self.watcher(native_id, before, dict(row))

    def remove(self, native_id: str) -> None:
        """Forget a row altogether; a soft delete is a `put` of a row that says so."""
        before = self.get(native_id) if self.watcher is not None else None
        self._changed.pop(native_id, None)
        if self._entries.pop(native_id, None) is not None:
            self._indexes.clear()
        self._changed_indexes.clear()
        self._orders.clear()
        if self.watcher is not None and before is not None:
            self.watcher(native_id, before, None)

    def having(self, index: str, values: Iterable[Hashable]) -> list[Row]:
        """Return the rows whose indexed value (or one of its values) is among `values`, each once."""
        wanted = set(values)
        found = dict.fromkeys(key for value in wanted for key in self._index(index).get(value, ()))
        changed = dict.fromkeys(key for value in wanted for key in self._changed_index(index).get(value, ()))
        take = self._fields[index].row
        rows = [row for key in found if key not in self._changed and (row := self.get(key)) is not None]
        return rows + [dict(row) for key in changed if wanted & set(_several(take(row := self._changed[key])))]

    def walk(self, order: str, *, start: Any = None, descending: bool = False) -> Iterator[Row]:
        """Walk rows by (value, id) from `start` (a value, inclusive) on, downwards when `descending`."""
        for _, native_id in self.keys(order, start=start, descending=descending):
            row = self.get(native_id)
            if row is not None:
                yield row

    def keys(self, order: str, *, start: Any = None, descending: bool = False) -> Iterator[tuple[Any, str]]:
        """Walk as `walk` does, giving (value, native id) and rendering nothing."""
        keys = self._order(order)
        if descending:
            end = len(keys) if start is None else bisect_right(keys, start, key=lambda key: key[0])
            span: Iterable[OrderKey] = (keys[at] for at in range(end - 1, -1, -1))
        else:
            begin = 0 if start is None else bisect_left(keys, start, key=lambda key: key[0])
            span = (keys[at] for at in range(begin, len(keys)))
        return ((value, native_id) for value, _, native_id in span)

    def value(self, order: str, native_id: str) -> Any:
        """Return what a row is ordered by, rendering nothing; None where there is no such row."""
        key = self._order_key(order, native_id)
        return None if key is None else key[0]

    def _order_key(self, order: str, native_id: str) -> OrderKey | None:
        field = self._order_fields[order]
        if (changed := self._changed.get(native_id)) is not None:
            return (field.row(changed), len(native_id), native_id)
        entry = self._entries.get(native_id)
        return None if entry is None else (field.entry(entry), len(native_id), native_id)

    def _reorder(self, name: str, native_id: str, row: Row) -> None:
        keys, old = self._orders[name], self._order_key(name, native_id)
        if old is not None:
            at = bisect_left(keys, old)
            if at == len(keys) or keys[at] != old:  # someone changed the row in place: build the order anew when it is asked for
                del self._orders[name]
                return
            del keys[at]
        insort(keys, (self._order_fields[name].row(row), len(native_id), native_id))

    def _index(self, name: str) -> dict[Hashable, list[str]]:
        if name not in self._indexes:
            built: dict[Hashable, list[str]] = {}
            take = self._fields[name].entry
            for native_id, entry in self._entries.items():
                for value in _several(take(entry)):
                    built.setdefault(value, []).append(native_id)
            self._indexes[name] = built
        return self._indexes[name]

    def _changed_index(self, name: str) -> dict[Hashable, dict[str, None]]:
        if name not in self._changed_indexes:
            built: dict[Hashable, dict[str, None]] = {}
            take = self._fields[name].row
            for native_id, row in self._changed.items():
                for value in _several(take(row)):
                    built.setdefault(value, {})[native_id] = None
            self._changed_indexes[name] = built
        return self._changed_indexes[name]

    def _order(self, name: str) -> list[OrderKey]:
        if name not in self._orders:
            field = self._order_fields[name]
            keys = [(field.entry(entry), len(key), key) for key, entry in self._entries.items() if key not in self._changed]
            keys += [(field.row(row), len(key), key) for key, row in self._changed.items()]
            self._orders[name] = sorted(keys)
        return self._orders[name]


def _several(value: Any) -> tuple[Hashable, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)
