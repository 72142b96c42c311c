"""How Sugar tells what changed: web logic hooks, and filters on the time of the last change that show deleted rows, too.

Facts from the Sugar Developer Guide (web logic hooks, REST CRUD of `WebLogicHooks`, filters). Hooks are not signed; they carry a secret
of ours in their address, as `?code=`. They are made by `watch`, for which the source's user must be an administrator. Where that is not
wanted, an administrator makes them by hand (Admin, Web Logic Hooks), one for each of the modules Contacts, Leads, Accounts and
Opportunities and each of the events After Save, After Delete, After Relationship Add and After Relationship Delete:

    URL             <our address>?code=<our secret>
    Request Method  POST

Sugar sends them when cron runs its job queue, and whether it ever sends one again is not documented: the feed tells what is lost.
Doubts: that a filter with `deleted` shows live rows beside deleted ones, which have no more than an id and a time; the inner form of a hook's
body, of which only module, id and time are used. Nothing says what a merged record went into, so it is told as deleted.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import orjson

from adapters.base import Api, Request, answer_or_none
from adapters.changes import Change, Changes, Delivery, Feed, Heard, Hint, Push, Watch, digest_of, matches, scanned_changes
from model.errors import CursorExpiredError, ProtocolError, SignatureError, SourceError
from model.records import Kind, Row

if TYPE_CHECKING:
    from adapters.sugarcrm import SugarCRM

# The job "Prune Database on 1st of Month", where it is switched on, takes deleted rows away for good.
_DAY, _KEPT = 86_400.0, 28 * 86_400.0
# A save is one transaction of a PHP request, and times are whole seconds. Four kinds each 30 s are a hundredth of the calls that are allowed.
FEED = Feed(overlap=60.0, deletes=True, interval=30.0, longest=300.0, life=_KEPT)
PUSH = Push(kinds=frozenset({"contact", "lead", "account", "deal"}), secret="ours", delay=60.0)
_MODULES = ("Contacts", "Leads", "Accounts", "Opportunities")
_EVENTS = ("after_save", "after_delete", "after_relationship_add", "after_relationship_delete")
_BEANS: Mapping[str, Kind] = {
    "Contact": "contact", "Contacts": "contact", "Lead": "lead", "Leads": "lead", "Account": "account", "Accounts": "account",
    "Opportunity": "deal", "Opportunities": "deal",
}  # fmt: skip
_ID = re.compile(r"[\w.:{}-]{1,36}", re.ASCII)
_FIELDS = "id,name,url,webhook_target_module,request_method,trigger_event"
_LISTED = 200


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        rows: the place in the rows by time, as `scanned_changes` has it.
        asked: when it was asked last, by our clock: to be compared with that clock only.
    """

    rows: str
    asked: datetime


async def changes(
    whole: "SugarCRM", api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime
) -> Changes:
    """Return what was made, edited and deleted, by one filter for each 200 rows.

    Args:
        whole: the adapter, whose `scan` shows deleted rows.
    """
    place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else None
    if place is not None and _pruned(place.asked, now):
        raise CursorExpiredError("records that were deleted since may be gone for good")
    found = await scanned_changes(whole, api, kind, place.rows if place else None, fields, now=now)
    following = msgspec.json.encode(_Place(found.cursor, now)).decode()
    return Changes(changes=[_told(each) for each in found.changes], cursor=following, more=found.more)


def _pruned(asked: datetime, now: datetime) -> bool:
    """Tell whether a first of a month lies in a pause of more than a day; shorter ones lose no more than what is deleted that night."""
    away = (now - asked).total_seconds()
    return away > _KEPT or (away > _DAY and (asked.year, asked.month) != (now.year, now.month))


def _told(change: Change) -> Change:
    if not (change.row or {}).get("deleted"):
        return change
    return Change(kind=change.kind, native_id=change.native_id, op="DELETED", at=change.at)


