"""Zendesk's search syntax: `type:ticket requester:1 requester:2 created>=2026-07-01 -status:closed "some words"`.

Terms of one property are alternatives, different properties must all hold, a minus turns a term around
(developer.zendesk.com "Search", Zendesk Support search reference).
"""

from dataclasses import dataclass
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput

_GRAMMAR = r"""
start: term*
term: [MINUS] NAME OPERATOR value -> property
    | [MINUS] value -> words
value: QUOTED | WORD
MINUS: "-"
NAME.2: /[a-z_][a-z0-9_]*(?=(:|<=|>=|<|>))/
OPERATOR: ":" | "<=" | ">=" | "<" | ">"
QUOTED: /"[^"]*"/
WORD: /[^\s"<>:\-][^\s"]*/
%ignore /\s+/
"""


@dataclass(frozen=True, slots=True)
class Term:
    """`name` is "" for free words."""

    name: str
    operator: str
    value: str
    negated: bool


class MalformedSearch(Exception):
    """The text is no search."""


def parse(text: str) -> list[Term]:
    try:
        terms: list[Term] = _Build().transform(_PARSER.parse(text))
    except UnexpectedInput as error:
        raise MalformedSearch(f"unexpected input at column {error.column}") from error
    return terms


class _Build(Transformer[Token, Any]):
    def start(self, found: list[Any]) -> list[Term]:
        return found

    def property(self, found: list[Any]) -> Term:
        minus, name, operator, value = found
        return Term(str(name), str(operator), value, minus is not None)

    def words(self, found: list[Any]) -> Term:
        return Term("", ":", found[1], found[0] is not None)

    def value(self, found: list[Token]) -> str:
        return str(found[0]).strip('"')


_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=True)
