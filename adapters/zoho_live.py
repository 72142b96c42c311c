"""How Zoho CRM tells what changed: a channel of notifications, COQL by the time of the last change, the list of deleted records.

Facts from Zoho's pages on notifications (enable, update, details, disable), the FAQ "Kaizen 170" and "List of deleted records". A
channel's number is ours to choose: it is made from the address, so that one address has one channel whoever asks for it, and how often.
Nothing is signed; the token that we gave the channel is repeated in each body. It holds a digest of the secret, since 50 characters
are all it may have. Nothing is sent again, so what a lost notification would have told is told by the feed.

Since v4 a channel may live a week; a day, which every version allows, is what is asked for, since more than allowed is cut to an hour.

Doubts: that merged records are told as deleted ones, and nowhere into which (so they are DELETED here); that a converted lead is told
at all; how far back the list of deleted records goes (60 days is what the recycle bin keeps); that an id in a body is all that is told
of an operation that no document names (it is taken for an edit, and the record is read).
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import orjson

from adapters.base import Adapter, Api, Request, code_in
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
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row

_DAY = 86_400.0
_BIN = 60 * _DAY  # seconds that the recycle bin keeps a record
# A pass is three credits, and every second one two more: two minutes between passes of four kinds take 11,500 of the 50,000 that
# the smallest paid edition has a day.
FEED = Feed(overlap=120.0, deletes=True, merges=False, interval=120.0, longest=600.0, life=_BIN)
PUSH = Push(kinds=frozenset({"contact", "lead", "account", "deal"}), secret="ours", life=_DAY, delay=10.0)
_ASKED = timedelta(seconds=_DAY - 1800)  # half an hour less than allowed: for clocks that differ
_GIVEN = timedelta(hours=1)  # to a channel without an end, or with one that is not allowed
_OFF = timedelta(minutes=1)
_RENEWED = timedelta(seconds=_DAY / 2)  # a channel with less than this left is renewed
_KINDS: Mapping[str, Kind] = {"Contacts": "contact", "Leads": "lead", "Accounts": "account", "Deals": "deal"}
_TIMES = ("Created_Time", "Modified_Time")
_TOKEN = 50  # characters
_PAGE = 200
_NONE = "NOT_SUBSCRIBED"
_LATEST = 1 << 43  # milliseconds: the year 2248


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        edited: the place in the query by time, as `scanned_changes` has it.
        asked: when it was asked last, by our clock: to be compared with that clock only.
        gone_since: records deleted before were told, by Zoho's clock.
        due: whether this pass asks for deleted records.
    """

    edited: str
    asked: datetime
    gone_since: datetime
    due: bool = True


async def changes(
    adapter: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime, root: str
) -> Changes:
    """Return edits by one query for each 2,000, and at the end of every second pass the deleted by one list for each 200.

    A pass over a hundredth of 20,000 records thus takes 1.5 calls of the 10 that list them all; asked each time it would be 2.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and (now - place.asked).total_seconds() > _BIN:
        raise CursorExpiredError("records that were deleted since may not be listed any more")
    wanted = tuple(dict.fromkeys([*fields, *_TIMES]))
    edits = await scanned_changes(adapter, api, kind, place.edited if place else None, wanted, now=now)
    if place is None:
        since = place_of(edits.cursor).since
        return Changes(changes=edits.changes, cursor=_encoded(_Place(edits.cursor, now, since)))
    place = msgspec.structs.replace(place, edited=edits.cursor, asked=now)
    if edits.more:
        return Changes(changes=edits.changes, cursor=_encoded(place), more=True)
    if not place.due:
        return Changes(changes=edits.changes, cursor=_encoded(msgspec.structs.replace(place, due=True)))
    gone = await _gone(api, f"{root}/{adapter.kinds[kind].object}/deleted", kind, place.gone_since)
    # The youngest time at Zoho that is known now: what was deleted before it has been listed, but for what comes late.
    seen = max([place_of(edits.cursor).seen, *(each.at for each in gone if each.at is not None)])
    since = max(place.gone_since, seen - timedelta(seconds=FEED.overlap))
    return Changes(changes=[*edits.changes, *gone], cursor=_encoded(msgspec.structs.replace(place, gone_since=since, due=False)))


async def _gone(api: Api, path: str, kind: Kind, since: datetime) -> list[Change]:
    """Return what was deleted since.

    Raises:
        CursorExpiredError: more than the list reaches; it cannot be cut by time, so everything is to be compared.
    """
    headers = {"If-Modified-Since": since.isoformat(timespec="seconds")}
    found: list[Change] = []
    number = 1
    while True:
        params = [("type", "all"), ("page", str(number)), ("per_page", str(_PAGE))]
        asked = Request(operation=f"{kind}.deleted", path=path, params=params, headers=headers, cost={"credits": 1})
        try:
            answer = await api.send(asked)
        except RejectedError as error:
            if error.status == 304:
                return found
            if number > 1 and error.status == 400:  # lists end at 2,000 records by page number, and this one takes no token
                raise CursorExpiredError("more was deleted than its list reaches") from error
            raise
        if not answer.body:  # an empty 204
            return found
        body = answer.json()
        found += [
            Change(kind=kind, native_id=row["id"], op="DELETED", at=datetime.fromisoformat(row["deleted_time"]))
            for row in body["data"]
        ]
        if not body["info"]["more_records"]:
            return found
        number += 1


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- notifications ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a notification by the token in it, and read its ids. It names no org, and of values nothing is used."""
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise SignatureError("zoho: a notification is no JSON, so it holds no token") from error
    token = body.get("token") if isinstance(body, dict) else None
    if not isinstance(token, str) or not matches(token, *(token_of(each) for each in secrets if each)):
        raise SignatureError("zoho: a notification without our token")
    if (kind := _KINDS.get(str(body.get("module")))) is None:
        return Heard()
    ids, operation = body.get("ids"), body.get("operation")
    if not isinstance(operation, str) or not isinstance(ids, list) or not ids or not all(_is_id(each) for each in ids):
        raise ProtocolError("zoho: a notification without its operation or the ids of its records")
    sent = body.get("server_time")
    timed = isinstance(sent, int) and not isinstance(sent, bool) and 0 < sent < _LATEST
    # Nothing is numbered. Two edits of a record within one notification's millisecond are one to us: it is read afterwards.
    known = [body.get("channel_id"), kind, operation, sent if timed else delivery.at.timestamp()]
    op, at = ("DELETED" if operation == "delete" else "CHANGED"), (instant(sent) if timed else None)
    return Heard(
        hints=[Hint(id=digest_of(*known, id), change=Change(kind=kind, native_id=id, op=op, at=at)) for id in dict.fromkeys(ids)]  # type: ignore[arg-type]
    )


