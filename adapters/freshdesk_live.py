"""How Freshdesk tells what changed: lists since a time, lists of what was deleted, and calls of a rule that an administrator makes.

Facts from the sheet's sources: `updated_since` (tickets) and `_updated_since` (contacts) take whole seconds, the edge included; tickets can be
sorted by it and have at most 300 pages, contacts cannot be sorted. Public connectors ask for deleted tickets since a time, too. Companies have no
such filter: nothing tells of them.

The template for an administrator, once under "ticket creation" and once under "ticket updates" (by anyone, any event that matters), each with the
action "trigger webhook": POST to our address, a custom header `X-Webhook-Secret` with our secret, or any user name with our secret as its
password, JSON, advanced content
{"ticket_id": "{{ticket.id}}"}
The simple content with the ticket's id does as well. Rules know tickets only. A call that fails is repeated after 5, 30 and 60 minutes; those beyond
the limit of an hour wait for the next one, and are dropped after a day: the feed tells what is left out.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec
import orjson

from adapters.base import Api, Request, Response
from adapters.changes import BEGINNING, Change, Changes, Delivery, Feed, Heard, Hint, Push, digest_of, matches
from mapping.convert import instant
from model.errors import ProtocolError, SignatureError
from model.records import Row

FEED = Feed(overlap=180.0, deletes=True, interval=60.0)
PUSH = Push(kinds=frozenset({"ticket"}), deletes=False, secret="ours", subscribes=False, delay=60.0)
_PAGE, _TICKET_PAGES = 100, 300
_TOLD = 2_000  # deleted tickets remembered, 80 kB of cursor; what goes beyond is told again
_BIN_PAGES = 5  # of the list of deleted contacts, in one pass
_MARGIN = timedelta(hours=1)  # contacts have no youngest one to begin with: it begins so long before the answer's own date
_OVERLAP = timedelta(seconds=FEED.overlap)


# ---- contacts ----


class _Contacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        seen: the youngest change seen so far, by the system's clock.
        before: what `seen` was when this pass began.
        since: what this pass asks for.
        page: to be asked next.
        bin: the page of the deleted ones to go on with.
        marks: of the pages of the deleted ones, as they were last.
    """

    seen: datetime
    before: datetime
    since: datetime
    page: int = 1
    bin: int = 1
    marks: tuple[str, ...] = ()


