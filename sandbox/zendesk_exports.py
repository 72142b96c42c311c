"""Zendesk's incremental exports: by cursor for users and tickets, by time for organizations; the last minute is left out.

Written from "Incremental Exports" and "Using the Incremental Export API". Filtered and sorted by `generated_timestamp`: when a change
was committed, whatever `updated_at` says. 10 calls a minute for all of them. A deleted organization is not told.
"""

import base64
import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, RollingWindow, json_response
from sandbox.table import Row, Table

_LAG, _MOST = 60, 1000
_BY_CURSOR = ("users", "tickets")
_Key = tuple[int, int]  # (generated_timestamp, id)


class Exports:
    """
    Args:
        tables: by object name, each with an order "updated" in milliseconds.
    """

    def __init__(self, tables: Mapping[str, Table[Any]], clock: SandboxClock, *, base: str) -> None:
        self._tables, self._clock, self._base = tables, clock, base
        self._minute = RollingWindow(clock, limit=10, period=60)
        self._keys: dict[str, list[_Key]] = {}
        self._generated: dict[str, dict[int, int]] = {}
        self._latest = 0

    def endpoints(self, suffix: str) -> list[Endpoint]:
        root = "/api/v2/incremental"
        return [
            *(Endpoint("GET", f"{root}/{each}/cursor{suffix}", partial(self._by_cursor, each)) for each in _BY_CURSOR),
            Endpoint("GET", f"{root}/organizations{suffix}", self._by_time),
        ]

    def changed(self, object: str, id: int) -> None:
        """Note that a record was committed now: never before what was seen to be committed earlier."""
        keys, generated = self._known(object), self._generated[object]
        if (
            (old := generated.get(id)) is not None
            and (place := bisect_left(keys, (old, id))) < len(keys)
            and keys[place] == (old, id)
        ):
            del keys[place]
        self._latest = generated[id] = max(int(self._clock.time()), self._latest)
        insort(keys, (generated[id], id))

    def _known(self, object: str) -> list[_Key]:
        if object not in self._keys:
            found = [(int(stamp) // 1000, int(id)) for stamp, id in self._tables[object].keys("updated")]
            self._keys[object], self._generated[object] = sorted(found), {id: stamp for stamp, id in found}
        return self._keys[object]

    async def _by_cursor(self, object: str, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        said = request.query_params
        if cursor := said.get("cursor"):
            try:
                stamp, _, id = base64.b64decode(cursor, validate=True).decode().partition("||")
                edge = (int(float(stamp)), int(id) + 1)
            except ValueError:
                return json_response({"error": "InvalidCursor", "description": "Invalid cursor"}, status=400)
        else:
            edge = (int(said["start_time"]), 0)
        page, end = self._page(object, edge, int(said.get("per_page", _MOST)))
        last = base64.b64encode(f"{page[-1][0]}.0||{page[-1][1]}".encode()).decode() if page else cursor
        link = f"{self._base}/incremental/{object}/cursor.json?cursor={last}" if last else None
        rows = [self._row(object, key) for key in page]
        return json_response({
            object: rows, "after_url": link, "after_cursor": last or None, "before_url": None, "before_cursor": None, "end_of_stream": end,
        })  # fmt: skip

    async def _by_time(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        start = int(request.query_params["start_time"])
        page, end = self._page("organizations", (start, 0), int(request.query_params.get("per_page", _MOST)))
        rows = [self._row("organizations", key) for key in page]
        end_time = page[-1][0] if page else None
        link = f"{self._base}/incremental/organizations.json?start_time={end_time}" if page else None
        body = {"organizations": rows, "count": len(rows), "end_time": end_time, "next_page": link, "end_of_stream": end}
        return json_response(body)

    def _page(self, object: str, edge: _Key, size: int) -> tuple[list[_Key], bool]:
        self._latest = max(self._latest, int(self._clock.time()))
        keys, newest = self._known(object), self._clock.time() - _LAG
        page: list[_Key] = []
        for place in range(bisect_left(keys, edge), len(keys)):
            if keys[place][0] > newest:
                break
            row = self._tables[object].get(str(keys[place][1]))
            if row is None or (object == "organizations" and row.get("status") == "deleted"):
                continue
            if len(page) == min(size, _MOST):
                return page, False
            page.append(keys[place])
        return page, True

    def _row(self, object: str, key: _Key) -> Row:
        row = self._tables[object].get(str(key[1])) or {}
        return {**row, "generated_timestamp": key[0]} if object == "tickets" else row

    def _refused(self, request: Request) -> Response | None:
        said = request.query_params
        if not self._minute.take():
            headers = {"Retry-After": str(max(1, math.ceil(self._minute.wait())))}
            return Response(
                "Number of allowed incremental export API requests per minute exceeded", status_code=429, headers=headers
            )
        if not said.get("per_page", "1").isdigit() or not int(said.get("per_page", "1")):
            return json_response({"error": "InvalidValue", "description": "Invalid per_page"}, status=400)
        if said.get("cursor") and not request.url.path.endswith(("/organizations", "/organizations.json")):
            return None
        start = said.get("start_time", "")
        if not start.isdigit():
            return json_response({"error": "InvalidValue", "description": "Invalid start_time"}, status=400)
        if int(start) > self._clock.time() - _LAG:
            words = "Too recent start_time. Use a start_time older than 60 seconds"
            return json_response({"error": "StartTimeTooRecent", "description": words}, status=422)
        return None
