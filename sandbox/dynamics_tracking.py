"""Change tracking: a first listing that ends in a delta link, and what changed since such a link.

After "Use change tracking to synchronize data with external systems". Versions decide and no times: nothing is missed that is committed
late. A token names the version and the time at which it was given out; one of more than 7 days is refused as ExpiredVersionStamp.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.dynamics_reading import Call, Refusal
from sandbox.dynamics_store import Store
from sandbox.dynamics_tables import Schema
from sandbox.table import Row

_TOKEN = re.compile(r"(\d+)!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")
# version that was told before the first page; version and id of the last row; version of the delta link; deleted ones told
_COOKIE = re.compile(r'<cookie pagenumber="(\d+)" since="(\d+)" last="(\d+) ([0-9a-f-]+)" until="(\d+)" istracking="True" />')
_STAMP = "%m/%d/%Y %H:%M:%S"
_LIFE = timedelta(days=7)
_NOT_WITH = ("$filter", "$orderby", "$expand", "$top")


def is_tracked(call: Call) -> bool:
    return call.prefers("odata.track-changes") is not None or "$deltatoken" in call.query


def tracked(
    call: Call, schema: Schema, store: Store, *, size: int, shown: Callable[[Row], Row], applied: dict[str, str]
) -> Response:
    """Answer one page; the deleted come with the last one."""
    said = call.query
    if wrong := next((name for name in _NOT_WITH if name in said), None):
        raise Refusal(400, "0x80060888", f'The "{wrong}" query parameter isn\'t supported when Change Tracking is enabled.')
    since, last, until, number = _place(said, store)
    page = list(islice(_rows(schema, store, since, last), size + 1))
    chosen = said.get("$select") or ""
    select, listed = (f"$select={quote(chosen, safe=',')}&", f"({chosen})") if chosen else ("", "")
    body: Row = {
        "@odata.context": f"{call.root}/$metadata#{schema.set}{listed}/$delta",
        "value": [shown(row) for row in page[:size]],
    }
    address = f"{call.root}/{schema.set}?{select}"
    if len(page) > size:
        edge = page[size - 1]
        cookie = f'<cookie pagenumber="{number + 1}" since="{since}" last="{edge["versionnumber"]} {edge[schema.id]}" until="{until}" istracking="True" />'
        body["@odata.nextLink"] = f"{address}$skiptoken={quote(cookie, safe='')}"
        return json_response(body, headers=applied)
    if since:
        context = f"{call.root}/$metadata#{schema.set}/$deletedEntity"
        gone = [id for id, version in store.gone.get(schema.logical, {}).items() if version > since]
        body["value"] += [{"@odata.context": context, "id": id, "reason": "deleted"} for id in gone]
    token = f"{until}!{datetime.fromtimestamp(store.now() / 1000, tz=UTC):{_STAMP}}"
    body["@odata.deltaLink"] = f"{address}$deltatoken={quote(token, safe='')}"
    return json_response(body, headers=applied)


def _rows(schema: Schema, store: Store, since: int, last: tuple[int, str] | None) -> Iterator[Row]:
    start = last[0] if last else since + 1
    for row in store.tables[schema.logical].walk("versionnumber", start=start):
        if last is None or (row["versionnumber"], row[schema.id]) > last:
            yield row


def _place(said: Any, store: Store) -> tuple[int, tuple[int, str] | None, int, int]:
    if "$deltatoken" in said:
        found = _TOKEN.fullmatch(said["$deltatoken"])
        if found is None:
            raise Refusal(400, "0x80060888", "The delta token is malformed.")
        given = datetime.strptime(found[2], _STAMP).replace(tzinfo=UTC)
        if datetime.fromtimestamp(store.now() / 1000, tz=UTC) - given > _LIFE:
            words = "Version stamp associated with the client has expired. Please perform a full sync."
            raise Refusal(400, "0x80044352", words)
        return int(found[1]), None, store.version, 1
    if "$skiptoken" in said:
        cookie = _COOKIE.fullmatch(said["$skiptoken"])
        if cookie is None:
            raise Refusal(400, "0x80060888", "Malformed XML in the paging cookie of $skiptoken.")
        return int(cookie[2]), (int(cookie[3]), cookie[4]), int(cookie[5]), int(cookie[1])
    return 0, None, store.version, 1
