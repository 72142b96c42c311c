"""Pipedrive's webhooks v2: subscriptions by v1, and what is sent for each change.

Written from "Guide for Webhooks v2", its migration guide and the API reference. One change is one event; `previous` has what changed.
10 s, then again after 3, 30 and 150 s; after 10 events whose first attempt failed, one upon the other, nothing is sent for half an hour;
a subscription without success for three days is deleted. HTTP Basic is all that proves a delivery. Decided here: each subscription has an
event id of its own; a change of what v2 does not show (a deal's further participants) is not told; a merge is told as `merged_to_id` and
`merged_from_id` of `meta`; passwords are not shown again. Loopback addresses may be http. Not there: v1 payloads, other objects than
persons, organizations and deals, `permitted_user_ids` of more than one, app webhooks.
"""

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, json_response
from sandbox.pipedrive_fields import FIELDS
from sandbox.table import Row
from sandbox.webhooks import Made, Sending

_WAITS = (3.0, 30.0, 150.0)
_FAILURES, _BAN, _GIVEN_UP = 10, 1800.0, 3 * 86_400.0
_MOST = 40
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_ACTIONS = frozenset({"create", "change", "delete", "*"})
_OBJECTS = frozenset({"activity", "deal", "lead", "note", "organization", "person", "pipeline", "product", "stage", "user", "*"})
_UNTOLD = frozenset({"update_time"})  # moves with every change


@dataclass(slots=True)
class _Hook:
    row: Row
    password: str | None
    failures: int = 0  # first attempts that failed, one upon the other
    banned_until: float = 0.0
    failing_since: float | None = None


