"""How Pipedrive searches: one term over names, addresses and numbers, shown as items that are no whole records."""

from collections.abc import Mapping
from typing import Any

from sandbox.pipedrive_fields import Refused
from sandbox.pipedrive_query import coded, matches, start_of, whole
from sandbox.table import Row, Table


def searched(tables: Mapping[str, Table[Any]], kind: str, object: str, said: Mapping[str, str]) -> tuple[list[Row], str | None]:
    """Return a page of items, and the cursor of the next one.

    Raises:
        Refused: the term is too short.
    """
    exact, term = said.get("exact_match") == "true", said.get("term", "")
    if len(term) < (1 if exact else 2):
        raise Refused(400, "The term must be at least 2 characters long.", code="ERR_SCHEMA_VALIDATION_FAILED")
    fields = frozenset(said["fields"].split(",")) if said.get("fields") else None
    table = tables[kind]
    by_index = exact and object == "person" and fields == frozenset({"email"})
    candidates = table.having("email", [term.lower()]) if by_index else iter(table)
    found = [row for row in candidates if not row["is_deleted"] and matches(object, row, term, fields, exact=exact)]
    start, size = start_of(said), whole(said, "limit", 100, most=500)
    items = [{"result_score": 1.0 if exact else 0.5, "item": _item(tables, object, row)} for row in found[start : start + size]]
    return items, coded({"start": start + size}) if start + size < len(found) else None


def _item(tables: Mapping[str, Table[Any]], object: str, row: Row) -> Row:
    item: Row = {
        "id": row["id"], "type": object, "visible_to": row["visible_to"], "owner": {"id": row["owner_id"]}, "custom_fields": [], "notes": [],
    }  # fmt: skip
    org = tables["account"].get(str(row.get("org_id")))
    tied = {"organization": {"id": org["id"], "name": org["name"], "address": None} if org else None}
    if object == "person":
        addresses = {name: [each["value"] for each in row[name]] for name in ("phones", "emails")}
        return {**item, "name": row["name"], **addresses, **tied}
    if object == "deal":
        return {**item, "title": row["title"], "status": row["status"], **tied}
    return {**item, "name": row["name"], "address": None}
