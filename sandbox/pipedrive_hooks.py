"""Pipedrive's webhooks v2: subscriptions by v1's endpoints, and what is sent for each thing that happens in the company.

From the guide for webhooks v2 and its migration guide. A delivery has 10 s, is tried again after 3, 30 and 150 s, and carries the number of
its attempt. After 10 first attempts that failed nothing is sent for half an hour; after three days of failures without a success the
subscription is thrown away. Decided here: a success of a first attempt forgets the failures before; passwords are not told back; what is
not sent during a ban is never sent; loopback addresses may be http.
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

OBJECTS: Mapping[str, str] = {"contact": "person", "account": "organization", "deal": "deal"}
_ACTIONS = frozenset({"create", "change", "delete", "*"})
_NOUNS = frozenset({"activity", "deal", "lead", "note", "organization", "person", "pipeline", "product", "stage", "user", "*"})
_WAITS = (3.0, 30.0, 150.0)
_MOST = 40
_FAILURES, _BAN, _PATIENCE = 10, 1800.0, 3 * 86_400.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(slots=True)
class _Hook:
    """
    Attributes:
        failures: first attempts that failed since one succeeded.
        failing: when the first failure since the last success was, in seconds since 1970; None: there was none.
    """

    row: Row
    user: str | None
    password: str | None
    failures: int = 0
    banned_until: float = 0.0
    failing: float | None = None


@dataclass(slots=True)
class Hooks:
    """
    Attributes:
        into: (kind, id) → the id it is merged into, while that happens; `of` the other way round.
    """

    clock: SandboxClock
    post: Callable[[Sending], None]
    company: int
    into: dict[tuple[str, str], str] = field(default_factory=dict)
    of: dict[tuple[str, str], str] = field(default_factory=dict)
    _hooks: dict[int, _Hook] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: count(1100))

    # ---- v1 ----

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/api/v1/webhooks", self._list, cost={"daily": 10}),
            Endpoint("POST", "/api/v1/webhooks", self._create, cost={"daily": 10}),
            Endpoint("DELETE", "/api/v1/webhooks/{id}", self._delete, cost={"daily": 6}),
        ]

    async def _list(self, _: Request) -> Response:
        return json_response({"status": "ok", "success": True, "data": [hook.row for hook in self._hooks.values()]})

    async def _create(self, request: Request) -> Response:
        try:
            said = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict):
            return _refused("body", "not an object")
        if said.get("event_action") not in _ACTIONS:
            return _refused("event_action", "invalid")
        if said.get("event_object") not in _NOUNS:
            return _refused("event_object", "invalid")
        if not isinstance(said.get("name"), str) or not 0 < len(said["name"]) <= 255:
            return _refused("name", "required")
        if said.get("version", "2.0") != "2.0":
            return _refused("version", "not in this sandbox")
        if not _reachable(said.get("subscription_url")):
            return _refused("subscription_url", "invalid or non-reachable URL")
        if len(self._hooks) >= _MOST:
            return _refused("subscription_url", f"at most {_MOST} webhooks a user")
        id = next(self._ids)
        row = {
            "id": id, "company_id": self.company, "owner_id": 1, "user_id": 1, "event_action": said["event_action"], "event_object": said["event_object"],
            "subscription_url": said["subscription_url"], "version": "2.0", "is_active": 1, "add_time": self._now(), "remove_time": None, "type": "general",
            "http_auth_user": said.get("http_auth_user"), "http_auth_password": None, "remove_reason": None, "last_delivery_time": None, "last_http_status": None,
            "admin_id": 1, "name": said["name"],
        }  # fmt: skip
        self._hooks[id] = _Hook(row, said.get("http_auth_user"), said.get("http_auth_password"))
        return json_response({"status": "ok", "success": True, "data": row}, status=201)

    async def _delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        if not id.isdigit() or self._hooks.pop(int(id), None) is None:
            return json_response({"status": "error", "success": False, "errors": {"id": ["not found"]}}, status=404)
        return json_response({"status": "ok", "success": True})

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {
                "id": str(id), "url": hook.row["subscription_url"], "active": self.clock.time() >= hook.banned_until,
                "event": f"{hook.row['event_action']}.{hook.row['event_object']}",
            }
            for id, hook in self._hooks.items()
        ]  # fmt: skip

    # ---- what happens ----

    def changed(self, kind: str, id: str, before: Row | None, after: Row | None) -> None:
        """Tell of a record that was made, edited, deleted or brought back."""
        noun = OBJECTS.get(kind)
        if noun is None or after is None:  # users; what is purged was deleted long before
            return
        was, now = _told(noun, before), _told(noun, after)
        if after["is_deleted"]:
            if was is not None and not (before or {})["is_deleted"]:
                self._tell(noun, "delete", id, None, was, {"merged_to_id": self.into.get((kind, id))})
            return
        merged = {"merged_from_id": self.of.get((kind, id))}
        if was is None or now is None:
            self._tell(noun, "create", id, now, None, {})
        elif previous := {name: was.get(name) for name in now if name != "update_time" and was.get(name) != now[name]}:
            self._tell(noun, "change", id, now, previous, merged)
        elif merged["merged_from_id"]:
            self._tell(noun, "change", id, now, {}, merged)

    def _tell(self, noun: str, action: str, id: str, data: Row | None, previous: Row | None, more: Mapping[str, Any]) -> None:
        event, now = str(uuid.uuid4()), self._now()
        for number, hook in list(self._hooks.items()):
            if hook.row["event_action"] not in {action, "*"} or hook.row["event_object"] not in {noun, "*"}:
                continue
            if self.clock.time() < hook.banned_until:
                continue
            meta = {
                "action": action, "entity": noun, "entity_id": id, "id": event, "company_id": str(self.company), "user_id": "1", "timestamp": now,
                "correlation_id": str(uuid.uuid4()), "is_bulk_edit": False, "version": "2.0", "webhook_id": str(number), "webhook_owner_id": "1",
                "change_source": "app", "type": "general", "attempt": 1, "host": "c360-demo.pipedrive.com", "permitted_user_ids": ["1"],
                **{name: value for name, value in more.items() if value},
            }  # fmt: skip
            tried = count()
            self.post(
                Sending(
                    hook=str(number), url=hook.row["subscription_url"], key=event, waits=_WAITS, timeout=10.0,
                    make=partial(self._made, hook, meta, data, previous), answered=lambda status, number=number, tried=tried: self._answered(number, next(tried), status),  # type: ignore[misc]
                )
            )  # fmt: skip

    def _made(self, hook: _Hook, meta: Row, data: Row | None, previous: Row | None, attempt: int) -> Made:
        headers = {"Content-Type": "application/json", "User-Agent": "Pipedrive Webhooks"}
        if hook.user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{hook.user}:{hook.password or ''}".encode()).decode()
        return headers, orjson.dumps({"meta": {**meta, "attempt": attempt + 1}, "data": data, "previous": previous})

    def _answered(self, number: int, attempt: int, status: int | None) -> None:
        hook, now = self._hooks.get(number), self.clock.time()
        if hook is None:
            return
        hook.row |= {"last_delivery_time": self._now(), "last_http_status": status}
        if status is not None and 200 <= status < 300:
            hook.failing = None
            hook.failures = 0 if attempt == 0 else hook.failures
            return
        hook.failing = now if hook.failing is None else hook.failing
        if attempt == 0:
            hook.failures += 1
            if hook.failures >= _FAILURES:
                hook.failures, hook.banned_until = 0, now + _BAN
        if now - hook.failing > _PATIENCE:
            del self._hooks[number]

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock.time(), tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _told(noun: str, row: Row | None) -> Row | None:
    """Return a record as webhooks have it: custom fields that are empty are left out, and the others say their type."""
    if row is None:
        return None
    custom = {
        code: _custom(FIELDS[noun][code].type, value) for code, value in row["custom_fields"].items() if value is not None and code in FIELDS[noun]
    }  # fmt: skip
    return {**{name: value for name, value in row.items() if not name.startswith("_")}, "custom_fields": custom}


def _custom(type: str, value: Any) -> Row:
    if isinstance(value, dict):
        return {"type": type, **value}
    if isinstance(value, list):
        return {"type": type, "values": [{"id": each} for each in value]}
    return {"type": type, "id" if type in {"enum", "user", "org", "people"} else "value": value}


def _reachable(url: object) -> bool:
    address = urlsplit(url) if isinstance(url, str) else None
    if address is None or not address.hostname:
        return False
    return address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOCAL)


def _refused(field: str, why: str) -> Response:
    return json_response({"status": "error", "success": False, "errors": {field: [why]}}, status=400)
