"""How Pipedrive tells what changed: webhooks v2, lists by the time of the last change, and what tells of deletions beside them.

Facts from the guide for webhooks v2, its migration guide (merges) and the API reference. Doubts that the documents leave:

- Webhooks are not signed. HTTP Basic with a password of ours is all that proves them; the scope to subscribe is that of an administrator.
- That `updated_since` and `since_timestamp` include their second is relied on nowhere: each pass reaches a minute back.
- Recents are said to hold deleted people and organizations; that they are marked by `active_flag` or `is_deleted` is how the rows of v1 and
  v2 do it. They do not say what a record was merged into, so the feed tells a merged record as deleted; the webhook tells both.
- A deal that is deleted is taken to move its `update_time`, by which the list of deleted deals is asked, and to be in it
  also when it was archived.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec
import orjson

from adapters.base import Adapter, Api, Request, answer_or_none
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
from adapters.pipedrive_calls import PAGE, listed, request
from mapping.convert import instant
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind, Row

_KEPT = 28 * 86_400.0  # seconds: deleted deals are listed for 30 days, recents go back "about a month"
# A pass costs 30 tokens, of deals 40, and a seat of the smallest plan has 30,000 a day: at this pace three kinds take three quarters of them
# where much changes all day, and a third where little does. Webhooks cost nothing and tell at once.
FEED = Feed(overlap=60.0, deletes=True, interval=300.0, longest=900.0, life=_KEPT)
DEALS = replace(FEED, interval=600.0)
PUSH = Push(kinds=frozenset({"contact", "account", "deal"}), merges=True, accounts=True)
_OBJECTS: Mapping[str, Kind] = {"person": "contact", "organization": "account", "deal": "deal"}
_WEBHOOKS = "/api/v1/webhooks"
_USER = "customer360"
_DRIFT = 50  # rows that a page of recents repeats of the one before: who is edited meanwhile moves the others


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        edited: the place in the list by time, as `scanned_changes` has it.
        asked: when it was asked last, by our clock: to be compared with that clock only.
        gone_since: what was deleted before was told; by Pipedrive's clock.
    """

    edited: str
    asked: datetime
    gone_since: datetime


async def changes(
    adapter: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime, path: str
) -> Changes:
    """Return edits page by page, 10 tokens a page of 500, and with the last one of a pass what was deleted.

    Args:
        path: the kind's list.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and (now - place.asked).total_seconds() > _KEPT:
        raise CursorExpiredError("records that were deleted since are not told any more")
    edits = await scanned_changes(adapter, api, kind, place.edited if place else None, fields, now=now)
    if place is None:
        return Changes(changes=edits.changes, cursor=_encoded(_Place(edits.cursor, now, place_of(edits.cursor).since)))
    place = msgspec.structs.replace(place, edited=edits.cursor, asked=now)
    if edits.more:
        return Changes(changes=edits.changes, cursor=_encoded(place), more=True)
    gone = await (_hidden_deals(api, path, place.gone_since) if kind == "deal" else _recents(api, kind, place.gone_since))
    seen = max([place_of(edits.cursor).seen, *(each.at for each in gone if each.at is not None)])
    place = msgspec.structs.replace(place, gone_since=max(place.gone_since, seen - timedelta(seconds=FEED.overlap)))
    return Changes(changes=edits.changes + gone, cursor=_encoded(place))


async def _hidden_deals(api: Api, path: str, since: datetime) -> list[Change]:
    """Deals that the ordinary list leaves out: deleted ones, 10 tokens a page of 500, and archived ones, 20; these are to be read by id."""
    asked = {"updated_since": _moment(since), "sort_by": "update_time", "sort_direction": "asc"}
    gone = await listed(api, "deal.deleted", path, {**asked, "status": "deleted"})
    archived = await listed(api, "deal.archived", f"{path}/archived", asked, cost=20)
    deleted = {str(row["id"]): row for row in (*archived, *gone) if row.get("is_deleted") or row.get("status") == "deleted"}
    return [
        *(Change(kind="deal", native_id=str(row["id"]), at=instant(row["update_time"])) for row in archived if str(row["id"]) not in deleted),
        *(Change(kind="deal", native_id=id, op="DELETED", at=instant(row["update_time"])) for id, row in deleted.items()),
    ]  # fmt: skip


async def _recents(api: Api, kind: Kind, since: datetime) -> list[Change]:
    """What changed of people or organizations, deleted ones among them, at 20 tokens a page of 500; return the deleted ones.

    One of which nothing is said is told as changed: reading it by id tells whether it is there.
    """
    noun = next(name for name, each in _OBJECTS.items() if each == kind)
    asked = {"since_timestamp": f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S}", "items": noun, "limit": str(PAGE)}
    found: dict[str, Change] = {}
    start = 0
    while True:
        said = {**asked, "start": str(start)}
        body = (await api.send(request(f"{kind}.recents", "/api/v1/recents", said, cost=20))).json()
        items: list[Row] = body.get("data") or []  # null where nothing changed
        for item in items:
            row, id = item.get("data"), str(item["id"])
            if not isinstance(row, dict):
                found[id] = Change(kind=kind, native_id=id)
            elif row.get("active_flag") is False or row.get("is_deleted"):
                found[id] = Change(kind=kind, native_id=id, op="DELETED", at=_bare(row.get("update_time")))
            else:  # brought back meanwhile; its edit is in the other list
                found.pop(id, None)
        pagination = (body.get("additional_data") or {}).get("pagination") or {}
        if not pagination.get("more_items_in_collection"):
            return list(found.values())
        if len(items) <= _DRIFT:
            raise ProtocolError(f"pipedrive: a page of recent {kind} records does not go on")
        start += len(items) - _DRIFT


def _bare(said: object) -> datetime | None:
    """Read a time of v1, which is UTC and does not say so."""
    return instant(said.replace(" ", "T") + "Z") if isinstance(said, str) and len(said) == 19 else None


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery by its user and password, and read which record it is about; its data differ in shape from rows and are not used."""
    said = delivery.headers.get("authorization", "")
    if not said or not matches(said, *(_basic(each) for each in secrets if each)):
        raise SignatureError("pipedrive: a webhook without the right user and password")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("pipedrive: a webhook is no JSON") from error
    meta = body.get("meta") if isinstance(body, dict) else None
    if not isinstance(meta, dict) or not isinstance(meta.get("entity"), str):
        raise ProtocolError("pipedrive: a webhook is not of version 2.0")
    account = _id(meta.get("company_id"))
    kind = _OBJECTS.get(meta["entity"])
    if kind is None or meta.get("action") not in {"create", "change", "delete"}:
        return Heard(account=account)
    event, id, at = meta.get("id"), _id(meta.get("entity_id")), _timed(meta.get("timestamp"))
    if not isinstance(event, str) or not event:
        raise ProtocolError("pipedrive: a webhook without the id of its event")
    told = [_change(kind, id, at, meta)]
    if meta["action"] == "change" and meta.get("merged_from_id") is not None:
        # The delete that comes beside this one says so, too, and may be lost.
        told.append(Change(kind=kind, native_id=_id(meta["merged_from_id"]), op="MERGED", at=at, into=id))
    return Heard(account=account, hints=[Hint(id=digest_of(event, kind, each.native_id, each.op), change=each) for each in told])


