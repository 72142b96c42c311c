"""How Salesforce tells what changed: SOQL over the recycle bin, too, and calls of a flow that an administrator makes.

Facts from the REST API guide (queryAll, IsDeleted, MasterRecordId) and Flow Builder's HTTP callouts. Change data capture over the
Pub/Sub API would be a feed of its own, `Feed(how="offset")`, whose cursor is a replay id that is good for 72 hours.

The template for an administrator, one flow for each of Contact, Lead, Account and Opportunity:

1. A custom header `X-Webhook-Secret` with our secret, in an external credential; a named credential with our address.
2. A record-triggered flow, "a record is created or updated", with the asynchronous path "run asynchronously".
3. There an HTTP callout by POST with the body
   {"object": "Contact", "id": {!$Record.Id}, "changedAt": {!$Record.SystemModstamp}, "run": {!$Flow.InterviewGuid}}

A flow that is triggered by a delete has no asynchronous path and thus no callout: deleted and merged records are told by the feed.
A callout that fails is not repeated, so what it would have told is told by the feed as well.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import orjson

from adapters.base import Adapter, Api
from adapters.changes import Change, Changes, Delivery, Feed, Heard, Hint, Push, digest_of, matches, scanned_changes
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind

_BIN = 15 * 86_400.0  # seconds that the recycle bin keeps a record
# Long transactions commit late, under the time at which they began: 5 to 10 minutes are looked back. One query over all fields costs the
# same call whether it looks back or not. A minute between two passes is 6 % of the smallest Enterprise allowance, for four kinds.
FEED = Feed(overlap=600.0, deletes=True, merges=True, interval=60.0, longest=300.0, life=_BIN)
UNMERGED = replace(FEED, merges=False)  # opportunities are not merged
PUSH = Push(kinds=frozenset({"contact", "lead", "account", "deal"}), deletes=False, secret="ours", subscribes=False, delay=60.0)
_KINDS: Mapping[str, Kind] = {"Contact": "contact", "Lead": "lead", "Account": "account", "Opportunity": "deal"}
_NEEDED = ("CreatedDate", "SystemModstamp", "IsDeleted", "MasterRecordId")
_ID = re.compile(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?", re.ASCII)
_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        rows: the place in the rows by time, as `scanned_changes` has it.
        asked: when it was asked last, by our clock: to be compared with that clock only.
    """

    rows: str
    asked: datetime


async def changes(whole: Adapter, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
    """Return what was made, edited, deleted and merged, by one query for each 2,000 rows.

    getDeleted would cost further calls, and would add only what was deleted and taken out of the bin between two passes.

    Args:
        whole: the adapter, whose `scan` shows what is in the recycle bin.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and (now - place.asked).total_seconds() > _BIN:
        raise CursorExpiredError("records that were deleted since are not in the recycle bin any more")
    wanted = tuple(dict.fromkeys([*fields, *_NEEDED]))
    found = await scanned_changes(whole, api, kind, place.rows if place else None, wanted, now=now)
    following = msgspec.json.encode(_Place(found.cursor, now)).decode()
    return Changes(changes=[_told(each) for each in found.changes], cursor=following, more=found.more)


def _told(change: Change) -> Change:
    row: Mapping[str, Any] = change.row or {}
    if not row.get("IsDeleted"):
        return change
    into = row.get("MasterRecordId")
    return Change(kind=change.kind, native_id=change.native_id, op="MERGED" if into else "DELETED", at=change.at, into=into)


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a flow's callout by its secret header, and read which record it is about. Nothing but object, id, time and run is used."""
    said = delivery.headers.get("x-webhook-secret", "")
    if not said or not matches(said, *secrets):
        raise SignatureError("salesforce: a callout without the right secret")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("salesforce: a callout is no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("salesforce: a callout is no object")
    if (kind := _KINDS.get(str(body.get("object")))) is None:
        return Heard()
    id = str(body.get("id"))
    if not _ID.fullmatch(id):
        raise ProtocolError("salesforce: a callout without the id of its record")
    try:
        at = datetime.fromisoformat(str(body["changedAt"]))
        aware = at.utcoffset() is not None
    except (KeyError, ValueError):
        aware = False
    if not aware:
        raise ProtocolError("salesforce: a callout without the time of its change")
    change = Change(kind=kind, native_id=_whole(id), at=at)
    # Two edits within a second have one time; each has a run of its own.
    return Heard(hints=[Hint(id=digest_of(kind, change.native_id, at.timestamp(), body.get("run")), change=change)])


def _whole(id: str) -> str:
    """Return the 18 characters of an id: formulas give 15, the API 18."""
    if len(id) == 18:
        return id
    parts = (id[:5], id[5:10], id[10:])
    return id + "".join(_SAFE[sum(1 << at for at, each in enumerate(part) if each.isupper())] for part in parts)
