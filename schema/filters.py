"""Conditions on custom fields, as callers write them."""

import datetime as dt
from decimal import Decimal
from typing import Any

import strawberry
from strawberry import ID

from model.errors import InvalidRequestError
from resolvers.filters import Condition, Shape

MAX_CONDITIONS = 10
_OPERATORS = ("eq", "in_", "contains", "starts_with", "is_null", "gt", "gte", "lt", "lte")


@strawberry.input
class StringFilter:
    eq: str | None = strawberry.UNSET
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET)
    contains: str | None = strawberry.UNSET
    starts_with: str | None = strawberry.UNSET
    is_null: bool | None = strawberry.UNSET


@strawberry.input
class DecimalFilter:
    eq: Decimal | None = strawberry.UNSET
    gt: Decimal | None = strawberry.UNSET
    gte: Decimal | None = strawberry.UNSET
    lt: Decimal | None = strawberry.UNSET
    lte: Decimal | None = strawberry.UNSET


@strawberry.input
class DateTimeFilter:
    gt: dt.datetime | None = strawberry.UNSET
    gte: dt.datetime | None = strawberry.UNSET
    lt: dt.datetime | None = strawberry.UNSET
    lte: dt.datetime | None = strawberry.UNSET


@strawberry.input(description="One custom field's value passes all tests given. `source`: only that source's records can match.")
class CustomFieldFilter:
    key: str
    source: ID | None = None
    string: StringFilter | None = None
    number: DecimalFilter | None = None
    date_time: DateTimeFilter | None = None


@strawberry.input(description="Tested on what is read, record by record: a page may come short, with more behind it.")
class DealFilter:
    custom: list[CustomFieldFilter] | None = None


@strawberry.input(description="Tested on what is read, record by record: a page may come short, with more behind it.")
class CustomerFilter:
    custom: list[CustomFieldFilter] | None = None


def conditions_of(given: list[CustomFieldFilter] | None) -> tuple[Condition, ...]:
    """Return the conditions, all of which must hold.

    Raises:
        InvalidRequestError: one of them tests nothing, or there are too many.
    """
    if given and len(given) > MAX_CONDITIONS:
        raise InvalidRequestError(f"`where` takes at most {MAX_CONDITIONS} conditions, not {len(given)}")
    found: list[Condition] = []
    for each in given or ():
        shapes: tuple[tuple[Shape, Any], ...] = (
            ("string", each.string), ("number", each.number), ("date_time", each.date_time),
        )  # fmt: skip
        said = [(shape, tests) for shape, filter_ in shapes if filter_ is not None and (tests := _tests(filter_))]
        if not said:
            raise InvalidRequestError(f"the condition on {each.key!r} tests nothing")
        found += [Condition(key=each.key, source=each.source, shape=shape, tests=tests) for shape, tests in said]
    return tuple(found)


def _tests(given: object) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    for name in _OPERATORS:
        value = getattr(given, name, strawberry.UNSET)
        if value is strawberry.UNSET or value is None:
            continue
        if isinstance(value, dt.datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=dt.UTC)
        found.append((name.rstrip("_"), tuple(value) if isinstance(value, list) else value))
    return tuple(found)
