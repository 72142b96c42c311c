"""BigCommerce's webhooks: hooks by V3, and thin deliveries as the vendor makes them.

Written from "HTTPS Webhooks Overview", "Webhooks Overview", "Webhook Events" and webhooks V3. Each delivery is signed by Standard
Webhooks with the client secret and carries the headers that the hook was given. Eleven retries go over two days, then the hook is
switched off, as it is after 90 days without an event. Decided here, since no document says: a retry has its own time and signature;
the `hash` is that of `data` alone, so that it is the same for two edits of one record, which is the worst that the documents allow;
a second hook of one scope to one address is refused with a 422. Loopback addresses may be http. Not there: blocked domains (below 90 %
in two minutes), the minute in which a new hook may not work yet, wildcard scopes, hooks of channels.
"""

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.bigcommerce_answers import paged, v3_error
from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, json_response
from sandbox.table import Row
from sandbox.webhooks import Made, Sending

SCOPES = frozenset({
    *(f"store/customer/{event}" for event in ("created", "updated", "deleted", "address/created", "address/updated", "address/deleted")),
    *(f"store/order/{event}" for event in ("created", "updated", "archived", "statusUpdated", "message/created", "refund/created", "transaction/created", "transaction/updated")),
})  # fmt: skip
_WAITS = (60, 180, 300, 600, 900, 1800, 3600, 7200, 21600, 50400, 86400)
_IDLE = 90 * 86_400.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
# What moves without an event: times, and attributes, which are told only when changed in the control panel.
_UNTOLD = frozenset({"date_modified", "attributes"})
_SAID = frozenset({"scope", "destination", "is_active", "headers"})


