"""How Zendesk tells what changed: signed webhooks of events, incremental exports.

Facts from "Verifying webhook authenticity", "Webhook event types", "Creating and monitoring webhooks", "Incremental Exports". Where
an account has no ticket events, an administrator makes a webhook for a trigger ("conditional ticket events") to the same address,
with the body `{"ticket_id": "{{ticket.id}}"}`: `watched` finds it and takes over its secret. What `user.merged` holds beside its
user is not documented well enough to tell who lives on: both are read, and the one that is not active any more is gone.
Deliveries name the number of the account, which no call of the reference tells, so it is not taken for what `check` answers: each
webhook has a secret of its own.
"""

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from adapters.base import Adapter, Api, Request, Scan, answer_or_none
from adapters.changes import (
    BEGINNING,
    Change,
    ChangeOp,
    Changes,
    Delivery,
    Feed,
    Heard,
    Hint,
    Push,
    Watch,
    digest_of,
    matches,
    recent,
)
from mapping.paths import pick
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row

# The exports leave out the last minute, which is their own overlap: what is committed late is in time for it.
FEED = Feed(how="offset", overlap=0.0, deletes=True, interval=60.0, longest=300.0)
ORGANIZATIONS = Feed(overlap=0.0, interval=60.0, longest=300.0)
PUSH = Push(kinds=frozenset({"contact", "account", "ticket"}), secret="issued", delay=10.0)
EXPORT = "export"  # the budget of the exports
_LAG = 61  # seconds: an export begins more than a minute ago
_SIZE, _LIST = 1000, 100
_WITHIN = 300.0  # seconds
_GONE_REFUSALS = frozenset({400, 404, 410, 422})
_TRIGGERED = "conditional_ticket_events"
_KINDS: Mapping[str, Kind] = {"user": "contact", "organization": "account", "ticket": "ticket"}
_EVENTS: Mapping[str, Sequence[str]] = {
    "user": (
        "active_changed", "created", "custom_field_changed", "deleted", "details_changed", "external_id_changed", "identity_changed", "identity_created",
        "identity_deleted", "merged", "name_changed", "notes_changed", "organization_membership_created", "organization_membership_deleted", "role_changed",
        "suspended_changed", "tags_changed", "time_zone_changed",
    ),
    "organization": ("created", "custom_field_changed", "deleted", "external_id_changed", "name_changed", "tags_changed"),
    "ticket": (
        "agent_assignment_changed", "created", "custom_field_changed", "custom_status_changed", "description_changed", "external_id_changed",
        "group_assignment_changed", "marked_as_spam", "merged", "organization_changed", "permanently_deleted", "priority_changed", "requester_changed",
        "soft_deleted", "status_changed", "subject_changed", "tags_changed", "task_due_at_changed", "type_changed", "undeleted",
    ),
}  # fmt: skip
_DELETED = frozenset(
    {"user.deleted", "organization.deleted", "ticket.soft_deleted", "ticket.permanently_deleted", "ticket.marked_as_spam"}
)
_WANTED = frozenset(f"zen:event-type:{noun}.{verb}" for noun, verbs in _EVENTS.items() for verb in verbs)
_WITHOUT_TICKETS = frozenset(each for each in _WANTED if ":ticket." not in each)


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        start: where the export begins, in seconds since 1970.
        after: the export's own cursor, once it gave one.
    """

    start: int
    after: str | None = None


# ---- the feed ----


async def changes(adapter: Adapter, api: Api, root: str, kind: Kind, cursor: str | None, fields: Sequence[str]) -> Changes:
    """One call for each 1,000 records, at least one. The first pass begins a minute before the youngest record, by Zendesk's clock."""
    if cursor is None:
        newest = await adapter.scan(api, kind, Scan(order="updated", descending=True, size=1, fields=fields))
        times = [at for row in newest.rows if (at := api.place(kind, row)[2]) is not None]
        place = _Place(start=int(max(times, default=BEGINNING).timestamp()) - _LAG)
    else:
        place = msgspec.json.decode(cursor, type=_Place)
    if kind == "account":
        return await _organizations(api, root, kind, place)
    name = adapter.kinds[kind].object
    since = ("cursor", place.after) if place.after is not None else ("start_time", str(place.start))
    try:
        body = await _export(api, kind, f"{root}/incremental/{name}/cursor", since)
    except RejectedError as error:
        if place.after is not None and error.status in _GONE_REFUSALS:
            raise CursorExpiredError("the export does not know its cursor any more") from error
        raise
    more, after = not body["end_of_stream"], body.get("after_cursor") or place.after
    if more and after == place.after:
        raise ProtocolError(f"zendesk: a page of exported {name} does not go on")
    told = [_exported(kind, row) for row in body[name]]
    return Changes(changes=told, cursor=_encoded(_Place(place.start, after)), more=more)


