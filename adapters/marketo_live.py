"""How Marketo tells what changed: its log of activities, the list of deleted leads, and calls that people write into campaigns.

Facts from Adobe's pages on paging tokens, activities, leads and webhooks; the names of a merge's attributes from its list of activity
types for data streams.

One pass takes at least three calls: changes of values and new leads, the activities that are neither (scores, merges), and deleted leads.
Asked every minute that is 4,320 of the 50,000 calls of a day, which all integrations of an instance share; every five minutes, where
nothing changes, 864.

Places are tokens, and a token stands for a place in the log: what is written behind it with an older time would be missed. So a pass
begins at a token that is `overlap` older than the last one; those in between are kept in the cursor. That the log is written late at all is
not documented, and connectors allow for it. The API user's role needs the permission "Read-Only Activity".

Merges: the log names the leads of a merge, and no document says which of them lives on. They are read: those that are gone went into the
one that is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
import orjson

from adapters.base import Api, Request
from adapters.changes import Change, Changes, Delivery, Feed, Heard, Hint, Push, digest_of, matches
from mapping.convert import instant
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Row

_LIFE = 14 * 86_400.0  # deletions older than that "may be pruned"
FEED = Feed(how="offset", overlap=120.0, deletes=True, merges=True, interval=60.0, longest=300.0, life=_LIFE)
# No trigger of a campaign fires when a lead is deleted: it is none any more. How soon a campaign runs, nobody promises.
PUSH = Push(kinds=frozenset({"contact"}), deletes=False, subscribes=False, delay=60.0)
HEADER = "X-Customer360-Secret"
_MERGE, _SCORE = "32", "22"
_CALLS = 10  # pages for one answer, empty ones too
_ENOUGH = 300
_NO_TOKEN = "1003"  # noqa: S105 - a code
_TOLD_ANYWAY = frozenset({"id", "createdAt", "updatedAt"})
_SOMETHING = ("email", "firstName", "lastName")


class Pages(Protocol):
    async def __call__(
        self, api: Api, operation: str, path: str, said: Sequence[tuple[str, str]], token: str
    ) -> tuple[list[Row], str, bool]:
        """Return a page, the token of the next one, and whether there is one."""


class _Tokens(msgspec.Struct, frozen=True, array_like=True):
    """Where the three logs were read to, at a time of our clock that is only compared with that clock."""

    at: datetime
    values: str
    activities: str
    deleted: str


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        marks: where passes ended, the oldest first; the next one begins at the youngest that is `overlap` older than the last.
        under_way: where the pass is, between two of its pages.
        done: how many of the three logs it is through with.
    """

    marks: list[_Tokens]
    under_way: _Tokens | None = None
    done: int = 0


