"""Magento's `searchCriteria`, and its `fields` that trims an answer, over a table.

From "Search using REST endpoints" and issues 3787 (a page past the end is the last one) and 23609 (`fields` without `items[…]`
empties a list). Groups are AND-ed, the filters of one are OR-ed. Text is compared without regard to case, as MySQL's default
collation does; rows that tie stand in no order that anyone states, unless a second order says one.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Literal

from sandbox.table import Row, Table

Kind = Literal["number", "time", "text"]
Test = Callable[[Any], bool]
Key = tuple[Any, str]  # what a row is ordered by, and its id
CONDITIONS = frozenset({
    "eq", "finset", "from", "gt", "gteq", "in", "like", "lt", "lteq", "moreq", "neq", "nfinset", "nin", "nlike", "notnull", "null", "to",
})  # fmt: skip
WALKED = frozenset({"entity_id", "created_at", "updated_at"})  # the orders that tables keep
_RANGES = {"gt": "gt", "gteq": "gteq", "from": "gteq", "moreq": "gteq", "lt": "lt", "lteq": "lteq", "to": "lteq"}
_LIMIT, _DEFAULT = 300, 20  # rows a page, where a shop limits input


class QueryError(Exception):
    """A refusal: the message with placeholders, and their values."""

    def __init__(self, message: str, **parameters: Any) -> None:
        super().__init__(message)
        self.message, self.parameters = message, parameters


@dataclass(frozen=True, slots=True)
class Filter:
    field: str
    value: str
    condition: str


@dataclass(frozen=True, slots=True)
class Criteria:
    groups: list[list[Filter]]
    sorts: list[tuple[str, bool]]  # (field, descending)
    size: int | None
    page: int

    def echoed(self) -> Row:
        groups = [
            {"filters": [{"field": each.field, "value": each.value, "condition_type": each.condition} for each in group]}
            for group in self.groups
        ]
        said: Row = {"filter_groups": groups}
        if self.sorts:
            said["sort_orders"] = [{"field": name, "direction": "DESC" if down else "ASC"} for name, down in self.sorts]
        return said | ({"page_size": self.size} if self.size else {}) | {"current_page": self.page}


@dataclass(frozen=True, slots=True)
class Columns:
    """What can be searched.

    Attributes:
        id: the column of the id in a row.
        kinds: column → how it is compared.
        names: column → where it is in a row, when under another name.
    """

    id: str
    kinds: Mapping[str, Kind]
    names: Mapping[str, str] = field(default_factory=dict)

    def value(self, row: Row, column: str) -> Any:
        return comparable(row.get(self.names.get(column, column)), self.kinds[column])


def parsed(said: Iterable[tuple[str, str]], *, limited: bool) -> Criteria:
    """Read `searchCriteria[…]`, in camel or snake spelling.

    Args:
        limited: the shop limits input: 20 rows a page unless it is asked for more, 300 at most.
    """
    tree: dict[str, Any] = {}
    found = False
    for key, value in said:
        if not key.startswith("searchCriteria"):
            continue
        found = True
        path = [_snake(part) for part in re.findall(r"\[([^\]]*)\]", key)]
        place = tree
        for part in path[:-1]:
            place = place.setdefault(part, {})
        if path:
            place[path[-1]] = value
    if not found:
        raise QueryError('"%fieldName" is required. Enter and try again.', fieldName="searchCriteria")
    groups = [[_filter(each) for each in _listed(group.get("filters"))] for group in _listed(tree.get("filter_groups"))]
    sorts = [
        (each.get("field", ""), each.get("direction", "DESC").upper() == "DESC") for each in _listed(tree.get("sort_orders"))
    ]
    size = _whole(tree.get("page_size"), "pageSize")
    if limited and (size or _DEFAULT) > _LIMIT:
        raise QueryError("Maximum SearchCriteria pageSize is %max", max=_LIMIT)
    return Criteria(
        groups, sorts, size or (_DEFAULT if limited else None), max(_whole(tree.get("current_page"), "currentPage"), 1)
    )


def searched(table: Table[Any], columns: Columns, criteria: Criteria) -> tuple[list[Row], int]:
    """Return the rows of the page asked for, and how many match in all."""
    for name in (*(each.field for group in criteria.groups for each in group), *(name for name, _ in criteria.sorts)):
        if name not in columns.kinds:
            raise QueryError("Invalid attribute name: %1", **{"1": name})
    tests = [[_test(each, columns.kinds[each.field]) for each in group] for group in criteria.groups]
    pinned = _pinned(table, criteria)
    sorts = criteria.sorts
    tied = len(sorts) < 2 or (len(sorts) == 2 and sorts[1] == ("entity_id", sorts[0][1]))
    if pinned is None and tied and (not sorts or sorts[0][0] in WALKED):
        ids = _walked(table, columns, criteria, tests)
        return [row for id in ids[_page(criteria, len(ids))] if (row := table.get(id)) is not None], len(ids)
    rows = [row for row in (table if pinned is None else pinned) if _holds(tests, criteria, partial(columns.value, row))]
    rows.sort(key=lambda row: _shuffled(str(row[columns.id])))
    for name, down in reversed(criteria.sorts):
        rows.sort(key=lambda row: _sortable(columns.value(row, name)), reverse=down)
    return rows[_page(criteria, len(rows))], len(rows)


def projected(body: Any, fields: str) -> Any:
    """Return what `fields` leaves of an answer: [] when it cannot be read; lists that are empty become null."""
    tree = _tree(fields)
    return [] if tree is None else _kept(body, tree)


def comparable(value: Any, kind: Kind) -> Any:
    if value is None or value == "":
        return None
    if kind == "number":
        return float(value)
    return millis(str(value)) if kind == "time" else str(value).lower()


def millis(text: str) -> int:
    """Read `Y-m-d H:i:s`, which is UTC and says no zone."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# ---- searching ----


