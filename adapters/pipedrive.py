"""Pipedrive.

Facts from the vendor's documents: API reference v1 and v2 (OpenAPI, with the price of each call in tokens), v2 migration guide, rate limiting, custom
fields, OAuth. v2 wherever it exists; users and a deal's participants are still v1. With OAuth a source's base address is where tokens are got
(https://oauth.pipedrive.com) and calls go to the `api_domain` learned there; with an API token it is the company's (https://acme.pipedrive.com).

Doubts that the documents leave:
- A cursor is said to be opaque. Lists by creation can start at a place only by one made as those in their examples (base64 of field, value, direction
  and id). Where it is refused, the list is walked from its start.
- "Linked to the person" is taken to include deals in which a person only takes part. Should it not, these are missing among the contact's deals.
- The counts by which people and organizations without deals are passed over might lag behind a write.
- A person's `name` is split by Pipedrive at its first space, so given names of several words come back shortened.
- A used-up day and a burst are both a bare 429: only the header with the day's remaining tokens, which may be missing, tells them apart.
- Archived deals are read by id, and not listed (that would be a second list at twice the price). Leads are not read.
- Phone numbers are not looked up: the documents do not say whether a search compares digits or spelling.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ClassVar

import orjson

from adapters import pipedrive_fields as native
from adapters.base import (
    Adapter,
    Api,
    Auth,
    Changes,
    Checked,
    Delivery,
    FindKey,
    Heard,
    KindFacts,
    Learned,
    Live,
    OAuth,
    OrderField,
    Outcome,
    Page,
    Position,
    Related,
    Response,
    Scan,
    Token,
    Watch,
    Window,
    Write,
    code_in,
    undocumented,
)  # fmt: skip
from adapters.pipedrive_calls import IDS, PAGE, SINGLES, by_id, listed, one_or_none, page, request
from adapters.pipedrive_live import FEED, PUSH, changes, heard, unwatched, watched
from adapters.pipedrive_writing import FieldRejectedError, write_one
from adapters.ties import whole_groups
from adapters.writing import WriteVerb
from mapping.convert import instant
from model.errors import (
    ExhaustedError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)  # fmt: skip
from model.records import Kind, ObjectType, Row

_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_WRITTEN: frozenset[WriteVerb] = frozenset({"create", "update", "delete"})
_COLUMNS: Mapping[OrderField, str] = {"created": "add_time", "updated": "update_time"}
_DEALS = "open_deals_count,closed_deals_count"
# What tells that there is nothing to list, by (of, kind).
_COUNTS: Mapping[tuple[Kind, Kind], str] = {
    ("contact", "deal"): f"{_DEALS},participant_open_deals_count,participant_closed_deals_count", ("account", "deal"): _DEALS, ("account", "contact"): "people_count",
}  # fmt: skip
_FILTERS: Mapping[Kind, str] = {"contact": "person_id", "account": "org_id", "deal": "deal_id"}
_WRITABLE: Mapping[Kind, frozenset[str]] = {
    "contact": frozenset({"name", "owner_id", "org_id", "emails", "phones", "visible_to", "label_ids"}),
    "account": frozenset({"name", "owner_id", "website", "linkedin", "industry", "annual_revenue", "employee_count", "visible_to", "label_ids"}),
    "deal": frozenset({
        "title", "owner_id", "person_id", "org_id", "pipeline_id", "stage_id", "value", "currency", "status", "probability", "lost_reason", "visible_to",
        "expected_close_date", "label_ids",
    }),
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "native_id": {"path": "id", "convert": "id"}, "created_at": {"path": "add_time", "convert": "datetime"},
    "updated_at": {"path": "update_time", "convert": "datetime"}, "owner_id": {"path": "owner_id", "convert": "id"},
}  # fmt: skip


class Pipedrive(Adapter):
    name = "pipedrive"
    label = "Pipedrive"
    api_version = "v2"
    evidence = "E3"
    shown_by = "tests/conformance/test_pipedrive_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(token_path="/oauth/token", lifetime=3599, body="basic", learns_host="api_domain"),
        "token": Token(header="x-api-token", prefix=""),
    }
    # The least that is sold (Lite, one seat, API token), until the first answer tells better. Calls are counted in any 2 seconds,
    # as they arrive: half a second more is for what they take to get there.
    windows = (
        Window(name="burst", limit=20, period=2.5, kind="rolling"),
        Window(name="search", limit=10, period=2.5, kind="rolling", every_call=False),
        Window(name="daily", limit=30_000, period=86_400, kind="fixed", every_call=False),
    )
    push = PUSH
    live = Live(
        push="webhooks v2, verified by HTTP Basic only: they are not signed; at most 40 a user",
        feed="lists by `updated_since`, to the second",
        deletes="by webhook (a merge is told as a delete and a change); deals also as a list of what was deleted in the last 30 days, persons and organizations by `recents`, four times an hour",
        why="no time of delivery is promised; a webhook is tried four times within about three minutes, and thrown away after three days of failures",
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="persons", custom_prefix=native.CUSTOM, read_batch=IDS, page=PAGE, find=frozenset({"email"}), orders=_BOTH,
            mapping={
                **_TIMES,
                "email": {"path": "emails[primary=True].value", "convert": "email"},
                "emails": {"paths": ["emails[primary=True].value", "emails"], "convert": ["entries:value,primary", "emails"]},
                "phone": {"path": "phones[primary=True].value", "convert": "phone"},
                "phones": {"paths": ["phones[primary=True].value", "phones"], "convert": ["entries:value,primary", "phones"]},
                "name": {"path": "name", "convert": "text"}, "given_name": {"path": "first_name", "convert": "text"},
                "family_name": {"path": "last_name", "convert": "text"}, "title": {"path": "job_title", "convert": "text"},
                "account_id": {"path": "org_id", "convert": "id"},
            },
            writes={
                "name": "name", "given_name": "first_name", "family_name": "last_name", "email": "emails[primary=True].value", "phone": "phones[primary=True].value",
                "owner_id": "owner_id",
            },
            verbs=_WRITTEN, links={"account": "org_id"},
            lag=5.0,  # nothing is promised of the search that `find` uses
            feed=FEED,
        ),
        "account": KindFacts(
            object="organizations", custom_prefix=native.CUSTOM, read_batch=IDS, page=PAGE, orders=_BOTH, feed=FEED,
            mapping={**_TIMES, "name": {"path": "name", "convert": "text"}, "domain": {"path": "website", "convert": "domain"}, "industry": "industry_label"},
            writes={"name": "name", "domain": "website", "owner_id": "owner_id"}, verbs=_WRITTEN,
        ),
        "deal": KindFacts(
            object="deals", custom_prefix=native.CUSTOM, read_batch=IDS, page=PAGE, orders=_BOTH, feed=FEED,
            mapping={
                **_TIMES,
                "name": {"path": "title", "convert": "text"}, "amount": {"money": {"amount": "value", "currency": "currency"}},
                "stage": {"path": "stage", "convert": "stage"}, "probability": {"path": "probability", "convert": "percent"},
                "close_date": {"path": "expected_close_date", "convert": "date"}, "account_id": {"path": "org_id", "convert": "id"},
            },
            writes={
                "name": "title", "amount": {"money": {"amount": "value", "currency": "currency"}, "empty": 0}, "stage": "stage",
                "close_date": "expected_close_date", "owner_id": "owner_id",
            },
            verbs=_WRITTEN, links={"account": "org_id", "contact": None},
        ),
        "owner": KindFacts(
            object="users", read_batch=PAGE,
            mapping={
                "native_id": {"path": "id", "convert": "id"}, "created_at": {"path": "created", "convert": "datetime"},
                "updated_at": {"path": "modified", "convert": "datetime"}, "name": {"path": "name", "convert": "text"}, "email": {"path": "email", "convert": "email"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "deal"), ("deal", "contact"), ("account", "contact"), ("account", "deal")})

    def _path(self, kind: Kind) -> str:
        return f"/api/v2/{self.kinds[kind].object}"

    async def check(self, api: Api) -> Checked:
        me = (await api.send(request("check", "/api/v1/users/me", cost=2))).json()["data"]
        return Checked(account=str(me["company_id"]), name=me.get("company_name"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Fields and, of deals, the stages of all pipelines: 10 tokens a page, and 10 for the stages."""
        name = self.kinds[kind].object
        if kind == "owner":
            return ObjectType(name=name, fields={})
        path = f"/api/v2/{name.removesuffix('s')}Fields"
        if kind != "deal":
            return ObjectType(name=name, fields=native.fields(await listed(api, f"{kind}.describe", path), _WRITABLE[kind]))
        found, stages, pipelines = await asyncio.gather(
            listed(api, "deal.describe", path),
            listed(api, "deal.stages", "/api/v2/stages", cost=5),
            listed(api, "deal.stages", "/api/v2/pipelines", cost=5),
        )
        return ObjectType(name=name, fields=native.fields(found, _WRITABLE[kind]), stages=native.stages(stages, pipelines))

    # ---- reading ----

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """Batches of 100 at 10 tokens each; a batch of fewer than 10 as single reads at 1 token each.

        Users have no batch: one call of 2 tokens each, or the whole list for 20.
        """
        if kind == "owner":
            found = await self._owners(api, ids)
        else:
            found = await by_id(api, f"{kind}.read", self._path(kind), ids, native.asked(fields, await api.described(kind)))
            found = await self._completed(api, kind, found, fields)
        return [found.get(id) for id in ids]

    async def _owners(self, api: Api, ids: Sequence[str]) -> dict[str, Row]:
        numbers = [id for id in ids if id.isdigit()]
        if len(numbers) < SINGLES:
            asked = (one_or_none(api, request("owner.read", f"/api/v1/users/{id}", cost=2)) for id in numbers)
            rows = list(chain.from_iterable(await asyncio.gather(*asked)))
        else:
            rows = (await api.send(request("owner.read", "/api/v1/users", cost=20))).json()["data"]  # never in pages
        return {str(row["id"]): row for row in rows if not row.get("is_deleted")}

    async def _completed(self, api: Api, kind: Kind, found: Mapping[str, Row], fields: Sequence[str]) -> dict[str, Row]:
        """Add what Pipedrive tells in two places: a deal's `stage`, and the label of an organization's industry."""
        if kind == "deal":
            return {id: {**row, "stage": native.stage_key(row)} for id, row in found.items()}
        if kind == "account" and "industry_label" in fields and (industry := (await api.described(kind)).fields.get("industry")):
            return {id: {**row, "industry_label": industry.options.get(str(row.get("industry")))} for id, row in found.items()}
        return dict(found)

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """Filters take one parent, at 10 tokens a list; so the parents are read first, and those without children passed over.

        Of a deal with one participant that one is read by id.
        """
        parameters = native.asked(fields, await api.described(kind))
        if of == "deal":
            return await self._participants(api, ids, parameters, first)
        counts = _COUNTS[of, kind]
        parents = await by_id(
            api, f"{of}.read", self._path(of), ids, {**native.asked((), await api.described(of)), "include_fields": counts}
        )
        having = [id for id in ids if (row := parents.get(id)) is not None and any(row.get(name) for name in counts.split(","))]

        async def one(id: str) -> Related:
            asked = {**parameters, _FILTERS[of]: id, "sort_by": "add_time"}
            rows, more = await _some(api, f"{of}.{kind}", self._path(kind), asked, first)
            live = {str(row["id"]): row for row in rows if not row.get("is_deleted")}
            shown = list((await self._completed(api, kind, live, fields)).values())
            return Related(rows=sorted(shown, key=lambda row: of == "contact" and str(row["person_id"]) != id), more=more)

        found = dict(zip(having, await asyncio.gather(*(one(id) for id in having)), strict=True))
        return [found.get(id, Related()) for id in ids]

    async def _participants(self, api: Api, ids: Sequence[str], parameters: Mapping[str, str], first: int) -> list[Related]:
        path, counted = (
            self._path("contact"),
            {**native.asked((), await api.described("deal")), "include_fields": "participants_count"},
        )
        deals = await by_id(api, "deal.read", self._path("deal"), ids, counted)
        several = [id for id, row in deals.items() if (row.get("participants_count") or 0) > 1]
        alone = {id: str(row["person_id"]) for id, row in deals.items() if id not in several and row.get("person_id")}

        async def one(id: str) -> Related:
            rows = await listed(api, "deal.contact", path, {**parameters, "deal_id": id})
            rows.sort(key=lambda row: bool(row["id"] != deals[id]["person_id"]))
            return Related(rows=rows[:first], more=len(rows) > first)

        persons, together = await asyncio.gather(
            by_id(api, "contact.read", path, list(dict.fromkeys(alone.values())), parameters), asyncio.gather(*(one(id) for id in several)),
        )  # fmt: skip
        found = dict(zip(several, together, strict=True))
        found |= {id: Related(rows=[persons[person]]) for id, person in alone.items() if person in persons}
        return [found.get(id, Related()) for id in ids]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """One search a value, at 20 tokens, and the records found by id: a search shows names, addresses and numbers only."""
        asked = [
            listed(
                api, "contact.search", "/api/v2/persons/search", {"term": value, "fields": "email", "exact_match": "true"}, cost=20, search=1
            )
            for value in values
        ]  # fmt: skip
        ids = dict.fromkeys(str(each["item"]["id"]) for each in chain.from_iterable(await asyncio.gather(*asked)))
        return [row for row in await self.read(api, kind, list(ids), fields) if row is not None] if ids else []

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One list a page, more where many records share a second.

        By change the documented span of `updated_since` leads to the place; by creation only a cursor does. Both are taken a second
        wider and cut here, so neither the edges nor the order of equal times matter.
        """
        column, path = _COLUMNS[scan.order], self._path(kind)
        parameters = {
            **native.asked(scan.fields, await api.described(kind)), "sort_by": column, "sort_direction": "desc" if scan.descending else "asc",
            "limit": str(min(scan.size, PAGE)), **_span(scan),
        }  # fmt: skip
        made = _cursor(scan) if scan.order == "created" else None

        async def fetch(token: str | None) -> tuple[list[Row], str | None]:
            try:
                rows, following = await page(api, f"{kind}.scan", path, parameters, token or made)
            except RejectedError:
                if token is not None or made is None:
                    raise
                rows, following = await page(api, f"{kind}.scan", path, parameters, None)
            live = {str(row["id"]): row for row in rows if not row.get("is_deleted") and _within(scan, row)}
            return list((await self._completed(api, kind, live, scan.fields)).values()), following

        def place(row: Row) -> Position:
            moment = instant(row[column])
            assert moment is not None
            return Position.of(moment, str(row["id"]))

        return await whole_groups(scan, fetch, place)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call a record. Changing a name, an address or a number reads the record first: they are written whole.

        One after another: who is told to wait must not have others under way, and a seat's tokens buy 6,000 writes a day anyway.
        """
        if not self.kinds[kind].verbs:
            raise UnsupportedError(f"{self.name} does not write {kind}")
        return [await write_one(api, kind, write, currency=self.config.currency) for write in writes]

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        return await changes(self, api, kind, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(api, url, secret)

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(api, url)

    # ---- what answers say ----

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        said = body if isinstance(body, dict) else {}
        facts: dict[str, Any] = {"status": response.status, "upstream_code": _code(said)}
        if response.status == 429:
            if response.headers.get("x-daily-ratelimit-token-remaining") == "0":
                # The day ends at midnight of the server's time zone, which the answer does not tell: look again in an hour.
                return ExhaustedError("the company's tokens of the day are used up", retry_after=3600.0, **facts)
            reset = response.number("x-ratelimit-reset")
            return ThrottledError("too many calls", retry_after=2.0 if reset is None else reset, **facts)
        if response.status == 401:
            return TokenExpiredError("the token is not accepted", **facts)
        if response.status == 403 and not said:
            # A page of the gateway in front: someone went on calling after 429.
            return ThrottledError("shut out by the gateway for too many calls", retry_after=60.0, **facts)
        if response.status >= 500 and response.status != 501:
            return UnavailableError("not available", **facts)
        if not said:
            return undocumented(response)
        if response.status == 402 or (response.status == 403 and not str(said.get("code", "")).startswith("feature_capping")):
            return SourceForbiddenError("not allowed: a scope, a permission or a payment is missing", **facts)
        if isinstance(field := said.get("field_code"), str) and field:
            error = FieldRejectedError(f"refused with {response.status}", **facts)
            error.field = field
            return error
        if response.status == 410:
            return RejectedError("it is gone", status=404, upstream_code="410")
        return RejectedError(f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        found = []
        for window, prefix in (("burst", "x-ratelimit"), ("daily", "x-daily-ratelimit-token")):
            remaining = response.number(f"{prefix}-remaining")
            if remaining is not None:
                found.append(Learned(window=window, limit=response.number(f"{prefix}-limit"), remaining=remaining))
        return found

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "person", "account": "organization", "deal": "deal"}.get(kind)
        return f"{self.config.web_url}/{place}/{native_id}" if self.config.web_url and place else None


async def _some(api: Api, operation: str, path: str, parameters: Mapping[str, str], first: int) -> tuple[list[Row], bool]:
    """Return the first rows of a list, and whether there are more."""
    rows, following = await page(api, operation, path, {**parameters, "limit": str(min(first, PAGE))}, None)
    return rows, following is not None


def _cursor(scan: Scan) -> str | None:
    """Return the cursor of a place a second before the one that was reached."""
    if scan.after is None:
        return None
    wider = scan.after.at + timedelta(seconds=1 if scan.descending else -1)
    place = {
        "field": "add_time",
        "fieldValue": _moment(wider),
        "sortDirection": "desc" if scan.descending else "asc",
        "id": 2**53 if scan.descending else 1,
    }
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _span(scan: Scan) -> dict[str, str]:
    """Return the span of changes to ask for, a second wider at both ends: whether an edge belongs to it is not said everywhere."""
    reached = scan.after.at if scan.after is not None and scan.order == "updated" else None
    low = max((each for each in (scan.updated_since, None if scan.descending else reached) if each is not None), default=None)
    high = min((each for each in (scan.updated_before, reached if scan.descending else None) if each is not None), default=None)
    second = timedelta(seconds=1)
    return {
        **({"updated_since": _moment(low - second)} if low else {}), **({"updated_until": _moment(high + second)} if high else {}),
    }  # fmt: skip


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"  # a fraction of a second is refused


def _within(scan: Scan, row: Row) -> bool:
    if scan.updated_since is None and scan.updated_before is None:
        return True
    changed = instant(row["update_time"])
    return (
        changed is not None
        and (scan.updated_since is None or changed >= scan.updated_since)
        and (scan.updated_before is None or changed < scan.updated_before)
    )


def _code(said: Mapping[str, Any]) -> str | None:
    return code_in(said.get("code") or said.get("errorCode")) or None
