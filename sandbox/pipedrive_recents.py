"""What Pipedrive's v1 tells of changes, deleted records among them.

Decided here, since no document says: recents go back 30 days and are sorted by time; a deleted record is in them with `active_flag` false
(deals: status deleted), and of a merged one nothing names the record it went into.
"""

import re
from collections.abc import Mapping
from typing import Any

from sandbox.pipedrive_fields import Refused
from sandbox.pipedrive_hooks import OBJECTS
from sandbox.pipedrive_query import stamp, whole
from sandbox.pipedrive_rows import moment
from sandbox.table import Row, Table

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_KEPT = 30 * 86_400


def recents(tables: Mapping[str, Table[Any]], said: Mapping[str, str], now: float) -> Row:
    """Return the body of one page.

    Raises:
        Refused: the time is none.
    """
    if not _MOMENT.fullmatch(said.get("since_timestamp", "")):
        raise Refused(400, "since_timestamp must be YYYY-MM-DD HH:MM:SS")
    since = max(stamp(said["since_timestamp"].replace(" ", "T") + "Z"), now - _KEPT)
    wanted = said["items"].split(",") if said.get("items") else list(OBJECTS.values())
    found = [
        (row["update_time"], noun, row)
        for kind, noun in OBJECTS.items() if noun in wanted
        for row in tables[kind].walk("update_time", start=moment(since * 1000))
    ]  # fmt: skip
    found.sort(key=lambda each: each[:2])
    start, limit = whole(said, "start", 0), whole(said, "limit", 100, most=500)
    page = found[start : start + limit]
    paging = {"start": start, "limit": limit, "more_items_in_collection": start + limit < len(found)}
    return {
        "success": True, "data": [{"item": noun, "id": row["id"], "data": _v1(noun, row)} for _, noun, row in page] or None,
        "additional_data": {"since_timestamp": said["since_timestamp"], "last_timestamp_on_page": _bare(page[-1][0]) if page else None, "pagination": paging},
    }  # fmt: skip


def _v1(noun: str, row: Row) -> Row:
    times = {name: _bare(row[name]) for name in ("add_time", "update_time")}
    if noun == "deal":
        return {**{name: row[name] for name in ("id", "title", "value", "currency", "status", "stage_id")}, "active": row["status"] == "open", "deleted": row["is_deleted"], **times}  # fmt: skip
    return {"id": row["id"], "name": row["name"], "owner_id": row["owner_id"], "active_flag": not row["is_deleted"], **times}


def _bare(at: str) -> str:
    return at.replace("T", " ").removesuffix("Z")