def token_of(secret: str) -> str:
    """Return what a channel is given to repeat."""
    return hmac.digest(secret.encode(), b"customer360 notifications", hashlib.sha256).hex()[:_TOKEN]


def _is_id(said: Any) -> bool:
    return isinstance(said, str) and said.isascii() and said.isdigit() and len(said) <= 20


# ---- the channel ----


async def watched(api: Api, url: str, secret: str, *, root: str, now: datetime) -> list[Watch]:
    """One call when all is well, one more where the channel is not there, ends soon, or lacks something.

    Where the clocks differ by half an hour the end that is asked for is too far away, or past: an hour is given then, which tells Zoho's
    clock, and the channel is set again by it.
    """
    wanted: Row = {"notify_url": url, "token": token_of(secret)}
    rows = await _channel(api, url, root)
    if _good(rows, wanted, now):
        return [_watch(url, rows)]
    channel: Row = {
        "channel_id": channel_of(url), "events": [f"{module}.all" for module in _KINDS], **wanted, "return_affected_field_values": False,
        "notify_on_related_action": False,
    }  # fmt: skip
    method, asked = "PUT" if rows else "POST", now + _ASKED  # PUT sets all that a channel has
    body = await _set(api, root, method, channel, asked)
    if any((verdict.get("details") or {}).get("api_name") == "channel_expiry" for verdict in body["watch"]):
        body = await _set(api, root, method, channel, None)
    made = _watch(url, _told(body))
    if made.expires_at is not None and abs(made.expires_at - asked) > _OFF:
        made = _watch(url, _told(await _set(api, root, "PUT", channel, made.expires_at - _GIVEN + _ASKED)))
    return [made]


async def _set(api: Api, root: str, method: str, channel: Row, ends: datetime | None) -> Row:
    until = {} if ends is None else {"channel_expiry": ends.isoformat(timespec="seconds")}
    body: Row = (await api.send(_request("watch", root, method=method, json={"watch": [{**channel, **until}]}))).json()
    return body


async def unwatched(api: Api, url: str, *, root: str) -> int:
    """One call, and one more where there is a channel."""
    if not await _channel(api, url, root):
        return 0
    answer = await api.send(_request("unwatch", root, method="DELETE", params=[("channel_ids", channel_of(url))]))
    _told(answer.json(), but=_NONE)  # an answer that was lost ended it already
    return 1


def channel_of(url: str) -> str:
    """Return the number of an address's channel."""
    return str(10**15 + int.from_bytes(hashlib.blake2b(url.encode(), digest_size=6).digest()))


async def _channel(api: Api, url: str, root: str) -> list[Row]:
    """Return what there is of the channel, one row for each module."""
    params = [("channel_id", channel_of(url)), ("page", "1"), ("per_page", str(_PAGE))]
    answer = await api.send(_request("watch.list", root, params=params))
    rows: list[Row] = answer.json()["watch"] if answer.body else []
    return [row for row in rows if str(row["channel_id"]) == channel_of(url)]


def _good(rows: Sequence[Row], wanted: Row, now: datetime) -> bool:
    modules = {row.get("resource_name") for row in rows}
    same = all(row.get(name) == value for row in rows for name, value in wanted.items())
    return modules >= _KINDS.keys() and same and all(_ends(row) - now > _RENEWED for row in rows)


def _watch(url: str, rows: Sequence[Row]) -> Watch:
    return Watch(native_id=channel_of(url), expires_at=min(_ends(row) for row in rows))


def _ends(row: Row) -> datetime:
    ends = datetime.fromisoformat(row["channel_expiry"])
    if ends.tzinfo is None:
        raise ProtocolError("zoho: a channel's end has no zone")
    return ends


def _told(body: Row, *, but: str = "") -> list[Row]:
    """Return the events of a channel that was taken; a refusal may come under 200 and 202. `but` is a code that is none."""
    told: list[Row] = []
    for verdict in body["watch"]:
        code = code_in(verdict.get("code"))
        if verdict.get("status") != "success" and code != but:
            raise RejectedError(f"a channel is refused: {code or 'no code'}", status=400, upstream_code=code or None)
        told += verdict["details"].get("events") or []
    return told


def _request(operation: str, root: str, **more: Any) -> Request:
    return Request(operation=operation, path=f"{root}/actions/watch", answers=frozenset({400}), **more)
