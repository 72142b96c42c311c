"""HubSpot's search: filter groups, one sort, a cap of 10,000 results, and what it costs to count all matches.

From the search guide. Archived records are never found; ties are in no stated order, so here they are in none.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from sandbox.hubspot_answers import Loose, Refusal, millis, shuffled
from sandbox.hubspot_properties import PROPERTIES, created, modified
from sandbox.table import Row, Table

_PAGE, _CAP = 200, 10_000
_OPERATORS = frozenset([
    "EQ", "NEQ", "LT", "LTE", "GT", "GTE", "BETWEEN", "IN", "NOT_IN", "HAS_PROPERTY", "NOT_HAS_PROPERTY", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN",
])  # fmt: skip
_INDEXES = {"email": "email", "hs_additional_emails": "more", "hs_searchable_calculated_phone_number": "phone"}


class Filter(Loose):
    propertyName: str
    operator: str
    value: str | None = None
    highValue: str | None = None
    values: list[str] | None = None


class Group(Loose):
    filters: list[Filter]


class Sort(Loose):
    propertyName: str
    direction: Literal["ASCENDING", "DESCENDING"] = "ASCENDING"


class Search(Loose):
    filterGroups: list[Group] = Field(default_factory=list)
    sorts: list[Sort | str] = Field(default_factory=list)
    query: str | None = None
    properties: list[str] | None = None
    limit: int = 10
    after: str | None = None

    @property
    def sort(self) -> Sort | None:
        if not self.sorts:
            return None
        given = self.sorts[0]
        if isinstance(given, Sort):
            return given
        return Sort(propertyName=given.removeprefix("-"), direction="DESCENDING" if given.startswith("-") else "ASCENDING")

    @property
    def filters(self) -> list[Filter]:
        return [each for group in self.filterGroups for each in group.filters]


def check(kind: str, asked: Search) -> None:
    """Raise the vendor's refusal of a search that it would not run."""
    if not 1 <= asked.limit <= _PAGE:
        raise _bad(f"Invalid input JSON: limit must be between 1 and {_PAGE}")
    if len(asked.filterGroups) > 5 or any(len(group.filters) > 6 for group in asked.filterGroups) or len(asked.filters) > 18:
        raise _bad("Too many filters: at most 5 filterGroups of at most 6 filters each and 18 in all are allowed.")
    if len(asked.sorts) > 1:
        raise _bad("Only one sort is allowed.")
    if asked.after is not None and not asked.after.isdigit():
        raise _bad("Invalid input JSON: after must be a number")
    if int(asked.after or 0) >= _CAP:
        raise _bad(f"There was a problem with the request: after must be below {_CAP}")
    for name in [*(each.propertyName for each in asked.filters), *([asked.sort.propertyName] if asked.sort else [])]:
        if name not in PROPERTIES[kind]:
            raise _bad(f"There was a problem with the request: Property {name} does not exist")
    for each in asked.filters:
        if each.operator not in _OPERATORS:
            raise _bad(f"Invalid input JSON: unknown operator {each.operator}")
        if each.operator in {"IN", "NOT_IN"} and each.values is None:
            raise _bad(f"operator {each.operator} requires values")
        if each.operator == "BETWEEN" and each.highValue is None:
            raise _bad("operator BETWEEN requires highValue")


def found(kind: str, table: Table[Any], hidden: set[str], asked: Search) -> tuple[list[Row], int]:
    """Return a checked search's page of rows, and how many match in all."""
    start = int(asked.after or 0)
    ordered = _by_keys(kind, table, hidden, asked)
    if ordered is not None:
        ids, total = _page_of_keys(ordered, start, asked), len(ordered)
        return [row for id in ids if (row := table.get(id)) is not None], total
    rows = [row for row in _candidates(kind, table, asked) if row["id"] not in hidden and _matches(kind, row, asked)]
    if (sort := asked.sort) is not None:
        name = sort.propertyName
        # Rows without a value come last.
        rows.sort(
            key=lambda row: (_comparable(kind, name, row["properties"].get(name)), shuffled(row["id"])),
            reverse=sort.direction == "DESCENDING",
        )
    return rows[start : start + asked.limit], len(rows)


def _bad(message: str) -> Refusal:
    return Refusal(400, "VALIDATION_ERROR", message)


# ---- by the keys that tables are ordered by: nothing is rendered but the page ----


def _by_keys(kind: str, table: Table[Any], hidden: set[str], asked: Search) -> list[tuple[int, str]] | None:
    """Return (value sorted by, id) of all matches in order; None when more than times and ids are asked about."""
    columns = {created(kind): "created", modified(kind): "updated", "hs_object_id": "id"}
    sort = asked.sort
    simple = all(each.propertyName in columns and each.operator in _KEY_TESTS for each in asked.filters)
    if sort is None or sort.propertyName not in columns or asked.query or not simple:
        return None
    try:
        groups = [[(columns[each.propertyName], _key_test(each)) for each in group.filters] for group in asked.filterGroups]
    except ValueError:
        return None
    order = columns[sort.propertyName]

    def matches(value: int, id: str) -> bool:
        return not groups or any(
            all(test(value if column == order else table.value(column, id)) for column, test in group) for group in groups
        )

    keys = table.keys(order, descending=sort.direction == "DESCENDING")
    return [(value, id) for value, id in keys if id not in hidden and matches(value, id)]