def _change(kind: Kind, id: str, at: datetime, meta: Row) -> Change:
    if meta["action"] != "delete":
        return Change(kind=kind, native_id=id, at=at)
    if meta.get("merged_to_id") is not None:
        return Change(kind=kind, native_id=id, op="MERGED", at=at, into=_id(meta["merged_to_id"]))
    return Change(kind=kind, native_id=id, op="DELETED", at=at)


def _id(said: object) -> str:
    if isinstance(said, int | str) and not isinstance(said, bool) and (text := str(said)).isascii() and text.isdigit():
        return text
    raise ProtocolError("pipedrive: a webhook without the number of its record or company")


def _timed(said: object) -> datetime:
    try:
        at = datetime.fromisoformat(str(said))
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        raise ProtocolError("pipedrive: a webhook without its time")
    return at


def _basic(secret: str) -> str:
    return "Basic " + base64.b64encode(f"{_USER}:{secret}".encode()).decode()


async def watched(api: Api, url: str, secret: str) -> list[Watch]:
    """One list, and a call for each webhook that is missing, was switched off or has another password; 10 tokens each.

    Passwords are not read back: the name of a webhook holds a digest of its own.
    """
    name = f"{_USER} {blake2b(secret.encode(), digest_size=6, person=b'webhooks').hexdigest()}"
    hooks = await _hooks(api, url)
    watches: list[Watch] = []
    for noun in _OBJECTS:
        wanted = {"event_action": "*", "event_object": noun, "version": "2.0", "name": name, "is_active": 1}
        good = [hook for hook in hooks if all(hook.get(field) == value for field, value in wanted.items())]
        kept = str(good[0]["id"]) if good else await _made(api, url, secret, wanted)
        for hook in hooks:
            if hook.get("event_object") == noun and str(hook["id"]) != kept:
                await _ended(api, hook)
        watches.append(Watch(native_id=kept))
    return watches


async def _made(api: Api, url: str, secret: str, wanted: Row) -> str:
    body = {
        **{name: value for name, value in wanted.items() if name != "is_active"}, "subscription_url": url, "http_auth_user": _USER,
        "http_auth_password": secret,
    }  # fmt: skip
    # Sent twice, it would make a second one; the next look ends it.
    answer = await api.send(request("watch", _WEBHOOKS, cost=10, method="POST", body=body))
    return str(answer.json()["data"]["id"])


async def unwatched(api: Api, url: str) -> int:
    """One list, and one call a webhook."""
    hooks = await _hooks(api, url)
    for hook in hooks:
        await _ended(api, hook)
    return len(hooks)


async def _ended(api: Api, hook: Row) -> None:
    asked: Request = request("unwatch", f"{_WEBHOOKS}/{hook['id']}", cost=6, method="DELETE")
    await answer_or_none(api, asked)  # gone already: thrown away after three days of failures


async def _hooks(api: Api, url: str) -> list[Row]:
    found = (await api.send(request("watch.list", _WEBHOOKS, cost=10))).json().get("data") or []
    return [hook for hook in found if hook["subscription_url"] == url and not hook.get("remove_time")]
