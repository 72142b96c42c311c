"""How HubSpot tells what changed: an app's webhooks, search by the time of the last change, the list of archived records.

Facts from HubSpot's webhooks and search guides; the signature from the official Python client (`utils/signature.py`), the fields of
merges from the changelog "New subscription types for Webhooks".
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
import orjson

from adapters.base import Adapter, Api, Request
from adapters.changes import (
    Change,
    Changes,
    Delivery,
    Feed,
    Heard,
    Hint,
    Push,
    digest_of,
    instant,
    matches,
    place_of,
    recent,
    scanned_changes,
)
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind, Row

T = TypeVar("T")
_BIN = 90 * 86_400.0  # seconds that an archived record is kept
# Search shows a change after "a few moments"; connectors that poll keep 30 to 60 s of overlap.
FEED = Feed(overlap=60.0, deletes=True, merges=True, interval=30.0, longest=300.0, life=_BIN)
PUSH = Push(
    kinds=frozenset({"contact", "account", "deal", "ticket"}), merges=True, secret="app", subscribes=False, accounts=True, delay=5.0,
)  # fmt: skip
MERGED = "properties.hs_merged_object_ids"
_WINDOW = 300.0  # seconds
_ARCHIVED_PAGE = 100
# The archived list goes by id and takes no filter, so it is walked over and over: this many calls a pass, however long it is.
_ARCHIVED_CALLS = 5
_KINDS: Mapping[str, Kind] = {"contact": "contact", "company": "account", "deal": "deal", "ticket": "ticket"}
_TYPES: Mapping[str, Kind] = {"0-1": "contact", "0-2": "account", "0-3": "deal", "0-5": "ticket"}
# HubSpot decodes these, and no others, in an address before it signs it.
_DECODED = {f"%{ord(each):02X}": each for each in ":/?@!$'()*,;"}
_ESCAPED = re.compile("|".join(_DECODED), re.IGNORECASE)


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        edited: the place in the search by time, as `scanned_changes` has it.
        asked: when it was asked last, by our clock: to be compared with that clock only.
        gone_since: records archived before were told.
        gone_next: `gone_since` of the next walk: the youngest time at HubSpot that was known when this walk began.
        gone_seen: the youngest time of an archived record that this walk or one before met.
        gone_after: where this walk is.
    """

    edited: str
    asked: datetime
    gone_since: datetime
    gone_next: datetime
    gone_seen: datetime
    gone_after: str | None = None


async def changes(
    adapter: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime, archived: str
) -> Changes:
    """Return edits page by page, and with the last page of a pass the archived records of up to 500 on their list.

    One search for each 200 records that changed, and one to five lists. A contact that was deleted for privacy is in neither: the
    webhook alone tells it.

    Args:
        archived: the path of the kind's list.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and (now - place.asked).total_seconds() > _BIN:
        raise CursorExpiredError("records that were archived since are not listed any more")
    # Search finds no trace of merged records but at those that swallowed them.
    edits = await scanned_changes(adapter, api, kind, place.edited if place else None, [*fields, MERGED], now=now)
    told = [*edits.changes, *(each for edit in edits.changes for each in _swallowed(edit))]
    if place is None:
        since = place_of(edits.cursor).since
        return Changes(changes=told, cursor=_encoded(_Place(edits.cursor, now, since, since, since)))
    place = msgspec.structs.replace(place, edited=edits.cursor, asked=now)
    if edits.more:
        return Changes(changes=told, cursor=_encoded(place), more=True)
    gone, place = await _archived(api, kind, archived, place)
    return Changes(changes=told + gone, cursor=_encoded(place))


async def _archived(api: Api, kind: Kind, path: str, place: _Place) -> tuple[list[Change], _Place]:
    """Go on with the walk through the archived records; return those that were archived since the walk before began.

    Who is archived behind the walk is met by the next one. All times compared are HubSpot's own.
    """
    found: list[Change] = []
    seen, after = place.gone_seen, place.gone_after
    since, following = place.gone_since, place.gone_next
    if after is None:  # the walk begins
        following = max(place_of(place.edited).seen, seen) - timedelta(seconds=FEED.overlap)
    for _ in range(_ARCHIVED_CALLS):
        params = [("limit", str(_ARCHIVED_PAGE)), ("archived", "true"), *([("after", after)] if after else [])]
        body = (await api.send(Request(operation=f"{kind}.archived", path=path, params=params))).json()
        for row in body["results"]:
            at = datetime.fromisoformat(row["archivedAt"]) if row.get("archivedAt") else None
            if at is None or at >= since:
                found.append(Change(kind=kind, native_id=row["id"], op="DELETED", at=at))
            seen = max(seen, at or seen)
        following_page = (body.get("paging") or {}).get("next", {}).get("after")
        if following_page is not None and following_page == after:
            raise ProtocolError(f"hubspot: a page of archived {kind} records does not go on")
        after = following_page
        if after is None:  # the walk ends
            since = following
            break
    return found, msgspec.structs.replace(place, gone_since=since, gone_next=following, gone_seen=seen, gone_after=after)


def _swallowed(edit: Change) -> Iterator[Change]:
    """Yield the records that were merged into this one, ever: at the system they are told no other way."""
    ids = ((edit.row or {}).get("properties") or {}).get(MERGED.removeprefix("properties.")) or ""
    for id in filter(None, str(ids).split(";")):
        yield Change(kind=edit.kind, native_id=id, op="MERGED", at=edit.at, into=edit.native_id)


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery by the v3 signature and read its events, at most 100.

    An app has one address for all portals that installed it; a delivery is read when its events are of one of them.
    """
    _prove(delivery, secrets)
    try:
        events = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("hubspot: a webhook is no JSON") from error
    if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
        raise ProtocolError("hubspot: a webhook is no list of events")
    portals = {str(_given(each, "portalId", int)) for each in events}
    if len(portals) > 1:
        raise ProtocolError("hubspot: a webhook has events of several portals")
    hints = {hint.id: hint for each in events for hint in _hints(each)}
    return Heard(account=next(iter(portals), None), hints=list(hints.values()))