def _pinned(table: Table[Any], criteria: Criteria) -> list[Row] | None:
    """Return the few rows that a filter by an id or an indexed value leaves, None when there is no such filter."""
    for group in criteria.groups:
        if len(group) != 1 or group[0].condition not in {"eq", "in"}:
            continue
        values = [each.strip().lower() for each in group[0].value.split(",")]
        if group[0].field == "entity_id":
            return [row for id in dict.fromkeys(values) if (row := table.get(id)) is not None]
        if group[0].field in table.indexed:
            return table.having(group[0].field, values)
    return None


def _walked(table: Table[Any], columns: Columns, criteria: Criteria, tests: list[list[Test]]) -> list[str]:
    """Return the ids of all rows that match, in order: by the keys alone where the filters allow, for shops are big."""
    column, down = criteria.sorts[0] if criteria.sorts else ("entity_id", False)
    lows: list[Any] = []
    highs: list[Any] = []
    rest: list[list[tuple[Callable[[Key], Any], Test]]] = []
    for group, of in zip(criteria.groups, tests, strict=True):
        condition = _RANGES.get(group[0].condition, "") if len(group) == 1 and group[0].field == column else ""
        if condition:
            (lows if condition in {"gt", "gteq"} else highs).append(comparable(group[0].value, columns.kinds[column]))
        if condition not in {"gteq", "lteq"}:  # these are said by the ends of the walk
            takers = [partial(_light, table, columns, column, each.field) for each in group]
            rest.append(list(zip(takers, of, strict=True)))
    low, high = max(lows, default=None), min(highs, default=None)
    start, stop = (high, low) if down else (low, high)
    chosen: list[Key] = []
    for key in table.keys(column, start=start, descending=down):
        if stop is not None and (key[0] < stop if down else key[0] > stop):
            break
        for alternatives in rest:
            if not any(test(take(key)) for take, test in alternatives):
                break
        else:
            chosen.append(key)
    if len(criteria.sorts) == 1 and column != "entity_id":
        chosen.sort(key=lambda key: (key[0], _shuffled(key[1])), reverse=down)
    return [id for _, id in chosen]