@dataclass(slots=True)
class Hooks:
    """
    Attributes:
        merging: ids that are being merged → what is said of it, while it is done.
    """

    clock: SandboxClock
    post: Callable[[Sending], None]
    company: int
    merging: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _hooks: dict[int, _Hook] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: count(1100))

    def endpoints(self) -> list[Endpoint]:
        root = "/api/v1/webhooks"
        return [
            Endpoint("GET", root, self._list, cost={"daily": 10}),
            Endpoint("POST", root, self._create, cost={"daily": 10}),
            Endpoint("DELETE", f"{root}/{{id}}", self._delete, cost={"daily": 6}),
        ]

    async def _list(self, _: Request) -> Response:
        return json_response({"status": "ok", "success": True, "data": [each.row for each in self._all()]})

    async def _create(self, request: Request) -> Response:
        try:
            said = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            return _refused(400, {"body": ["invalid"]})
        address = urlsplit(str(said.get("subscription_url") or ""))
        if not (address.hostname and (address.scheme == "https" or address.hostname in _LOCAL)):
            return _refused(400, {"subscription_url": ["invalid or non-reachable URL"]})
        wrong = {
            name: ["invalid"] for name, good in (
                ("event_action", said.get("event_action") in _ACTIONS), ("event_object", said.get("event_object") in _OBJECTS),
                ("name", 0 < len(str(said.get("name") or "")) <= 255), ("version", said.get("version", "2.0") == "2.0"),
            ) if not good
        }  # fmt: skip
        if wrong:
            return _refused(400, wrong)
        if len(self._hooks) >= _MOST:
            return _refused(400, {"user_id": [f"at most {_MOST} webhooks"]})
        id = next(self._ids)
        row = {
            "id": id, "company_id": self.company, "owner_id": 1, "user_id": 1, "event_action": said["event_action"], "event_object": said["event_object"],
            "subscription_url": said["subscription_url"], "version": "2.0", "is_active": 1, "add_time": self._stamp(), "remove_time": None, "type": "general",
            "http_auth_user": said.get("http_auth_user"), "http_auth_password": None, "remove_reason": None, "last_delivery_time": None,
            "last_http_status": None, "admin_id": 1, "name": said["name"],
        }  # fmt: skip
        self._hooks[id] = _Hook(row, said.get("http_auth_password"))
        return json_response({"status": "ok", "success": True, "data": row}, status=201)

    async def _delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        if not id.isdigit() or self._hooks.pop(int(id), None) is None:
            return _refused(404, {"id": ["not found"]})
        return json_response({"status": "ok", "success": True})

    def _all(self) -> list[_Hook]:
        """Return the subscriptions there are; those that failed for three days are deleted."""
        now = self.clock.time()
        for id, hook in list(self._hooks.items()):
            if hook.failing_since is not None and now - hook.failing_since > _GIVEN_UP:
                del self._hooks[id]
        return list(self._hooks.values())

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {
                "id": each.row["id"], "url": each.row["subscription_url"], "active": each.banned_until <= self.clock.time(),
                "event": f"{each.row['event_action']}.{each.row['event_object']}",
            }
            for each in self._all()
        ]  # fmt: skip

    # ---- deliveries ----

    def changed(self, object: str, before: Row | None, after: Row) -> None:
        new, old = _told(object, after), _told(object, before) if before is not None else None
        merge = self.merging.get(str(after["id"]), {})
        if old is None:
            self._tell("create", object, new, None, merge)
        elif after["is_deleted"] and not (before or {})["is_deleted"]:
            self._tell("delete", object, None, old, merge)
        else:
            previous = {name: value for name, value in old.items() if new.get(name) != value and name != "custom_fields"}
            custom = {code: each for code, each in old["custom_fields"].items() if new["custom_fields"].get(code) != each}
            if previous.keys() - _UNTOLD or custom or merge:
                self._tell("change", object, new, {**previous, **({"custom_fields": custom} if custom else {})}, merge)

    def _tell(self, action: str, object: str, data: Row | None, previous: Row | None, merge: Mapping[str, str]) -> None:
        correlation = str(uuid.uuid4())
        for hook in self._all():
            wanted = hook.row["event_action"] in {action, "*"} and hook.row["event_object"] in {object, "*"}
            if not wanted or self.clock.time() < hook.banned_until:
                continue
            meta = {
                "action": action, "entity": object, "entity_id": str((data or previous or {})["id"]), "id": str(uuid.uuid4()), "company_id": str(self.company),
                "user_id": "1", "timestamp": self._stamp(), "correlation_id": correlation, "is_bulk_edit": False, "version": "2.0",
                "webhook_id": str(hook.row["id"]), "webhook_owner_id": "1", "change_source": "app", "type": "general", "host": "c360-demo.pipedrive.com",
                "permitted_user_ids": ["1"], **merge,
            }  # fmt: skip
            at = [0]
            self.post(Sending(
                hook=str(hook.row["id"]), url=hook.row["subscription_url"], key=str(meta["id"]), waits=_WAITS, timeout=10.0,
                make=partial(self._made, hook, {"data": data, "previous": previous, "meta": meta}, at), answered=partial(self._answered, hook, at),
            ))  # fmt: skip

    def _made(self, hook: _Hook, body: Row, at: list[int], attempt: int) -> Made:
        at[0] = attempt
        headers = {"Content-Type": "application/json", "User-Agent": "Pipedrive Webhooks"}
        if hook.password is not None:
            pair = f"{hook.row['http_auth_user']}:{hook.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers, orjson.dumps({**body, "meta": {**body["meta"], "attempt": attempt + 1}})

    def _answered(self, hook: _Hook, at: list[int], status: int | None) -> None:
        now = self.clock.time()
        hook.row |= {"last_delivery_time": self._stamp(), "last_http_status": status}
        if status is not None and 200 <= status < 300:
            hook.failures, hook.failing_since = 0, None
            return
        hook.failing_since = hook.failing_since if hook.failing_since is not None else now
        if at[0] == 0:
            hook.failures += 1
            if hook.failures >= _FAILURES:
                hook.failures, hook.banned_until = 0, now + _BAN

    def _stamp(self) -> str:
        return f"{datetime.fromtimestamp(self.clock.time(), tz=UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def _told(object: str, row: Row) -> Row:
    """Return a row as webhooks show it: what it is, and custom fields with their type."""
    custom = {
        code: _custom(FIELDS[object][code].type, value) for code, value in row["custom_fields"].items() if value is not None
    }
    shown = {name: value for name, value in row.items() if not name.startswith("_") and name != "is_deleted"}
    return {**shown, "custom_fields": custom}


def _custom(type: str, value: Any) -> Row:
    if type == "enum":
        return {"type": type, "id": value}
    if type == "set":
        return {"type": type, "values": [{"id": each} for each in value]}
    return {"type": type, **(value if isinstance(value, dict) else {"value": value})}


def _refused(status: int, errors: Mapping[str, Any]) -> Response:
    return json_response({"status": "error", "success": False, "errors": errors}, status=status)
