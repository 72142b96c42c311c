"""OData query options as Dataverse reads them: $filter into a tree that can be asked, $select, $expand and $orderby into names.

Text is compared without case and accents, as the vendor's database does. Lambdas and arithmetic are not there.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*')
  | (?P<guid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})
  | (?P<moment>\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?)
  | (?P<number>-?\d+(?:\.\d+)?)
  | (?P<word>[A-Za-z_@][\w.]*(?:/\w+)*)
  | (?P<sign>[(),=\[\]])
)""",
    re.VERBOSE,
)
_FUNCTIONS = frozenset({"contains", "startswith", "endswith"})
_VENDOR = "Microsoft.Dynamics.CRM."

Value = Callable[[str], Any]  # what a row has at a path


class MalformedQuery(Exception):
    """The message is the vendor's."""


@dataclass(frozen=True, slots=True)
class Compare:
    path: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class AmongValues:
    """In(…), or ContainValues(…) where `contains`: of a column that holds several values."""

    path: str
    values: tuple[Any, ...]
    contains: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    function: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    all: bool
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


@dataclass(frozen=True, slots=True)
class Moment:
    at: datetime
    day: bool


Node = Compare | AmongValues | Matches | Joined | Not


@dataclass(frozen=True, slots=True)
class Expand:
    navigation: str
    select: tuple[str, ...] | None
    expand: tuple["Expand", ...]


def parse_filter(text: str) -> Node:
    """Raises MalformedQuery with the vendor's words."""
    reader = _Reader(text)
    node = reader.any_of()
    if reader.peek() is not None:
        raise MalformedQuery(f"Syntax error at position {reader.position()} in '{text}'.")
    return node


def parse_expand(text: str) -> tuple[Expand, ...]:
    found = []
    for item in split(text, ","):
        said = re.fullmatch(r"\s*([\w.]+)\s*(?:\((.*)\))?\s*", item, re.DOTALL)
        if said is None:
            raise MalformedQuery(f"Term '{item}' is not valid in a $select or $expand expression.")
        options = dict(part.strip().partition("=")[::2] for part in split(said[2], ";")) if said[2] else {}
        found.append(
            Expand(said[1], names(options.get("$select")), parse_expand(options["$expand"]) if "$expand" in options else ())
        )
    return tuple(found)


def names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(each.strip() for each in text.split(",") if each.strip())


def parse_order(text: str | None) -> list[tuple[str, bool]]:
    """Return (path, descending) pairs."""
    found = []
    for item in (text or "").split(","):
        path, _, way = item.strip().partition(" ")
        if path:
            if way.strip() not in {"", "asc", "desc"}:
                raise MalformedQuery(f"Syntax error at position {len(path) + 1} in '{text}'.")
            found.append((path, way.strip() == "desc"))
    return found


