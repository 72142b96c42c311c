"""Zendesk's webhooks: subscriptions to events, and what is sent for each thing that happens.

Written from "Webhooks introduction", "Webhook event types" (users, organizations, tickets), "Verifying webhook authenticity". One edit
sends one event for each property that has one; others (a user's locale, an organization's domains) send nothing. 409, and 429 and 503
(whose `Retry-After` is not looked at here: 30 s), are tried again up to three times, what is not answered within 12 s up to five;
nothing is switched off. Every attempt bears the signature and time of the first one. Decided here: what `user.merged` names
(`event.user.id` is who was merged; `detail` who lives on), and that a retry comes after a minute. Loopback addresses may be http.
A trigger's webhook ("conditional ticket events") sends the body that the trigger gives it: here `{"ticket_id": …}`, for every change
of a ticket. Not there: the circuit breaker, payload limits, test invocations, invocation logs.
"""

import base64
import hmac
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
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
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending

ACCOUNT = 22129848
TRIGGERED = "conditional_ticket_events"
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_AGAIN: Mapping[int | None, tuple[int, float]] = {
    409: (3, 60.0),
    429: (3, 30.0),
    503: (3, 30.0),
    None: (5, 60.0),
}  # how often, after
_NOUNS = {"users": "user", "organizations": "organization", "tickets": "ticket"}
_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    "users": {
        "name": "name_changed", "email": "identity_changed", "phone": "identity_changed", "external_id": "external_id_changed", "details": "details_changed",
        "notes": "notes_changed", "role": "role_changed", "suspended": "suspended_changed", "tags": "tags_changed", "time_zone": "time_zone_changed",
        "user_fields": "custom_field_changed", "active": "active_changed",
    },
    "organizations": {
        "name": "name_changed", "external_id": "external_id_changed", "tags": "tags_changed", "organization_fields": "custom_field_changed",
    },
    "tickets": {
        "assignee_id": "agent_assignment_changed", "custom_fields": "custom_field_changed", "description": "description_changed",
        "due_at": "task_due_at_changed", "external_id": "external_id_changed", "group_id": "group_assignment_changed",
        "organization_id": "organization_changed", "priority": "priority_changed", "requester_id": "requester_changed", "status": "status_changed",
        "subject": "subject_changed", "tags": "tags_changed", "type": "type_changed",
    },
}  # fmt: skip
_DETAIL = {
    "users": ("created_at", "email", "external_id", "updated_at", "role"),
    "organizations": ("created_at", "external_id", "name", "updated_at"),
    "tickets": ("created_at", "description", "external_id", "is_public", "subject", "tags", "updated_at"),
}


