"""How rows are asked for and shown: OData queries over the store, pages behind cookies, annotations on request.

After the Web API's pages on queries, paging and annotations.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from itertools import groupby, islice
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from starlette.responses import Response

from sandbox import odata
from sandbox.dialect import json_response
from sandbox.dynamics_store import Store, millis
from sandbox.dynamics_tables import SCHEMAS, SETS, Column, Schema
from sandbox.odata import AmongValues, Compare, Expand, Joined, MalformedQuery, Node, Not
from sandbox.table import Row

VERSION = "v9.2"
PAGE = 5000
_FORMATTED, _LOGICAL, _NAVIGATION = (
    "OData.Community.Display.V1.FormattedValue",
    "Microsoft.Dynamics.CRM.lookuplogicalname",
    "Microsoft.Dynamics.CRM.associatednavigationproperty",
)
_OPTIONS = frozenset({"$select", "$filter", "$orderby", "$expand", "$top", "$count", "$skiptoken"})
_NO_YES = ("No", "Yes")


class Refusal(Exception):
    """What is refused, with the vendor's code and words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message

    @property
    def response(self) -> Response:
        return json_response({"error": {"code": self.code, "message": self.message}}, status=self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation, alone or out of a batch.

    Attributes:
        resource: below the service root, decoded, without the query, such as "contacts(…)".
        headers: names in lower case.
        root: the service's address, for links.
    """

    method: str
    resource: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    root: str

    def prefers(self, name: str) -> str | None:
        """Return the value of a preference, "" where it has none, None where it is not stated."""
        for part in odata.split(self.headers.get("prefer", "").replace('"', "'"), ","):
            said, _, value = part.strip().partition("=")
            if said == name:
                return value.strip("'")
        return None

    def json(self) -> Any:
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Refusal(
                400,
                "0x80048d19",
                "An error occurred while validating input parameters: Microsoft.OData.ODataException: Invalid JSON.",
            ) from error


class Reader:
    """Answers GETs of rows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rows(self, call: Call, schema: Schema, *, within: Node | None = None) -> Response:
        """Answer a query over a table.

        Args:
            within: what rows must fulfil besides, for a collection of another row.
        """
        said = call.query
        if "$skip" in said:
            raise Refusal(400, "0x80060888", "Skip Clause is not supported in CRM")
        if unknown := next((name for name in said if name.startswith("$") and name not in _OPTIONS), None):
            raise Refusal(400, "0x80060888", f"The query parameter {unknown} is not supported")
        try:
            condition = self._condition(schema, said.get("$filter"))
            order = odata.parse_order(said.get("$orderby"))
            view = self._view(schema, said)
        except MalformedQuery as error:
            raise Refusal(400, "0x80060888", str(error)) from error
        for path, _ in order:
            self._resolved(schema, path)
        if not order and "createdon" in schema.columns:
            order = [("createdon", False)]  # the vendor states none; pages need one
        parts = [each for each in (condition, within) if each is not None]
        node = Joined(True, tuple(parts)) if len(parts) == 2 else parts[0] if parts else None
        size, paged = self._size(call)
        after, number = _cookie(said.get("$skiptoken"))
        rows = self._ordered(schema, node, order, after)
        page = list(islice(rows, size + 1))
        body: Row = {"@odata.context": f"{call.root}/$metadata#{schema.set}{_listed(said)}"}
        if said.get("$count") == "true":
            body["@odata.count"] = min(sum(1 for _ in self._chosen(schema, node, [])), PAGE)
        notes = call.prefers("odata.include-annotations")
        body["value"] = [self.shown(schema, row, *view, notes) for row in page[:size]]
        if len(page) > size and (paged or "$top" not in said):
            token = _made_cookie(self._key(schema, page[size - 1], order), number + 1)
            query = [(name, value) for name, value in said.items() if name != "$skiptoken"]
            resource = quote(call.resource, safe="()',")
            body["@odata.nextLink"] = (
                f"{call.root}/{resource}?{urlencode([*query, ('$skiptoken', token)], safe='$,', quote_via=quote)}"
            )
        return json_response(body, headers=_applied(call))

    def one(
        self, call: Call, schema: Schema, row: Row, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        try:
            view = self._view(schema, call.query)
        except MalformedQuery as error:
            raise Refusal(400, "0x80060888", str(error)) from error
        shown = self.shown(schema, row, *view, call.prefers("odata.include-annotations"))
        body = {"@odata.context": f"{call.root}/$metadata#{schema.set}{_listed(call.query)}/$entity", **shown}
        return json_response(body, status=status, headers={**_applied(call), "ETag": etag(row), **(headers or {})})

    def asked(self, call: Call, schema: Schema) -> tuple[int, Callable[[Row], Row], dict[str, str]]:
        """Return how many rows an answer holds, how a row is shown, and the headers that say what was heeded."""
        try:
            view = self._view(schema, call.query)
        except MalformedQuery as error:
            raise Refusal(400, "0x80060888", str(error)) from error
        notes = call.prefers("odata.include-annotations")
        return self._size(call)[0], lambda row: self.shown(schema, row, *view, notes), _applied(call)

    def shown(self, schema: Schema, row: Row, select: Sequence[str] | None, expand: Sequence[Expand], notes: str | None) -> Row:
        """Return a row as it is sent: its ETag, what was selected, its id in any case, and annotations where they are wanted."""
        every = (schema.stored(name) for name, column in schema.columns.items() if not column.virtual)
        wanted = dict.fromkeys([*(every if select is None else select), schema.id])
        body: Row = {"@odata.etag": etag(row)}
        for stored in wanted:
            if notes:
                body |= self._notes(schema, row, stored, notes)
            body[stored] = row.get(stored)
        for each in expand:
            body[each.navigation] = self._expanded(schema, row, each, notes)
        return body

    def _expanded(self, schema: Schema, row: Row, each: Expand, notes: str | None) -> Any:
        if each.navigation in schema.collections:
            table, lookup = schema.collections[each.navigation]
            child = SCHEMAS[table]
            rows = self._store.tables[table].having(child.stored(lookup), [row[schema.id]])
            return [self.shown(child, one, each.select, each.expand, notes) for one in rows]
        name, table = schema.navigations()[each.navigation]
        id = row.get(schema.stored(name))
        other = self._store.get(table, id) if id is not None else None
        return None if other is None else self.shown(SCHEMAS[table], other, each.select, each.expand, notes)

    def _notes(self, schema: Schema, row: Row, stored: str, notes: str) -> Row:
        value = row.get(stored)
        name = stored[1:].removesuffix("_value") if stored.startswith("_") else stored
        column = schema.columns[name]
        if value is None:
            return {}
        found = {}
        if column.type == "lookup" and (table := self._store.target(schema, name, row)) is not None:
            other = self._store.get(table, value)
            found = {
                _FORMATTED: (other or {}).get(SCHEMAS[table].name), _LOGICAL: table, _NAVIGATION: column.targets[table],
            }  # fmt: skip
        elif (text := _formatted(column, value)) is not None:
            found = {_FORMATTED: text}
        return {f"{stored}@{note}": said for note, said in found.items() if _wanted(note, notes)}

    def _view(self, schema: Schema, said: Mapping[str, str]) -> tuple[tuple[str, ...] | None, tuple[Expand, ...]]:
        select, expand = odata.names(said.get("$select")), odata.parse_expand(said["$expand"]) if said.get("$expand") else ()
        self._check_view(schema, select, expand)
        return select, expand

    def _check_view(self, schema: Schema, select: Sequence[str] | None, expand: Sequence[Expand]) -> None:
        for stored in select or ():
            self._resolved(schema, stored)
        if len(expand) > 15:
            raise Refusal(400, "0x80060888", "The number of $expand options is more than 15")
        navigations = schema.navigations()
        for each in expand:
            if each.navigation in schema.collections:
                below = schema.collections[each.navigation][0]
            elif each.navigation in navigations:
                below = navigations[each.navigation][1]
            else:
                raise _no_property(each.navigation, schema)
            self._check_view(SCHEMAS[below], each.select, each.expand)

    def _condition(self, schema: Schema, text: str | None) -> Node | None:
        if not text:
            return None
        node = self._stored(schema, odata.parse_filter(text))
        for path in odata.paths(node):
            self._resolved(schema, path)
        return node

    def _stored(self, schema: Schema, node: Node) -> Node:
        """Name columns of vendor functions as rows have them: those are told by logical name."""
        if isinstance(node, Joined):
            return Joined(node.all, tuple(self._stored(schema, part) for part in node.parts))
        if isinstance(node, Not):
            return Not(self._stored(schema, node.part))
        if isinstance(node, AmongValues) and node.path in schema.columns:
            return AmongValues(schema.stored(node.path), node.values, node.contains)
        return node

    def _resolved(self, schema: Schema, path: str) -> None:
        """Raise the vendor's error unless the path leads to a column."""
        step, _, rest = path.partition("/")
        if rest:
            navigations = schema.navigations()
            if step not in navigations:
                raise _no_property(step, schema)
            self._resolved(SCHEMAS[navigations[step][1]], rest)
            return
        name = step[1:].removesuffix("_value") if step.startswith("_") else step
        column = schema.columns.get(name)
        if column is None or column.virtual or schema.stored(name) != step:
            raise _no_property(step, schema)

    def _value(self, schema: Schema, row: Row, path: str) -> Any:
        step, _, rest = path.partition("/")
        if not rest:
            return row.get(step)
        name, table = schema.navigations()[step]
        id = row.get(schema.stored(name))
        other = self._store.get(table, id) if id is not None else None
        return None if other is None else self._value(SCHEMAS[table], other, rest)

    # ---- order and pages ----

    def _ordered(
        self, schema: Schema, node: Node | None, order: list[tuple[str, bool]], after: list[Any] | None
    ) -> Iterator[Row]:
        """Walk the chosen rows in the order asked, ties by id as the database sorts ids, from a cookie's place on."""
        walked = self._walked(schema, node, order, after)
        if walked is None:
            found = list(self._chosen(schema, node, order))
            for path, descending in reversed([*order, (schema.id, False)]):
                found.sort(key=lambda row, path=path: self._sort_value(schema, row, path), reverse=descending)  # type: ignore[misc]
            walked = iter(found)
        if after is None:
            return walked
        return (row for row in walked if _beyond(schema, self._key(schema, row, order), after, order))

    def _walked(
        self, schema: Schema, node: Node | None, order: list[tuple[str, bool]], after: list[Any] | None
    ) -> Iterator[Row] | None:
        """Return the rows in order without sorting all of them, where the table keeps that order and no index serves better."""
        if len(order) != 1 or order[0][0] not in {"createdon", "modifiedon"} or "ownerid" not in schema.columns:
            return None
        if node is not None and self._looked_up(schema, node) is not None:
            return None
        path, descending = order[0]
        edge = odata.bound(node, path, upper=descending)
        starts = [round(edge.timestamp() * 1000)] if edge is not None else []
        starts += [millis(after[0])] if after else []
        start = ((min if descending else max)(starts)) if starts else None
        rows = self._store.tables[schema.logical].walk(path, start=start, descending=descending)
        chosen = (row for row in rows if self._holds(schema, row, node))
        return (
            row
            for _, group in groupby(chosen, key=lambda row: row[path])
            for row in sorted(group, key=lambda row: odata.guid_key(row[schema.id]))
        )

    def _chosen(self, schema: Schema, node: Node | None, order: list[tuple[str, bool]]) -> Iterator[Row]:
        rows: Iterable[Row] | None = self._looked_up(schema, node) if node is not None else None
        return (row for row in (self._store.tables[schema.logical] if rows is None else rows) if self._holds(schema, row, node))

    def _holds(self, schema: Schema, row: Row, node: Node | None) -> bool:
        return node is None or odata.holds(node, lambda path: self._value(schema, row, path))

    def _looked_up(self, schema: Schema, node: Node) -> list[Row] | None:
        """Return the rows an index names, None where there is none for the condition."""
        pairs = odata.lookups(node)
        table = self._store.tables[schema.logical]
        if pairs is None or any(path != schema.id and path not in table.indexed for path, _ in pairs):
            return None
        found: dict[str, Row] = {}
        for path, values in pairs:
            text = schema.columns[path].type == "string" if path in schema.columns else False
            keys = [odata.fold(str(value)) if text else str(value).lower() for value in values]
            rows = [table.get(key) for key in keys] if path == schema.id else table.having(path, keys)
            found |= {row[schema.id]: row for row in rows if row is not None}
        return list(found.values())

    def _key(self, schema: Schema, row: Row, order: list[tuple[str, bool]]) -> list[Any]:
        return [*(self._value(schema, row, path) for path, _ in order), row[schema.id]]

    def _sort_value(self, schema: Schema, row: Row, path: str) -> Any:
        return _sorted_by(schema, path, self._value(schema, row, path))

    def _size(self, call: Call) -> tuple[int, bool]:
        """Return how many rows this answer holds, and whether there are pages. $top does nothing where a page size is asked."""
        wanted = call.prefers("odata.maxpagesize")
        if wanted is not None and wanted.isdigit() and int(wanted):
            return min(int(wanted), PAGE), True
        top = call.query.get("$top")
        if top is not None and not top.isdigit():
            raise Refusal(400, "0x80060888", f"Invalid value '{top}' for $top query option found.")
        return (min(int(top), PAGE), False) if top else (PAGE, True)


def _sorted_by(schema: Schema, path: str, value: Any) -> Any:
    return odata.guid_key(value) if path == schema.id else odata.order_key(value)


def _beyond(schema: Schema, key: list[Any], after: list[Any], order: list[tuple[str, bool]]) -> bool:
    """Tell whether a row stands after a cookie's place."""
    for value, edge, (path, descending) in zip(key, after, order, strict=False):
        left, right = _sorted_by(schema, path, value), _sorted_by(schema, path, edge)
        if left != right:
            return bool(left < right) if descending else bool(left > right)
    return odata.guid_key(key[-1]) > odata.guid_key(after[-1])


def etag(row: Row) -> str:
    return f'W/"{row["versionnumber"]}"'


def schema_of(set_name: str) -> Schema:
    if set_name not in SETS:
        raise Refusal(404, "0x8006088a", f"Resource not found for the segment '{set_name}'.")
    return SETS[set_name]


def missing(schema: Schema, id: str) -> Refusal:
    return Refusal(404, "0x80040217", f"{schema.logical} With Id = {id} Does Not Exist")


def _no_property(name: str, schema: Schema) -> Refusal:
    return Refusal(
        400, "0x80060888", f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.{schema.logical}'."
    )


def _formatted(column: Column, value: Any) -> str | None:
    if column.type == "multi":
        return "; ".join(column.options.get(int(each), each) for each in str(value).split(","))
    if column.options:
        return column.options.get(value)
    if column.type == "bool":
        return _NO_YES[bool(value)]
    if column.type in {"money", "decimal"}:
        return f"{value:,.2f}"
    if column.type == "int":
        return f"{value:,}"
    if column.type == "date":
        return f"{int(value[5:7])}/{int(value[8:10])}/{value[:4]}"
    return None


def _wanted(note: str, notes: str) -> bool:
    return any(each == "*" or each == note or (each.endswith("*") and note.startswith(each[:-1])) for each in notes.split(","))


def _applied(call: Call) -> dict[str, str]:
    said = call.headers.get("prefer")
    return {"Preference-Applied": said} if said else {}


def _listed(said: Mapping[str, str]) -> str:
    return f"({said['$select']})" if said.get("$select") else ""


def _made_cookie(key: list[Any], number: int) -> str:
    inner = base64.urlsafe_b64encode(orjson.dumps(key)).decode()
    return f'<cookie pagenumber="{number}" pagingcookie="{escape(inner)}" istracking="False" />'


def _cookie(token: str | None) -> tuple[list[Any] | None, int]:
    """Return the place that a cookie names and its page's number; the first page has none.

    A cookie that does not read as it was given out, as after being encoded twice, is refused.
    """
    if token is None:
        return None, 1
    said = re.fullmatch(r'<cookie pagenumber="(\d+)" pagingcookie="([^"]*)" istracking="False" />', token)
    if said is None:
        raise Refusal(400, "0x80060888", "Malformed XML in the paging cookie of $skiptoken.")
    return orjson.loads(base64.urlsafe_b64decode(unescape(said[2]))), int(said[1])


__all__ = ["PAGE", "VERSION", "Call", "Compare", "Reader", "Refusal", "etag", "missing", "schema_of"]
