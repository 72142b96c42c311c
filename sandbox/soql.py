"""SOQL: a grammar for what clients send, and its evaluation over rows."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput

_GRAMMAR = r"""
start: query
query: _SELECT select _FROM NAME [_WHERE condition] [_ORDER _BY order ("," order)*] [limit] [offset]
select: _COUNT "(" ")" -> count
      | item ("," item)* -> items
item: path | "(" query ")" -> child
path: NAME ("." NAME)*
?condition: conjunction (_OR conjunction)* -> any_of
?conjunction: negation (_AND negation)* -> all_of
?negation: _NOT negation -> negated
         | "(" condition ")"
         | comparison
comparison: path OPERATOR value -> compared
          | path _LIKE value -> like
          | path _IN "(" value ("," value)* ")" -> among
          | path _NOT _IN "(" value ("," value)* ")" -> not_among
order: path [DIRECTION] [NULLS]
limit: _LIMIT INT
offset: _OFFSET INT
value: STRING -> text | DATETIME -> datetime | DATE -> date | NUMBER -> number | INT -> number | CONSTANT -> constant

_SELECT.3: /select\b/i
_FROM.3: /from\b/i
_WHERE.3: /where\b/i
_ORDER.3: /order\b/i
_BY.3: /by\b/i
_LIMIT.3: /limit\b/i
_OFFSET.3: /offset\b/i
_AND.3: /and\b/i
_OR.3: /or\b/i
_NOT.3: /not\b/i
_IN.3: /in\b/i
_LIKE.3: /like\b/i
_COUNT.4: /count(?=\s*\()/i
CONSTANT.3: /(true|false|null)\b/i
DIRECTION.3: /(asc|desc)\b/i
NULLS.3: /nulls\s+(first|last)\b/i
DATETIME.5: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)/
DATE.4: /\d{4}-\d\d-\d\d/
NUMBER.2: /[+-]?\d+\.\d+/
INT.1: /[+-]?\d+/
STRING: /'(\\.|[^'\\])*'/s
OPERATOR: "!=" | "<>" | "<=" | ">=" | "=" | "<" | ">"
NAME: /[A-Za-z][A-Za-z0-9_]*/
%ignore /\s+/
"""
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}

Row = Mapping[str, Any]
Predicate = Callable[[Row], bool]


class MalformedQuery(Exception):
    """The text is not SOQL."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One test on one field. `operator` is = != < <= > >= like in or "not in"; values are converted literals."""

    path: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Logic:
    """`word` is and, or, not."""

    word: str
    parts: tuple["Comparison | Logic", ...]


@dataclass(frozen=True, slots=True)
class Ordering:
    path: str
    descending: bool
    nulls_last: bool


@dataclass(frozen=True, slots=True)
class Query:
    paths: tuple[str, ...]
    children: tuple["Query", ...]
    count: bool
    table: str
    condition: Comparison | Logic | None
    order: tuple[Ordering, ...]
    limit: int | None
    offset: int


def parse(text: str) -> Query:
    """Return the query.

    Raises:
        MalformedQuery: with what was not expected.
    """
    try:
        query: Query = _Build().transform(_PARSER.parse(text))
    except UnexpectedInput as error:
        raise MalformedQuery(f"unexpected token: {getattr(error, 'token', None) or getattr(error, 'char', '<EOF>')}") from error
    return query