class Hooks:
    """
    Attributes:
        outbox: None until someone listens to the account.
        skew: seconds the vendor's clock is off.
        ticket_events: older accounts have none.
    """

    def __init__(self, clock: SandboxClock, *, skew: Callable[[], float]) -> None:
        self._clock, self._skew = clock, skew
        self.outbox: Outbox | None = None
        self.ticket_events = True
        self._hooks: dict[str, Row] = {}
        self._secrets: dict[str, str] = {}
        self._numbers = count(1)

    # ---- /api/v2/webhooks ----

    def endpoints(self, suffix: str) -> list[Endpoint]:
        root = "/api/v2/webhooks"
        one = f"{root}/{{id}}"
        return [
            Endpoint("GET", f"{root}{suffix}", self._list),
            Endpoint("POST", f"{root}{suffix}", self._create),
            Endpoint("GET", f"{one}/signing_secret{suffix}", self._secret),
            Endpoint("POST", f"{one}/signing_secret{suffix}", self._secret_anew),
            Endpoint("GET", one, self._one),
            Endpoint("PUT", one, self._update),
            Endpoint("DELETE", one, self._delete),
        ]

    async def _list(self, request: Request) -> Response:
        said = request.query_params
        size, after = said.get("page[size]", "100"), said.get("page[after]", "")
        if not size.isdigit() or not 1 <= int(size) <= 100 or (after and after not in self._hooks):
            return _refused(400, "InvalidPage", "Invalid page")
        ids = list(self._hooks)
        left = ids[ids.index(after) + 1 :] if after else ids
        page = left[: int(size)]
        meta = {"has_more": len(left) > len(page), "after_cursor": page[-1] if page else None, "before_cursor": None}
        return json_response({"webhooks": [self._hooks[id] for id in page], "meta": meta, "links": {"next": None, "prev": None}})

    async def _create(self, request: Request) -> Response:
        said = await self._said(request, None)
        if isinstance(said, Response):
            return said
        return json_response({"webhook": self._kept(said)}, status=201)

    def _kept(self, said: Row) -> Row:
        id, now = f"01HSANDBOX{next(self._numbers):016d}", self._now()
        hook = {"id": id, "status": "active", "created_at": now, "created_by": "1", "updated_at": now, "updated_by": "1", **said}
        self._hooks[id], self._secrets[id] = hook, base64.b64encode(secrets.token_bytes(33)).decode()
        return hook

    async def _one(self, request: Request) -> Response:
        hook = self._hooks.get(request.path_params["id"])
        return _missing() if hook is None else json_response({"webhook": hook})

    async def _update(self, request: Request) -> Response:
        hook = self._hooks.get(request.path_params["id"])
        if hook is None:
            return _missing()
        said = await self._said(request, hook)
        if isinstance(said, Response):
            return said
        hook |= {**said, "updated_at": self._now()}
        return Response(status_code=204)

    async def _delete(self, request: Request) -> Response:
        return _missing() if self._hooks.pop(request.path_params["id"], None) is None else Response(status_code=204)

    async def _secret(self, request: Request) -> Response:
        id = request.path_params["id"]
        return _missing() if id not in self._hooks else json_response(_signing(self._secrets[id]))

    async def _secret_anew(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id not in self._hooks:
            return _missing()
        self._secrets[id] = base64.b64encode(secrets.token_bytes(33)).decode()
        return json_response(_signing(self._secrets[id]), status=201)

    async def _said(self, request: Request, before: Row | None) -> Row | Response:
        try:
            said = orjson.loads(await request.body())["webhook"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            said = None
        if not isinstance(said, dict) or any(
            not said.get(each) for each in ("name", "endpoint", "http_method", "request_format", "status")
        ):
            return _refused(400, "InvalidWebhook", "Webhook is invalid")
        address = urlsplit(str(said["endpoint"]))
        if not (address.hostname and (address.scheme == "https" or address.hostname in _LOCAL)):
            return _refused(400, "InvalidEndpoint", "Endpoint is not a public https URL")
        wanted = said.get("subscriptions") or []
        if before is not None and (TRIGGERED in before["subscriptions"]) != (TRIGGERED in wanted):
            return _refused(400, "InvalidSubscriptions", "A webhook cannot change its kind")
        if TRIGGERED in wanted and len(wanted) > 1:
            return _refused(400, "InvalidSubscriptions", "Subscriptions cannot be mixed with conditional_ticket_events")
        if not self.ticket_events and any(":ticket." in each for each in wanted):
            return _refused(400, "InvalidSubscriptions", "Subscription is invalid")
        return {
            name: said[name]
            for name in ("name", "endpoint", "http_method", "request_format", "status", "subscriptions")
            if name in said
        }

    def enter(self, url: str, secret: str) -> None:
        """Make a trigger's webhook, as an administrator would; "" for a secret takes what Zendesk gives."""
        hook = self._kept(
            {"name": "trigger", "endpoint": url, "http_method": "POST", "request_format": "json", "subscriptions": [TRIGGERED]}
        )
        if secret:
            self._secrets[hook["id"]] = secret

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {
                "id": hook["id"],
                "url": hook["endpoint"],
                "active": hook["status"] == "active",
                "subscriptions": hook["subscriptions"],
            }
            for hook in self._hooks.values()
        ]

    # ---- deliveries ----

    def changed(self, object: str, before: Row | None, after: Row) -> None:
        for said, event in _events(object, before, after):
            self._tell(object, f"zen:event-type:{_NOUNS[object]}.{said}", after, event)
        if object == "tickets" and before != after:
            for hook in self._hooks.values():
                if TRIGGERED in hook["subscriptions"]:
                    self._post(hook, orjson.dumps({"ticket_id": str(after["id"])}), uuid.uuid4().hex)

    def merged(self, loser: Row, winner: Row) -> None:
        self._tell("users", "zen:event-type:user.merged", winner, {"user": {"id": str(loser["id"])}})

    def _tell(self, object: str, said: str, row: Row, event: Row) -> None:
        id = str(uuid.uuid4())
        ids = {
            "users": ("id", "organization_id"),
            "tickets": ("id", "requester_id", "assignee_id", "organization_id"),
            "organizations": ("id",),
        }
        detail = {name: row.get(name) for name in _DETAIL[object]} | {
            name: None if row.get(name) is None else str(row[name]) for name in ids[object]
        }
        if object == "tickets":
            detail |= {name: row[name].upper() if row[name] else None for name in ("status", "priority", "type")}
        body = {
            "type": said, "account_id": ACCOUNT, "id": id, "time": self._now(), "zendesk_event_version": "2022-11-06",
            "subject": f"zen:{_NOUNS[object]}:{row['id']}", "detail": detail, "event": event,
        }  # fmt: skip
        for hook in self._hooks.values():
            if said in hook["subscriptions"]:
                self._post(hook, orjson.dumps(body), id)

    def _post(self, hook: Row, raw: bytes, key: str) -> None:
        if self.outbox is not None and hook["status"] == "active":
            # Real time: receivers compare it with theirs.
            stamp = f"{datetime.fromtimestamp(time.time() + self._skew(), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
            signed = base64.b64encode(hmac.digest(self._secrets[hook["id"]].encode(), stamp.encode() + raw, "sha256")).decode()
            headers = {
                "Content-Type": "application/json", "X-Zendesk-Account-Id": str(ACCOUNT), "X-Zendesk-Webhook-Id": hook["id"],
                "X-Zendesk-Webhook-Invocation-Id": uuid.uuid4().hex, "X-Zendesk-Webhook-Signature": signed,
                "X-Zendesk-Webhook-Signature-Timestamp": stamp,
            }  # fmt: skip
            self._send(hook, key, (headers, raw), 0, 0.0)

    def _send(self, hook: Row, key: str, made: Made, attempt: int, after: float) -> None:
        if self.outbox is None:
            return
        sending = Sending(
            hook=hook["id"], url=hook["endpoint"], key=key, make=lambda _: made, timeout=12.0,
            answered=partial(self._answered, hook, key, made, attempt),
        )  # fmt: skip
        self.outbox.post(sending, after=after)

    def _answered(self, hook: Row, key: str, made: Made, attempt: int, status: int | None) -> None:
        most, pause = _AGAIN.get(status, (0, 0.0))
        if attempt < most:
            self._send(hook, key, made, attempt + 1, pause)

    def _now(self) -> str:
        return f"{datetime.fromtimestamp(self._clock.time(), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _events(object: str, before: Row | None, after: Row) -> Iterator[tuple[str, Row]]:
    if before is None:
        yield "created", {}
        return
    was, now = before.get("status"), after.get("status")
    if object != "users" and was != now and "deleted" in (was, now):
        yield ("undeleted" if was == "deleted" else "soft_deleted" if object == "tickets" else "deleted"), {}
        return
    if object == "users" and before["organization_id"] != after["organization_id"]:
        if before["organization_id"]:
            yield "organization_membership_deleted", {"organization": {"id": str(before["organization_id"])}}
        if after["organization_id"]:
            yield "organization_membership_created", {"organization": {"id": str(after["organization_id"])}}
    for name, said in _PROPERTIES[object].items():
        if before.get(name) != after.get(name):
            yield said, {"current": after.get(name), "previous": before.get(name)}


def _signing(secret: str) -> Row:
    return {"signing_secret": {"algorithm": "SHA256", "secret": secret}}


def _missing() -> Response:
    return _refused(404, "WebhookNotFound", "Webhook not found")


def _refused(status: int, code: str, words: str) -> Response:
    return json_response({"errors": [{"code": code, "title": words}]}, status=status)
