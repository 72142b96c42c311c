"""How Pipedrive tells what changed: webhooks v2, lists by the time of the last change, the list of deleted deals.

Facts from "Guide for Webhooks v2", "Webhooks v2 migration guide" and the API reference. Webhooks are not signed: user and password of
HTTP Basic are all that proves them, so what they hold is not taken for the record. Persons and organizations that were deleted are in no
list of v2: v1 `recents` is taken to tell them as not active, for about a month; no document gives an example. Where a merge names its two ends is taken from the
migration guide's words, `meta`; the record's own part is looked at besides.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import orjson

from adapters.base import Adapter, Api, answer_or_none
from adapters.changes import (
    Change,
    Changes,
    Delivery,
    Feed,
    Heard,
    Hint,
    Push,
    Watch,
    digest_of,
    matches,
    place_of,
    scanned_changes,
)
from adapters.pipedrive_calls import PAGE, page, request
from mapping.convert import instant
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind, Row

_KEPT = 30 * 86_400.0  # seconds for which what was deleted is told
_SELDOM = 900.0
# A page costs 10 of 30,000 tokens that the smallest plan has a day: three kinds and deleted deals, asked every four minutes, take 14,400,
# and `recents` 3,840.
FEED = Feed(overlap=60.0, deletes=True, interval=240.0, longest=900.0, life=_KEPT)
PUSH = Push(kinds=frozenset({"contact", "account", "deal"}), merges=True, accounts=True, delay=10.0)
_KINDS: Mapping[str, Kind] = {"person": "contact", "organization": "account", "deal": "deal"}
_USER = "customer360"
_HOOKS = "/api/v1/webhooks"


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        edited: the place in the list by time, as `scanned_changes` has it.
        asked: when it was asked last what was deleted, by our clock: to be compared with that clock only.
        gone: what was deleted before was told; by Pipedrive's clock.
    """

    edited: str
    asked: datetime
    gone: datetime


# ---- the feed ----


