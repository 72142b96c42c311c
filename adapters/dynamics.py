"""Microsoft Dynamics 365 Sales, on Dataverse's Web API.

Facts from Microsoft's pages on the Web API (requests and errors, queries, pages, conditional operations, batches), API limits and
authentication, and the Common Data Model's entity documents. Not verified: how an operation inside a batch counts in the request
limit, whether a throttled one is told apart there. Not done: certificates instead of a client secret (the flow cannot sign), leads
qualified (an action that makes other records), phones (they match by their spelling only).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar

from adapters import dynamics_metadata as metadata
from adapters.base import (
    Adapter,
    Api,
    Auth,
    Checked,
    CustomPage,
    FindKey,
    KindFacts,
    Learned,
    Live,
    OAuth,
    Outcome,
    Page,
    Position,
    Related,
    Request,
    Response,
    Scan,
    Window,
    Write,
    batches,
    code_in,
    undocumented,
)
from adapters.changes import Changes, Delivery, Heard, Watch
from adapters.dynamics_hooks import unwatched, watched
from adapters.dynamics_live import FEED, PUSH, changes, heard
from adapters.dynamics_rows import View, among, guids, moment, neat, quoted, view
from adapters.dynamics_writing import BATCH, written
from adapters.ties import whole_groups
from mapping.convert import instant
from model.errors import (
    DuplicateError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from model.records import Kind, ObjectType, Row

_IDS = 50  # ids, or values, in one filter: a URL may hold 32 KB, and clients of the vendor stop here
_PAGE = 5000
_OPPORTUNITY = 3  # object type codes, by which connections tell what they tie
_CONTACT = 2
_LIVE = "(merged eq false or merged eq null)"  # what was merged away stays, inactive, and points to its master
_MERGES = frozenset({"contact", "account", "lead"})
_DUPLICATE = frozenset({"0x80040237", "0x80040333", "0x80060892"})
_CREATED_UPDATED = {"created": "createdon", "updated": "modifiedon"}

_TIMES: Mapping[str, Any] = {
    "created_at": {"path": "createdon", "convert": "datetime"}, "updated_at": {"path": "modifiedon", "convert": "datetime"},
    "revision": "@odata.etag",
}  # fmt: skip
_PERSON: Mapping[str, Any] = {
    **_TIMES,
    "email": {"path": "emailaddress1", "convert": "email"},
    "emails": {"paths": ["emailaddress1", "emailaddress2", "emailaddress3"], "convert": "emails"},
    "phone": {"path": "telephone1", "convert": "phone"}, "phones": {"paths": ["telephone1", "mobilephone"], "convert": "phones"},
    "name": {"path": "fullname", "convert": "text"}, "given_name": {"path": "firstname", "convert": "text"},
    "family_name": {"path": "lastname", "convert": "text"}, "owner_id": "_ownerid_value",
}  # fmt: skip
_PERSON_WRITES: Mapping[str, Any] = {
    "email": "emailaddress1", "phone": "telephone1", "given_name": "firstname", "family_name": "lastname", "owner_id": "_ownerid_value",
}  # fmt: skip
_LISTED: Mapping[str, Any] = {"orders": frozenset({"created", "updated"}), "read_batch": _IDS, "page": _PAGE, "feed": FEED}
_WRITTEN: Mapping[str, Any] = {"verbs": frozenset({"create", "update", "delete"}), "write_batch": BATCH, "if_version": True}


class Dynamics(Adapter):
    name = "dynamics"
    label = "Microsoft Dynamics 365"
    api_version = "v9.2"
    evidence = "E3"
    shown_by = "tests/conformance/test_dynamics_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        # Client credentials name no refresh token; a delegated grant gives a new one each time. `authority` differs in national clouds.
        "oauth": OAuth(
            token_path="{authority}/{tenant}/oauth2/v2.0/token", fields={"scope": "{base_url}/.default"}, lifetime=3599,
            defaults={"authority": "https://login.microsoftonline.com"},
        ),
    }  # fmt: skip
    # Counted for each user on each web server, in 5 minutes that slide; the answers' headers tell how much is left.
    windows = (
        Window(name="requests", limit=6000, period=300),
        Window(name="execution", limit=1200, period=300, every_call=False),  # seconds that the server worked
        Window(name="parallel", limit=52, kind="parallel"),
    )
    push = PUSH
    live = Live(
        push="webhooks: a service endpoint with a step for each table and message, with a key of ours in its address and no signature",
        feed="change tracking: a delta link for each table, good for 7 days; it begins by telling all rows",
        deletes="deleted rows come with the delta link, merged ones as inactive rows that name their master; webhooks tell both",
        why="asynchronous steps are queued, nothing is promised, and most failures are not sent again",
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="contacts", find=frozenset({"email"}), find_batch=_IDS, **_LISTED, **_WRITTEN,
            mapping={
                "native_id": "contactid", **_PERSON, "title": {"path": "jobtitle", "convert": "text"},
                # The company is an account or a contact: one value, two navigation properties.
                "account_id": "parentcustomerid_account.accountid",
            },
            writes={**_PERSON_WRITES, "title": "jobtitle", "account_id": "parentcustomerid_account.accountid"},
            links={"account": "parentcustomerid_account.accountid"},
        ),
        "account": KindFacts(
            object="accounts", find=frozenset({"domain"}), find_batch=_IDS, **_LISTED, **_WRITTEN,
            mapping={
                "native_id": "accountid", **_TIMES, "name": {"path": "name", "convert": "text"}, "domain": {"path": "websiteurl", "convert": "domain"},
                "industry": "@formatted.industrycode", "parent_id": "_parentaccountid_value", "owner_id": "_ownerid_value",
            },
            writes={
                "name": "name", "domain": "websiteurl", "industry": "industrycode", "parent_id": "_parentaccountid_value", "owner_id": "_ownerid_value",
            },
        ),
        "lead": KindFacts(
            object="leads", find=frozenset({"email"}), find_batch=_IDS, **_LISTED, **_WRITTEN,
            mapping={
                "native_id": "leadid", **_PERSON, "status": "@formatted.statuscode", "company": {"path": "companyname", "convert": "text"},
            },
            writes={**_PERSON_WRITES, "company": "companyname"},
            links={"account": "_parentaccountid_value", "contact": "_parentcontactid_value"},
        ),
        "deal": KindFacts(
            object="opportunities", **{**_LISTED, "feed": replace(FEED, merges=False)}, **_WRITTEN,
            mapping={
                "native_id": "opportunityid", **_TIMES, "name": {"path": "name", "convert": "text"},
                "amount": {"money": {"amount": "estimatedvalue", "currency": "transactioncurrencyid.isocurrencycode"}},
                "stage": {"path": "statuscode", "convert": "stage"}, "probability": {"path": "closeprobability", "convert": "percent"},
                "close_date": {"path": "estimatedclosedate", "convert": "date"},
                "account_id": {"paths": ["_parentaccountid_value", "customerid_account.accountid"], "convert": "first"}, "owner_id": "_ownerid_value",
            },
            writes={
                "name": "name", "amount": {"money": {"amount": "estimatedvalue", "currency": "transactioncurrencyid.isocurrencycode"}},
                "stage": "statuscode", "close_date": "estimatedclosedate", "account_id": "_parentaccountid_value", "owner_id": "_ownerid_value",
            },
            links={"account": "_parentaccountid_value", "contact": "_parentcontactid_value"},
        ),
        "owner": KindFacts(
            object="systemusers", read_batch=_IDS,
            mapping={
                "native_id": "systemuserid", **_TIMES, "name": {"path": "fullname", "convert": "text"},
                "email": {"path": "internalemailaddress", "convert": "email"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "deal"), ("deal", "contact"), ("account", "contact"), ("account", "deal")})

    @property
    def _root(self) -> str:
        return f"/api/data/{self.config.api_version or self.api_version}"

    async def check(self, api: Api) -> Checked:
        found = (await api.send(_request("check", f"{self._root}/WhoAmI"))).json()
        return Checked(account=str(found["OrganizationId"]))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Six calls at once: columns, the options of each kind of option set, dates, and the currencies there are."""
        return await metadata.describe(api, self._root, kind, self.kinds[kind].object)

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 50) queries."""
        wanted = view(fields, self._id(kind))
        conditions = [self._living(kind, among(self._id(kind), some)) for some in batches(guids(ids), _IDS)]
        found = {str(row[self._id(kind)]): row for row in await self._all(api, f"{kind}.read", kind, conditions, wanted)}
        return [found.get(id.lower()) for id in ids]

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """ceil(parents / 50) queries; between deals and contacts as many again for connections, and ceil(their others / 50)."""
        if {of, kind} == {"contact", "deal"}:
            return await self._stakeholders(api, kind, of, ids, fields)
        lookups = ("_parentcustomerid_value",) if kind == "contact" else ("_parentaccountid_value", "_customerid_value")
        rows = await self._children(api, f"{of}.{kind}", kind, lookups, ids, fields)
        return [Related(rows=rows.get(id, [])) for id in ids]

    async def _children(
        self, api: Api, operation: str, kind: Kind, lookups: Sequence[str], ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, list[Row]]:
        """Return the rows whose lookups point to each id, the oldest first."""
        wanted = view([*fields, *lookups], self._id(kind))
        conditions = [
            self._living(kind, " or ".join(f"{lookup} eq {id}" for id in some for lookup in lookups))
            for some in batches(guids(ids), _IDS // len(lookups))
        ]
        found: dict[str, list[Row]] = {}
        for row in await self._all(api, operation, kind, conditions, wanted, order="createdon asc"):
            for parent in dict.fromkeys(row[lookup] for lookup in lookups if row[lookup]):
                found.setdefault(parent, []).append(row)
        return found

    async def _stakeholders(self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Related]:
        """A deal names one contact by itself; others are tied to it by connections, which stand in both directions."""
        ties = self._connected(api, kind, of, ids)
        links: dict[str, list[str]] = {}
        if kind == "deal":
            lookups = ("_parentcontactid_value", "_customerid_value")
            rows_of, tied = await asyncio.gather(self._children(api, "contact.deal", "deal", lookups, ids, fields), ties)
            known = {str(row["opportunityid"]): row for rows in rows_of.values() for row in rows}
            links = {id: [str(row["opportunityid"]) for row in rows_of.get(id, [])] + tied.get(id, []) for id in ids}
        else:
            named = ["_parentcontactid_value", "_customerid_value", "customerid_contact.contactid"]
            deals, tied = await asyncio.gather(self.read(api, "deal", ids, named), ties)
            known = {}
            for id, deal in zip(ids, deals, strict=True):
                customer = (deal.get("customerid_contact") or {}).get("contactid") if deal else None
                primary = [each for each in (deal["_parentcontactid_value"], customer) if each] if deal else []
                links[id] = [*primary, *tied.get(id, [])]
        missing = list(dict.fromkeys(other for others in links.values() for other in others if other not in known))
        more = await self.read(api, kind, missing, fields) if missing else []
        known |= {id: row for id, row in zip(missing, more, strict=True) if row is not None}
        return [Related(rows=[known[other] for other in dict.fromkeys(links[id]) if other in known]) for id in ids]

    async def _connected(self, api: Api, kind: Kind, of: Kind, ids: Sequence[str]) -> dict[str, list[str]]:
        code = _OPPORTUNITY if kind == "deal" else _CONTACT
        wanted = View(select=("_record1id_value", "_record2id_value"))
        conditions = [
            f"({' or '.join(f'_record1id_value eq {id}' for id in some)}) and record2objecttypecode eq {code} and statecode eq 0"
            for some in batches(guids(ids), _IDS)
        ]
        path = f"{self._root}/connections"
        parts = await asyncio.gather(
            *(
                self._pages(api, f"{of}.{kind}.links", path, wanted.parameters(each, "createdon asc"), wanted)
                for each in conditions
            )
        )
        found: dict[str, list[str]] = {}
        for row in chain.from_iterable(parts):
            found.setdefault(row["_record1id_value"], []).append(row["_record2id_value"])
        return found

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 50) queries: an address in any of three columns, without case; a domain as part of a web address."""
        wanted = view(fields, self._id(kind))
        if key == "domain":
            tests = [" or ".join(f"contains(websiteurl,{quoted(each)})" for each in some) for some in batches(values, _IDS)]
        else:
            columns = ("emailaddress1", "emailaddress2", "emailaddress3")
            tests = [" or ".join(among(column, some) for column in columns) for some in batches(values, _IDS)]
        conditions = [self._living(kind, each) for each in tests]
        rows = await self._all(api, f"{kind}.find", kind, conditions, wanted)
        return list({row[self._id(kind)]: row for row in rows}.values())

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One query a page, more where many rows share a second: times are whole seconds, and ids sort as the database likes."""
        column, id = _CREATED_UPDATED[scan.order], self._id(kind)
        wanted = view([*scan.fields, "createdon", "modifiedon"], id)
        tests = [f"{column} {'le' if scan.descending else 'ge'} {moment(scan.after.at)}"] if scan.after else []
        if scan.updated_since is not None:
            tests.append(f"modifiedon ge {moment(scan.updated_since)}")
        if scan.updated_before is not None:
            tests.append(f"modifiedon lt {moment(scan.updated_before)}")
        condition = self._living(kind, " and ".join(tests))
        parameters = wanted.parameters(condition, f"{column} {'desc' if scan.descending else 'asc'}")
        size = min(scan.size, _PAGE)

        async def fetch(link: str | None) -> tuple[list[Row], str | None]:
            path = link or f"{self._root}/{self.kinds[kind].object}"
            return await self._page(api, f"{kind}.scan", path, () if link else parameters, wanted, size)

        def place(row: Row) -> Position:
            at = instant(row[column])
            assert at is not None
            return Position.of(at, str(row[id]))

        page = await whole_groups(scan, fetch, place)
        return Page(rows=await self._listed(api, kind, page.rows), end=page.end)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call for one record, one batch for 50; each record by itself, whatever becomes of the others."""
        meta = await api.described(kind)
        return await written(api, self._root, kind, self.kinds[kind].object, writes, meta, self.classify)

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        path = f"{self._root}/{self.kinds[kind].object}"
        told = await changes(api, kind, cursor, fields, path=path, id=self._id(kind), merges=kind in _MERGES)
        await self._listed(api, kind, [each.row for each in told.changes if each.row is not None])
        return told

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(api, url, secret, root=self._root)

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(api, url, root=self._root)

    # ---- custom tables ----

    async def objects(self, api: Api) -> list[ObjectType]:
        """One call for all tables, and five for each: its columns."""
        return await metadata.custom_objects(api, self._root)

    async def read_custom(self, api: Api, object: ObjectType, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 50) queries."""
        wanted = view(fields, object.id_path)
        path = f"{self._root}/{object.name}"
        asked = (
            self._pages(api, "custom.read", path, wanted.parameters(among(object.id_path, some)), wanted)
            for some in batches(guids(ids), _IDS)
        )
        rows = metadata.with_lists(chain.from_iterable(await asyncio.gather(*asked)), object)
        found = {str(row[object.id_path]): row for row in rows}
        return [found.get(id.lower()) for id in ids]

    async def scan_custom(
        self, api: Api, object: ObjectType, *, after: str | None, size: int, fields: Sequence[str]
    ) -> CustomPage:
        """One query a page, in the order of ids."""
        wanted = view(fields, object.id_path)
        path = f"{self._root}/{object.name}"
        parameters = wanted.parameters("", f"{object.id_path} asc")
        rows, following = await self._page(
            api, "custom.scan", f"{path}?{after}" if after else path, () if after else parameters, wanted, min(size, _PAGE)
        )
        return CustomPage(rows=metadata.with_lists(rows, object), next=following.partition("?")[2] if following else None)

    # ---- queries ----

    def _id(self, kind: Kind) -> str:
        return str(self.kinds[kind].mapping["native_id"])

    def _living(self, kind: Kind, condition: str) -> str:
        if kind not in _MERGES:
            return condition
        return f"({condition}) and {_LIVE}" if condition else _LIVE

    async def _all(
        self, api: Api, operation: str, kind: Kind, conditions: Sequence[str], wanted: View, *, order: str = ""
    ) -> list[Row]:
        path = f"{self._root}/{self.kinds[kind].object}"
        asked = (self._pages(api, operation, path, wanted.parameters(each, order), wanted) for each in conditions)
        rows = list(chain.from_iterable(await asyncio.gather(*asked)))
        return await self._listed(api, kind, rows)

    async def _listed(self, api: Api, kind: Kind, rows: list[Row]) -> list[Row]:
        """Make lists of the columns that hold several options, where there are such: they come as "1,3"."""
        # Only columns of the environment's own are such; standard ones need no look at the metadata.
        if not any(name.partition("_")[2] and not name.startswith(("_", "@")) for row in rows[:1] for name in row):
            return rows
        return metadata.with_lists(rows, await api.described(kind))

    async def _pages(self, api: Api, operation: str, path: str, parameters: Sequence[tuple[str, str]], wanted: View) -> list[Row]:
        rows, link = await self._page(api, operation, path, parameters, wanted, _PAGE)
        while link is not None:
            more, link = await self._page(api, operation, link, (), wanted, _PAGE)
            rows += more
        return rows

    async def _page(
        self, api: Api, operation: str, path: str, parameters: Sequence[tuple[str, str]], wanted: View, size: int
    ) -> tuple[list[Row], str | None]:
        """Return one page's rows, and the path of the next one exactly as the system spelled it."""
        request = _request(operation, path, parameters, prefer=(f"odata.maxpagesize={size}", *wanted.prefer))
        body = (await api.send(request)).json()
        link = body.get("@odata.nextLink")
        return [neat(row) for row in body["value"]], self._root + link.partition(self._root)[2] if link else None

    # ---- answers ----

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        said = body.get("error") if isinstance(body, dict) else None
        code = code_in(said.get("code") if isinstance(said, dict) else said)
        facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
        if response.status == 429:
            return ThrottledError("too many calls", retry_after=response.retry_after, **facts)
        if response.status == 401:
            return TokenExpiredError("the token is not accepted", **facts)
        if response.status >= 500 and response.status != 501:
            return UnavailableError("not available", **facts)
        if said is None:
            return undocumented(response)
        if response.status == 403:
            return SourceForbiddenError("the application user lacks a privilege", **facts)
        if code in _DUPLICATE:
            return DuplicateError("another record has this key", **facts)
        if response.status == 412:
            return StaleVersionError("the record changed since", **facts)
        return RejectedError(f"refused: {code}" if code else f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        learned = []
        for window, header in (("requests", "burst"), ("execution", "time")):
            left = response.number(f"x-ms-ratelimit-{header}-remaining-xrm-requests")
            if left is not None:
                learned.append(Learned(window=window, remaining=left))
        return learned

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        web = self.config.web_url
        return (
            f"{web}/main.aspx?pagetype=entityrecord&etn={metadata.LOGICAL[self.kinds[kind].object]}&id={native_id}"
            if web
            else None
        )


def _request(operation: str, path: str, parameters: Sequence[tuple[str, str]] = (), *, prefer: Sequence[str] = ()) -> Request:
    headers = {**metadata.HEADERS, **({"Prefer": ",".join(prefer)} if prefer else {})}
    return Request(operation=operation, path=path, params=parameters, headers=headers, cost=metadata.COST)
