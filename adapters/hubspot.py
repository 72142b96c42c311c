"""HubSpot CRM.

Facts from HubSpot's developer pages: CRM objects, search, associations v4, usage guidelines, date-based versions, error handling; the
shapes from the official Python client (hubspot-api-client 12.0.0). How long search lags behind is told as "a few moments" only.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar

import phonenumbers

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Changes,
    Checked,
    CustomPage,
    Delivery,
    FindKey,
    Heard,
    KindFacts,
    Learned,
    Live,
    OAuth,
    Outcome,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Window,
    Write,
    answer_or_none,
    batches,
    code_in,
    undocumented,
)
from adapters.hubspot_kinds import KINDS
from adapters.hubspot_live import PUSH, changes, heard
from adapters.hubspot_writing import Writer, refusal
from model.errors import (
    ExhaustedError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row, Stage, StageCategory

_READ, _LINKS, _SEARCH_PAGE, _LIST_PAGE = 100, 1000, 200, 100
_INTERVAL = 10_000.0  # milliseconds
_PATHS: Mapping[str, Mapping[str, str]] = {
    "v3": {
        "objects": "/crm/v3/objects", "owners": "/crm/v3/owners", "properties": "/crm/v3/properties", "pipelines": "/crm/v3/pipelines",
        "associations": "/crm/v4/associations", "schemas": "/crm-object-schemas/v3/schemas",
    },
    "2026-09": {
        "objects": "/crm/objects/2026-09", "owners": "/crm/owners/2026-09", "properties": "/crm/properties/2026-09",
        "pipelines": "/crm/pipelines/2026-09", "associations": "/crm/associations/2026-09",
        "schemas": "/crm-object-schemas/2026-09/schemas",
    },
}  # fmt: skip
_TYPES: Mapping[str, FieldType] = {
    "string": "TEXT", "phone_number": "TEXT", "number": "NUMBER", "date": "DATE", "datetime": "DATETIME", "enumeration": "PICKLIST",
    "bool": "BOOLEAN", "json": "JSON", "object_coordinates": "TEXT",
}  # fmt: skip
_MODIFIED = {"contact": "lastmodifieddate"}  # everything else says hs_lastmodifieddate


class HubSpot(Adapter):
    name = "hubspot"
    label = "HubSpot"
    api_version = "v3"
    evidence = "E3"
    shown_by = "tests/conformance/test_hubspot_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(token_path="/oauth/v1/token", lifetime=1800, dead_grant=frozenset({"BAD_REFRESH_TOKEN", "invalid_grant"})),
        "token": Token(),
    }
    windows = (
        Window(name="burst", limit=190, period=10),
        Window(name="daily", limit=650_000, period=86_400, kind="fixed"),
        Window(name="search", limit=5, period=1, kind="rolling", every_call=False),
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = KINDS
    relations = frozenset({
        ("contact", "deal"), ("contact", "ticket"), ("account", "contact"), ("account", "deal"), ("deal", "contact"), ("deal", "account"),
        ("ticket", "contact"),
    })  # fmt: skip
    push = PUSH
    live = Live(
        push="webhooks of an app, one event for each property; v3 signature: HMAC-SHA256 over method, address, body and time",
        feed="search by the time of the last change, which lags some moments: a minute is read again",
        deletes="deletion and merge events; else the list of archived records (90 days), and hs_merged_object_ids of whom they went into; what is deleted for privacy by its event alone",
        why="no time of delivery is promised: failed deliveries are repeated up to 10 times within 24 hours",
    )

    def _path(self, family: str) -> str:
        return _PATHS[self.config.api_version or self.api_version][family]

    async def check(self, api: Api) -> Checked:
        found = (await api.send(Request(operation="check", path="/account-info/v3/details"))).json()
        return Checked(account=str(found["portalId"]))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        if kind == "owner":
            return ObjectType(name="owners", fields={})
        facts = self.kinds[kind]
        answer = await api.send(Request(operation=f"{kind}.describe", path=f"{self._path('properties')}/{facts.object}"))
        stages = await self._stages(api) if kind == "deal" else {}
        fields = {each["name"]: _field(each) for each in answer.json()["results"]}
        return ObjectType(name=facts.object, fields=fields, stages=stages)

    async def _stages(self, api: Api) -> dict[str, Stage]:
        answer = await api.send(Request(operation="deal.stages", path=f"{self._path('pipelines')}/deals"))
        return {
            stage["id"]: _stage(stage, pipeline["label"]) for pipeline in answer.json()["results"] for stage in pipeline["stages"]
        }

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 100) batch reads; owners have no batch: one call each."""
        if kind == "owner":
            return list(await asyncio.gather(*(self._owner(api, id) for id in ids)))
        name = self.kinds[kind].object
        parts = await asyncio.gather(*(self._batch(api, kind, name, some, fields) for some in batches(ids, _READ)))
        found = {row["id"]: row for row in chain.from_iterable(parts)}
        return [found.get(id) for id in ids]

    async def _batch(self, api: Api, what: str, name: str, ids: Sequence[str], fields: Sequence[str]) -> list[Row]:
        body = {"inputs": [{"id": id} for id in ids], "properties": _names(fields), "propertiesWithHistory": []}
        path = f"{self._path('objects')}/{name}/batch/read"
        answer = await api.send(Request(operation=f"{what}.read", method="POST", path=path, json=body))
        return _results(answer)

    async def _owner(self, api: Api, id: str) -> Row | None:
        answer = await answer_or_none(api, Request(operation="owner.read", path=f"{self._path('owners')}/{id}"))
        return answer.json() if answer is not None else None

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """ceil(parents / 1,000) association calls + ceil(children / 100) batch reads.

        Associations come unordered, 500 a parent, so the first ones by creation are known only after the read. Whoever has more
        than these is told to.
        """
        links, cut = await self._links(api, kind, of, ids)
        children = list(dict.fromkeys(child for id in ids for child in links.get(id, ())))
        rows = dict(zip(children, await self.read(api, kind, children, fields), strict=True)) if children else {}
        return [
            Related(rows=[row for child in links.get(id, ()) if (row := rows[child]) is not None], more=id in cut) for id in ids
        ]

    async def _links(self, api: Api, kind: Kind, of: Kind, ids: Sequence[str]) -> tuple[dict[str, list[str]], set[str]]:
        """Return the children of each parent, and the parents who have more of them."""
        path = f"{self._path('associations')}/{self.kinds[of].object}/{self.kinds[kind].object}/batch/read"
        asked = [
            api.send(
                Request(operation=f"{of}.{kind}.links", method="POST", path=path, json={"inputs": [{"id": id} for id in some]})
            )
            for some in batches(ids, _LINKS)
        ]
        found: dict[str, list[str]] = {}
        cut: set[str] = set()
        for answer in await asyncio.gather(*asked):
            for each in _results(answer):
                if (each.get("paging") or {}).get("next"):
                    cut.add(str(each["from"]["id"]))
                # The labelled "Primary" association first; the rest as HubSpot has them.
                ordered = sorted(each["to"], key=lambda to: all(type["label"] != "Primary" for type in to["associationTypes"]))
                found[str(each["from"]["id"])] = [str(to["toObjectId"]) for to in ordered]
        return found, cut

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 100) searches.

        Secondary addresses are found through `hs_additional_emails` (HubSpot staff in hubspot-api-nodejs issue 24), phones
        through the calculated property that holds area code and local number only (HubSpot's search guide).
        """
        spelled = {value: value for value in values}
        names = ["email", "hs_additional_emails"] if key == "email" else ["domain"]
        if key == "phone":
            spelled = {value: str(phonenumbers.parse(value, None).national_number) for value in values}
            names = ["hs_searchable_calculated_phone_number"]
        asked = [
            self._search(api, kind, _groups(names, [spelled[value] for value in some]), None, fields)
            for some in batches(values, 100)
        ]
        found: dict[str, Row] = {row["id"]: row for rows in await asyncio.gather(*asked) for row in rows}
        return list(found.values())

    async def _search(
        self, api: Api, kind: Kind, groups: Sequence[Any], sort: tuple[str, str] | None, fields: Sequence[str]
    ) -> list[Row]:
        """Return all results of a search, page by page."""
        found: list[Row] = []
        after: str | None = "0"
        while after is not None:
            rows, after = await self._search_page(api, kind, groups, sort, fields, _SEARCH_PAGE, after)
            found += rows
        return found

    async def _search_page(
        self,
        api: Api,
        kind: Kind,
        groups: Sequence[Any],
        sort: tuple[str, str] | None,
        fields: Sequence[str],
        size: int,
        after: str,
    ) -> tuple[list[Row], str | None]:
        body: dict[str, Any] = {"filterGroups": groups, "properties": _names(fields), "limit": size, "after": after}
        if sort is not None:
            body["sorts"] = [{"propertyName": sort[0], "direction": sort[1]}]
        path = f"{self._path('objects')}/{self.kinds[kind].object}/search"
        answer = await api.send(Request(operation=f"{kind}.search", method="POST", path=path, json=body, cost={"search": 1}))
        found = answer.json()
        return found["results"], found.get("paging", {}).get("next", {}).get("after")

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One search a page, two where a page is but a part of one group of equal times.

        Search sorts by one property and states nothing about ties, so a page ends with a whole group and is sorted by id here; a
        group that fills a page is asked for by itself, in the order of ids. Each page is a window of its own by key-set: the cap of
        10,000 results is never met.
        """
        name = "createdate" if scan.order == "created" else _MODIFIED.get(kind, "hs_lastmodifieddate")
        groups = _after(name, scan) if scan.after is not None else []
        if scan.updated_since is not None or scan.updated_before is not None:
            groups = _within(groups, _MODIFIED.get(kind, "hs_lastmodifieddate"), scan)
        direction = "DESCENDING" if scan.descending else "ASCENDING"
        size = min(scan.size, _SEARCH_PAGE)
        rows, more = await self._search_page(api, kind, groups, (name, direction), scan.fields, size, "0")
        if more is not None and not (complete := _whole(rows, scan)):
            groups = _tied(groups, name, _place(rows[-1], scan)[0])
            rows, _ = await self._search_page(api, kind, groups, ("hs_object_id", direction), scan.fields, size, "0")
        elif more is not None:
            rows = rows[:complete]
        return Page(rows=sorted(rows, key=lambda row: _place(row, scan), reverse=scan.descending), end=more is None)

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        archived = f"{self._path('objects')}/{self.kinds[kind].object}"
        return await changes(self, api, kind, cursor, fields, now=now, archived=archived)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        return await self._writer.write(api, kind, writes)

    @property
    def _writer(self) -> Writer:
        names = {kind: facts.object for kind, facts in self.kinds.items()}
        return Writer(self._path("objects"), self._path("associations"), names, self.read)

    async def objects(self, api: Api) -> list[ObjectType]:
        answer = await api.send(Request(operation="objects", path=self._path("schemas")))
        return [
            ObjectType(
                name=each["fullyQualifiedName"], label=(each.get("labels") or {}).get("plural"), custom=True,
                fields={field["name"]: _field(field) for field in each["properties"]},
            )
            for each in answer.json()["results"]
            if not each.get("archived")
        ]  # fmt: skip

    async def read_custom(self, api: Api, object: ObjectType, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 100) batch reads."""
        parts = await asyncio.gather(*(self._batch(api, "custom", object.name, some, fields) for some in batches(ids, _READ)))
        found = {row["id"]: row for row in chain.from_iterable(parts)}
        return [found.get(id) for id in ids]

    async def scan_custom(
        self, api: Api, object: ObjectType, *, after: str | None, size: int, fields: Sequence[str]
    ) -> CustomPage:
        """One list a page, by id."""
        params = [
            ("limit", str(min(size, _LIST_PAGE))),
            ("properties", ",".join(_names(fields))),
            *([("after", after)] if after else []),
        ]
        path = f"{self._path('objects')}/{object.name}"
        found = (await api.send(Request(operation="custom.scan", path=path, params=params))).json()
        return CustomPage(rows=found["results"], next=found.get("paging", {}).get("next", {}).get("after"))

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        said = body if isinstance(body, dict) else {}
        category = code_in(said.get("category") or said.get("status"))
        facts: dict[str, Any] = {"status": response.status, "upstream_code": category or None}
        if response.status == 429:
            if said.get("policyName") == "DAILY":
                # The day ends at midnight of the account's time zone, which the answer does not tell: look again in an hour.
                return ExhaustedError("the daily quota is used up", status=429, upstream_code="DAILY", retry_after=3600.0)
            policy = code_in(said.get("policyName"))
            pause = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 10.0}.get(policy, 1.0)
            return ThrottledError("too many calls", status=429, upstream_code=policy or None, retry_after=pause)
        if response.status == 401:
            return TokenExpiredError("the access token is not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError(f"refused: {category}" if category else "not allowed", **facts)
        if response.status in {423, 477}:
            return UnavailableError(
                "locked for the moment", retry_after=2.0 if response.retry_after is None else response.retry_after, **facts
            )
        if response.status >= 500:
            return UnavailableError("not available", retry_after=response.retry_after, **facts)
        if response.status == 404 and not response.body:
            return RejectedError("not found", **facts)
        if not isinstance(body, dict):
            return undocumented(response)
        return refusal(said, response.status)

    def learn(self, response: Response) -> Sequence[Learned]:
        learned = []
        if (left := response.number("x-hubspot-ratelimit-remaining")) is not None:
            limit = response.number("x-hubspot-ratelimit-max")
            period = response.number("x-hubspot-ratelimit-interval-milliseconds") or _INTERVAL
            rate = None if limit is None else limit * 1000 / period
            learned.append(Learned(window="burst", limit=limit, remaining=left, per_second=rate))
        if (left := response.number("x-hubspot-ratelimit-daily-remaining")) is not None:
            learned.append(Learned(window="daily", limit=response.number("x-hubspot-ratelimit-daily"), remaining=left))
        return learned

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        portal, number = self.config.options.get("portal"), {"contact": 1, "account": 2, "deal": 3, "ticket": 5}.get(kind)
        return f"https://app.hubspot.com/contacts/{portal}/record/0-{number}/{native_id}" if portal and number else None


def _results(answer: Response) -> list[Row]:
    """Return what a batch read found. What is not there, or tied to nothing, comes as an error that is none; any other is raised,
    for a record that could not be read is not one that is gone.
    """
    body = answer.json()
    for error in body.get("errors") or ():
        if error.get("category") != "OBJECT_NOT_FOUND":
            raise refusal(error, answer.status)
    rows: list[Row] = body["results"]
    return rows


def _names(fields: Sequence[str]) -> list[str]:
    return sorted(path.removeprefix("properties.") for path in fields if path.startswith("properties."))


def _groups(names: Sequence[str], values: Sequence[str]) -> list[Any]:
    """One OR-ed group per property. HubSpot wants the values of IN in lower case."""
    return [{"filters": [{"propertyName": name, "operator": "IN", "values": list(values)}]} for name in names]


def _after(name: str, scan: Scan) -> list[Any]:
    assert scan.after is not None
    at = str(round(scan.after.at.timestamp() * 1000))
    beyond = "LT" if scan.descending else "GT"
    return [
        {"filters": [{"propertyName": name, "operator": beyond, "value": at}]},
        {
            "filters": [
                {"propertyName": name, "operator": "EQ", "value": at},
                {"propertyName": "hs_object_id", "operator": beyond, "value": scan.after.native_id},
            ]
        },
    ]


def _within(groups: list[Any], name: str, scan: Scan) -> list[Any]:
    span = []
    if scan.updated_since is not None:
        span.append({"propertyName": name, "operator": "GTE", "value": str(round(scan.updated_since.timestamp() * 1000))})
    if scan.updated_before is not None:
        span.append({"propertyName": name, "operator": "LT", "value": str(round(scan.updated_before.timestamp() * 1000))})
    return [{"filters": [*group["filters"], *span]} for group in groups or [{"filters": []}]]


def _tied(groups: list[Any], name: str, time: str) -> list[Any]:
    """Narrow a search down to the records of one time."""
    only = {"propertyName": name, "operator": "EQ", "value": str(round(datetime.fromisoformat(time).timestamp() * 1000))}
    return [{"filters": [*group["filters"], only]} for group in groups or [{"filters": []}]]


def _place(row: Row, scan: Scan) -> tuple[str, int, str]:
    return (row["createdAt" if scan.order == "created" else "updatedAt"], len(row["id"]), row["id"])


def _whole(rows: Sequence[Row], scan: Scan) -> int:
    """Return how many leading rows end with a whole group of equal times; 0 when all rows are one group."""
    last = _place(rows[-1], scan)[0]
    return next((at + 1 for at in range(len(rows) - 1, -1, -1) if _place(rows[at], scan)[0] != last), 0)


def _field(each: Row) -> FieldMeta:
    return FieldMeta(
        name=each["name"], path=f"properties.{each['name']}", type=_TYPES.get(each["type"], "TEXT"), label=each["label"],
        custom=not each.get("hubspotDefined", False), writable=not (each.get("modificationMetadata") or {}).get("readOnlyValue", False),
        options={option["value"]: option["label"] for option in each.get("options") or ()},
    )  # fmt: skip


def _stage(each: Row, pipeline: str) -> Stage:
    probability = float(each["metadata"].get("probability") or 0)
    closed = each["metadata"].get("isClosed") == "true"
    category: StageCategory = ("WON" if probability == 1 else "LOST") if closed else "OPEN"
    return Stage(
        id=each["id"],
        name=each["label"],
        category=category,
        pipeline=pipeline,
        native=each["id"],
        probability=probability,
    )
