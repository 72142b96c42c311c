"""How Dataverse spells things: literals in filters, the columns a query asks for, and annotations in its rows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model.records import Row

_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FORMATTED = "OData.Community.Display.V1.FormattedValue"
FORMATTED, ETAG = "@formatted.", "@odata."  # paths below which `neat` puts annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a query asks of each row.

    Attributes:
        expand: navigation property → columns of the row it leads to.
        labels: the labels of options are wanted.
    """

    select: Sequence[str]
    expand: Mapping[str, Sequence[str]] | None = None
    labels: bool = False

    @property
    def prefer(self) -> Sequence[str]:
        return (f'odata.include-annotations="{_FORMATTED}"',) if self.labels else ()

    def parameters(self, condition: str, order: str = "") -> list[tuple[str, str]]:
        expand = ",".join(f"{name}($select={','.join(columns)})" for name, columns in (self.expand or {}).items())
        said = {"$select": ",".join(self.select), "$expand": expand, "$filter": condition, "$orderby": order}
        return [(name, value) for name, value in said.items() if value]


def view(fields: Iterable[str], id: str) -> View:
    """Return the view of paths: "name", "@formatted.name" (its label), "navigation.name" (of the row a lookup leads to)."""
    select, expand, labels = dict.fromkeys([id]), dict[str, dict[str, None]](), False
    for path in fields:
        head, _, column = path.partition(".")
        if path.startswith(FORMATTED):
            select[column], labels = None, True
        elif path.startswith(ETAG):
            continue  # comes with every row
        elif column:
            expand.setdefault(head, {})[column] = None
        else:
            select[path] = None
    return View(select=tuple(select), expand={name: tuple(columns) for name, columns in expand.items()}, labels=labels)


def neat(row: Row) -> Row:
    """Put annotations where paths reach them: "x@…FormattedValue" at "@formatted.x", "@odata.etag" at "etag" below "@odata"."""
    found: Row = {}
    for name, value in row.items():
        column, at, note = name.partition("@")
        if note == _FORMATTED:
            found.setdefault(FORMATTED[:-1], {})[column] = value
        elif at and not column and note.startswith("odata."):
            found.setdefault(ETAG[:-1], {})[note.removeprefix("odata.")] = value
        else:
            found[name] = neat(value) if isinstance(value, dict) else value
    return found


def among(column: str, values: Sequence[str]) -> str:
    return f"Microsoft.Dynamics.CRM.In(PropertyName='{column}',PropertyValues=[{','.join(quoted(each) for each in values)}])"


def quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def is_guid(text: Any) -> bool:
    return isinstance(text, str) and _GUID.fullmatch(text) is not None


def guids(ids: Iterable[str]) -> list[str]:
    """Return those that are ids at all: one that is none would have the whole query refused."""
    return [each for each in ids if is_guid(each)]