async def changes(pages: Pages, api: Api, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
    """Return what the logs tell, log after log, each lead once. See `Adapter.changes`."""
    if cursor is None:
        token = await _began(api, now)
        began = _Tokens(now - timedelta(seconds=FEED.overlap), token, token, token)
        return Changes(changes=[], cursor=_encoded(_Place([began])))
    place = msgspec.json.decode(cursor, type=_Place)
    if (now - place.marks[-1].at).total_seconds() > _LIFE:
        raise CursorExpiredError("leads that were deleted since may not be listed any more")
    logs = _Logs(pages, api, place.under_way or _start(place), fields)
    try:
        done = await logs.read(place.done)
    except RejectedError as error:
        if error.upstream_code == _NO_TOKEN:
            raise CursorExpiredError("a paging token is not accepted any more", status=error.status) from error
        raise
    if done < len(logs.steps):
        following, more = _Place(place.marks, logs.at, done), True
    else:
        following, more = _Place([*_kept(place), msgspec.structs.replace(logs.at, at=now)]), False
    return Changes(changes=list(logs.told.values()), cursor=_encoded(following), more=more)


class _Logs:
    """One answer's reading of the logs."""

    def __init__(self, pages: Pages, api: Api, at: _Tokens, fields: Sequence[str]) -> None:
        self._pages, self._api, self.at = pages, api, at
        # Whoever is deleted may have been merged: merges are read before deletions, and again behind each page of them.
        self.steps = (self._values, self._activities, self._deleted)
        self.told: dict[str, Change] = {}
        self._calls = 0
        names = [each for each in fields if each not in _TOLD_ANYWAY] or _SOMETHING
        self._fields = ("fields", ",".join(names))

    async def read(self, done: int) -> int:
        """Go on after `done` logs until all are read or it is enough for one answer; return how many are done then."""
        while done < len(self.steps) and self._calls < _CALLS and len(self.told) < _ENOUGH:
            if not await self.steps[done]():
                done += 1
        return done

    async def _values(self) -> bool:
        rows, token, more = await self._page("activities/leadchanges.json", [self._fields], self.at.values)
        self.at = msgspec.structs.replace(self.at, values=token)
        self._tell(Change(kind="contact", native_id=str(row["leadId"]), at=instant(row["activityDate"])) for row in rows)
        return more

    async def _activities(self) -> bool:
        said = [("activityTypeIds", f"{_SCORE},{_MERGE}")]
        rows, token, more = await self._page("activities.json", said, self.at.activities)
        self.at = msgspec.structs.replace(self.at, activities=token)
        self._tell(Change(kind="contact", native_id=str(row["leadId"]), at=instant(row["activityDate"])) for row in rows)
        await self._merged([row for row in rows if str(row["activityTypeId"]) == _MERGE])
        return more

    async def _deleted(self) -> bool:
        rows, token, more = await self._page("activities/deletedleads.json", [], self.at.deleted)
        while rows and await self._activities():
            pass
        self.at = msgspec.structs.replace(self.at, deleted=token)
        self._tell(
            Change(kind="contact", native_id=str(row["leadId"]), op="DELETED", at=instant(row["activityDate"])) for row in rows
        )
        return more

    async def _merged(self, rows: Sequence[Row]) -> None:
        """Tell who went into whom. Merges of merged leads come together, as the last of them is the one that is there."""
        groups: list[tuple[set[str], datetime | None]] = []
        for row in rows:
            ids, at = _named(row), instant(row["activityDate"])
            for group in [each for each in groups if each[0] & ids]:
                groups.remove(group)
                ids, at = ids | group[0], max(filter(None, (at, group[1])), default=None)
            groups.append((ids, at))
        asked = sorted(set().union(*(ids for ids, _ in groups)))
        there: set[str] = set()
        for start in range(0, len(asked), _ENOUGH):
            said = [("filterType", "id"), ("filterValues", ",".join(asked[start : start + _ENOUGH])), ("fields", "id")]
            found, _, _ = await self._page("leads.json", said, "")
            there |= {str(row["id"]) for row in found}
        for ids, at in groups:
            living = sorted(ids & there)
            into = living[0] if len(living) == 1 else None
            gone = sorted(ids - there)
            self._tell(Change(kind="contact", native_id=id, at=at) for id in living)
            self._tell(Change(kind="contact", native_id=id, op="MERGED" if into else "DELETED", at=at, into=into) for id in gone)

    async def _page(self, path: str, said: Sequence[tuple[str, str]], token: str) -> tuple[list[Row], str, bool]:
        self._calls += 1
        rows, following, more = await self._pages(self._api, "contact.changes", path, said, token)
        if token and not following:
            raise ProtocolError("did not tell where its log goes on", status=200)
        return rows, following, more

    def _tell(self, changes: Iterable[Change]) -> None:
        """Keep the strongest that is told of each lead: ids are not given twice, so who is gone stays gone."""
        for change in changes:
            known = self.told.get(change.native_id)
            if known is None or _STRENGTH[change.op] >= _STRENGTH[known.op]:
                self.told[change.native_id] = change


_STRENGTH = {"CHANGED": 0, "DELETED": 1, "MERGED": 2}


def _named(row: Row) -> set[str]:
    """Return the leads that a merge names: its own, and those of the attribute "Merge IDs", such as "[15,16]"."""
    said = next((each.get("value") for each in row.get("attributes") or [] if each.get("name") == "Merge IDs"), None)
    ids = {each.strip() for each in str(said or "").strip("[] ").split(",")}
    return {str(row["leadId"]), *(id for id in ids if id.isdecimal())}


async def _began(api: Api, now: datetime) -> str:
    """Return a token of a little before now by Marketo's clock, which the answer tells: ours may be ahead of it."""
    token, answered = await _token(api, now)
    if answered is not None and (now - answered).total_seconds() > FEED.overlap / 2:
        token, _ = await _token(api, answered)
    return token


async def _token(api: Api, at: datetime) -> tuple[str, datetime | None]:
    since = at.astimezone(UTC) - timedelta(seconds=FEED.overlap)
    said = [("sinceDatetime", f"{since:%Y-%m-%dT%H:%M:%SZ}")]
    answer = await api.send(Request(operation="contact.token", path="/rest/v1/activities/pagingtoken.json", params=said))
    try:
        answered = parsedate_to_datetime(answer.headers.get("date", ""))
    except ValueError:
        answered = None
    return str(answer.json()["nextPageToken"]), answered


def _start(place: _Place) -> _Tokens:
    """Return the youngest mark that is `overlap` older than the last one, the oldest where none is."""
    edge = place.marks[-1].at - timedelta(seconds=FEED.overlap)
    return next((mark for mark in reversed(place.marks) if mark.at <= edge), place.marks[0])


def _kept(place: _Place) -> list[_Tokens]:
    """Return the marks that a later pass may begin at, no closer than a quarter of the overlap: passes can be quick."""
    kept = [_start(place)]
    for mark in place.marks:
        if (mark.at - kept[-1].at).total_seconds() >= FEED.overlap / 4:
            kept.append(mark)
    return kept


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove and read the call of a campaign that an administrator made.

    In Admin, Webhooks, a new webhook: the address of the source's webhooks; request type POST; encoding JSON; the template

        {"id": "{{lead.Id}}"}

    and under "Set Custom Header" the header X-Customer360-Secret with the source's webhook secret (where no header can be set: `?secret=` at the end of
    the address). Then a smart campaign with the triggers "Person is Created" and "Data Value Changes" (any attribute) whose flow is the
    step "Call Webhook". Marketo signs nothing, has no id for a call, and sends none again: each call is an event of its own.
    """
    said = delivery.headers.get(HEADER.lower(), "") or delivery.query.get("secret", "")
    if not said or not matches(said, *(each for each in secrets if each)):
        raise SignatureError("a webhook carries neither the header nor the parameter with our secret")
    try:
        body: Any = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("a webhook holds no JSON") from error
    id = str(body.get("id")) if isinstance(body, Mapping) else ""
    if not (id.isascii() and id.isdecimal() and len(id) <= 19):
        raise ProtocolError("a webhook names no lead")
    event = digest_of(id, delivery.at.isoformat(), delivery.body.hex())
    return Heard(hints=[Hint(id=event, change=Change(kind="contact", native_id=str(int(id))))])