async def _organizations(api: Api, root: str, kind: Kind, place: _Place) -> Changes:
    """Read the export by time, which has no cursor: it begins again at the second that it ended in."""
    body = await _export(api, kind, f"{root}/incremental/organizations", ("start_time", str(place.start)))
    rows, end = body["organizations"], body.get("end_time")
    more = not body["end_of_stream"] if "end_of_stream" in body else len(rows) >= _SIZE
    if more and not rows:
        raise ProtocolError("zendesk: an empty page of exported organizations is not the last one")
    start = max(place.start, int(end)) if end is not None else place.start
    if more and start == place.start:
        # More than a page in one second: the export would give the same page for ever. A list of all tells them.
        rows, start = [*rows, *await _all_of(api, root, kind, start)], start + 1
    told = [_exported(kind, row) for row in rows]
    return Changes(changes=told, cursor=_encoded(_Place(start)), more=more)


async def _all_of(api: Api, root: str, kind: Kind, second: int) -> list[Row]:
    found: list[Row] = []
    after: str | None = None
    while True:
        params = [("page[size]", str(_LIST)), *([("page[after]", after)] if after else [])]
        body = (await api.send(Request(operation=f"{kind}.list", path=f"{root}/organizations", params=params))).json()
        found += [row for row in body["organizations"] if int(datetime.fromisoformat(row["updated_at"]).timestamp()) == second]
        if not pick(body, "meta.has_more"):
            return found
        following = pick(body, "meta.after_cursor")
        if following is None or following == after:
            raise ProtocolError("zendesk: a page of organizations does not go on")
        after = following


async def _export(api: Api, kind: Kind, path: str, at: tuple[str, str]) -> Any:
    params = [at, ("per_page", str(_SIZE))]
    return (await api.send(Request(operation=f"{kind}.changes", path=path, params=params, cost={EXPORT: 1}))).json()


def _exported(kind: Kind, row: Row) -> Change:
    at = datetime.fromisoformat(row["updated_at"]) if row.get("updated_at") else None
    gone = row.get("active") is False if kind == "contact" else row.get("status") == "deleted" or bool(row.get("deleted_at"))
    if gone:
        return Change(kind=kind, native_id=str(row["id"]), op="DELETED", at=at)
    # An agent is read, and not found: news of who was a customer before, and none of who never was.
    return Change(kind=kind, native_id=str(row["id"]), at=at, row=row if customer(kind, row) else None)


