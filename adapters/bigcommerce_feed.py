"""BigCommerce's feed of orders: items cost a call an order, so what was told already is not fetched again.

A pass reaches back behind the last one, and in a shop where all is quiet it would meet the same orders each time.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import msgspec
import orjson

from adapters.base import Adapter, Api
from adapters.changes import Change, Changes, scanned_changes
from model.records import Row

_MOST = 2_000  # orders remembered, 24 kB of cursor; what goes beyond is fetched again


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        scan: where the list was left.
        told: marks of what the pass before met.
        met: marks of what this pass met so far.
    """

    scan: str | None = None
    told: tuple[str, ...] = ()
    met: tuple[str, ...] = ()


async def changed_orders(
    adapter: Adapter, api: Api, cursor: str | None, fields: Sequence[str], complete: Callable[[Sequence[Row]], Awaitable[list[Row]]],
    *, now: datetime,
) -> Changes:  # fmt: skip
    """Return what changed, without what is to the letter as it was told.

    Args:
        complete: fetches the items of orders, and keeps their order.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else _Place()
    bare = [path for path in fields if not path.startswith("products.")]
    said = await scanned_changes(adapter, api, "order", place.scan, bare, now=now)
    rows = [change.row for change in said.changes if change.row is not None]
    # Marks are of whole orders: times are whole seconds, so a second edit within one does not move them.
    marks = [_mark(row) for row in rows]
    known = {*place.told, *place.met}
    whole = await complete([row for row, mark in zip(rows, marks, strict=True) if mark not in known])
    places = {change.native_id: change.at for change in said.changes}
    changes = [Change(kind="order", native_id=(id := str(row["id"])), at=places[id], row=row) for row in whole]
    met = tuple(dict.fromkeys((*place.met, *marks)))[-_MOST:]
    following = _Place(scan=said.cursor, told=place.told, met=met) if said.more else _Place(scan=said.cursor, told=met)
    return Changes(changes=changes, cursor=msgspec.json.encode(following).decode(), more=said.more)


def _mark(row: Row) -> str:
    return hashlib.blake2b(orjson.dumps(row, option=orjson.OPT_SORT_KEYS), digest_size=6).hexdigest()
