"""Shopify's search syntax: `field:value`, comparators, quotes, AND/OR/NOT, parentheses; terms side by side are AND-ed.

A backslash takes the next character as it is; a value that ends in `*` matches by prefix, `*` alone whatever is there.
(shopify.dev "Shopify API search syntax")
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from lark import Lark, Token, Transformer, UnexpectedInput

_GRAMMAR = r"""
start: [expression]
?expression: conjunction (_OR conjunction)* -> any_of
?conjunction: negation (_AND? negation)* -> all_of
?negation: (_NOT | _MINUS) negation -> negated
         | "(" expression ")"
         | term
term: NAME ":" [OPERATOR] value -> property
    | value -> words
value: QUOTED | WORD
_OR.3: /OR\b/
_AND.3: /AND\b/
_NOT.3: /NOT\b/
_MINUS.2: /-(?=\S)/
NAME.2: /[a-z_]+(?=:)/
OPERATOR.2: "<=" | ">=" | "<" | ">"
QUOTED: /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/
WORD.1: /(?:[^\s:()'"<>=\\]|\\.)(?:[^\s()'"\\]|\\.)*/
%ignore /\s+/
"""


Shape = Literal["text", "number", "time", "flag"]
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ":": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class MalformedSearch(Exception):
    """The text is no search."""


@dataclass(frozen=True, slots=True)
class Term:
    """`field` is "" for free words; `operator` is : < <= > >=."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Logic:
    word: str  # and, or, not
    parts: tuple["Term | Logic", ...]


Expression = Term | Logic | None


def parse(text: str) -> Expression:
    try:
        expression: Expression = _Build().transform(_PARSER.parse(text))
    except UnexpectedInput as error:
        raise MalformedSearch(str(error).splitlines()[0]) from error
    return expression


def terms(expression: Expression) -> Iterator[Term]:
    if isinstance(expression, Term):
        yield expression
    elif expression is not None:
        for part in expression.parts:
            yield from terms(part)


def holds(expression: Expression, test: Callable[[Term], bool]) -> bool:
    if expression is None:
        return True
    if isinstance(expression, Term):
        return test(expression)
    if expression.word == "not":
        return not holds(expression.parts[0], test)
    results = (holds(part, test) for part in expression.parts)
    return all(results) if expression.word == "and" else any(results)


def equals(expression: Expression, field: str) -> list[str] | None:
    """Return the values that `field` of every match is among, None if unknown."""
    if isinstance(expression, Term):
        exact = (expression.field, expression.operator) == (field, ":") and not expression.value.endswith("*")
        return [expression.value] if exact else None
    if expression is None or expression.word == "not":
        return None
    found = [equals(part, field) for part in expression.parts]
    if expression.word == "and":
        return next((each for each in found if each is not None), None)
    return None if None in found else [value for each in found for value in each or ()]


def bounds(expression: Expression, field: str) -> tuple[str | None, str | None]:
    """Return the values that `field` of every match is at least and at most, None where the search does not say."""
    parts = expression.parts if isinstance(expression, Logic) and expression.word == "and" else (expression,)
    known = [part for part in parts if isinstance(part, Term) and part.field == field]
    low = next((part.value for part in known if part.operator in {">", ">="}), None)
    high = next((part.value for part in known if part.operator in {"<", "<="}), None)
    return low, high


def compared(term: Term, shape: Shape) -> Callable[[Any], bool]:
    """Return the test of one field's value, or of several (any of them); a missing value passes none.

    Raises:
        ValueError: the term's value is not of that shape.
    """
    if term.value == "*" and term.operator == ":":
        return lambda value: value not in (None, "", [])
    read = _READ[shape]
    if shape == "text" and term.value.endswith("*"):
        start = read(term.value[:-1])
        one: Callable[[Any], bool] = lambda value: read(value).startswith(start)  # noqa: E731
    else:
        wanted, compare = read(term.value), _COMPARE[term.operator]
        one = lambda value: compare(read(value), wanted)  # noqa: E731

    def test(value: Any) -> bool:
        return any(one(each) for each in (value if isinstance(value, list) else [value]) if each is not None)

    return test


def millis(text: str) -> int:
    """Return milliseconds since 1970; text without offset is UTC.

    Raises:
        ValueError: it is no time.
    """
    moment = datetime.fromisoformat(text)
    return round((moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp() * 1000)


def _number(value: Any) -> Decimal:
    try:
        return Decimal(str(value).rsplit("/", 1)[-1])  # an id may be given as a global one
    except InvalidOperation as error:
        raise ValueError("not a number") from error


def _flag(value: Any) -> bool:
    if (word := str(value).lower()) not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return word == "true"


_READ: Mapping[Shape, Callable[[Any], Any]] = {
    "text": lambda value: str(value).lower(),
    "number": _number,
    "time": millis,
    "flag": _flag,
}


class _Build(Transformer[Token, Any]):
    def start(self, found: list[Any]) -> Expression:
        return found[0]  # type: ignore[no-any-return]

    def any_of(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else Logic("or", tuple(found))

    def all_of(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else Logic("and", tuple(found))

    def negated(self, found: list[Any]) -> Logic:
        return Logic("not", tuple(found))

    def property(self, found: list[Any]) -> Term:
        return Term(str(found[0]), str(found[1] or ":"), found[2])

    def words(self, found: list[Any]) -> Term:
        return Term("", ":", found[0])

    def value(self, found: list[Token]) -> str:
        token = found[0]
        return _ESCAPED.sub(r"\1", str(token)[1:-1] if token.type == "QUOTED" else str(token))


_ESCAPED = re.compile(r"\\(.)")


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)