class _Build(Transformer[Token, Any]):
    """Parse tree to Query, bottom up."""

    def start(self, found: list[Any]) -> Query:
        return found[0]  # type: ignore[no-any-return]

    def query(self, found: list[Any]) -> Query:
        select, table, condition, *rest = found
        items = [] if select == "count" else select
        paths = tuple(each for each in items if isinstance(each, str))
        children = tuple(each for each in items if isinstance(each, Query))
        orders = tuple(each for each in rest if isinstance(each, Ordering))
        numbers: dict[str, int] = dict(each for each in rest if isinstance(each, tuple))
        return Query(
            paths, children, select == "count", str(table), condition, orders, numbers.get("limit"), numbers.get("offset", 0)
        )

    def count(self, _: list[Any]) -> str:
        return "count"

    def items(self, found: list[Any]) -> list[Any]:
        return found

    def item(self, found: list[Any]) -> Any:
        return found[0]

    child = item

    def path(self, found: list[Token]) -> str:
        return ".".join(found)

    def any_of(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else Logic("or", tuple(found))

    def all_of(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else Logic("and", tuple(found))

    def negated(self, found: list[Any]) -> Logic:
        return Logic("not", tuple(found))

    def compared(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "!=" if found[1] == "<>" else str(found[1]), (found[2],))

    def like(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "like", (found[1],))

    def among(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "in", tuple(found[1:]))

    def not_among(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "not in", tuple(found[1:]))

    def order(self, found: list[Any]) -> Ordering:
        path, *words = [str(each).lower() if nth else each for nth, each in enumerate(found) if each is not None]
        return Ordering(path, "desc" in words, any(word.endswith("last") for word in words))

    def limit(self, found: list[Token]) -> tuple[str, int]:
        return ("limit", int(found[0]))

    def offset(self, found: list[Token]) -> tuple[str, int]:
        return ("offset", int(found[0]))

    def text(self, found: list[Token]) -> str:
        return re.sub(r"\\(.)", lambda each: _ESCAPES.get(each[1], each[1]), found[0][1:-1], flags=re.DOTALL)

    def datetime(self, found: list[Token]) -> datetime:
        return datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", found[0])).astimezone(UTC)

    def date(self, found: list[Token]) -> str:
        return str(found[0])

    def number(self, found: list[Token]) -> float:
        return float(found[0])

    def constant(self, found: list[Token]) -> bool | None:
        return {"true": True, "false": False, "null": None}[found[0].lower()]


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)


def comparisons(condition: Comparison | Logic | None) -> Iterator[Comparison]:
    """Walk every comparison of a condition."""
    if isinstance(condition, Comparison):
        yield condition
    elif condition is not None:
        for part in condition.parts:
            yield from comparisons(part)


def holds(condition: Comparison | Logic | None, value_of: Callable[[str], Any]) -> bool:
    """Evaluate a condition; `value_of` gives a path's comparable value."""
    if condition is None:
        return True
    if isinstance(condition, Logic):
        if condition.word == "not":
            return not holds(condition.parts[0], value_of)
        results = (holds(part, value_of) for part in condition.parts)
        return all(results) if condition.word == "and" else any(results)
    return _compare(condition, value_of(condition.path))


def _compare(test: Comparison, value: Any) -> bool:
    if test.operator == "in":
        return any(_equal(value, each) for each in test.values)
    if test.operator == "not in":
        return not any(_equal(value, each) for each in test.values)
    wanted = test.values[0]
    if test.operator == "=":
        return _equal(value, wanted)
    if test.operator == "!=":
        return not _equal(value, wanted)
    if value is None or wanted is None:
        return False
    if test.operator == "like":
        pattern = "".join(".*" if each == "%" else "." if each == "_" else re.escape(each) for each in str(wanted))
        return re.fullmatch(pattern, str(value), re.IGNORECASE | re.DOTALL) is not None
    try:
        return bool({"<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted}[test.operator])
    except TypeError:
        return False


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.lower() == wanted.lower()  # text compares without case in SOQL
    return bool(value == wanted)


def bound(condition: Comparison | Logic | None, path: str, *, upper: bool) -> Any:
    """Return a value that `path` of every match lies at or beyond (at or above; with `upper` at or below), None if unknown."""
    if isinstance(condition, Comparison):
        return (
            condition.values[0]
            if condition.path == path and condition.operator in ({"<", "<=", "="} if upper else {">", ">=", "="})
            else None
        )
    if condition is None or condition.word == "not":
        return None
    found = [bound(part, path, upper=upper) for part in condition.parts]
    if condition.word == "and":
        known = [each for each in found if each is not None]
        return (min(known) if upper else max(known)) if known else None
    return None if None in found else (max(found) if upper else min(found))


def equals(condition: Comparison | Logic | None, path: str) -> Sequence[Any] | None:
    """Return the values that `path` of every match is among, None if unknown."""
    if isinstance(condition, Comparison):
        return condition.values if condition.path == path and condition.operator in {"=", "in"} else None
    if condition is None or condition.word == "not":
        return None
    found = [equals(part, path) for part in condition.parts]
    if condition.word == "and":
        return next((each for each in found if each is not None), None)
    return None if None in found else [value for each in found for value in each or ()]
