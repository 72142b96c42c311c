"""How Zoho tells what changed: COQL by modified time, the list of deleted records, and notifications over channels that live a day.

Facts from "Notification APIs" (v8), "Get deleted records", and captured notifications. Nothing is signed: each call repeats a token of
ours, of 50 characters at most, so it is cut from our secret's digest. How merged records show is written nowhere: the one that is gone
counts as deleted. No second try of a notification is promised, so the feed tells everything as well.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

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
    Watch,
    digest_of,
    instant,
    matches,
    place_of,
    scanned_changes,
)
from adapters.wire import code_in
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row

# Four kinds every two minutes take a fifth of the smallest paid edition's credits a day: three for a query, two for a list of deletions.
FEED = Feed(overlap=300.0, deletes=True, interval=120.0, longest=300.0)
_LIFE, _ASKED, _DEFAULT = 86_400.0, 82_800.0, 3600.0  # seconds; a channel that is asked to live longer than a day gets an hour
PUSH = Push(kinds=frozenset({"contact", "lead", "account", "deal"}), secret="ours", life=_LIFE)
_MODULES: Mapping[str, Kind] = {"Contacts": "contact", "Leads": "lead", "Accounts": "account", "Deals": "deal"}
_TURN = 4  # deletions are asked for in the first of so many passes: notifications tell them at once
_PAGE, _REACH = 200, 2000  # records in one page of a list, and in all that page numbers lead to
_OFF = timedelta(minutes=1)


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        rows: the place in the rows by time, as `scanned_changes` has it.
        gone: deletions after this were not told yet, by the system's clock.
        turn: passes since deletions were asked for.
    """

    rows: str
    gone: datetime
    turn: int = 0


async def changes(
    adapter: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, root: str, now: datetime
) -> Changes:
    """Return what was made and edited, by one query for each 2,000 rows, and every fourth time what was deleted, by a list a page of 200."""
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    wanted = tuple(dict.fromkeys([*fields, "Created_Time", "Modified_Time"]))
    found = await scanned_changes(adapter, api, kind, place.rows if place else None, wanted, now=now)
    overlap = timedelta(seconds=FEED.overlap)
    if place is None:
        return Changes(changes=found.changes, cursor=_encoded(_Place(found.cursor, place_of(found.cursor).seen - overlap)))
    if found.more:  # the pass goes on, and ends with deletions
        return Changes(changes=found.changes, cursor=_encoded(_Place(found.cursor, place.gone, place.turn)), more=True)
    if place.turn:
        return Changes(changes=found.changes, cursor=_encoded(_Place(found.cursor, place.gone, (place.turn + 1) % _TURN)))
    gone = await _deleted(api, kind, f"{root}/{adapter.kinds[kind].object}", place.gone)
    last = max((each.at - overlap for each in gone if each.at is not None), default=place.gone)
    following = _Place(found.cursor, max(place.gone, last), 1)
    return Changes(changes=[*found.changes, *gone], cursor=_encoded(following))


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