def split(text: str, separator: str) -> list[str]:
    """Split at a separator outside parentheses and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for at, letter in enumerate(text):
        if letter == "'":
            quoted = not quoted
        elif not quoted and letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == separator and not quoted and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def paths(node: Node) -> list[str]:
    """Return every path the condition reads."""
    if isinstance(node, Joined):
        return [path for part in node.parts for path in paths(part)]
    return paths(node.part) if isinstance(node, Not) else [node.path]


def holds(node: Node, value: Value) -> bool:
    match node:
        case Joined():
            return (all if node.all else any)(holds(part, value) for part in node.parts)
        case Not():
            return not holds(node.part, value)
        case Matches():
            has = value(node.path)
            return isinstance(has, str) and _matching(node.function, fold(has), fold(node.text))
        case AmongValues():
            has = value(node.path)
            if node.contains:
                return has is not None and bool({str(each) for each in node.values} & set(str(has).split(",")))
            return has is not None and _same(has) in {_same(each) for each in node.values}
        case Compare():
            return _compared(value(node.path), node.operator, node.value)


def lookups(node: Node) -> list[tuple[str, tuple[Any, ...]]] | None:
    """Return (path, values) pairs of which every row that holds fulfils at least one; None when there are no such."""
    match node:
        case Compare(operator="eq") if node.value is not None:
            return [(node.path, (node.value,))]
        case AmongValues(contains=False):
            return [(node.path, node.values)]
        case Joined(all=True):
            return next((found for part in node.parts if (found := lookups(part)) is not None), None)
        case Joined(all=False):
            every = [lookups(part) for part in node.parts]
            return None if None in every else [pair for each in every if each is not None for pair in each]
    return None


def bound(node: Node | None, path: str, *, upper: bool) -> datetime | None:
    """Return the edge that a time column is held by, from above or below."""
    if isinstance(node, Joined) and node.all:
        edges = [edge for part in node.parts if (edge := bound(part, path, upper=upper)) is not None]
        return (min if upper else max)(edges, default=None)
    signs = {"lt", "le", "eq"} if upper else {"gt", "ge", "eq"}
    if isinstance(node, Compare) and node.path == path and node.operator in signs and isinstance(node.value, Moment):
        return node.value.at
    return None


@lru_cache(maxsize=16_384)
def fold(text: str) -> str:
    """Return text as it is compared: no case, no accents."""
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each)).casefold()


def _same(value: Any) -> Any:
    return fold(value) if isinstance(value, str) else str(value)


def _matching(function: str, has: str, text: str) -> bool:
    return {"contains": text in has, "startswith": has.startswith(text), "endswith": has.endswith(text)}[function]


def _compared(has: Any, operator: str, wanted: Any) -> bool:
    if wanted is None or has is None:
        same = has is None and wanted is None
        return same if operator == "eq" else not same if operator == "ne" else False
    if isinstance(wanted, Moment):
        moment = datetime.fromisoformat(str(has) if "T" in str(has) else f"{has}T00:00:00+00:00")
        left, right = moment, wanted.at
    elif isinstance(wanted, str):
        left, right = fold(str(has)), fold(wanted)  # type: ignore[assignment]
    elif isinstance(wanted, bool) or isinstance(has, bool):
        left, right = bool(has), bool(wanted)  # type: ignore[assignment]
    else:
        left, right = has, wanted
    return {
        "eq": left == right,
        "ne": left != right,
        "lt": left < right,
        "le": left <= right,
        "gt": left > right,
        "ge": left >= right,
    }[operator]


class _Reader:
    """Reads a filter from left to right; `or` binds weaker than `and`, `and` weaker than `not`."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise MalformedQuery(
                    f"Syntax error: character '{text[position:].strip()[0]}' is not valid at position {position} in '{text}'."
                )
            self.tokens.append((str(found.lastgroup), found[found.lastgroup or 0], position))
            position = found.end()

    def position(self) -> int:
        return self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)

    def peek(self) -> str | None:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else None

    def take(self, wanted: str | None = None) -> tuple[str, str]:
        if self.at >= len(self.tokens) or (wanted is not None and self.peek() != wanted):
            raise MalformedQuery(f"Syntax error at position {self.position()} in '{self.text}'.")
        kind, text, _ = self.tokens[self.at]
        self.at += 1
        return kind, text

    def any_of(self) -> Node:
        return self._joined("or", self.all_of)

    def all_of(self) -> Node:
        return self._joined("and", self.one)

    def _joined(self, word: str, part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self.peek() == word:
            self.take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word == "and", tuple(parts))

    def one(self) -> Node:
        if self.peek() == "not":
            self.take()
            return Not(self.one())
        if self.peek() == "(":
            self.take()
            node = self.any_of()
            self.take(")")
            return node
        kind, word = self.take()
        if kind != "word":
            raise MalformedQuery(f"Syntax error at position {self.position()} in '{self.text}'.")
        if word in _FUNCTIONS:
            return self._matches(word)
        if word.startswith(_VENDOR):
            return self._vendors(word.removeprefix(_VENDOR))
        _, operator = self.take()
        if operator not in {"eq", "ne", "lt", "le", "gt", "ge"}:
            raise MalformedQuery(f"A binary operator with incompatible types was detected. Found '{operator}'.")
        return Compare(word, operator, self.literal())

    def _matches(self, function: str) -> Node:
        self.take("(")
        _, path = self.take()
        self.take(",")
        text = self.literal()
        self.take(")")
        return Matches(function, path, str(text))

    def _vendors(self, function: str) -> Node:
        if function not in {"In", "ContainValues"}:
            raise MalformedQuery(f"An unknown function with name '{_VENDOR}{function}' was found.")
        self.take("(")
        self.take("PropertyName")
        self.take("=")
        path = str(self.literal())
        self.take(",")
        self.take("PropertyValues")
        self.take("=")
        self.take("[")
        values: list[Any] = []
        while self.peek() != "]":
            values.append(self.literal())
            if self.peek() == ",":
                self.take()
        self.take("]")
        self.take(")")
        return AmongValues(path, tuple(values), contains=function == "ContainValues")

    def literal(self) -> Any:
        kind, text = self.take()
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "guid":
            return text.lower()
        if kind == "moment":
            day = "T" not in text
            return Moment(datetime.fromisoformat(f"{text}T00:00:00+00:00" if day else text), day)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if text in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[text]
        raise MalformedQuery(f"Could not find a property named '{text}'.")


def guid_key(guid: str) -> bytes:
    """Return a GUID as SQL Server sorts them: the last six bytes first, then the groups from right to left.

    Source: the order of uniqueidentifier in SQL Server (System.Data.SqlTypes.SqlGuid).
    """
    raw = bytes.fromhex(guid.replace("-", ""))
    return raw[10:16] + raw[8:10] + raw[7:5:-1] + raw[5:3:-1] + raw[3::-1]


def order_key(value: Any) -> tuple[int, Any]:
    """Return what a value is sorted by: nulls first, text without case and accents."""
    if value is None:
        return (0, 0)
    return (1, fold(value) if isinstance(value, str) else value)


__all__: Sequence[str] = [
    "AmongValues", "Compare", "Expand", "Joined", "MalformedQuery", "Matches", "Moment", "Node", "Not", "bound", "fold", "guid_key", "holds",
    "lookups", "names", "order_key", "parse_expand", "parse_filter", "parse_order", "paths", "split",
]  # fmt: skip
