"""Shopify's search syntax: `field:value`, comparators, quotes, AND/OR/NOT, parentheses; terms side by side are AND-ed.

(shopify.dev "Shopify API search syntax")
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

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
QUOTED: /'[^']*'|"[^"]*"/
WORD.1: /[^\s:()'"<>=][^\s()'"]*/
%ignore /\s+/
"""


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
        return [expression.value] if (expression.field, expression.operator) == (field, ":") else None
    if expression is None or expression.word == "not":
        return None
    found = [equals(part, field) for part in expression.parts]
    if expression.word == "and":
        return next((each for each in found if each is not None), None)
    return None if None in found else [value for each in found for value in each or ()]


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
        return str(found[0]).strip("'\"")


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)