async def _deleted(api: Api, kind: Kind, module: str, since: datetime) -> list[Change]:
    """Return the records deleted after a time, those in the recycle bin and those that are gone for good.

    Raises:
        CursorExpiredError: there are more than page numbers lead to, and the list cannot be cut by time.
    """
    found: list[Change] = []
    for page in range(1, _REACH // _PAGE + 1):
        answer = await api.send(
            Request(
                operation=f"{kind}.deleted", path=f"{module}/deleted",
                params=[("type", "all"), ("page", str(page)), ("per_page", str(_PAGE))],
                headers={"If-Modified-Since": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+00:00"}, cost={"credits": 1}, answers=frozenset({304}),
            )
        )  # fmt: skip
        if answer.status == 304 or not answer.body:  # nothing is an empty 204, or "not modified"
            return found
        body = answer.json()
        found += [
            Change(kind=kind, native_id=str(row["id"]), op="DELETED", at=datetime.fromisoformat(row["deleted_time"]))
            for row in body["data"]
        ]
        if not body["info"]["more_records"]:
            return found
    raise CursorExpiredError(f"more than {_REACH} records were deleted since, and the list of them ends there")


# ---- notifications ----


def token_of(secret: str) -> str:
    """Return what a channel repeats in each call to prove it: 48 characters made of our secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:48]


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a notification by the token in its body, and read which records it is about; what it says of their values is not used."""
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise SignatureError("zoho: a notification without a token") from error
    said = body.get("token") if isinstance(body, dict) else None
    if not isinstance(said, str) or not matches(said, *(token_of(each) for each in secrets if each)):
        raise SignatureError("zoho: a notification without the right token")
    if (kind := _MODULES.get(str(body.get("module")))) is None:
        return Heard()
    ids, at = body.get("ids"), body.get("server_time")
    if not isinstance(ids, list) or not all(isinstance(id, str) and id.isascii() and id.isdigit() and len(id) < 30 for id in ids):
        raise ProtocolError("zoho: a notification without the ids of its records")
    if not isinstance(at, int) or not 0 < at < 1 << 45:
        raise ProtocolError("zoho: a notification without the time at which it was sent")
    operation = str(body.get("operation"))
    op: Any = "DELETED" if operation == "delete" else "CHANGED"
    fields = orjson.dumps(body.get("affected_fields"), option=orjson.OPT_SORT_KEYS).decode()
    # The time counts milliseconds at which it was sent; it is not the record's, and what the record has is read.
    return Heard(
        hints=[
            Hint(id=digest_of(kind, id, operation, at, fields), change=Change(kind=kind, native_id=id, op=op, at=instant(at)))
            for id in dict.fromkeys(ids)
        ]
    )


async def watch(api: Api, root: str, url: str, secret: str, *, now: datetime) -> list[Watch]:
    """Make or renew the one channel of an address, with the org's list of them one more call; each look moves its end on.

    An end that lies beyond a day, or has passed, by the system's clock becomes an hour from its now: then the answer tells that clock, and
    the channel is asked for once more by it.
    """
    mine = await _channels(api, root, url)
    channel = next(iter(mine), _channel(url))
    wanted = now + timedelta(seconds=_ASKED)
    ends = await _kept(api, root, "PUT" if mine else "POST", channel, url, secret, wanted)
    if abs(wanted - ends) > _OFF:
        wanted = ends + timedelta(seconds=_ASKED - _DEFAULT)
        ends = await _kept(api, root, "PUT", channel, url, secret, wanted)
    for other in [each for each in mine if each != channel]:  # made by hand, or by an older address that was the same
        await _ended(api, root, other)
    return [Watch(native_id=channel, expires_at=ends)]


async def unwatch(api: Api, root: str, url: str) -> int:
    mine = await _channels(api, root, url)
    for channel in mine:
        await _ended(api, root, channel)
    return len(mine)


async def _channels(api: Api, root: str, url: str) -> list[str]:
    """Return the channels that call an address; each is listed once for each of its modules."""
    found: dict[str, None] = {}
    page, more = 1, True
    while more:
        params = [("page", str(page)), ("per_page", str(_PAGE))]
        answer = await api.send(Request(operation="watch.list", path=f"{root}/actions/watch", params=params))
        if not answer.body:
            break
        body = answer.json()
        found |= {str(row["channel_id"]): None for row in body["watch"] if row.get("notify_url") == url}
        page, more = page + 1, bool((body.get("info") or {}).get("more_records"))
    return list(found)


async def _kept(api: Api, root: str, method: str, channel: str, url: str, secret: str, ends: datetime) -> datetime:
    """Write a channel whole, and return when it ends."""
    said = {
        "channel_id": channel, "events": [f"{module}.all" for module in _MODULES], "notify_url": url, "token": token_of(secret),
        "channel_expiry": f"{ends.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+00:00",
    }  # fmt: skip
    rows = await _written(
        api, Request(operation="watch.write", method=method, path=f"{root}/actions/watch", json={"watch": [said]})
    )
    told = {
        each["resource_name"]: datetime.fromisoformat(each["channel_expiry"]) for row in rows for each in row["details"]["events"]
    }
    if not _MODULES.keys() <= told.keys():
        raise ProtocolError("zoho: a channel does not watch all that it was asked to")
    return min(told[module] for module in _MODULES)


async def _ended(api: Api, root: str, channel: str) -> None:
    params = [("channel_ids", channel)]
    await _written(api, Request(operation="watch.delete", method="DELETE", path=f"{root}/actions/watch", params=params))


async def _written(api: Api, request: Request) -> list[Row]:
    """Return the verdicts on channels: one that is refused is told under HTTP 202."""
    answer = await api.send(request)
    rows: list[Row] = answer.json()["watch"]
    for row in rows:
        if row.get("status") != "success":
            code = code_in(row.get("code"))
            raise RejectedError(f"a channel was refused: {code}", status=answer.status, upstream_code=code or None)
    return rows


def _channel(url: str) -> str:
    """Return a channel's number, which is ours to choose: the same for an address, so that one that was made twice is one."""
    return str(10**15 + int(hashlib.sha256(url.encode()).hexdigest()[:12], 16))
