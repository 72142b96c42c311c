"""Zendesk's search: who matches the terms, in which order, and the cap of 1,000 results. See `zendesk_query` for its syntax."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from model.keys import normal_phone
from sandbox.dialect import json_response
from sandbox.table import Row, Table
from sandbox.zendesk_query import MalformedSearch, Term, parse
from sandbox.zendesk_writing import STATUSES

PAGE, _CAP = 100, 1000


class Search:
    """
    Args:
        tables: by object name.
    """

    def __init__(self, tables: Mapping[str, Table[Any]]) -> None:
        self._tables = tables

    async def users(self, request: Request) -> Response:
        return self._found(request, "users", [Term("type", ":", "user", False)])

    async def everything(self, request: Request) -> Response:
        return self._found(request, "results", [])

    def _found(self, request: Request, key: str, given: list[Term]) -> Response:
        query = request.query_params
        number, size = query.get("page", "1"), query.get("per_page", str(PAGE))
        if any(name.startswith("page[") for name in query) or not (number.isdigit() and size.isdigit()):
            return invalid("You passed an invalid value for the page attribute. Invalid parameter: page must be an integer")
        try:
            terms = given + parse(query.get("query", ""))
        except MalformedSearch as error:
            return json_response({"error": "invalid", "description": f"Invalid search: {error}"}, status=422)
        per_page = min(int(size), PAGE)
        start = (int(number) - 1) * per_page
        if start >= _CAP:
            return json_response(
                {
                    "error": "invalid",
                    "description": "Invalid search: Requested response size was greater than Search Response Limits",
                },
                status=422,
            )
        rows = self._matching(terms)
        if sort := query.get("sort_by"):
            if sort not in {"created_at", "updated_at", "priority", "status", "ticket_type"}:
                return json_response(
                    {"error": "invalid", "description": f"Invalid search: sort_by {sort} is not supported"}, status=422
                )
            # Ties are in no order that Zendesk states.
            rows.sort(
                key=lambda row: (row.get(sort) or "", row["id"] * 2_654_435_761 % 4_294_967_296),
                reverse=query.get("sort_order", "desc") == "desc",
            )
        page = rows[start : start + per_page]
        more = start + len(page) < min(len(rows), _CAP)
        return json_response(
            {
                key: page,
                "count": len(rows),
                "next_page": str(request.url.include_query_params(page=int(number) + 1)) if more else None,
                "previous_page": None,
                "facets": None,
            }
        )

    def _matching(self, terms: list[Term]) -> list[Row]:
        grouped: dict[tuple[str, str, bool], list[str]] = {}
        for term in terms:
            grouped.setdefault((term.name, term.operator, term.negated), []).append(term.value)
        kinds = [f"{each}s" for each in grouped.pop(("type", ":", False), ["user", "ticket", "organization"])]
        found = []
        for kind in kinds:
            if (table := self._tables.get(kind)) is None:
                continue
            for row in self._candidates(kind, table, grouped):
                if alive(row) and all(
                    _holds(kind, row, name, operator, values) is not negated
                    for (name, operator, negated), values in grouped.items()
                ):
                    found.append({**row, "result_type": kind.rstrip("s")})
        return found

    def _candidates(self, kind: str, table: Table[Any], grouped: Mapping[tuple[str, str, bool], list[str]]) -> Iterable[Row]:
        for (name, operator, negated), values in grouped.items():
            if negated or operator != ":":
                continue
            if name in {"requester", "requester_id"} and kind == "tickets" and all(each.isdigit() for each in values):
                return table.having("requester", [int(each) for each in values])
            if name in {"organization", "organization_id"} and kind == "users" and all(each.isdigit() for each in values):
                return table.having("organization_id", [int(each) for each in values])
            if name == "email" and kind == "users":
                return table.having("email", [each.lower() for each in values])
            if name == "phone" and kind == "users":
                return table.having("phone", [each for value in values if (each := normal_phone(value, "US"))])
        for (name, operator, negated), values in grouped.items():
            if name in {"created", "updated"} and operator in {">", ">="} and not negated:
                return table.walk(name, start=min(millis(each) for each in values))
        return table


def alive(row: Row) -> bool:
    return row.get("active", True) and row.get("status") != "deleted"


def _holds(kind: str, row: Row, name: str, operator: str, values: list[str]) -> bool:
    """Tell whether any of the values fits: terms of one property are alternatives."""
    return any(_fits(kind, row, name, operator, each) for each in values)


def _fits(kind: str, row: Row, name: str, operator: str, value: str) -> bool:
    if name == "":
        return any(value.lower() in str(row.get(field) or "").lower() for field in ("name", "email", "subject", "description"))
    if name in {"created", "updated"}:
        at, other = millis(row[f"{name}_at"]), millis(value)
        return {":": at == other, "<": at < other, "<=": at <= other, ">": at > other, ">=": at >= other}[operator]
    field = {"requester": "requester_id", "organization": "organization_id"}.get(name, name)
    mine = row.get(field)
    if name == "phone":
        return mine is not None and normal_phone(mine, "US") == normal_phone(value, "US")
    if name == "status" and operator != ":":
        order = STATUSES.index(str(mine)), STATUSES.index(value) if value in STATUSES else -1
        return {"<": order[0] < order[1], "<=": order[0] <= order[1], ">": order[0] > order[1], ">=": order[0] >= order[1]}[
            operator
        ]
    return str(mine or "").lower() == value.lower()


def millis(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp() * 1000)


def invalid(message: str) -> Response:
    return json_response({"error": {"title": "Invalid attribute", "message": message}}, status=400)
