"""Shopify's connections: rows in an order, pages of them by cursors, ties in no order that Shopify states."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import orjson
from graphql import GraphQLError

from sandbox import shopify_query as search
from sandbox.table import Row, Table

PAGE = 250
ORDERS = {  # sort key → the table's order, the field it sorts by
    "ID": ("id", "legacyResourceId"), "RELEVANCE": ("id", "legacyResourceId"), "CREATED_AT": ("created", "createdAt"),
    "PROCESSED_AT": ("created", "processedAt"), "UPDATED_AT": ("updated", "updatedAt"),
}  # fmt: skip
_TIMES = {"customer_date": "created", "created_at": "created", "processed_at": "created", "updated_at": "updated"}
Position = tuple[int, int]  # the sort field's value, then a number that scatters ties


def place(field: str, row: Row) -> Position:
    number = int(row["id"].rsplit("/", 1)[-1])
    # Ties are in no order that Shopify states.
    return (search.millis(row[field]) if field.endswith("At") else number, number * 2_654_435_761 % 4_294_967_296)


def ordered(table: Table[Any], order: str, field: str, low: int | None, high: int | None, *, reverse: bool) -> Iterator[Row]:
    """Walk the rows whose value is between the bounds, both inclusive; ties scattered."""
    walked = table.walk(order, start=high if reverse else low, descending=reverse)
    for value, group in groupby(walked, key=lambda row: place(field, row)[0]):
        if (reverse and low is not None and value < low) or (not reverse and high is not None and value > high):
            return
        yield from sorted(group, key=lambda row: place(field, row), reverse=reverse)


def span(expression: search.Expression, order: str) -> tuple[int | None, int | None]:
    """Return the first and last value in that order that a match can have."""
    found: list[int | None] = [None, None]
    for name in (name for name, of in _TIMES.items() if of == order):
        for at, text in enumerate(search.bounds(expression, name)):
            try:
                found[at] = search.millis(text) if text is not None else found[at]
            except ValueError:
                continue  # ignored by the search as well
    return found[0], found[1]


def paged(rows: Iterable[Row], field: str, first: int | None, start: Position | None, reverse: bool) -> Row:
    if first is None or not 1 <= first <= PAGE:
        raise GraphQLError(f"you must provide one of first or last, from 1 to {PAGE}")
    left = (row for row in rows if start is None or (place(field, row) < start if reverse else place(field, row) > start))
    found = list(islice(left, first + 1))
    edges = [{"cursor": cursor(field, row), "node": row} for row in found[:first]]
    info = {
        "hasNextPage": len(found) > first,
        "hasPreviousPage": start is not None,
        "startCursor": edges[0]["cursor"] if edges else None,
        "endCursor": edges[-1]["cursor"] if edges else None,
    }
    return {"nodes": found[:first], "edges": edges, "pageInfo": info}


def lines(items: list[Row], first: int | None, after: str | None, reverse: bool) -> Row:
    return paged(reversed(items) if reverse else items, "id", first, read_cursor(after) if after else None, reverse)


def cursor(field: str, row: Row) -> str:
    value, ties = place(field, row)
    return base64.b64encode(orjson.dumps({"last_id": ties, "last_value": value})).decode()


def read_cursor(cursor: str) -> Position:
    try:
        said = orjson.loads(base64.b64decode(cursor, validate=True))
        return int(said["last_value"]), int(said["last_id"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise GraphQLError("Invalid cursor for current pagination sort.") from error
