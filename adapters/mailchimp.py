"""Mailchimp, Marketing API 3.0.

Facts from the vendor's pages as dated third parties quote them (limits, errors, paging), a third party's copy of its description
(3.0.55) and its Python client (3.0.80). What is decided here:

- A source is one audience: the option `list` names its id, else it is the account's oldest one. Further audiences are further sources;
  the same person in two audiences is two contacts there too.
- A contact's id is `contact_id`. A member's `id` is the md5 of the address and changes with it, and `unique_email_id` belongs to the
  address; `contact_id` stays, and all member paths take it (the description says so of each).
- Archived members are deleted ones: DELETE archives, lists leave them out, nothing is sent to them. Cleaned (bounced) and unsubscribed
  ones are people who are still there; the custom field `status` tells.
- Whoever is new is "transactional" (in the audience, and sent no campaigns) unless `status`, or the option `status_if_new`, says
  otherwise: that someone exists is no consent.
- Events have no id of their own: it is a digest of the contact, the kind, the time and the ids within an item, and a number where
  several are alike. Notes, orders and conversations of the feed are no marketing events and not asked for.
- Lists sort by `last_changed` alone: sign-up and opt-in times are empty for many members, so there is no order of creation.

Unverified: that the default list leaves archived members out (they are left out here in any case); whether the edges of
`since_last_changed` belong to the span (spans are asked for a second wider and cut here); that the feed has the newest first.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote

from adapters import mailchimp_live
from adapters.base import (
    Adapter,
    Api,
    Auth,
    Basic,
    Checked,
    FindKey,
    KindFacts,
    Live,
    Outcome,
    Page,
    Position,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Window,
    Write,
    answer_or_none,
    code_in,
    undocumented,
)
from adapters.changes import Changes, Delivery, Heard, Watch
from adapters.mailchimp_writing import hashed, written
from adapters.ties import whole_groups
from mapping.convert import instant
from model.errors import (
    DuplicateError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_PAGE = 1000
_SECOND = timedelta(seconds=1)
_TYPES: Mapping[str, FieldType] = {
    "number": "NUMBER", "date": "DATE", "dropdown": "PICKLIST", "radio": "PICKLIST", "address": "JSON",
}  # fmt: skip
_MAPPED = frozenset({"FNAME", "LNAME", "PHONE"})  # merge fields that have a place in the record
_EVENTS: Mapping[str, str] = {
    "sent": "EMAIL_SENT", "open": "EMAIL_OPENED", "click": "EMAIL_CLICKED", "bounce": "EMAIL_BOUNCED", "unsub": "UNSUBSCRIBED",
    "signup": "SUBSCRIBED", "generic_signup": "SUBSCRIBED", "website_signup": "SUBSCRIBED", "landing_page_signup": "SUBSCRIBED",
    "squatter_signup": "SUBSCRIBED", "ecommerce_signup": "SUBSCRIBED", "survey_response": "FORM_FILLED", "web_engagement": "PAGE_VISITED",
    "marketing_permission": "PROFILE_UPDATED", "event": "CUSTOM", "postcard_sent": "CUSTOM", "sms_bulk_sent": "CUSTOM",
}  # fmt: skip
# What tells two items of a feed apart and never changes; titles can.
_TELLING = ("activity_type", "created_at_timestamp", "campaign_id", "outreach_id", "survey_id", "event_name", "link_clicked")
# Fields of every member that no unified field takes.
_OWN = (
    FieldMeta(
        name="status", path="status", type="PICKLIST", label="Status", custom=True,
        options={each: each for each in ("subscribed", "unsubscribed", "cleaned", "pending", "transactional")},
    ),
    FieldMeta(name="vip", path="vip", type="BOOLEAN", label="VIP", custom=True),
    FieldMeta(name="member_rating", path="member_rating", type="NUMBER", label="Rating", custom=True, writable=False),
    FieldMeta(name="source", path="source", type="TEXT", label="Source", custom=True, writable=False),
)  # fmt: skip


class Mailchimp(Adapter):
    name = "mailchimp"
    label = "Mailchimp"
    api_version = "3.0"
    evidence = "E3"
    shown_by = "tests/conformance/test_mailchimp_client.py"
    # An API key, or a token from OAuth, which never expires and has no refresh token. By Basic any user name will do.
    auth: ClassVar[Mapping[str, Auth]] = {"token": Token(), "basic": Basic()}
    # Ten at once for all apps of a user; two are left to the others. There is no quota by time, and no header tells anything.
    windows = (Window(name="connections", limit=8, kind="parallel"),)
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="members", custom_prefix="merge_fields.", read_batch=1, page=_PAGE, find=frozenset({"email"}), unique=frozenset({"email"}),
            orders=frozenset({"updated"}),
            mapping={
                "native_id": {"path": "contact_id", "convert": "id"},
                "created_at": {"paths": ["timestamp_signup", "timestamp_opt"], "convert": ["first", "datetime"]},  # "" where it never happened
                "updated_at": {"path": "last_changed", "convert": "datetime"},
                "email": {"path": "email_address", "convert": "email"}, "emails": {"paths": ["email_address"], "convert": "emails"},
                "phone": {"paths": ["merge_fields.PHONE", "sms_phone_number"], "convert": ["first", "phone"]},
                "phones": {"paths": ["merge_fields.PHONE", "sms_phone_number"], "convert": "phones"},
                "name": {"path": "full_name", "convert": "text"}, "given_name": {"path": "merge_fields.FNAME", "convert": "text"},
                "family_name": {"path": "merge_fields.LNAME", "convert": "text"}, "locale": {"path": "language", "convert": "text"},
            },
            writes={
                "email": "email_address", "phone": {"path": "merge_fields.PHONE", "empty": ""}, "given_name": {"path": "merge_fields.FNAME", "empty": ""},
                "family_name": {"path": "merge_fields.LNAME", "empty": ""}, "locale": {"path": "language", "empty": ""},
            },
            verbs=frozenset({"create", "update", "upsert", "delete"}), write_batch=500, upsert_by=frozenset({"email"}), feed=mailchimp_live.FEED,
        ),
        "marketing_event": KindFacts(
            object="activity-feed", read_batch=0,
            mapping={
                "native_id": "id", "created_at": {"path": "created_at_timestamp", "convert": "datetime"},
                "event": {"path": "activity_type", "values": dict(_EVENTS), "default": "CUSTOM"}, "raw_kind": "activity_type",
                "at": {"path": "created_at_timestamp", "convert": "datetime"}, "campaign": {"path": "campaign_title", "convert": "text"}, "contact_id": "contact_id",
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "marketing_event")})
    live = Live(
        push="webhooks of an audience (subscribe, unsubscribe, profile, cleaned, upemail): forms, signed by HMAC-SHA256 over time and body where "
        "the vendor gave a secret for the webhook, else known by a random word in the address; opens and clicks are not pushed",
        feed="members whose `last_changed` is later; of events, the feed of each member",
        deletes="an unsubscribe webhook with action=delete; archived members by their status; deletions for good only by asking for them",
        why="the vendor promises no time for webhooks; a failed one is repeated for about 75 minutes",
    )  # fmt: skip
    push = mailchimp_live.PUSH

    @classmethod
    def home(cls, secrets: Mapping[str, str]) -> str | None:
        """An API key ends with its data centre. A token from OAuth does not: `base_url` is the `api_endpoint` of its metadata and /3.0."""
        centre = re.search(r"-([a-z]+[0-9]+)$", secrets.get("token") or secrets.get("password") or "")
        return f"https://{centre[1]}.api.mailchimp.com/3.0" if centre else None

    async def check(self, api: Api) -> Checked:
        """Two calls: the account, and that the audience is there."""
        root, _ = await asyncio.gather(
            api.send(Request(operation="check", path="/", params=[("fields", "account_id,account_name")])), self._audience(api)
        )
        account = root.json()
        return Checked(account=str(account["account_id"]), name=account.get("account_name"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Merge fields under the names that people gave them, and the fields of every member that have no place elsewhere.

        The object's name is where its members are: the audience is looked up once, and then known from the cache.
        """
        if kind == "marketing_event":
            return ObjectType(name="activity-feed", fields={})
        audience = await self._audience(api)
        path = f"/lists/{audience['id']}/merge-fields"
        names = "tag,name,type,options"
        asked = [("count", str(_PAGE)), ("fields", ",".join(f"merge_fields.{name}" for name in names.split(",")))]
        found = (await api.send(Request(operation="contact.describe", path=path, params=asked))).json()["merge_fields"]
        fields = {each.name: each for each in _OWN}
        alike = Counter(each["name"] for each in found)
        for each in found:
            name = each["tag"] if alike[each["name"]] > 1 or each["name"] in fields else each["name"]
            fields[name] = _field(name, each)
        return ObjectType(name=f"lists/{audience['id']}/members", label=audience["name"], fields=fields)

    async def _audience(self, api: Api) -> Row:
        if named := self.config.options.get("list"):
            path, asked = f"/lists/{quote(named, safe='')}", [("fields", "id,name")]
            found: Row = (await api.send(Request(operation="audience", path=path, params=asked))).json()
            return found
        asked = [("count", "1"), ("sort_field", "date_created"), ("sort_dir", "ASC"), ("fields", "lists.id,lists.name")]
        lists: list[Row] = (await api.send(Request(operation="audience", path="/lists", params=asked))).json()["lists"]
        if not lists:
            raise RejectedError("the account has no audience")
        return lists[0]

    async def _members(self, api: Api) -> str:
        """Return the path of the audience's members."""
        if named := self.config.options.get("list"):
            return f"/lists/{quote(named, safe='')}/members"
        return f"/{(await api.described('contact')).name}"

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """One call an id: the batch endpoint answers minutes later with an archive, and lists cannot be asked for ids."""
        if kind != "contact":
            return await super().read(api, kind, ids, fields)
        return await self._each(api, "contact.read", ids, fields)

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """One call an address, by its md5. Phones stand in merge fields, which are not searched by."""
        found = await self._each(api, "contact.find", [hashed(value) for value in values], fields)
        return [row for row in found if row is not None]

    async def _each(self, api: Api, operation: str, names: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """Return members by any of their names, None for those who are not there or archived."""
        members = await self._members(api)
        asked = [("fields", ",".join(_wanted(fields)))]

        async def one(name: str) -> Row | None:
            request = Request(operation=operation, path=f"{members}/{quote(name, safe='')}", params=asked)
            answer = await answer_or_none(api, request)
            row: Row | None = answer.json() if answer is not None else None
            return None if row is None or row["status"] == "archived" else row

        return list(await asyncio.gather(*(one(name) for name in names)))

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """One feed a contact, the newest first. It has no total, so one more than wanted is asked for."""
        members = await self._members(api)
        asked = [("count", str(min(first + 1, _PAGE))), ("activity_filters", ",".join(_EVENTS)), ("exclude_fields", "_links")]

        async def one(id: str) -> Related:
            request = Request(operation="contact.activity", path=f"{members}/{quote(id, safe='')}/activity-feed", params=asked)
            items = (await api.send(request)).json()["activity"]
            return Related(rows=_events(id, items)[:first], more=len(items) > first)

        return list(await asyncio.gather(*(one(id) for id in ids)))

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        return await self._listed(api, scan, archived=False)

    async def _listed(self, api: Api, scan: Scan, *, archived: bool) -> Page:
        """One list a page, more where many members share a second.

        Each page starts anew at the time where the last one ended, for offsets slip when members change. Where a page
        needs several lists, each begins with the last row of the one before: if another stands there, rows have moved, and the page
        is read from its start again.
        """
        members = await self._members(api)
        low = [scan.updated_since] if scan.updated_since else []
        high = [scan.updated_before] if scan.updated_before else []
        if scan.after is not None:
            (high if scan.descending else low).append(scan.after.at)
        wanted = ",".join(f"members.{name}" for name in _wanted(scan.fields))
        asked = [("sort_field", "last_changed"), ("sort_dir", "DESC" if scan.descending else "ASC"), ("fields", wanted)]
        if archived:
            asked.append(("status", "archived"))
        if low:
            asked.append(("since_last_changed", _spelled(max(low) - _SECOND)))
        if high:
            asked.append(("before_last_changed", _spelled(min(high) + _SECOND)))
        size = max(min(scan.size, _PAGE), 2)
        seen: set[str] = set()
        last = ""

        async def fetch(offset: int | None) -> tuple[list[Row], int | None]:
            nonlocal last
            start = offset or 0
            params = [*asked, ("count", str(size)), ("offset", str(start))]
            rows: list[Row] = (await api.send(Request(operation="contact.scan", path=members, params=params))).json()["members"]
            following = start + len(rows) - 1 if len(rows) == size else None
            if start and (not rows or rows[0]["contact_id"] != last):
                following = 0
            last = rows[-1]["contact_id"] if rows else ""
            new = [row for row in rows if row["contact_id"] not in seen]
            seen.update(row["contact_id"] for row in new)
            return [row for row in new if (row["status"] == "archived") == archived and _within(scan, row)], following

        return await whole_groups(scan, fetch, _place)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        if kind != "contact":
            return await super().write(api, kind, writes)
        return await written(api, await self._members(api), writes, new=self.config.options.get("status_if_new", "transactional"))

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        if kind != "contact":
            return await super().changes(api, kind, cursor, fields, now=now)
        return await mailchimp_live.changes(self, _Archive(self.config), api, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return mailchimp_live.heard(delivery, secrets)

    async def named(self, api: Api, kind: Kind, names: Sequence[str]) -> list[str | None]:
        return await mailchimp_live.named(api, await self._members(api), names)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await mailchimp_live.watched(api, await self._hooks(api), url)

    async def unwatch(self, api: Api, url: str) -> int:
        return await mailchimp_live.unwatched(api, await self._hooks(api), url)

    async def _hooks(self, api: Api) -> str:
        """Return the path of the audience's webhooks."""
        return f"{(await self._members(api)).removesuffix('/members')}/webhooks"

    def classify(self, response: Response) -> SourceError | None:
        """By the title of the problem, for one status has many; details quote addresses and are never repeated."""
        if response.status < 300:
            return None
        body = response.json_or_none()
        title = code_in(body.get("title")) if isinstance(body, dict) else ""
        facts: dict[str, Any] = {"status": response.status, "upstream_code": title or None}
        if response.status == 429 or (response.status == 403 and not isinstance(body, dict)):
            return ThrottledError("too many calls at once", **facts)  # at very high volumes a 403 without a JSON body
        if response.status == 401:
            return TokenExpiredError("the API key is not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError("not allowed, or another data centre's key", **facts)
        if response.status >= 500:
            return UnavailableError("not available", **facts)
        if not isinstance(body, dict):
            return undocumented(response)
        if title == "Member Exists":
            return DuplicateError("another member has this address", **facts)
        return RejectedError(f"refused: {title}" if title else f"refused with {response.status}", **facts)


class _Archive(Mailchimp):
    """The audience's archived members, who are listed by their status only."""

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        return await self._listed(api, scan, archived=True)


def _wanted(fields: Sequence[str]) -> list[str]:
    return sorted({*fields, "contact_id", "status", "last_changed"})


def _events(contact_id: str, items: Sequence[Row]) -> list[Row]:
    """Return a feed's items with ids, and whose they are."""
    alike: Counter[str] = Counter()
    rows = []
    for item in items:
        told = "\x1f".join([contact_id, *(str(item.get(name) or "") for name in _TELLING)])
        alike[told] += 1
        id = hashlib.sha256(f"{told}\x1f{alike[told]}".encode()).hexdigest()[:32]
        rows.append({**item, "id": id, "contact_id": contact_id})
    return rows


def _place(row: Row) -> Position:
    return Position.of(_changed(row), row["contact_id"])


def _changed(row: Row) -> datetime:
    moment = instant(row["last_changed"])
    assert moment is not None
    return moment


def _within(scan: Scan, row: Row) -> bool:
    at = _changed(row)
    return (scan.updated_since is None or at >= scan.updated_since) and (scan.updated_before is None or at < scan.updated_before)


def _spelled(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S+00:00}"


def _field(name: str, each: Row) -> FieldMeta:
    choices = (each.get("options") or {}).get("choices") or []
    return FieldMeta(
        name=name, path=f"merge_fields.{each['tag']}", type=_TYPES.get(each["type"], "TEXT"), label=each["name"], custom=each["tag"] not in _MAPPED,
        options={choice: choice for choice in choices},
    )  # fmt: skip
