"""Zoho CRM.

Facts from Zoho's developer pages (API v8: records, upsert, COQL overview and limitations, contact roles, notifications, API limits,
multi-DC) and its published description. A source's base address is the accounts server of its data centre; the API's own address comes
with the token.

Doubts: that 100 ids fit `ids=` (the description has the parameter without a limit); that COQL compares text without case; that the
Deals list of a contact holds the deals it has a role in (so the deals it is the primary contact of are asked for besides); whether COQL
shows converted leads, which the list leaves out. Modified times count whole seconds: of two changes within one second
`If-Unmodified-Since` sees only the second. A delete has no such header, so that of a version is refused.
Contacts are found by address only: a phone number is searched by its spelling.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Checked,
    Config,
    CustomPage,
    FindKey,
    KindFacts,
    Learned,
    Live,
    OAuth,
    OrderField,
    Outcome,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Window,
    Write,
    batches,
)
from adapters.changes import Changes, Delivery, Heard, Watch
from adapters.zoho_answers import fault
from adapters.zoho_live import FEED, PUSH, changes, heard, unwatched, watched
from adapters.zoho_meta import object_type, stages
from adapters.zoho_writing import Records
from model.errors import RejectedError, SourceError
from model.records import Kind, ObjectType, Row

_LIKE = 20  # values in one find by domain: a query holds 25 criteria, and a further page takes three of them
_IDS, _IN, _FIELDS, _COLUMNS, _PAGE, _LIST = 100, 100, 50, 500, 2000, 200
_LAG = 5.0  # seconds; COQL is nearer to the data than the search index is, and no bound is documented for either
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_COLUMN: Mapping[OrderField, str] = {"created": "Created_Time", "updated": "Modified_Time"}
_TIMES: Mapping[str, Any] = {
    "native_id": "id",
    "created_at": {"path": "Created_Time", "convert": "datetime"},
    "updated_at": {"path": "Modified_Time", "convert": "datetime"},
}
_PERSON: Mapping[str, Any] = {
    **_TIMES,
    "email": {"path": "Email", "convert": "email"}, "emails": {"paths": ["Email", "Secondary_Email"], "convert": "emails"},
    "phone": {"path": "Phone", "convert": "phone"}, "phones": {"paths": ["Phone", "Mobile"], "convert": "phones"},
    "name": {"path": "Full_Name", "convert": "text"}, "given_name": {"path": "First_Name", "convert": "text"},
    "family_name": {"path": "Last_Name", "convert": "text"}, "owner_id": "Owner.id",
}  # fmt: skip
_WRITES: Mapping[str, str] = {
    "email": "Email", "phone": "Phone", "given_name": "First_Name", "family_name": "Last_Name", "owner_id": "Owner.id",
}  # fmt: skip
_LISTED: Mapping[str, Any] = {"read_batch": _IDS, "page": _PAGE, "orders": _BOTH, "feed": FEED}
_WRITTEN: Mapping[str, Any] = {
    "verbs": frozenset({"create", "update", "delete"}),
    "write_batch": 100,
    "if_version": True,
    "lag": _LAG,
}
_FOUND: Mapping[str, Any] = {
    **_WRITTEN, "verbs": frozenset({"create", "update", "upsert", "delete"}), "upsert_by": frozenset({"email"}), "find": frozenset({"email"}), "find_batch": _IN,
}  # fmt: skip
_TABS: Mapping[Kind, str] = {"contact": "Contacts", "account": "Accounts", "lead": "Leads", "deal": "Potentials"}


class Zoho(Adapter):
    name = "zoho"
    label = "Zoho CRM"
    api_version = "v8"
    evidence = "E3"
    shown_by = "tests/conformance/test_zoho_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(
            token_path="/oauth/v2/token", lifetime=3600, learns_host="api_domain", prefix="Zoho-oauthtoken ",
            dead_grant=frozenset({"invalid_code", "invalid_client", "invalid_client_secret", "access_denied"}),
        ),
    }  # fmt: skip
    windows: ClassVar[tuple[Window, ...]] = (
        Window(name="credits", limit=50_000, period=86_400),  # the smallest paid edition's, whatever its users; see `__init__`
        Window(name="parallel", limit=10, kind="parallel"),  # Standard edition; also what heavy calls may be at once in any
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="Contacts", **_LISTED, **_FOUND, links={"account": "Account_Name.id"},
            mapping={**_PERSON, "title": {"path": "Title", "convert": "text"}, "account_id": "Account_Name.id"},
            writes={**_WRITES, "title": "Title"},
        ),
        "lead": KindFacts(
            object="Leads", **_LISTED, **_FOUND,
            mapping={**_PERSON, "status": "Lead_Status", "company": {"path": "Company", "convert": "text"}},
            writes={**_WRITES, "status": "Lead_Status", "company": "Company"},
        ),
        "account": KindFacts(
            object="Accounts", **_LISTED, **_WRITTEN, find=frozenset({"domain"}), find_batch=_LIKE,
            mapping={
                **_TIMES, "name": {"path": "Account_Name", "convert": "text"}, "domain": {"path": "Website", "convert": "domain"}, "industry": "Industry",
                "parent_id": "Parent_Account.id", "owner_id": "Owner.id",
            },
            writes={"name": "Account_Name", "domain": "Website", "industry": "Industry", "parent_id": "Parent_Account.id", "owner_id": "Owner.id"},
        ),
        "deal": KindFacts(
            object="Deals", **_LISTED, **_WRITTEN, links={"account": "Account_Name.id", "contact": None},
            mapping={
                **_TIMES, "name": {"path": "Deal_Name", "convert": "text"}, "amount": {"money": {"amount": "Amount", "currency": "Currency"}},
                "stage": {"path": "Stage", "convert": "stage"}, "probability": {"path": "Probability", "convert": "percent"},
                "close_date": {"path": "Closing_Date", "convert": "date"}, "account_id": "Account_Name.id", "owner_id": "Owner.id",
            },
            writes={
                "name": "Deal_Name", "amount": {"money": {"amount": "Amount", "currency": "Currency"}}, "stage": "Stage", "close_date": "Closing_Date", "owner_id": "Owner.id",
            },
        ),
        "owner": KindFacts(
            object="users", read_batch=_IDS,
            mapping={
                "native_id": "id", "created_at": {"path": "created_time", "convert": "datetime"}, "updated_at": {"path": "Modified_Time", "convert": "datetime"},
                "name": {"path": "full_name", "convert": "text"}, "email": {"path": "email", "convert": "email"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "deal"), ("deal", "contact"), ("account", "contact"), ("account", "deal")})
    push = PUSH
    live = Live(
        push="Notifications API: a channel of four modules that lives a day and is renewed; verified by a token of ours that each call repeats, for nothing is signed",
        feed="COQL by Modified_Time; tags and related lists do not always move it",
        deletes="in a notification, or by the list of deleted records with every second pass; merged records are told as deleted ones",
        bound=None,
        why="Zoho promises neither a time nor a second try for a notification",
    )

    def __init__(self, config: Config) -> None:
        """Edition and users decide on an org's budgets, and no answer tells them: the options "credits" and "parallel" do."""
        super().__init__(config)
        self.windows = tuple(replace(each, limit=float(config.options.get(each.name, each.limit))) for each in type(self).windows)  # type: ignore[misc]

    @property
    def _root(self) -> str:
        return f"/crm/{self.config.api_version or self.api_version}"

    async def check(self, api: Api) -> Checked:
        org = await self._org(api, "check")
        return Checked(account=str(org["id"]), name=org.get("company_name"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """One call; for deals also the org's currency, and the pipelines of each layout."""
        if kind == "owner":
            return ObjectType(name="users", fields={})
        found = await self._described(api, f"{kind}.describe", self.kinds[kind].object)
        if kind != "deal":
            return object_type(self.kinds[kind].object, found)
        layouts = await self._metadata(api, "deal.layouts", "layouts", {"module": "Deals"})
        pipelines = [
            await self._metadata(api, "deal.stages", "pipeline", {"layout_id": each["id"]})
            for each in layouts
            if each.get("status") != "inactive"
        ]
        org = await self._org(api, "deal.currency")
        return object_type("Deals", found, stages=stages(chain.from_iterable(pipelines), found), currency=org.get("iso_code"))

    async def _org(self, api: Api, operation: str) -> Row:
        org: Row = (await api.send(Request(operation=operation, path=f"{self._root}/org"))).json()["org"][0]
        return org

    async def _described(self, api: Api, operation: str, module: str) -> list[Row]:
        return await self._metadata(api, operation, "fields", {"module": module})

    async def _metadata(self, api: Api, operation: str, name: str, parameters: Mapping[str, str]) -> list[Row]:
        answer = await api.send(
            Request(operation=operation, path=f"{self._root}/settings/{name}", params=list(parameters.items()))
        )
        rows: list[Row] = answer.json()[name] if answer.body else []
        return rows

    async def _known(self, api: Api, kind: Kind, fields: Sequence[str]) -> list[str]:
        """Return the fields wanted that the org has: Currency is there only with several currencies, editions lack others."""
        described = (await api.described(kind)).fields
        return _names(path for path in fields if path.partition(".")[0] in described)

    # ---- reading ----

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 100) lists, as often as there are 50 fields; owners come with all their fields."""
        if kind == "owner":
            parts = [self._list(api, "owner.read", "users", {"ids": ",".join(some)}, rows="users") for some in batches(ids, _IDS)]
            found = {row["id"]: row for row in chain.from_iterable(await asyncio.gather(*parts))}
            return [found.get(id) for id in ids]
        return await self._read(api, f"{kind}.read", self.kinds[kind].object, ids, await self._known(api, kind, fields))

    async def _read(self, api: Api, operation: str, module: str, ids: Sequence[str], names: Sequence[str]) -> list[Row | None]:
        asked = [
            self._list(api, operation, module, {"ids": ",".join(some), "fields": ",".join(part), "per_page": str(_LIST)})
            for part in batches(names, _FIELDS)
            for some in batches(ids, _IDS)
        ]
        found: dict[str, Row] = {}
        for row in chain.from_iterable(await asyncio.gather(*asked)):
            found.setdefault(row["id"], {}).update(row)
        return [found.get(id) for id in ids]

    async def _list(self, api: Api, operation: str, path: str, parameters: Mapping[str, str], *, rows: str = "data") -> list[Row]:
        answer = await api.send(Request(operation=operation, path=f"{self._root}/{path}", params=list(parameters.items())))
        found: list[Row] = answer.json()[rows] if answer.body else []  # nothing found is an empty 204
        return found

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """By lookup ceil(parents / 100) queries; by contact role one related list a parent and the primary ones by lookup besides."""
        names = await self._known(api, kind, fields)
        if of == "account":
            return _cut([rows for _, rows in await self._by_lookup(api, kind, of, ids, names, "Account_Name")], first)
        listed = asyncio.gather(*(self._by_role(api, kind, of, id, names, first) for id in ids))
        if of == "contact":
            primary = [rows for _, rows in await self._by_lookup(api, kind, of, ids, names, "Contact_Name")]
        else:
            primary = await self._primary(api, ids, names)
        return _cut([_distinct(chain(mine, others)) for mine, others in zip(primary, await listed, strict=True)], first)

    async def _by_lookup(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], names: Sequence[str], lookup: str
    ) -> list[tuple[str, list[Row]]]:
        """Return, for each parent, the rows whose lookup names it, in order of creation."""
        tied = [f"{lookup} in ({_literals(some)})" for some in batches(ids, _IN)]
        wanted = list(dict.fromkeys([lookup, *names]))
        asked = [self._query_all(api, f"{of}.{kind}", kind, wanted, where) for where in tied]
        found: dict[str, list[Row]] = {id: [] for id in ids}
        for row in chain.from_iterable(await asyncio.gather(*asked)):
            found[row[lookup]["id"]].append(row)
        return list(found.items())

    async def _by_role(self, api: Api, kind: Kind, of: Kind, id: str, names: Sequence[str], first: int) -> list[Row]:
        path = f"{self.kinds[of].object}/{id}/{'Deals' if kind == 'deal' else 'Contact_Roles'}"
        parameters = {"fields": ",".join(names[:_FIELDS]), "per_page": str(min(first + 1, _LIST))}
        try:
            rows = await self._list(api, f"{of}.{kind}", path, parameters)
        except RejectedError as error:
            if error.upstream_code == "INVALID_DATA":
                return []  # a parent that is gone has none
            raise
        if len(names) <= _FIELDS:
            return rows
        rest = await self._read(api, f"{kind}.read", self.kinds[kind].object, [row["id"] for row in rows], names[_FIELDS:])
        return [{**row, **(more or {})} for row, more in zip(rows, rest, strict=True)]

    async def _primary(self, api: Api, deals: Sequence[str], names: Sequence[str]) -> list[list[Row]]:
        """Return the primary contact of each deal, as a list of none or one."""
        asked = [
            self._query_all(api, "deal.contact", "deal", ["Contact_Name"], f"id in ({_literals(some)})")
            for some in batches(deals, _IN)
        ]
        rows = chain.from_iterable(await asyncio.gather(*asked))
        lookup = {row["id"]: row["Contact_Name"]["id"] for row in rows if row["Contact_Name"]}
        contacts = list(dict.fromkeys(lookup.values()))
        read = await self._read(api, "contact.read", "Contacts", contacts, names)
        found = dict(zip(contacts, read, strict=True))
        return [[row] if (row := found.get(lookup.get(id, ""))) is not None else [] for id in deals]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 100) queries over the primary and the secondary address: COQL, since the search index lags behind.

        Web domains ceil(values / 20), for they stand somewhere in a web address.
        """
        names = await self._known(api, kind, fields)
        if key == "domain":
            tests = [
                _joined("or", [f"Website like {_quoted(f'%{value}%')}" for value in some]) for some in batches(values, _LIKE)
            ]
        else:
            lists = [_literals(some) for some in batches(values, _IN)]
            tests = [f"(Email in ({some}) or Secondary_Email in ({some}))" for some in lists]
        asked = [self._query_all(api, f"{kind}.find", kind, names, where) for where in tests]
        return list({row["id"]: row for row in chain.from_iterable(await asyncio.gather(*asked))}.values())

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One query a page: COQL orders by time and id and can start after any such pair, so its reach of 100,000 is never met."""
        names = await self._known(api, kind, scan.fields)
        column = _COLUMN[scan.order]
        way, beyond = ("desc", "<") if scan.descending else ("asc", ">")
        tests = []
        if scan.after is not None:
            at, id = _datetime(scan.after.at), _quoted(scan.after.native_id)
            tests.append(f"({column} {beyond} {at} or ({column} = {at} and id {beyond} {id}))")
        if scan.updated_since is not None:
            tests.append(f"Modified_Time >= {_datetime(scan.updated_since)}")
        if scan.updated_before is not None:
            tests.append(f"Modified_Time < {_datetime(scan.updated_before)}")
        size = min(scan.size, _PAGE)
        rows, more = await self._query(
            api, f"{kind}.scan", self.kinds[kind].object, names, _all(tests), f"{column} {way}, id {way}", size=size
        )
        return Page(rows=rows, end=not more)

    async def _query_all(self, api: Api, operation: str, kind: Kind, names: Sequence[str], where: str) -> list[Row]:
        """Return every row, by creation; each page starts after the last one's end."""
        found: list[Row] = []
        wanted = list(dict.fromkeys([*names, "Created_Time"]))
        more, tests = True, [where]
        while more:
            rows, more = await self._query(
                api, operation, self.kinds[kind].object, wanted, _all(tests), "Created_Time asc, id asc", size=_PAGE
            )
            found += rows
            if more:
                at, id = _quoted(rows[-1]["Created_Time"]), _quoted(rows[-1]["id"])
                tests = [where, f"(Created_Time > {at} or (Created_Time = {at} and id > {id}))"]
        return found

    async def _query(
        self, api: Api, operation: str, module: str, names: Sequence[str], where: str, order: str, *, size: int
    ) -> tuple[list[Row], bool]:
        """Return rows, and whether there are more. Columns beyond what one query takes are read by id."""
        columns = list(dict.fromkeys(["id", *names]))
        text = f"select {', '.join(columns[:_COLUMNS])} from {module} where {where} order by {order} limit 0, {size}"
        answer = await api.send(
            Request(
                operation=operation, method="POST", path=f"{self._root}/coql", json={"select_query": text},
                cost={"credits": 0 if size <= 200 else 1 if size <= 1000 else 2},
            )
        )  # fmt: skip
        if not answer.body:
            return [], False
        body = answer.json()
        rows: list[Row] = body["data"]
        if columns[_COLUMNS:]:
            rest = await self._read(api, operation, module, [row["id"] for row in rows], columns[_COLUMNS:])
            rows = [{**row, **(more or {})} for row, more in zip(rows, rest, strict=True)]
        return rows, bool(body["info"]["more_records"])

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        return await changes(self, api, kind, cursor, fields, now=now, root=self._root)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(api, url, secret, root=self._root, now=datetime.now(UTC))

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(api, url, root=self._root)

    # ---- custom modules ----

    async def objects(self, api: Api) -> list[ObjectType]:
        """One call, and one more for each custom module."""
        found = await self._metadata(api, "objects", "modules", {})
        custom = [
            each for each in found if each["generated_type"] == "custom" and each["api_supported"] and each.get("viewable", True)
        ]
        fields = await asyncio.gather(*(self._described(api, "objects.describe", each["api_name"]) for each in custom))
        return [
            object_type(each["api_name"], mine, label=each.get("singular_label"), custom=True)
            for each, mine in zip(custom, fields, strict=True)
        ]

    async def read_custom(self, api: Api, object: ObjectType, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        return await self._read(api, "custom.read", object.name, ids, _custom(object, fields))

    async def scan_custom(
        self, api: Api, object: ObjectType, *, after: str | None, size: int, fields: Sequence[str]
    ) -> CustomPage:
        """One query a page, by id: newer records have higher ones."""
        where = f"id > {_quoted(after or '0')}"
        names = _custom(object, fields)
        rows, more = await self._query(api, "custom.scan", object.name, names, where, "id asc", size=min(size, _PAGE))
        return CustomPage(rows=rows, next=rows[-1]["id"] if more else None)

    # ---- writing ----

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """Up to 100 records of one verb a call; a change under a version is a call of its own, for the header holds for all of it."""
        option = self.config.options.get(
            "trigger", ""
        )  # which automations of the org a write sets off, such as "workflow,blueprint"
        records = Records(
            api, root=self._root, module=self.kinds[kind].object, triggers=[each for each in option.split(",") if each]
        )
        return await records.write(writes)

    # ---- answers ----

    def classify(self, response: Response) -> SourceError | None:
        return fault(response)

    def learn(self, response: Response) -> Sequence[Learned]:
        left = response.number("x-api-credits-remaining")  # comes only when half of them are used
        return [] if left is None else [Learned(window="credits", remaining=left)]

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        tab, web = _TABS.get(kind), self.config.web_url
        return f"{web}/tab/{tab}/{native_id}" if web and tab else None


def _names(fields: Any) -> list[str]:
    return list(dict.fromkeys(["id", *(path.partition(".")[0] for path in fields)]))


def _custom(object: ObjectType, fields: Sequence[str]) -> list[str]:
    known = {each.path.partition(".")[0] for each in object.fields.values()}
    return _names(path for path in fields if path.partition(".")[0] in known)


def _distinct(rows: Any) -> list[Row]:
    return list({row["id"]: row for row in rows}.values())


def _cut(groups: Sequence[list[Row]], first: int) -> list[Related]:
    return [Related(rows=rows[:first], more=len(rows) > first) for rows in groups]


def _all(tests: Sequence[str]) -> str:
    return _joined("and", tests) if tests else "id is not null"  # a query without `where` is refused


def _joined(word: str, tests: Sequence[str]) -> str:
    """Join two a level, in brackets, as COQL wants."""
    joined = tests[0]
    for each in tests[1:]:
        joined = f"({joined} {word} {each})"
    return joined


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _literals(values: Sequence[str]) -> str:
    return ", ".join(_quoted(value) for value in values)


def _datetime(moment: datetime) -> str:
    # With an offset and without fractions.
    return f"'{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}+00:00'"
