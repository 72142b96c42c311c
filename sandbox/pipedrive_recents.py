"""Pipedrive's v1 `recents`: what changed since a time, deleted persons and organizations too, as not active; a month back at most.

Of a record only what tells it apart is shown, in v1's spelling.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.pipedrive_fields import Refused
from sandbox.pipedrive_query import whole
from sandbox.pipedrive_rows import moment
from sandbox.table import Row, Table

_KEPT = 30 * 86_400
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def recents(tables: Mapping[str, Table[Any]], request: Request, now: float) -> Response:
    """
    Args:
        tables: by object, such as "person".
        now: seconds since 1970.
    """
    said = request.query_params
    since, items = said.get("since_timestamp", ""), said.get("items", ",".join(tables)).split(",")
    if not _TIME.fullmatch(since):
        raise Refused(400, "since_timestamp is missing or no time")
    first = max(datetime.fromisoformat(since).replace(tzinfo=UTC).timestamp(), now - _KEPT)
    rows = [
        (item, row) for item in items if item in tables for row in tables[item].walk("update_time", start=moment(first * 1000))
    ]
    rows.sort(key=lambda each: each[1]["update_time"])
    start, size = whole(said, "start", 0), whole(said, "limit", 100, most=500)
    page = list(islice(rows, start, start + size))
    more = start + len(page) < len(rows)
    paging = {"start": start, "limit": size, "more_items_in_collection": more, **({"next_start": start + size} if more else {})}
    last = _v1(page[-1][1]["update_time"]) if page else since
    data = [{"item": item, "id": row["id"], "data": _shown(item, row)} for item, row in page]
    additional = {"since_timestamp": since, "last_timestamp_on_page": last, "pagination": paging}
    return json_response({"success": True, "data": data or None, "additional_data": additional})


def _shown(item: str, row: Row) -> Row:
    shown = {"id": row["id"], "add_time": _v1(row["add_time"]), "update_time": _v1(row["update_time"])}
    if item == "deal":
        return {
            **shown,
            "title": row["title"],
            "status": row["status"],
            "active": not row["is_deleted"],
            "deleted": row["is_deleted"],
        }
    return {**shown, "name": row["name"], "active_flag": not row["is_deleted"]}


def _v1(time: str) -> str:
    return time.replace("T", " ").removesuffix("Z")