async def changed_contacts(api: Api, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
    """Return a page of what changed, and with the last page up to five of deleted ones: ceil(rows / 100) calls and 1 to 5.

    Pages go by number in an order that nobody promises, so what is deleted meanwhile may push a row from one page to the one before. What takes
    several pages is therefore read again by the next pass.

    That a delete moves `updated_at` is not documented: the list of deleted ones is walked over and over without a time, a page that is as it was
    tells nothing.
    """
    if cursor is None:
        answer = await api.send(_request("contact.changes", "contacts", per_page=1))
        at = min(now, _date(answer) or now) - _MARGIN
        return Changes(changes=[], cursor=_encoded(_Contacts(seen=at, before=at, since=at)))
    place = msgspec.json.decode(cursor, type=_Contacts)
    since = _second(place.since)
    answer = await api.send(_request("contact.changes", "contacts", _updated_since=since, per_page=_PAGE, page=place.page))
    rows, more = _rows(answer)
    changes = []
    for row in rows:
        # That lists show the further addresses is not documented: a row without them is read by its id.
        whole = "other_emails" in row or "other_emails" not in fields
        changes.append(Change(kind="contact", native_id=str(row["id"]), at=_updated(row), row=row if whole else None))
    place = msgspec.structs.replace(place, seen=max([place.seen, *map(_updated, rows)]))
    if more:
        return Changes(changes=changes, cursor=_encoded(msgspec.structs.replace(place, page=place.page + 1)), more=True)
    gone, bin, marks = await _bin(api, place)
    since_next = (place.before if place.page > 1 else place.seen) - _OVERLAP
    following = _Contacts(seen=place.seen, before=place.seen, since=since_next, bin=bin, marks=marks)
    return Changes(changes=[*changes, *gone], cursor=_encoded(following))


async def _bin(api: Api, place: _Contacts) -> tuple[list[Change], int, tuple[str, ...]]:
    """Read some pages of deleted contacts; return what is new on them, the page to go on with, and the marks."""
    found: list[Change] = []
    marks, number = list(place.marks), place.bin
    for _ in range(_BIN_PAGES):
        rows, more = _rows(await api.send(_request("contact.deleted", "contacts", state="deleted", per_page=_PAGE, page=number)))
        mark = _mark(rows)
        if marks[number - 1 : number] != [mark]:
            found += [Change(kind="contact", native_id=str(row["id"]), op="DELETED", at=_updated(row)) for row in rows]
            marks[number - 1 : number] = [mark]
        if not more:
            return found, 1, tuple(marks[:number])
        number += 1
    return found, number, tuple(marks)


def _mark(rows: Sequence[Row]) -> str:
    told = [[row["id"], row["updated_at"]] for row in rows]
    return hashlib.blake2b(orjson.dumps(told), digest_size=6).hexdigest()


def _date(answer: Response) -> datetime | None:
    """Return when an answer was made, by the system's clock."""
    try:
        return parsedate_to_datetime(answer.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


# ---- tickets ----


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a list of tickets by the time of their last change.

    Attributes:
        seen: the youngest change seen so far.
        before: what `seen` was when this pass began.
        since: what is asked for: each page begins at the last time of the one before.
        page: above 1 where one second has more tickets than a page.
        paged: some second had; what was edited meanwhile may have pushed a ticket to the page before, so the next pass reads it again.
        done: this pass has no more of it.
        told: deleted tickets that the pass before met: each one that is told is looked up by a call of its own, so none is told twice.
        met: those that this pass met.
    """

    seen: datetime
    before: datetime
    since: datetime
    page: int = 1
    paged: bool = False
    done: bool = False
    told: tuple[str, ...] = ()
    met: tuple[str, ...] = ()


class _Tickets(msgspec.Struct, frozen=True):
    live: _Line
    gone: _Line


async def changed_tickets(api: Api, cursor: str | None) -> Changes:
    """Return a page of what changed and a page of what was deleted: about ceil(rows / 99) calls, at least 2."""
    if cursor is None:
        asked = _request(
            "ticket.changes", "tickets", updated_since=_second(BEGINNING), order_by="updated_at", order_type="desc", per_page=1
        )
        rows, _ = _rows(await api.send(asked))
        seen = max(map(_updated, rows), default=BEGINNING)
        line = _begun(seen, seen)
        return Changes(changes=[], cursor=_encoded(_Tickets(live=line, gone=line)))
    place = msgspec.json.decode(cursor, type=_Tickets)
    edits, live = await _page_of(api, place.live, deleted=False)
    deletes, gone = await _page_of(api, place.gone, deleted=True)
    if more := not (live.done and gone.done):
        return Changes(changes=[*edits, *deletes], cursor=_encoded(_Tickets(live=live, gone=gone)), more=more)
    live, gone = (
        msgspec.structs.replace(_begun(each.seen, each.before if each.paged else each.seen), told=each.met)
        for each in (live, gone)
    )
    return Changes(changes=[*edits, *deletes], cursor=_encoded(_Tickets(live=live, gone=gone)))


async def _page_of(api: Api, line: _Line, *, deleted: bool) -> tuple[list[Change], _Line]:
    if line.done:
        return [], line
    chosen = {"filter": "deleted"} if deleted else {}
    rows, more = _rows(await api.send(_request(
        "ticket.deleted" if deleted else "ticket.changes", "tickets", **chosen, updated_since=_second(line.since), order_by="updated_at",
        order_type="asc", per_page=_PAGE, page=line.page,
    )))  # fmt: skip
    changes = [Change(kind="ticket", native_id=str(row["id"]), at=_updated(row), row=row) for row in rows]
    if deleted:
        marks = {f"{row['id']}@{row['updated_at']}": change for row, change in zip(rows, changes, strict=True)}
        known = {*line.told, *line.met}
        changes = [replace(each, op="DELETED", row=None) for mark, each in marks.items() if mark not in known]
        line = msgspec.structs.replace(line, met=tuple(dict.fromkeys((*line.met, *marks)))[-_TOLD:])
    seen = max([line.seen, *map(_updated, rows)])
    if not more:
        return changes, msgspec.structs.replace(line, seen=seen, done=True)
    last, asked = _updated(rows[-1]), line.since.replace(microsecond=0)
    if last < asked or (last == asked and line.page >= _TICKET_PAGES):
        raise ProtocolError("freshdesk: a page of changed tickets does not go on")
    if last > asked:
        return changes, msgspec.structs.replace(line, seen=seen, since=last, page=1)
    return changes, msgspec.structs.replace(line, seen=seen, page=line.page + 1, paged=True)


def _begun(seen: datetime, known: datetime) -> _Line:
    return _Line(seen=seen, before=seen, since=known - _OVERLAP)


# ---- both ----


def _rows(answer: Response) -> tuple[list[Row], bool]:
    """Return an answer's rows, and whether a page follows."""
    rows: list[Row] = answer.json()
    more = 'rel="next"' in answer.headers.get("link", "")
    if more and not rows:
        raise ProtocolError("freshdesk: an empty page says that another follows")
    return rows, more


def _request(operation: str, object: str, **params: str | int) -> Request:
    return Request(operation=operation, path=f"/api/v2/{object}", params=[(name, str(value)) for name, value in params.items()])


def _updated(row: Row) -> datetime:
    at = instant(row["updated_at"])
    if at is None:
        raise ProtocolError("freshdesk: a record without the time of its last change")
    return at


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _encoded(place: _Contacts | _Tickets) -> str:
    return msgspec.json.encode(place).decode()


# ---- rules ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a rule's call by the secret it carries, and read which ticket it is about. Nothing but its id is used."""
    said = [delivery.headers.get("x-webhook-secret", ""), _password(delivery.headers.get("authorization", ""))]
    if not any([matches(each, *secrets) for each in said if each]):  # noqa: C419 - all are compared
        raise SignatureError("freshdesk: a webhook without the right secret")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("freshdesk: a webhook is no JSON") from error
    inner = body.get("freshdesk_webhook", body) if isinstance(body, dict) else None
    id = str(inner.get("ticket_id")) if isinstance(inner, dict) else ""
    if not (id.isascii() and id.isdigit() and len(id) < 20):
        raise ProtocolError("freshdesk: a webhook without the id of its ticket")
    # Nothing names an event: a call that is repeated is taken for another, and the ticket is read again. Two edits must not look like one.
    event = digest_of("ticket", id, delivery.at.isoformat())
    return Heard(hints=[Hint(id=event, change=Change(kind="ticket", native_id=id))])


def _password(authorization: str) -> str:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
