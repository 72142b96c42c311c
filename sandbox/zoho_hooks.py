"""Zoho's Notifications API: channels that end by themselves, and calls that say which records of a module something happened to.

Written from "Notification APIs" (v8) and its published description; the shape of a call from a captured one. A channel lives a day at
most; without an end, or with one that is past or farther away, an hour. Decided here, since no document says: an ended channel is not
listed any more; PUT and PATCH of one that is not there is refused as `NOT_SUBSCRIBED`; a call that fails is not repeated; what happens
within a moment to records of one module in one way is one call; a write that changes no field tells nothing. Not there: conditions on
fields, related actions.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import Endpoint, json_response
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending
from sandbox.zoho_answers import PAGE
from sandbox.zoho_modules import Spec, iso, millis, zoho_id

_DAY, _HOUR = 86_400_000, 3_600_000  # milliseconds
_WORDS = {"insert": "create", "update": "edit", "delete": "delete"}
_TOKEN = 50  # characters
_MADE = "Successfully subscribed for actions-watch of the given module"
_CHANGED = "Successfully updated the subscribe details"
_REMOVED = "Successfully removed the subscribe details"
_ENDED = "Successfully un-subscribed from actions-watch"


class Channels:
    """
    Args:
        modules: fields by module.
        now: milliseconds since 1970 on the org's clock.
    """

    outbox: Outbox

    def __init__(self, modules: Mapping[str, Mapping[str, Spec]], now: Callable[[], int]) -> None:
        self._modules, self._now = modules, now
        self._kept: dict[str, Row] = {}  # by channel_id; `ends` in milliseconds

    def endpoints(self, root: str) -> list[Endpoint]:
        path = f"{root}/actions/watch"
        return [
            Endpoint("GET", path, self._list), Endpoint("POST", path, self._enable), Endpoint("PUT", path, self._update),
            Endpoint("PATCH", path, self._patch), Endpoint("DELETE", path, self._disable),
        ]  # fmt: skip

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": id, "url": each["notify_url"], "active": True, "events": each["events"], "expires": iso(each["ends"])}
            for id, each in self._living().items()
        ]

    def _living(self) -> dict[str, Row]:
        self._kept = {id: each for id, each in self._kept.items() if each["ends"] > self._now()}
        return self._kept

    # ---- the API ----

    async def _list(self, request: Request) -> Response:
        said = request.query_params
        size, number = int(said.get("per_page", PAGE)), int(said.get("page", 1))
        rows = [
            {
                "channel_id": id, "notify_url": each["notify_url"], "token": each["token"], "events": [event for event in each["events"] if event.startswith(f"{module}.")],
                "fields": None, "notify_on_related_action": each["related"], "return_affected_field_values": each["values"], **self._event(request, each, module),
            }
            for id, each in self._living().items()
            for module in _modules(each["events"])
            if said.get("channel_id") in {None, id} and said.get("module") in {None, module}
        ]  # fmt: skip
        page = rows[(number - 1) * size : number * size]
        if not page:
            return Response(status_code=204)
        info = {"per_page": size, "page": number, "count": len(page), "more_records": len(rows) > number * size}
        return json_response({"watch": page, "info": info})

    async def _enable(self, request: Request) -> Response:
        return self._answered([self._written(request, each, None) for each in await _said(request)], status=201)

    async def _update(self, request: Request) -> Response:
        """Replace what a channel has by what is given."""
        return self._answered([self._changed(request, each, whole=True) for each in await _said(request)], status=200)

    async def _patch(self, request: Request) -> Response:
        """Change what is given; with `_delete_events` the events given are those that end."""
        return self._answered([self._changed(request, each, whole=False) for each in await _said(request)], status=200)

    async def _disable(self, request: Request) -> Response:
        ids = [each for each in request.query_params.get("channel_ids", "").split(",") if each]
        if not ids:
            return json_response(
                _verdict("REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", param_name="channel_ids"),
                status=400,
            )
        rows = []
        for id in ids:
            gone = self._living().pop(id, None)
            rows.append(
                _not_subscribed(id)
                if gone is None
                else _verdict("SUCCESS", _ENDED, channel_id=id, events=[], resource_uri="", resource_id="", id=id)
            )
        return self._answered(rows, status=200)

    def _answered(self, rows: list[Row], *, status: int) -> Response:
        good = any(each["status"] == "success" for each in rows)
        return json_response({"watch": rows}, status=status if good else 202)

    def _changed(self, request: Request, said: Row, *, whole: bool) -> Row:
        id = str(said.get("channel_id"))
        if (before := self._living().get(id)) is None:
            return _not_subscribed(id)
        if said.get("_delete_events") is True:
            before["events"] = [each for each in before["events"] if each not in said.get("events", ())]
            return _verdict(
                "SUCCESS", _REMOVED, events=[self._event(request, before, each) for each in _modules(before["events"])]
            )
        return self._written(request, said, None if whole else before, message=_CHANGED)

    def _written(self, request: Request, said: Row, before: Row | None, *, message: str = _MADE) -> Row:
        id, events, url, token = str(said.get("channel_id", "")), said.get("events"), said.get("notify_url"), said.get("token")
        if before is not None:
            events, url, token = (
                value if value is not None else before[name]
                for name, value in (("events", events), ("notify_url", url), ("token", token))
            )
        if not id.isdigit():
            return _verdict("INVALID_DATA", "invalid data", expected_data_type="bigint", api_name="channel_id")
        if not isinstance(url, str) or not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
            return _verdict("INVALID_DATA", "invalid data", api_name="notify_url")
        if token is not None and (not isinstance(token, str) or len(token) > _TOKEN):
            return _verdict("INVALID_DATA", "invalid data", maximum_length=_TOKEN, api_name="token")
        if not isinstance(events, list) or not events or not all(self._knows(each) for each in events):
            return _verdict("INVALID_DATA", "invalid data", api_name="events")
        made = {
            "id": id, "events": events, "notify_url": url, "token": token, "ends": self._ends(said.get("channel_expiry")),
            "values": bool(said.get("return_affected_field_values")), "related": bool(said.get("notify_on_related_action", True)),
        }  # fmt: skip
        self._living()[id] = made
        return _verdict("SUCCESS", message, events=[self._event(request, made, each) for each in _modules(events)])

    def _knows(self, event: object) -> bool:
        module, _, way = str(event).partition(".")
        return module in self._modules and way in {"all", *_WORDS.values()}

    def _ends(self, said: object) -> int:
        now = self._now()
        try:
            ends = millis(str(said))
        except ValueError:
            ends = 0
        return ends if now < ends <= now + _DAY else now + _HOUR

    def _event(self, request: Request, channel: Row, module: str) -> Row:
        address = f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
        return {
            "channel_expiry": iso(channel["ends"]), "resource_uri": f"{address}/crm/v8/{module}", "resource_id": zoho_id(module, 0), "resource_name": module,
            "channel_id": channel["id"], "notification_condition": [],
        }  # fmt: skip

    # ---- calls ----

    def changed(self, module: str, id: str, before: Row | None, after: Row | None) -> None:
        """Tell the channels that watch; what goes into the recycle bin is deleted, what comes out of it is new."""
        was, there = before is not None and before["$deleted"] is None, after is not None and after["$deleted"] is None
        if not was and not there:
            return
        operation = "update" if was and there else "insert" if there else "delete"
        names = [name for name in _fields(self._modules[module]) if (before or {}).get(name) != (after or {}).get(name)]
        if operation == "update" and not names:
            return
        item = (id, names if operation == "update" else [], {name: (after or {}).get(name) for name in names})
        for channel in self._living().values():
            if {f"{module}.all", f"{module}.{_WORDS[operation]}"} & set(channel["events"]):
                send = partial(self._sending, dict(channel), module, operation)
                self.outbox.gather((channel["id"], module, operation), item, send)

    def _sending(self, channel: Row, module: str, operation: str, items: list[tuple[str, list[str], Row]]) -> Sending:
        told = dict(zip((item[0] for item in items), items, strict=True))  # the last of each record
        body: Row = {
            "server_time": self._now(), "affected_values": [], "query_params": {}, "module": module, "resource_uri": f"https://www.zohoapis.in/crm/v8/{module}",
            "ids": list(told), "affected_fields": [{id: names} for id, names, _ in told.values() if names], "operation": operation, "channel_id": channel["id"],
            "token": channel["token"],
        }  # fmt: skip
        if channel["values"]:
            body["affected_values"] = [{"record_id": id, "values": values} for id, names, values in told.values() if names]
        raw = orjson.dumps(body)

        def made(_: int) -> Made:
            return {"content-type": "application/json", "user-agent": "https://crm.zoho.in"}, raw

        return Sending(
            hook=channel["id"], url=channel["notify_url"], key=f"{module}.{operation}:{body['server_time']}", make=made
        )


def _fields(specs: Mapping[str, Spec]) -> list[str]:
    """Return the fields that people change: no times, no id."""
    return [name for name in specs if name not in {"id", "Created_Time", "Modified_Time", "Created_By", "Modified_By"}]


def _modules(events: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(each.partition(".")[0] for each in events))


async def _said(request: Request) -> list[Row]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return [{}]
    rows = body.get("watch") if isinstance(body, dict) else None
    return rows if isinstance(rows, list) and rows and all(isinstance(each, dict) for each in rows) else [{}]


def _verdict(code: str, message: str, **details: Any) -> Row:
    return {"code": code, "details": details, "message": message, "status": "success" if code == "SUCCESS" else "error"}


def _not_subscribed(id: str) -> Row:
    return _verdict("NOT_SUBSCRIBED", "Details to be updated/deleted are not available", channel_id=id)
