"""What BigCommerce tells by itself: webhooks, proved and read, and the hooks that send them.

Facts from the vendor's documents: "HTTPS Webhooks Overview", "Webhook Events", webhooks V3. A delivery is proved by either of two:

- a header of ours, which each hook carries: all that there is for a store's own API account, whose client secret we do not have;
- the signature of Standard Webhooks, where the secret that is configured is the client secret of an app.

The header holds a digest of the secret and not the secret, so that a client secret that is given for it never leaves.
Unverified: that a retry is signed with its own time, as Standard Webhooks says, and not with that of the event.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from adapters.base import Api, Request, answer_or_none
from adapters.changes import Change, Delivery, Heard, Hint, Push, Watch, digest_of, matches, recent
from mapping.paths import pick
from model.errors import ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row

PUSH = Push(kinds=frozenset({"contact", "order"}), accounts=True)
HEADER = "X-Customer360-Token"
_WITHIN = 300.0  # seconds, as the libraries of Standard Webhooks have it
_LATEST = 1 << 33  # the year 2242: beyond it a number is no time in seconds
_PAGE = 250
# What else is told of an order comes as an update as well ("any change to an existing order fires this webhook").
_SCOPES = (
    "store/customer/created", "store/customer/updated", "store/customer/deleted", "store/order/created", "store/order/updated",
    "store/order/archived", "store/order/refund/created",
)  # fmt: skip
_GONE = frozenset({"store/customer/deleted", "store/order/archived"})
_KINDS: Mapping[str, Kind] = {"customer": "contact", "order": "order"}


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery, and read it. See `Adapter.events`."""
    _prove(delivery, [each for each in secrets if each])
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("a webhook holds no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("a webhook holds no object")
    scope, producer, said = body.get("scope"), body.get("producer"), body.get("data")
    if not (isinstance(scope, str) and isinstance(producer, str) and isinstance(said, dict)):
        raise ProtocolError("a webhook lacks its scope, its store or its data")
    account = producer.removeprefix("stores/")
    record = _record(scope, said)
    if record is None:
        return Heard(account=account)
    created = body.get("created_at")
    # The same for what is sent twice. The hash alone might be the same for two edits of one record: documents call it that of "the
    # payload data", and a change must not be taken for one that is known.
    event = digest_of(delivery.headers.get("webhook-id"), body.get("hash"), scope, created, *record)
    at = datetime.fromtimestamp(created, tz=UTC) if isinstance(created, int) and 0 <= created < _LATEST else None
    kind, native_id = record
    change = Change(kind=kind, native_id=native_id, op="DELETED" if scope in _GONE else "CHANGED", at=at)
    return Heard(account=account, hints=[Hint(id=event, change=change)])


def _record(scope: str, said: Mapping[str, Any]) -> tuple[Kind, str] | None:
    """Return what an event is of, None for what is nothing of ours."""
    place = scope.split("/")
    kind = _KINDS.get(place[1]) if len(place) > 2 and place[0] == "store" else None
    if kind is None or "metafield" in place or "payment" in place:
        return None
    # An address has an id of its own, a transaction none that is a number.
    path = {"address": "address.customer_id", "transaction": "order_id"}.get(place[2], "id")
    id = pick(said, path)
    if isinstance(id, bool) or not isinstance(id, int):
        raise ProtocolError("a webhook names no record")
    return kind, str(id)


def _prove(delivery: Delivery, secrets: Sequence[str]) -> None:
    token = delivery.headers.get(HEADER.lower(), "")
    if matches(token, *(_token(each) for each in secrets)):
        return
    id, sent = delivery.headers.get("webhook-id", ""), delivery.headers.get("webhook-timestamp", "")
    signed = f"{id}.{sent}.".encode() + delivery.body
    wanted = [base64.b64encode(hmac.digest(each.encode(), signed, hashlib.sha256)).decode() for each in secrets]
    said = [each.removeprefix("v1,") for each in delivery.headers.get("webhook-signature", "").split() if each.startswith("v1,")]
    if not any([matches(each, *wanted) for each in said]):  # noqa: C419 - all are compared
        raise SignatureError("a webhook carries neither our token nor the app's signature")
    if not recent(datetime.fromtimestamp(_seconds(sent), tz=UTC), delivery.at, within=_WITHIN):
        raise SignatureError("a webhook was signed too long ago")


def _seconds(said: str) -> int:
    if not (said.isascii() and said.isdigit() and len(said) <= 11):
        raise SignatureError("a webhook tells no time")
    return int(said)


def _token(secret: str) -> str:
    return hmac.digest(secret.encode(), b"customer360 webhooks", hashlib.sha256).hex()


# ---- hooks ----


async def watched(api: Api, url: str, secret: str) -> list[Watch]:
    """One list, and one call for each hook that is missing, was switched off (failures for two days, 90 days without an event) or
    carries another secret's token."""
    wanted = {HEADER: _token(secret)}
    try:
        return await _all_hooked(api, url, wanted)
    except RejectedError:
        # A scope has one hook to an address: another process was faster, or a call was sent twice. A second look tells.
        return await _all_hooked(api, url, wanted)


async def _all_hooked(api: Api, url: str, wanted: Mapping[str, str]) -> list[Watch]:
    found: dict[str, Row] = {}
    for hook in await _hooks(api, url):
        if hook["scope"] not in found or _good(hook, wanted):
            found[hook["scope"]] = hook
    return [await _hooked(api, url, scope, found.get(scope), wanted) for scope in _SCOPES]


async def _hooked(api: Api, url: str, scope: str, hook: Row | None, wanted: Mapping[str, str]) -> Watch:
    if hook is not None and _good(hook, wanted):
        return Watch(native_id=str(hook["id"]))
    body = {"scope": scope, "destination": url, "is_active": True, "headers": dict(wanted)}
    if hook is None:
        asked = _request("watch", "/v3/hooks", method="POST", json=body)
    else:
        asked = _request("watch", f"/v3/hooks/{hook['id']}", method="PUT", json=body)
    return Watch(native_id=str((await api.send(asked)).json()["data"]["id"]))


def _good(hook: Row, wanted: Mapping[str, str]) -> bool:
    carried = {name.lower(): value for name, value in (hook.get("headers") or {}).items()}
    return bool(hook.get("is_active")) and all(carried.get(name.lower()) == value for name, value in wanted.items())


async def unwatched(api: Api, url: str) -> int:
    """One list, and one call a hook. A hook that was made with another token is not seen (the vendor's rule)."""
    hooks = await _hooks(api, url)
    for hook in hooks:
        await answer_or_none(api, _request("unwatch", f"/v3/hooks/{hook['id']}", method="DELETE"))
    return len(hooks)


async def _hooks(api: Api, url: str) -> list[Row]:
    found: list[Row] = []
    number = 1
    while True:
        params = [("destination", url), ("page", str(number)), ("limit", str(_PAGE))]
        body = (await api.send(_request("watch.list", "/v3/hooks", params=params))).json()
        found += [hook for hook in body["data"] if hook["destination"] == url]
        paging = pick(body, "meta.pagination") or {}
        if paging.get("current_page", 1) >= paging.get("total_pages", 1):
            return found
        number += 1


def _request(operation: str, path: str, **more: Any) -> Request:
    return Request(operation=operation, path=path, headers={"Accept": "application/json"}, **more)
