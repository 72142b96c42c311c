"""COQL: Zoho's query language: a grammar for what its documents show, evaluated with the parts of `sandbox/soql.py`.

What sets it apart: `limit offset, count`; times, dates and ids quoted; at most two criteria a level without brackets; a `where` that
may not be missing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import VisitError

from sandbox.soql import Comparison, Logic, comparisons

_GRAMMAR = r"""
start: _SELECT path ("," path)* _FROM NAME [_WHERE condition] [_ORDER _BY order ("," order)*] [limit]
path: NAME ("." NAME)*
?condition: operand
          | operand _AND operand -> both
          | operand _OR operand -> either
?operand: "(" condition ")" | comparison
comparison: path OPERATOR value -> compared
          | path _LIKE value -> like
          | path _IN "(" value ("," value)* ")" -> among
          | path _NOT _IN "(" value ("," value)* ")" -> not_among
          | path _BETWEEN value _AND value -> between
          | path _IS _NULL -> empty
          | path _IS _NOT _NULL -> filled
order: path [DIRECTION]
limit: _LIMIT INT ["," INT] -> from_to
     | _LIMIT INT _OFFSET INT -> count_from
value: STRING -> text | NUMBER -> number | INT -> number | BOOLEAN -> boolean

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
_IS.3: /is\b/i
_NULL.3: /null\b/i
_LIKE.3: /like\b/i
_BETWEEN.3: /between\b/i
BOOLEAN.3: /(true|false)\b/i
DIRECTION.3: /(asc|desc)\b/i
NUMBER.2: /[+-]?\d+\.\d+/
INT.1: /[+-]?\d+/
STRING: /'(\\.|[^'\\])*'/s
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">"
NAME: /[A-Za-z$][A-Za-z0-9_$]*/
%ignore /\s+/
"""
COLUMNS, CRITERIA, VALUES, ROWS, REACH = 500, 25, 100, 2000, 100_000  # API v7 and later


class Malformed(Exception):
    """The text is no COQL, or goes beyond a limit: the vendor's code, message and details."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


@dataclass(frozen=True, slots=True)
class Query:
    """`order` holds (path, descending)."""

    paths: tuple[str, ...]
    module: str
    condition: Comparison | Logic
    order: tuple[tuple[str, bool], ...]
    offset: int
    limit: int


def parse(text: str) -> Query:
    """Return the query.

    Raises:
        Malformed: with the vendor's code.
    """
    try:
        query: Query = _Build().transform(_PARSER.parse(text))
    except UnexpectedInput as error:
        near = str(getattr(error, "token", None) or getattr(error, "char", "") or "")
        raise Malformed("SYNTAX_ERROR", "invalid query formed", line=1, column=error.column or 1, near=near) from error
    except VisitError as error:
        raise error.orig_exc from error
    _within_limits(query)
    return query


def typed(condition: Comparison | Logic, convert: Callable[[str, Any], Any]) -> Comparison | Logic:
    """Return the condition with each value converted by its path: the text of a time becomes a time."""
    if isinstance(condition, Comparison):
        values = tuple(None if each is None else convert(condition.path, each) for each in condition.values)
        return Comparison(condition.path, condition.operator, values)
    return Logic(condition.word, tuple(typed(part, convert) for part in condition.parts))


def _within_limits(query: Query) -> None:
    if len(query.paths) > COLUMNS:
        raise Malformed("LIMIT_EXCEEDED", "more columns than allowed in select clause", limit=COLUMNS, clause="select")
    tests = list(comparisons(query.condition))
    if len(tests) > CRITERIA:
        raise Malformed("LIMIT_EXCEEDED", "more criteria than allowed in where clause", limit=CRITERIA, clause="where")
    if any(len(each.values) > VALUES for each in tests if each.operator in {"in", "not in"}):
        raise Malformed("LIMIT_EXCEEDED", "more values than allowed in IN", limit=VALUES, clause="where", operator="in")
    if query.limit > ROWS:
        raise Malformed("LIMIT_EXCEEDED", "limit is higher than allowed", limit=ROWS, clause="limit")
    if query.offset + query.limit > REACH:
        raise Malformed("LIMIT_EXCEEDED", "records beyond the limit cannot be fetched", limit=REACH, clause="offset")
    if len({path for path, _ in query.order}) < len(query.order):
        raise Malformed("DUPLICATE_DATA", "duplicate field in order by", clause="order by")


class _Build(Transformer[Token, Any]):
    """Parse tree to Query, bottom up."""

    def start(self, found: list[Any]) -> Query:
        at = next(nth for nth, each in enumerate(found) if isinstance(each, Token))
        rest = found[at + 1 :]
        condition = next((each for each in rest if isinstance(each, Comparison | Logic)), None)
        if condition is None:
            raise Malformed("SYNTAX_ERROR", "missing clause", clause="where")
        order = tuple(each[1:] for each in rest if isinstance(each, tuple) and each[0] == "order")
        spans = [each[1:] for each in rest if isinstance(each, tuple) and each[0] == "limit"]
        offset, limit = spans[0] if spans else (0, 200)
        return Query(tuple(found[:at]), str(found[at]), condition, order, offset, limit)

    def path(self, found: list[Token]) -> str:
        return ".".join(found)

    def both(self, found: list[Any]) -> Logic:
        return Logic("and", tuple(found))

    def either(self, found: list[Any]) -> Logic:
        return Logic("or", tuple(found))

    def compared(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], str(found[1]), (found[2],))

    def like(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "like", (found[1],))

    def among(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "in", tuple(found[1:]))

    def not_among(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "not in", tuple(found[1:]))

    def between(self, found: list[Any]) -> Logic:
        return Logic("and", (Comparison(found[0], ">=", (found[1],)), Comparison(found[0], "<=", (found[2],))))

    def empty(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "=", (None,))

    def filled(self, found: list[Any]) -> Comparison:
        return Comparison(found[0], "!=", (None,))

    def order(self, found: list[Any]) -> tuple[str, str, bool]:
        return ("order", found[0], len(found) > 1 and found[1] is not None and found[1].lower() == "desc")

    def from_to(self, found: list[Any]) -> tuple[str, int, int]:
        first, second = int(found[0]), found[1] if len(found) > 1 else None
        return ("limit", 0, first) if second is None else ("limit", first, int(second))

    def count_from(self, found: list[Token]) -> tuple[str, int, int]:
        return ("limit", int(found[1]), int(found[0]))

    def text(self, found: list[Token]) -> str:
        return re.sub(r"\\(.)", r"\1", found[0][1:-1], flags=re.DOTALL)

    def number(self, found: list[Token]) -> float:
        return float(found[0]) if "." in found[0] else int(found[0])

    def boolean(self, found: list[Token]) -> bool:
        return found[0].lower() == "true"


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)