def _prove(delivery: Delivery, secrets: Sequence[str]) -> None:
    said, stamp = delivery.headers.get("x-hubspot-signature-v3", ""), delivery.headers.get("x-hubspot-request-timestamp", "")
    if not (said and stamp.isascii() and stamp.isdigit() and len(stamp) < 15):
        raise SignatureError("hubspot: a webhook without a v3 signature and its time")
    addresses = {delivery.url, _ESCAPED.sub(lambda found: _DECODED[found[0].upper()], delivery.url)}
    signed = [f"{delivery.method}{url}".encode() + delivery.body + stamp.encode() for url in addresses]
    wanted = [
        base64.b64encode(hmac.new(key.encode(), text, hashlib.sha256).digest()).decode() for key in secrets for text in signed
    ]
    if not matches(said, *wanted):
        raise SignatureError("hubspot: a webhook whose signature is wrong")
    if not recent(instant(int(stamp)), delivery.at, within=_WINDOW):
        raise SignatureError("hubspot: a webhook that was signed too long ago")


def _hints(event: Row) -> Iterator[Hint]:
    said = str(event.get("subscriptionType") or "")
    noun, _, verb = said.partition(".")
    kind = _TYPES.get(str(event.get("objectTypeId") or "")) if noun == "object" else _KINDS.get(noun)
    if kind is None:
        return
    at = instant(_given(event, "occurredAt", int))
    # `eventId` alone is not promised to be unique, and a repeated delivery differs in `attemptNumber` only.
    known = [
        event.get(name) for name in ("portalId", "subscriptionId", "occurredAt", "eventId", "propertyName", "associationType")
    ]
    for change in _changes(event, verb, kind, at):
        yield Hint(id=digest_of(said, *known, change.kind, change.native_id, change.op), change=change)


def _changes(event: Row, verb: str, kind: Kind, at: datetime) -> Iterator[Change]:
    match verb:
        case "creation" | "propertyChange" | "restore":
            yield Change(kind=kind, native_id=_id(event, "objectId"), at=at)
        case "deletion":
            yield Change(kind=kind, native_id=_id(event, "objectId"), op="DELETED", at=at)
        case "privacyDeletion":
            yield Change(kind=kind, native_id=_id(event, "objectId"), op="ERASED", at=at)
        case "merge":
            # Some merges make a record of their own, which both go into.
            primary = _id(event, "primaryObjectId")
            into = _id(event, "newObjectId") if event.get("newObjectId") else primary
            losers = {primary, *(_text(each) for each in _given(event, "mergedObjectIds", list))} - {into}
            for loser in sorted(losers):
                yield Change(kind=kind, native_id=loser, op="MERGED", at=at, into=into)
            yield Change(kind=kind, native_id=into, at=at)
        case "associationChange":
            ends = str(event.get("associationType") or "").lower().split("_to_")
            yield Change(kind=kind, native_id=_id(event, "fromObjectId"), at=at)
            if (other := _KINDS.get(ends[-1])) is not None:
                yield Change(kind=other, native_id=_id(event, "toObjectId"), at=at)


def _id(event: Row, name: str) -> str:
    return _text(event.get(name))


def _text(id: Any) -> str:
    if isinstance(id, int | str) and not isinstance(id, bool) and (text := str(id)).isascii() and text.isdigit():
        return text
    raise ProtocolError("hubspot: an event without the id of its record")


def _given(event: Row, name: str, type: type[T]) -> T:
    value = event.get(name)
    if not isinstance(value, type) or isinstance(value, bool):
        raise ProtocolError(f"hubspot: an event without {name}")
    return value
