"""Freshdesk's search: "email:'ada@example.com' OR (tag:vip AND updated_at:>'2026-07-01')", in double quotes, 512 characters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lark import Lark, Transformer
from lark.exceptions import LarkError

_GRAMMAR = r"""
?start: either
?either: both ("OR" both)*
?both: one ("AND" one)*
?one: NAME ":" [BOUND] value -> term | "(" either ")"
value: QUOTED | BARE
NAME: /[a-z_]+/
BOUND: ">" | "<"
QUOTED: /'[^']*'/
BARE: /[^\s()'"<>][^\s()'"]*/
%ignore " "
"""


class MalformedSearch(Exception):
    """It is not a search."""


@dataclass(frozen=True, slots=True)
class Term:
    field: str
    bound: str | None
    value: str


Test = Callable[[Callable[[Term], bool]], bool]


class _Build(Transformer[Any, Any]):
    def term(self, parts: list[Any]) -> tuple[list[Term], Test]:
        found = Term(str(parts[0]), str(parts[1]) if parts[1] else None, parts[2])
        return [found], lambda holds: holds(found)

    def value(self, parts: list[Any]) -> str:
        return str(parts[0]).strip("'")

    def either(self, parts: list[tuple[list[Term], Test]]) -> tuple[list[Term], Test]:
        return [term for terms, _ in parts for term in terms], lambda holds: any(test(holds) for _, test in parts)

    def both(self, parts: list[tuple[list[Term], Test]]) -> tuple[list[Term], Test]:
        return [term for terms, _ in parts for term in terms], lambda holds: all(test(holds) for _, test in parts)


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=True)


def parse(text: str) -> tuple[list[Term], Test]:
    """Return the search's terms, and a test that is given what one term says of a record.

    Raises:
        MalformedSearch: it is not in double quotes, too long, or no search.
    """
    if len(text) > 512 or len(text) < 3 or text[0] != '"' or text[-1] != '"':
        raise MalformedSearch
    try:
        found: tuple[list[Term], Test] = _Build().transform(_PARSER.parse(text[1:-1]))
    except LarkError as error:
        raise MalformedSearch from error
    return found