def customer(kind: Kind, row: Row) -> bool:
    """Tell whether a user is a customer: agents are none, also those who were one before; true of what is no user."""
    return kind != "contact" or row.get("role") == "end-user"


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery, and read it. See `Adapter.events`."""
    _prove(delivery, [each for each in secrets if each])
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("zendesk: a webhook holds no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("zendesk: a webhook holds no object")
    if "type" not in body and "ticket_id" in body:
        # A trigger's webhook has no id of an event; all deliveries of one invocation have the same.
        id = digest_of(delivery.headers.get("x-zendesk-webhook-invocation-id") or delivery.headers[_STAMP], body["ticket_id"])
        return Heard(hints=[Hint(id=id, change=Change(kind="ticket", native_id=_id(body["ticket_id"])))])
    said, event = body.get("type"), body.get("id")
    if not isinstance(said, str) or not isinstance(event, str) or not event:
        raise ProtocolError("zendesk: an event without its type or its id")
    # The vendor's page spells some types with a slash.
    name = said.replace("event-type/", "event-type:", 1).removeprefix("zen:event-type:")
    known = {each.native_id: each for each in _told(name, body)}
    return Heard(hints=[Hint(id=digest_of(event, id), change=change) for id, change in known.items()])


_SAID, _STAMP = "x-zendesk-webhook-signature", "x-zendesk-webhook-signature-timestamp"


def _prove(delivery: Delivery, secrets: Sequence[str]) -> None:
    said, stamp = delivery.headers.get(_SAID, ""), delivery.headers.get(_STAMP, "")
    text = stamp.encode() + delivery.body
    wanted = [base64.b64encode(hmac.digest(each.encode(), text, "sha256")).decode() for each in secrets]
    if not said or not matches(said, *wanted):
        raise SignatureError("zendesk: a webhook whose signature is wrong")
    try:
        signed = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise SignatureError("zendesk: a webhook that tells no time") from error
    if signed.tzinfo is None or not recent(signed, delivery.at, within=_WITHIN):
        raise SignatureError("zendesk: a webhook that was signed too long ago")


def _told(said: str, body: Mapping[str, Any]) -> Iterator[Change]:
    noun, _, verb = said.partition(".")
    kind = _KINDS.get(noun)
    if kind is None:
        return
    detail, event = body.get("detail"), body.get("event")
    detail, event = detail if isinstance(detail, dict) else {}, event if isinstance(event, dict) else {}
    subject = str(body.get("subject") or "").rpartition(":")[2]
    id, at = _id(detail.get("id", subject)), _time(body.get("time"))
    if kind == "contact" and detail.get("role") not in {"end-user", None} and verb != "role_changed":
        return  # agents are no customers
    gone = said in _DELETED or (said == "user.active_changed" and event.get("current") is False)
    op: ChangeOp = "DELETED" if gone else "CHANGED"
    yield Change(kind=kind, native_id=id, op=op, at=at)
    if verb == "merged":
        for path in ("user.id", "user_id", "merged_user.id", "ticket.id", "ticket_id", "target_ticket_id"):
            if (other := pick(event, path)) is not None:
                yield Change(kind=kind, native_id=_id(other), at=at)


def _id(said: object) -> str:
    text = str(said) if isinstance(said, int | str) and not isinstance(said, bool) else ""
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError("zendesk: an event without the id of its record")
    return text


def _time(said: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError as error:
        raise ProtocolError("zendesk: an event whose time is none") from error
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


# ---- subscriptions ----


async def watched(api: Api, root: str, url: str) -> list[Watch]:
    """One list and one call for each webhook's secret; one more to make a webhook or to change one that was switched off.

    Accounts without ticket events refuse those: then the others are subscribed to.
    """
    hooks = await _hooks(api, root, url)
    ours = [hook for hook in hooks if _TRIGGERED not in _events(hook)]
    kept = [hook for hook in hooks if _TRIGGERED in _events(hook)]
    kept.append(ours[0] if ours and _good(ours[0]) else await _subscribed(api, root, url, ours[0] if ours else None))
    for hook in ours[1:]:  # two processes were first, or a call was sent twice
        await answer_or_none(api, _call("unwatch", f"{root}/webhooks/{hook['id']}", method="DELETE"))
    return [Watch(native_id=str(hook["id"]), secret=await _secret(api, root, hook)) for hook in kept]


async def _subscribed(api: Api, root: str, url: str, hook: Row | None) -> Row:
    try:
        return await _written(api, root, url, hook, _WANTED)
    except RejectedError as error:
        if error.status not in {400, 422}:
            raise
    if hook is not None and hook["status"] == "active" and _events(hook) >= _WITHOUT_TICKETS:
        return hook
    return await _written(api, root, url, hook, _WITHOUT_TICKETS)


async def _written(api: Api, root: str, url: str, hook: Row | None, events: frozenset[str]) -> Row:
    facts = {
        "name": "customer360", "endpoint": url, "http_method": "POST", "request_format": "json", "status": "active",
        "subscriptions": sorted(events),
    }  # fmt: skip
    if hook is None:
        made = await api.send(_call("watch", f"{root}/webhooks", method="POST", json={"webhook": facts}, safe=False))
        return {**facts, "id": made.json()["webhook"]["id"]}
    await api.send(_call("watch", f"{root}/webhooks/{hook['id']}", method="PUT", json={"webhook": facts}))
    return {**facts, "id": hook["id"]}


def _good(hook: Row) -> bool:
    return hook["status"] == "active" and _events(hook) >= _WANTED


def _events(hook: Row) -> set[str]:
    return set(hook.get("subscriptions") or ())


async def _secret(api: Api, root: str, hook: Row) -> str:
    answer = await api.send(_call("watch.secret", f"{root}/webhooks/{hook['id']}/signing_secret"))
    return str(answer.json()["signing_secret"]["secret"])


async def unwatched(api: Api, root: str, url: str) -> int:
    """One list, and one call a webhook."""
    hooks = await _hooks(api, root, url)
    for hook in hooks:
        await answer_or_none(api, _call("unwatch", f"{root}/webhooks/{hook['id']}", method="DELETE"))
    return len(hooks)


async def _hooks(api: Api, root: str, url: str) -> list[Row]:
    found: list[Row] = []
    after: str | None = None
    while True:
        params = [("page[size]", str(_LIST)), *([("page[after]", after)] if after else [])]
        body = (await api.send(_call("watch.list", f"{root}/webhooks", params=params))).json()
        found += [hook for hook in body["webhooks"] if hook["endpoint"] == url]
        following = pick(body, "meta.after_cursor")
        if not pick(body, "meta.has_more") or following is None or following == after:
            return found
        after = following


def _call(operation: str, path: str, **more: Any) -> Request:
    return Request(operation=operation, path=path, **more)