def _page_of_keys(ordered: list[tuple[int, str]], start: int, asked: Search) -> list[str]:
    """Cut a page out, with equal times in no order that the vendor states."""
    low, high = start, min(start + asked.limit, len(ordered))
    if low >= high:
        return []
    while low > 0 and ordered[low - 1][0] == ordered[start][0]:
        low -= 1
    last = ordered[high - 1][0]
    while high < len(ordered) and ordered[high][0] == last:
        high += 1
    sort = asked.sort
    group = sorted(
        ordered[low:high],
        key=lambda each: (each[0], shuffled(each[1])),
        reverse=sort is not None and sort.direction == "DESCENDING",
    )
    return [id for _, id in group[start - low : start - low + asked.limit]]


_KEY_TESTS: Mapping[str, Callable[[int, int, int], bool]] = {
    "EQ": lambda value, low, _: value == low, "GT": lambda value, low, _: value > low, "GTE": lambda value, low, _: value >= low,
    "LT": lambda value, low, _: value < low, "LTE": lambda value, low, _: value <= low, "BETWEEN": lambda value, low, high: low <= value <= high,
}  # fmt: skip


def _key_test(each: Filter) -> Callable[[int], bool]:
    compare, low = _KEY_TESTS[each.operator], millis(each.value)
    high = millis(each.highValue) if each.highValue is not None else low
    return lambda value: compare(value, low, high)


# ---- by rows ----


def _candidates(kind: str, table: Table[Any], asked: Search) -> Iterable[Row]:
    """Return rows among which all matches are: by an index, by a span of time, or all."""
    some: dict[str, Row] = {}
    for group in asked.filterGroups:
        rows = _narrowed(kind, table, group)
        if rows is None:
            return table
        some |= {row["id"]: row for row in rows}
    return some.values() if asked.filterGroups else table


def _narrowed(kind: str, table: Table[Any], group: Group) -> Iterable[Row] | None:
    for each in group.filters:
        values = each.values if each.operator == "IN" else [each.value or ""] if each.operator == "EQ" else None
        if values is not None and each.propertyName == "hs_object_id":
            return [row for value in values if (row := table.get(value)) is not None]
        index = _INDEXES.get(each.propertyName)
        if values is not None and index is not None and index in table.indexed:
            return table.having(index, [value.lower() for value in values])
    times = {created(kind): "created", modified(kind): "updated"}
    for each in group.filters:
        if each.operator in {"GT", "GTE", "EQ", "BETWEEN"} and each.propertyName in times:
            return _until(table.walk(times[each.propertyName], start=millis(each.value)), each)
    return None


def _until(rows: Iterator[Row], each: Filter) -> Iterator[Row]:
    """Stop a walk up in time where a filter's upper end lies."""
    end = millis(each.value) if each.operator == "EQ" else millis(each.highValue) if each.operator == "BETWEEN" else None
    for row in rows:
        if end is not None and (millis(row["properties"].get(each.propertyName)) or 0) > end:
            return
        yield row


def _matches(kind: str, row: Row, asked: Search) -> bool:
    if asked.query and not any(asked.query.lower() in str(value).lower() for value in row["properties"].values() if value):
        return False
    return not asked.filterGroups or any(all(_holds(kind, row, each) for each in group.filters) for group in asked.filterGroups)


def _holds(kind: str, row: Row, each: Filter) -> bool:
    name = each.propertyName
    value = row["properties"].get(name)
    several = str(value).lower().split(";") if name == "hs_additional_emails" and value else None
    if each.operator == "HAS_PROPERTY":
        return value not in (None, "")
    if each.operator == "NOT_HAS_PROPERTY":
        return value in (None, "")
    if each.operator in {"NEQ", "NOT_IN", "NOT_CONTAINS_TOKEN"}:
        opposite = {"NEQ": "EQ", "NOT_IN": "IN", "NOT_CONTAINS_TOKEN": "CONTAINS_TOKEN"}[each.operator]
        return not _holds(kind, row, each.model_copy(update={"operator": opposite}))
    if value is None:
        return False
    if each.operator == "CONTAINS_TOKEN":
        wanted = (each.value or "").lower().strip("*")
        return any(wanted in token for token in re.split(r"[\s;]+", str(value).lower()))
    mine = _comparable(kind, name, value)
    if each.operator == "IN":
        return (
            any(one in (each.values or ()) for one in several)
            if several
            else any(mine == _comparable(kind, name, one) for one in each.values or ())
        )
    other = _comparable(kind, name, each.value)
    match each.operator:
        case "EQ":
            return other[1] in several if several else bool(mine == other)
        case "GT":
            return bool(mine > other)
        case "GTE":
            return bool(mine >= other)
        case "LT":
            return bool(mine < other)
        case "LTE":
            return bool(mine <= other)
        case _:
            return bool(other <= mine <= _comparable(kind, name, each.highValue))


def _comparable(kind: str, name: str, value: str | None) -> tuple[int, Any]:
    """Return a value that compares as its property type does; no value is the greatest."""
    if value in (None, ""):
        return (1, 0)
    type = PROPERTIES[kind][name][0]
    try:
        if type == "datetime":
            return (0, millis(value))
        if type == "number":
            return (0, float(str(value)))
    except ValueError:
        return (1, 0)
    return (0, str(value).lower())
