"""One total order (time, id) out of a system that sorts by time only and says nothing about equal times."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from adapters.base import Page, Position, Scan
from model.records import Row

T = TypeVar("T")


async def whole_groups(
    scan: Scan, fetch: Callable[[T | None], Awaitable[tuple[list[Row], T | None]]], place: Callable[[Row], Position]
) -> Page:
    """Return the next rows of a scan; a group of equal times that crosses a page's end is read to its end.

    Args:
        fetch: rows from `scan.after`'s time on, that time included, with the token of the following page (None: no more).
        place: where a row stands.
    """
    rows: list[Row] = []
    token: T | None = None
    while True:
        more, token = await fetch(token)
        rows += more
        ordered = sorted(((place(row), row) for row in rows), key=lambda pair: pair[0], reverse=scan.descending)
        beyond = [(at, row) for at, row in ordered if scan.after is None or _after(at, scan.after, scan)]
        if token is None:
            return Page(rows=[row for _, row in beyond], end=True)
        open_end = ordered[-1][0].at if ordered else None
        if whole := [row for at, row in beyond if at.at != open_end]:
            return Page(rows=whole, end=False)


def _after(place: Position, edge: Position, scan: Scan) -> bool:
    return place < edge if scan.descending else place > edge
