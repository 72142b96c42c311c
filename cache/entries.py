"""The one shape of everything cached: native rows, the fields they are known to have, and when they were fetched.

Native rows, not records: a new mapping then needs no refetch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from model.records import Row


class Entry(Struct, frozen=True):
    """
    Attributes:
        rows: what was fetched; None in a place means that the system has no such record.
        at: when it left its system, seconds since 1970.
        known: native paths that were asked for; a caller that needs another one must fetch again.
        end: of a page: nothing comes after it.
        meta: of a describe result: its fields as plain data.
    """

    rows: list[Row | None]
    at: float
    known: frozenset[str] = frozenset()
    end: bool = False
    meta: dict[str, Any] | None = None


class Cache(Protocol):
    """Entries by key. Losing any of them at any time is allowed; raising is not."""

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return entries in the order of `keys`, None where there is none (any more)."""

    async def set_many(self, entries: Mapping[str, Entry], *, ttl: float) -> None:
        """Keep entries for at most `ttl` seconds."""

    async def drop(self, prefix: str) -> None:
        """Forget every entry whose key begins so: for what must not be kept, since it looks at every key there is."""

    async def close(self) -> None: ...