class Hooks:
    """
    Attributes:
        secret: the client secret, with which deliveries are signed.
    """

    def __init__(self, clock: SandboxClock, post: Callable[[Sending], None], *, store: str, secret: str) -> None:
        self._clock, self._post, self._store = clock, post, store
        self.secret = secret
        self._hooks: dict[int, Row] = {}
        self._used: dict[int, float] = {}  # when a hook was made, switched on or last had an event
        self._numbers = count(20_172_984)

    # ---- V3 ----

    def endpoints(self, root: str) -> list[Endpoint]:
        one = f"{root}/v3/hooks/{{id:int}}"
        return [
            Endpoint("GET", f"{root}/v3/hooks", self._list),
            Endpoint("POST", f"{root}/v3/hooks", self._create),
            Endpoint("GET", one, self._one),
            Endpoint("PUT", one, self._update),
            Endpoint("DELETE", one, self._delete),
        ]

    async def _list(self, request: Request) -> Response:
        said = request.query_params
        rows = [
            hook for hook in self._all()
            if said.get("scope") in {None, hook["scope"]} and said.get("destination") in {None, hook["destination"]}
            and said.get("is_active", "").lower() in {"", str(hook["is_active"]).lower()}
        ]  # fmt: skip
        try:
            return paged(rows, said)
        except ValueError as error:
            return v3_error(422, str(error))

    async def _create(self, request: Request) -> Response:
        said = await self._said(request)
        if isinstance(said, Response):
            return said
        number, now = next(self._numbers), int(self._clock.time())
        hook: Row = {
            "id": number, "client_id": "c360democlient", "store_hash": self._store, "created_at": now, "updated_at": now, "is_active": True, "headers": None, **said,
        }  # fmt: skip
        return self._kept(hook)

    async def _update(self, request: Request) -> Response:
        hook = self._hooks.get(request.path_params["id"])
        if hook is None:
            return v3_error(404, "Webhook not found.")
        said = await self._said(request, hook)
        return said if isinstance(said, Response) else self._kept({**hook, **said, "updated_at": int(self._clock.time())})

    async def _one(self, request: Request) -> Response:
        hook = next((each for each in self._all() if each["id"] == request.path_params["id"]), None)
        return v3_error(404, "Webhook not found.") if hook is None else json_response({"data": hook, "meta": {}})

    async def _delete(self, request: Request) -> Response:
        hook = self._hooks.pop(request.path_params["id"], None)
        return v3_error(404, "Webhook not found.") if hook is None else json_response({"data": hook, "meta": {}})

    async def _said(self, request: Request, before: Row | None = None) -> Row | Response:
        """Return what a body says of a hook, or why it is refused."""
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            return v3_error(400, "Input is invalid.")
        if not isinstance(body, dict):
            return v3_error(400, "Input is invalid.")
        said = {name: value for name, value in body.items() if name in _SAID}
        scope, destination = ({**(before or {}), **said}.get(name) for name in ("scope", "destination"))
        if scope not in SCOPES:
            return v3_error(422, "Invalid scope.", {"scope": "Invalid scope"})
        if not isinstance(destination, str) or not _reachable(destination):
            return v3_error(422, "Invalid destination.", {"destination": "Invalid destination"})
        others = [each for each in self._hooks.values() if before is None or each["id"] != before["id"]]
        if any((each["scope"], each["destination"]) == (scope, destination) for each in others):
            return v3_error(422, "A webhook with this scope and destination exists.")
        return said

    def _kept(self, hook: Row) -> Response:
        self._hooks[hook["id"]] = hook
        self._used[hook["id"]] = self._clock.time()
        return json_response({"data": hook, "meta": {}})

    def _all(self) -> Iterator[Row]:
        """Walk the hooks, those that were idle for too long switched off."""
        for id, hook in list(self._hooks.items()):
            if self._clock.time() - self._used[id] > _IDLE:
                hook["is_active"] = False
            yield hook

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": hook["id"], "url": hook["destination"], "active": hook["is_active"], "scope": hook["scope"]}
            for hook in self._all()
        ]

    # ---- deliveries ----

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        """Tell of a row; one edit may fire several scopes."""
        id = int(native_id)
        if kind == "contact":
            event = "created" if before is None else "deleted" if after is None else "updated"
            if event != "updated" or _told(before) != _told(after):
                self._tell(f"store/customer/{event}", {"type": "customer", "id": id})
        elif after is not None and before is None:
            self._tell("store/order/created", {"type": "order", "id": id})
        elif after is not None and before is not None and _told(before) != _told(after):
            if after["is_deleted"] and not before["is_deleted"]:
                self._tell("store/order/archived", {"type": "order", "id": id})
                return
            self._tell("store/order/updated", {"type": "order", "id": id})
            if after["status_id"] != before["status_id"]:
                moved = {"previous_status_id": before["status_id"], "new_status_id": after["status_id"]}
                self._tell("store/order/statusUpdated", {"type": "order", "id": id, "status": moved})

    def _tell(self, scope: str, data: Row) -> None:
        now = self._clock.time()
        body = {
            "scope": scope, "store_id": "1025646", "data": data, "hash": hashlib.sha1(orjson.dumps(data), usedforsecurity=False).hexdigest(),
            "created_at": int(now), "producer": f"stores/{self._store}",
        }  # fmt: skip
        for hook in self._all():
            if hook["is_active"] and hook["scope"] == scope:
                self._used[hook["id"]] = now
                key, raw = f"msg_{uuid.uuid4().hex}", orjson.dumps(body)
                sending = Sending(
                    hook=str(hook["id"]), url=hook["destination"], key=key, make=partial(self._made, hook["headers"] or {}, key, raw),
                    waits=_WAITS, failed=partial(self._switch_off, hook["id"]),
                )  # fmt: skip
                self._post(sending)

    def _made(self, headers: Mapping[str, str], key: str, raw: bytes, _: int) -> Made:
        sent = str(int(time.time()))  # real time: receivers compare it with theirs
        signed = hmac.digest(self.secret.encode(), f"{key}.{sent}.".encode() + raw, hashlib.sha256)
        own = {"webhook-id": key, "webhook-timestamp": sent, "webhook-signature": f"v1,{base64.b64encode(signed).decode()}"}
        return {**headers, **own, "content-type": "application/json"}, raw

    def _switch_off(self, id: int) -> None:
        if id in self._hooks:
            self._hooks[id]["is_active"] = False


def _told(row: Row | None) -> Row:
    return {name: value for name, value in (row or {}).items() if name not in _UNTOLD}


def _reachable(destination: str) -> bool:
    address = urlsplit(destination)
    if address.scheme == "http":
        return address.hostname in _LOCAL
    return address.scheme == "https" and bool(address.hostname) and (address.port in {None, 443} or address.hostname in _LOCAL)
