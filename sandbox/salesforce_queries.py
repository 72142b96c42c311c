"""Reading an org: SOQL with its cursors, SOSL, and how a row is shown.

From the REST API guide's pages on query, queryAll and search. `soql.py` parses and evaluates; here rows are found and walked.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox import soql
from sandbox.dialect import json_response
from sandbox.salesforce_answers import VERSION, Refusal, error, millis, moment, whole_id
from sandbox.salesforce_fields import CHILDREN, FIELDS, PARENTS, PREFIXES
from sandbox.soql import MalformedQuery, Ordering, Query
from sandbox.table import Row, Table

_DATETIMES = {name for fields in FIELDS.values() for name, type in fields.items() if type == "datetime"}
_WALKED = PREFIXES.keys() - {"User", "OpportunityContactRole"}  # objects whose tables can be walked in order


class Queries:
    """
    Args:
        tables: by object name.
        hidden: fields, such as "Contact.Phone", that field-level security keeps from the caller: for them there are none.
    """

    def __init__(self, tables: Mapping[str, Table[Any]], hidden: Set[str]) -> None:
        self.tables, self.hidden = tables, hidden
        self._cursors: dict[str, list[Row]] = {}

    def row(self, name: str, id: str) -> Row | None:
        return self.tables[name].get(whole_id(id)) if len(id) in {15, 18} else None

    async def query(self, request: Request) -> Response:
        return self._answer(request, deleted=False)

    async def query_all(self, request: Request) -> Response:
        return self._answer(request, deleted=True)

    def _answer(self, request: Request, *, deleted: bool) -> Response:
        text = request.query_params.get("q")
        if not text:
            return error(400, "MALFORMED_QUERY", "SOQL query is missing")
        try:
            query = soql.parse(text)
            rows = self._run(query, deleted=deleted)
        except MalformedQuery as found:
            return error(400, "MALFORMED_QUERY", str(found))
        except Refusal as refusal:
            return refusal.response
        if query.count:
            return json_response({"totalSize": len(rows), "done": True, "records": []})
        return self._envelope(request, rows)

    def _envelope(self, request: Request, rows: list[Row]) -> Response:
        hint = re.search(r"batchSize=(\d+)", request.headers.get("sforce-query-options", ""))
        size = min(max(int(hint[1]), 200), 2000) if hint else 2000
        if len(rows) <= size:
            return json_response({"totalSize": len(rows), "done": True, "records": rows})
        locator = "01g" + secrets.token_hex(6)
        self._cursors[locator] = rows
        while len(self._cursors) > 10:  # a user holds ten open cursors; the oldest is dropped
            del self._cursors[next(iter(self._cursors))]
        return self._page(locator, 0, size)

    def _page(self, locator: str, start: int, size: int) -> Response:
        rows = self._cursors[locator]
        done = start + size >= len(rows)
        body: Row = {"totalSize": len(rows), "done": done, "records": rows[start : start + size]}
        if not done:
            body["nextRecordsUrl"] = f"/services/data/{VERSION}/query/{locator}-{start + size}-{size}"
        return json_response(body)

    async def more(self, request: Request) -> Response:
        locator, start, size = [*request.path_params["locator"].split("-"), "", ""][:3]
        if locator not in self._cursors or not start.isdigit() or not size.isdigit():
            return error(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(locator, int(start), int(size))

    def _run(self, query: Query, *, deleted: bool) -> list[Row]:
        if query.table not in self.tables:
            raise Refusal(400, "INVALID_TYPE", f"sObject type '{query.table}' is not supported.")
        for path in (
            *query.paths,
            *(each.path for each in query.order),
            *(each.path for each in soql.comparisons(query.condition)),
        ):
            self._resolve(query.table, path)
        if (query.offset or 0) > 2000:
            raise Refusal(400, "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        matching = (
            row
            for row in self._candidates(query)
            if (deleted or not row.get("IsDeleted")) and soql.holds(query.condition, partial(self._comparable, query.table, row))
        )
        rows = self._ordered(query, matching)
        end = None if query.limit is None else query.offset + query.limit
        return [
            {"attributes": {}} if query.count else self.shown(query.table, row, query.paths, query.children)
            for row in rows[query.offset : end]
        ]

    def _ordered(self, query: Query, rows: Iterator[Row]) -> list[Row]:
        """Sort; rows that come in the order asked already are taken only as far as the limit reaches."""
        if self._walks(query) and query.limit is not None:
            wanted, found = query.offset + query.limit, []
            for row in rows:
                found.append(row)
                if len(found) == wanted:
                    break
            return found
        found = list(rows)
        for order in reversed(query.order):
            found.sort(key=lambda row, order=order: self._sort_key(query.table, row, order), reverse=order.descending)  # type: ignore[misc]
        return found

    def _walks(self, query: Query) -> str | None:
        """Return the table's order that is exactly the one asked: (time, id) or the id alone, all in one direction."""
        paths = [each.path for each in query.order]
        one_way = len({each.descending for each in query.order}) == 1
        if query.table not in _WALKED or not one_way or paths[-1:] != ["Id"] or self._lookup(query) is not None:
            return None
        if len(paths) == 1:
            return "id"
        return (
            {"CreatedDate": "created", "SystemModstamp": "updated", "LastModifiedDate": "updated"}.get(paths[0])
            if len(paths) == 2
            else None
        )

    def _sort_key(self, table: str, row: Row, order: Ordering) -> tuple[bool, Any]:
        value = self._comparable(table, row, order.path)
        nulls_high = order.nulls_last != order.descending
        return (
            (value is None) == nulls_high,
            value.lower() if isinstance(value, str) and order.path != "Id" else value or 0 if value is None else value,
        )

    def _candidates(self, query: Query) -> Iterable[Row]:
        table = self.tables[query.table]
        if (rows := self._lookup(query)) is not None:
            return rows
        if (name := self._walks(query)) is not None:
            order = query.order[0]
            start = soql.bound(query.condition, order.path, upper=order.descending)
            at = start if name == "id" or start is None else millis(start)
            return table.walk(name, start=at, descending=order.descending)
        return table

    def _lookup(self, query: Query) -> list[Row] | None:
        table = self.tables[query.table]
        if (ids := soql.equals(query.condition, "Id")) is not None:
            return [row for id in ids if (row := self.row(query.table, str(id))) is not None]
        for index in table.indexed:
            values = soql.equals(query.condition, index)
            if values is not None:
                return table.having(
                    index, [value.lower() if index == "Email" and isinstance(value, str) else value for value in values]
                )
        return None

    def _resolve(self, table: str, path: str) -> None:
        """Raise the vendor's error unless the path leads to a field."""
        *steps, field = path.split(".")
        at = table
        for step in steps:
            parent = PARENTS.get((at, step))
            if parent is None:
                raise Refusal(
                    400,
                    "INVALID_FIELD",
                    f"\nSELECT {path} FROM {table}\n       ^\nERROR at Row:1:Column:8\nDidn't understand relationship '{step}' in field path.",
                )
            at = parent[1]
        if field not in FIELDS[at] or f"{at}.{field}" in self.hidden:
            raise Refusal(
                400,
                "INVALID_FIELD",
                f"\nSELECT {path} FROM {table}\n       ^\nERROR at Row:1:Column:8\nNo such column '{field}' on entity '{at}'. If you are attempting to use a custom field, be sure to append the '__c' after the custom field name.",
            )

    def _value(self, table: str, row: Row, path: str) -> Any:
        step, _, rest = path.partition(".")
        if not rest:
            return row.get(step)
        lookup, parent = PARENTS[table, step]
        above = self.tables[parent].get(row.get(lookup) or "")
        return self._value(parent, above, rest) if above is not None else None

    def _comparable(self, table: str, row: Row, path: str) -> Any:
        value = self._value(table, row, path)
        return moment(value) if isinstance(value, str) and path.split(".")[-1] in _DATETIMES else value

    def shown(self, table: str, row: Row, paths: Iterable[str], children: Sequence[Query] = ()) -> Row:
        shown: Row = {"attributes": {"type": table, "url": f"/services/data/{VERSION}/sobjects/{table}/{row['Id']}"}}
        nested: dict[str, list[str]] = {}
        for path in paths:
            step, _, rest = path.partition(".")
            if rest:
                nested.setdefault(step, []).append(rest)
            else:
                self._resolve(table, path)
                shown[path] = row.get(path)
        for step, rests in nested.items():
            self._resolve(table, f"{step}.{rests[0]}")
            lookup, parent = PARENTS[table, step]
            above = self.tables[parent].get(row.get(lookup) or "")
            shown[step] = self.shown(parent, above, rests) if above is not None else None
        for child in children:
            relation = CHILDREN.get((table, child.table))
            if relation is None:
                raise Refusal(400, "INVALID_TYPE", f"Didn't understand relationship '{child.table}' in FROM part of query call.")
            name, lookup = relation
            rows = [each for each in self.tables[name].having(lookup, [row["Id"]]) if not each.get("IsDeleted")]
            kept = [each for each in rows if soql.holds(child.condition, partial(self._comparable, name, each))]
            shown[child.table] = (
                {
                    "totalSize": len(kept),
                    "done": True,
                    "records": [self.shown(name, each, child.paths) for each in kept[: child.limit]],
                }
                if kept
                else None
            )
        return shown

    # ---- SOSL ----

    async def search(self, request: Request) -> Response:
        text = request.query_params.get("q", "")
        asked = re.fullmatch(
            r"\s*FIND\s*\{(?P<terms>.*)\}\s*IN\s+(?P<scope>EMAIL|PHONE|ALL|NAME)\s+FIELDS\s+RETURNING\s+(?P<object>\w+)\s*\((?P<fields>[^)]*)\)\s*",
            text,
            re.IGNORECASE | re.DOTALL,
        )
        if asked is None or asked["object"] not in FIELDS:
            return error(400, "MALFORMED_SEARCH", "unexpected token: FIND")
        index = "digits" if asked["scope"].upper() == "PHONE" else "Email"
        table = self.tables[asked["object"]]
        if index not in table.indexed:
            return json_response({"searchRecords": []})
        terms = [term.strip().strip('"').replace("\\", "") for term in re.split(r"\s+OR\s+", asked["terms"], flags=re.IGNORECASE)]
        values = [re.sub(r"\D", "", term) if index == "digits" else term.lower() for term in terms]
        names = [each.strip() for each in asked["fields"].split(",")]
        try:
            rows = [self.shown(asked["object"], row, names) for row in table.having(index, values) if not row.get("IsDeleted")]
        except Refusal as refusal:
            return refusal.response
        return json_response({"searchRecords": rows[:2000]})