def _light(table: Table[Any], columns: Columns, column: str, name: str, key: Key) -> Any:
    """Return a row's value, rendering the row only where nothing else tells it."""
    if name == column:
        return key[0]
    return table.value(name, key[1]) if name in WALKED else columns.value(table.get(key[1]) or {}, name)


def _holds(tests: list[list[Test]], criteria: Criteria, value: Callable[[str], Any]) -> bool:
    return all(
        any(test(value(each.field)) for each, test in zip(group, of, strict=True))
        for group, of in zip(criteria.groups, tests, strict=True)
    )


def _page(criteria: Criteria, total: int) -> slice:
    if criteria.size is None:
        return slice(None)
    page = min(criteria.page, max(-(-total // criteria.size), 1))
    return slice((page - 1) * criteria.size, page * criteria.size)


def _test(filter: Filter, kind: Kind) -> Test:
    condition = _RANGES.get(filter.condition, filter.condition)
    many = {comparable(each.strip(), kind) for each in filter.value.split(",")} if condition in {"in", "nin"} else set()
    one = comparable(filter.value, kind) if condition in {"eq", "neq", "gt", "gteq", "lt", "lteq"} else None
    pattern = filter.value.lower().replace("*", "[*]").replace("?", "[?]").replace("%", "*").replace("_", "?")
    match condition:
        case "null":
            return lambda value: value is None
        case "notnull":
            return lambda value: value is not None
        case "eq":
            return lambda value: value is not None and value == one
        case "neq":
            return lambda value: value is not None and value != one
        case "in":
            return lambda value: value is not None and value in many
        case "nin":
            return lambda value: value is not None and value not in many
        case "gt":
            return lambda value: value is not None and value > one
        case "gteq":
            return lambda value: value is not None and value >= one
        case "lt":
            return lambda value: value is not None and value < one
        case "lteq":
            return lambda value: value is not None and value <= one
        case "like":
            return lambda value: value is not None and fnmatchcase(str(value), pattern)
        case "nlike":
            return lambda value: value is not None and not fnmatchcase(str(value), pattern)
        case "finset":
            return lambda value: value is not None and filter.value.lower() in str(value).split(",")
    return lambda value: value is not None and filter.value.lower() not in str(value).split(",")


def _filter(said: Mapping[str, str]) -> Filter:
    condition = said.get("condition_type", "eq")
    if "field" not in said or condition not in CONDITIONS:
        raise QueryError("Invalid filter condition: %1", **{"1": condition})
    return Filter(said["field"], said.get("value", ""), condition)


def _listed(tree: Any) -> list[Any]:
    return [tree[key] for key in sorted(tree, key=lambda key: int(key) if key.isdigit() else 0)] if isinstance(tree, dict) else []


def _whole(said: Any, name: str) -> int:
    if said in (None, ""):
        return 0
    if not str(said).isdigit():
        raise QueryError('The "%1" value\'s type is invalid. The "int" type was expected.', **{"1": name})
    return int(said)


def _snake(part: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda found: f"_{found[1].lower()}", part)


def _shuffled(id: str) -> int:
    return int(id) * 2_654_435_761 % 4_294_967_296


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)


# ---- trimming ----


def _tree(text: str) -> dict[str, Any] | None:
    if not re.fullmatch(r"[\w\[\],]+", text):
        return None
    stack: list[dict[str, Any]] = [{}]
    last = ""
    for token in re.findall(r"\w+|[\[\],]", text):
        if token == "[":
            stack.append(stack[-1].setdefault(last, {}))
        elif token == "]":
            if len(stack) == 1:
                return None
            stack.pop()
        elif token != ",":
            stack[-1].setdefault(token, {})
            last = token
    return stack[0] if len(stack) == 1 else None


def _kept(value: Any, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_kept(each, tree) for each in value] or None
    if not isinstance(value, dict) or not tree:
        return value
    kept = {name: _kept(inner, tree[name]) if tree[name] else inner for name, inner in value.items() if name in tree}
    return kept or []  # PHP knows one empty array for both
