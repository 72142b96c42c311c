"""Zoho's notifications: channels by the API, and what they are sent.

Written from the pages on notifications and a captured body. A channel is known by the number that its maker gave it, and lives until its
expiry: a day at most, an hour where none or more is asked for (the pages of v2 and v3; since v4 it may be a week). One notification is
of one module and one operation, and may hold several records. It is sent once. Decided here, since no document says: an end that has
passed already is an INVALID_DATA; a channel that is not there is NOT_SUBSCRIBED under a 400; POST of a channel that is there makes it
anew, as the vendor advises for renewing; a record that comes back is told as an update. Loopback addresses may be http. Not there:
conditions, fields, related actions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, json_response
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending
from sandbox.zoho_answers import guarded, needed, size_of
from sandbox.zoho_modules import FIELDS, iso, millis

_LONGEST, _DEFAULT = 86_400.0, 3600.0
_TOKEN = 50
_EVENTS = {"create": "insert", "edit": "update", "delete": "delete"}
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_UNTOLD = frozenset({"Modified_Time", "Modified_By"})  # they move with every change


@dataclass(slots=True)
class _Channel:
    id: str
    url: str
    token: str | None
    events: dict[str, set[str]]  # module → create, edit, delete
    expiry: float
    values: bool = False


class _Refused(Exception):
    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.verdict = {"code": code, "details": details, "message": message, "status": "error"}


class Notifications:
    """
    Args:
        now: milliseconds since 1970 on the org's clock.
        base: where the API stands, for links in bodies.
    """

    def __init__(
        self, clock: SandboxClock, outbox: Callable[[], Outbox], *, now: Callable[[], int], base: Callable[[], str]
    ) -> None:
        self._clock, self._outbox, self._now, self._base = clock, outbox, now, base
        self._channels: dict[str, _Channel] = {}

    def endpoints(self, root: str) -> list[Endpoint]:
        path = f"{root}/actions/watch"
        return [
            Endpoint("GET", path, guarded(self._list)),
            Endpoint("POST", path, guarded(partial(self._put, "POST"))),
            Endpoint("PUT", path, guarded(partial(self._put, "PUT"))),
            Endpoint("PATCH", path, guarded(partial(self._put, "PATCH"))),
            Endpoint("DELETE", path, guarded(self._delete)),
        ]

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": each.id, "url": each.url, "active": self._lives(each), "expiry": iso(each.expiry * 1000)}
            for each in self._channels.values()
        ]

    # ---- channels ----

    async def _list(self, request: Request) -> Response:
        said = request.query_params
        size, number = size_of(said), int(said.get("page", "1"))
        found = [
            {
                **self._event(channel, module), "notify_url": channel.url, "token": channel.token, "fields": None,
                "events": [f"{module}.{each}" for each in sorted(channel.events[module])], "notify_on_related_action": False,
                "return_affected_field_values": channel.values,
            }
            for channel in self._channels.values() for module in channel.events
            if self._lives(channel) and said.get("channel_id") in {None, channel.id} and said.get("module") in {None, module}
        ]  # fmt: skip
        rows = found[(number - 1) * size : number * size]
        if not rows:
            return Response(status_code=204)
        info = {"per_page": size, "count": len(rows), "page": number, "more_records": len(found) > number * size}
        return json_response({"watch": rows, "info": info})

    async def _put(self, method: str, request: Request) -> Response:
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            body = None
        said = body.get("watch") if isinstance(body, dict) else None
        if not isinstance(said, list) or not said:
            return _verdicts(
                [_Refused("MANDATORY_NOT_FOUND", "required field not found", api_name="watch", json_path="$.watch").verdict]
            )
        return _verdicts([self._taken(method, each, f"$.watch[{at}]") for at, each in enumerate(said)], made=method == "POST")

    def _taken(self, method: str, said: Any, at: str) -> Row:
        try:
            channel = self._channel(method, said if isinstance(said, dict) else {}, at)
        except _Refused as refused:
            return refused.verdict
        self._channels[channel.id] = channel
        words = (
            "Successfully subscribed for actions-watch of the given module"
            if method == "POST"
            else "Successfully updated the subscribe details"
        )
        return _success(words, {"events": [self._event(channel, module) for module in channel.events]})

    def _channel(self, method: str, said: Row, at: str) -> _Channel:
        id = str(said.get("channel_id") or "")
        if not id.isdigit():
            raise _Refused(
                "INVALID_DATA" if id else "MANDATORY_NOT_FOUND",
                "invalid data",
                api_name="channel_id",
                json_path=f"{at}.channel_id",
            )
        known = self._channels.get(id)
        if method != "POST" and (known is None or not self._lives(known)):
            raise _Refused("NOT_SUBSCRIBED", "the channel is not subscribed", channel_id=id)
        kept = {"notify_url": known.url, "token": known.token, "events": None} if method == "PATCH" and known is not None else {}
        url, token = ({**kept, **said}.get(name) for name in ("notify_url", "token"))
        if not isinstance(url, str) or not _reachable(url):
            raise _Refused("INVALID_DATA", "invalid data", api_name="notify_url", json_path=f"{at}.notify_url")
        if token is not None and (not isinstance(token, str) or len(token) > _TOKEN):
            raise _Refused("INVALID_DATA", "invalid data", api_name="token", maximum_length=_TOKEN, json_path=f"{at}.token")
        events = known.events if kept and known is not None and "events" not in said else _events(said.get("events"), at)
        values = bool(said.get("return_affected_field_values", known.values if kept and known is not None else False))
        return _Channel(id, url, token, events, self._expiry(said.get("channel_expiry"), at), values)

    def _expiry(self, said: Any, at: str) -> float:
        now = self._now() / 1000
        if said is None:
            return now + _DEFAULT
        try:
            asked = millis(said) / 1000
        except (TypeError, ValueError):
            asked = 0.0
        if asked <= now:
            raise _Refused("INVALID_DATA", "invalid data", api_name="channel_expiry", json_path=f"{at}.channel_expiry")
        return asked if asked <= now + _LONGEST else now + _DEFAULT

    async def _delete(self, request: Request) -> Response:
        verdicts = []
        for id in needed(request, "channel_ids").split(","):
            channel = self._channels.pop(id, None)
            if channel is None or not self._lives(channel):
                verdicts.append(_Refused("NOT_SUBSCRIBED", "the channel is not subscribed", channel_id=id).verdict)
            else:
                details = {"resource_uri": None, "resource_id": None, "channel_id": id}
                verdicts.append(_success("Successfully un-subscribed from actions-watch", details))
        return _verdicts(verdicts)

    def _event(self, channel: _Channel, module: str) -> Row:
        number = list(FIELDS).index(module)
        return {
            "channel_expiry": iso(channel.expiry * 1000), "resource_uri": f"{self._base()}/crm/v8/{module}", "resource_id": f"5540230000000001{number:02d}",
            "resource_name": module, "channel_id": channel.id, "notification_condition": None,
        }  # fmt: skip

    def _lives(self, channel: _Channel) -> bool:
        return channel.expiry * 1000 > self._now()

    # ---- notifications ----

    def changed(self, module: str, id: str, before: Row | None, after: Row) -> None:
        """Tell of a record that was made, edited or deleted."""
        if before is None:
            event, names = "create", [name for name, value in _shown(module, after).items() if value not in (None, [])]
        else:
            old, new = _shown(module, before), _shown(module, after)
            names = [name for name in new if old.get(name) != new[name]]
            gone, back = (
                before["$deleted"] is None and after["$deleted"] is not None,
                before["$deleted"] is not None and after["$deleted"] is None,
            )
            if not (names or gone or back):
                return
            event = "delete" if gone else "edit"
        item = (id, {} if event == "delete" else {name: after[name] for name in names})
        for channel in self._channels.values():
            if self._lives(channel) and event in channel.events.get(module, ()):
                self._outbox().gather((channel.id, module, event), item, partial(self._sending, channel, module, _EVENTS[event]))

    def _sending(self, channel: _Channel, module: str, operation: str, items: list[tuple[str, Row]]) -> Sending:
        values: dict[str, Row] = {}
        for id, said in items:
            values.setdefault(id, {}).update(said)
        body: Row = {
            "server_time": self._now(), "query_params": {}, "module": module, "resource_uri": f"{self._base()}/crm/v8/{module}", "ids": list(values),
            "affected_fields": [{id: list(said)} for id, said in values.items() if said], "operation": operation, "channel_id": channel.id,
        }  # fmt: skip
        if channel.values:
            body["affected_values"] = [{"record_id": id, "values": said} for id, said in values.items() if said]
        if channel.token is not None:
            body["token"] = channel.token
        made: Made = ({"Content-Type": "application/json"}, orjson.dumps(body))
        return Sending(hook=channel.id, url=channel.url, key=f"{module}.{operation}.{body['server_time']}", make=lambda _: made)


def _shown(module: str, row: Row) -> Row:
    return {name: row.get(name) for name in FIELDS[module] if name not in _UNTOLD}


def _events(said: Any, at: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for nth, each in enumerate(said if isinstance(said, list) else []):
        module, _, event = str(each).partition(".")
        if module not in FIELDS or event not in {*_EVENTS, "all"}:
            raise _Refused("INVALID_DATA", "invalid data", api_name="events", json_path=f"{at}.events[{nth}]")
        found.setdefault(module, set()).update(_EVENTS if event == "all" else {event})
    if not found:
        raise _Refused("MANDATORY_NOT_FOUND", "required field not found", api_name="events", json_path=f"{at}.events")
    return found


def _success(message: str, details: Row) -> Row:
    return {"code": "SUCCESS", "details": details, "message": message, "status": "success"}


def _verdicts(verdicts: list[Row], *, made: bool = False) -> Response:
    refused = sum(each["status"] == "error" for each in verdicts)
    status = 400 if refused == len(verdicts) else 202 if refused else 201 if made else 200
    return json_response({"watch": verdicts}, status=status)


def _reachable(url: str) -> bool:
    address = urlsplit(url)
    return bool(address.hostname) and (address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOCAL))