# ---- web logic hooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a hook by the secret in its address, and read which record it is about."""
    said = delivery.query.get("code", "")
    if not said or not matches(said, *(each for each in secrets if each)):
        raise SignatureError("sugarcrm: a hook without the right code in its address")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("sugarcrm: a hook is no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("sugarcrm: a hook is no object")
    event, kind = str(body.get("event")), _BEANS.get(str(body.get("bean")))
    if kind is None or event not in _EVENTS:
        return Heard()
    data = body.get("data")
    if not isinstance(data, dict) or not isinstance(id := data.get("id"), str) or not _ID.fullmatch(id):
        raise ProtocolError("sugarcrm: a hook without the id of its record")
    gone = event == "after_delete" or (event == "after_save" and data.get("deleted") in (True, 1, "1"))
    change = Change(kind=kind, native_id=id, op="DELETED" if gone else "CHANGED", at=_timed(data.get("date_modified")))
    # Hooks have no id. A tie that is made, ended and made again moves no time, so each of those counts by itself.
    again = delivery.at.isoformat() if event.startswith("after_relationship") else ""
    return Heard(hints=[Hint(id=digest_of(delivery.body.hex(), again), change=change)])


def _timed(said: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(said))
    except ValueError:
        return None
    return at if at.utcoffset() is not None else None  # spelled for the database, it does not say its zone


async def watched(adapter: "SugarCRM", api: Api, url: str, secret: str, *, root: str, size: int) -> list[Watch]:
    """One list, and a bulk call for each 20 hooks that are missing; one call for each that is ours and no good any more."""
    address = _with_code(url, secret)
    hooks = await _hooks(api, url, root)
    wanted = [(module, event) for module in _MODULES for event in _EVENTS]
    kept: dict[tuple[str, str], str] = {}
    for hook in hooks:
        of = (hook["webhook_target_module"], hook["trigger_event"])
        if of in wanted and of not in kept and hook["url"] == address and hook["request_method"] == "POST":
            kept[of] = hook["id"]
    missing = [each for each in wanted if each not in kept]
    calls: list[Row] = [
        {
            "url": "/WebLogicHooks", "method": "POST", "headers": ["Content-Type: application/json"],
            "data": orjson.dumps({
                "name": f"customer360 {module} {event}", "url": address, "webhook_target_module": module, "request_method": "POST", "trigger_event": event,
            }).decode(),
        }
        for module, event in missing
    ]  # fmt: skip
    for start in range(0, len(calls), size):
        # Sent twice, it would make second ones; the next look ends them.
        answers = await adapter.bulk(api, "watch", calls[start : start + size], safe=True)
        for of, answer in zip(missing[start : start + size], answers, strict=True):
            kept[of] = _made(adapter.classify(answer), answer.json())
    await _ended(api, root, [hook["id"] for hook in hooks if hook["id"] not in kept.values()])
    return [Watch(native_id=kept[each]) for each in wanted]


def _made(fault: SourceError | None, said: Row) -> str:
    if fault is not None:
        raise fault
    return str(said["id"])


async def unwatched(api: Api, url: str, *, root: str) -> int:
    """One list, and one call a hook."""
    hooks = await _hooks(api, url, root)
    await _ended(api, root, [hook["id"] for hook in hooks])
    return len(hooks)


async def _ended(api: Api, root: str, ids: Sequence[str]) -> None:
    asked = (Request(operation="unwatch", method="DELETE", path=f"{root}/WebLogicHooks/{id}") for id in ids)
    await asyncio.gather(*(answer_or_none(api, each) for each in asked))


async def _hooks(api: Api, url: str, root: str) -> list[Row]:
    """Return the hooks to our address, whatever code they carry."""
    found: list[Row] = []
    while True:
        body = {
            "filter": [{"url": {"$starts": url.partition("?")[0]}}], "fields": _FIELDS, "max_num": _LISTED, "offset": len(found), "order_by": "id:asc",
        }  # fmt: skip
        said = (
            await api.send(Request(operation="watch.list", method="POST", path=f"{root}/WebLogicHooks/filter", json=body))
        ).json()
        found += said["records"]
        if said["next_offset"] == -1 or not said["records"]:
            return [hook for hook in found if _without_code(hook["url"]) == _without_code(url)]


def _with_code(url: str, secret: str) -> str:
    return _queried(url, lambda said: [*said, ("code", secret)])


def _without_code(url: str) -> str:
    return _queried(url, lambda said: said)


def _queried(url: str, rest: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]) -> str:
    parts = urlsplit(url)
    said = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "code"]
    return urlunsplit(parts._replace(query=urlencode(rest(said))))