async def changes(adapter: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
    """One list for each 500 records that changed, at least one, and with the last page of a pass, if it is due, what was deleted.

    Of deals that is one list more for each 500, at least one. Of others it is `recents`, at the price of two lists for each 500 that
    changed in any way: four times an hour at most.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and (now - place.asked).total_seconds() > _KEPT:
        raise CursorExpiredError(f"{kind} records that were deleted since are not told any more")
    edits = await scanned_changes(adapter, api, kind, place.edited if place else None, fields, now=now)
    if place is None:
        return Changes(changes=edits.changes, cursor=_encoded(_Place(edits.cursor, now, place_of(edits.cursor).since)))
    place = msgspec.structs.replace(place, edited=edits.cursor)
    since_asked = (now - place.asked).total_seconds()
    if edits.more or (kind != "deal" and 0 <= since_asked < _SELDOM):
        return Changes(changes=edits.changes, cursor=_encoded(place), more=edits.more)
    gone, seen = await (_deleted if kind == "deal" else _inactive)(api, kind, place.gone)
    following = max(place.gone, max(seen, place_of(edits.cursor).seen) - timedelta(seconds=FEED.overlap))
    return Changes(changes=[*edits.changes, *gone], cursor=_encoded(_Place(edits.cursor, now, following)))


async def _deleted(api: Api, kind: Kind, since: datetime) -> tuple[list[Change], datetime]:
    """Return the deals that were deleted since, and the youngest time that was seen."""
    asked = {
        "status": "deleted", "updated_since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "sort_by": "update_time", "sort_direction": "asc",
        "limit": str(PAGE),
    }  # fmt: skip
    found: list[Change] = []
    cursor: str | None = None
    while True:
        rows, following = await page(api, f"{kind}.deleted", "/api/v2/deals", asked, cursor)
        found += [Change(kind=kind, native_id=str(row["id"]), op="DELETED", at=instant(row["update_time"])) for row in rows]
        if following is None:
            return found, max((each.at for each in found if each.at is not None), default=since)
        if following == cursor:
            raise ProtocolError("pipedrive: a page of deleted deals does not go on")
        cursor = following


async def _inactive(api: Api, kind: Kind, since: datetime) -> tuple[list[Change], datetime]:
    """Return the persons or organizations that were deleted since, and the youngest time that was seen."""
    item = next(each for each, its in _KINDS.items() if its == kind)
    found: list[Change] = []
    seen, start = since, 0
    while True:
        asked = {"since_timestamp": f"{since:%Y-%m-%d %H:%M:%S}", "items": item, "start": str(start), "limit": str(PAGE)}
        body = (await api.send(request(f"{kind}.recents", "/api/v1/recents", asked, cost=20))).json()
        for row in body["data"] or []:
            data = row.get("data")
            at = instant(data["update_time"]) if data and data.get("update_time") else None
            if row["item"] == item and (not data or data.get("active_flag") is False):
                found.append(Change(kind=kind, native_id=str(row["id"]), op="DELETED", at=at))
            seen = max(seen, at or seen)
        paging = (body.get("additional_data") or {}).get("pagination") or {}
        if not paging.get("more_items_in_collection"):
            return found, seen
        if int(paging["next_start"]) <= start:
            raise ProtocolError(f"pipedrive: a page of recent {item}s does not go on")
        start = int(paging["next_start"])


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery, and read it. See `Adapter.events`."""
    if not matches(delivery.headers.get("authorization", ""), *(_basic(each) for each in secrets if each)):
        raise SignatureError("pipedrive: a webhook without the user and password that it was given")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("pipedrive: a webhook holds no JSON") from error
    meta = body.get("meta") if isinstance(body, dict) else None
    if not isinstance(meta, dict):
        raise ProtocolError("pipedrive: a webhook without its meta")
    account = _id(meta.get("company_id"))
    kind, event = _KINDS.get(str(meta.get("entity"))), meta.get("id")
    if kind is None:
        return Heard(account=account)
    if not isinstance(event, str) or not event:
        raise ProtocolError("pipedrive: an event without its id")
    told = {each.native_id: each for each in _told(kind, meta, body)}
    return Heard(account=account, hints=[Hint(id=digest_of(event, id), change=change) for id, change in told.items()])


def _told(kind: Kind, meta: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[Change]:
    id, at = _id(meta.get("entity_id")), _time(meta.get("timestamp"))
    data = body.get("data") if isinstance(body.get("data"), dict) else None
    previous = body.get("previous") if isinstance(body.get("previous"), dict) else None
    into, loser = (_merge(name, meta, data, previous) for name in ("merged_to_id", "merged_from_id"))
    if loser is not None and loser != id:
        yield Change(kind=kind, native_id=loser, op="MERGED", at=at, into=id)
    action = meta.get("action")
    if action == "delete" and into is not None and into != id:
        yield Change(kind=kind, native_id=id, op="MERGED", at=at, into=into)
    elif action == "delete" or (data is not None and (data.get("is_deleted") is True or data.get("status") == "deleted")):
        yield Change(kind=kind, native_id=id, op="DELETED", at=at)
    elif action in {"create", "change"}:
        yield Change(kind=kind, native_id=id, at=at)


def _merge(name: str, *places: Mapping[str, Any] | None) -> str | None:
    said = next((each[name] for each in places if each and each.get(name)), None)
    return None if said is None else _id(said)


def _basic(secret: str) -> str:
    return f"Basic {base64.b64encode(f'{_USER}:{secret}'.encode()).decode()}"


def _id(said: object) -> str:
    text = str(said) if isinstance(said, int | str) and not isinstance(said, bool) else ""
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError("pipedrive: an event without an id")
    return text


def _time(said: object) -> datetime | None:
    try:
        return instant(said) if isinstance(said, str) else None
    except ValueError as error:
        raise ProtocolError("pipedrive: an event whose time is none") from error


# ---- subscriptions ----


async def watched(api: Api, url: str, secret: str) -> list[Watch]:
    """One list; one call for each object whose webhook is missing or was switched off, and one for each that is not wanted any more.

    The password of a webhook may not be shown again, so the name carries a digest of it.
    """
    name = f"customer360 {digest_of(_USER, secret)[:16]}"
    hooks, kept = await _hooks(api, url), []
    for entity in _KINDS:
        good = (hook for hook in hooks if _good(hook, entity, name))
        kept.append(str((next(good, None) or await _subscribed(api, url, secret, entity, name))["id"]))
    for hook in hooks:
        if str(hook["id"]) not in kept:
            await _end(api, hook)
    return [Watch(native_id=id) for id in kept]


async def _subscribed(api: Api, url: str, secret: str, entity: str, name: str) -> Row:
    body: Row = {
        "subscription_url": url, "event_action": "*", "event_object": entity, "version": "2.0", "name": name, "http_auth_user": _USER,
        "http_auth_password": secret,
    }  # fmt: skip
    made: Row = (await api.send(request("watch", _HOOKS, cost=10, method="POST", body=body, safe=False))).json()["data"]
    return made


def _good(hook: Row, entity: str, name: str) -> bool:
    wanted = ("*", entity, name)
    said = (hook.get("event_action"), hook.get("event_object"), hook.get("name"))
    return said == wanted and bool(hook.get("is_active")) and str(hook.get("version")).startswith("2")


async def unwatched(api: Api, url: str) -> int:
    """One list, and one call a webhook."""
    hooks = await _hooks(api, url)
    for hook in hooks:
        await _end(api, hook)
    return len(hooks)


async def _end(api: Api, hook: Row) -> None:
    await answer_or_none(api, request("unwatch", f"{_HOOKS}/{hook['id']}", cost=6, method="DELETE"))


async def _hooks(api: Api, url: str) -> list[Row]:
    rows: list[Row] = (await api.send(request("watch.list", _HOOKS, cost=10))).json()["data"] or []
    return [hook for hook in rows if hook["subscription_url"] == url]
