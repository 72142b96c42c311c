"""Salesforce Sales Cloud.

Facts from the REST API, SOQL and SOSL guides, the limits cheat sheet and the standard objects' field lists. No field is known to be
a unique external id that holds an e-mail address, so nothing is upserted in one step.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import quote_plus

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
    Window,
    Write,
    batches,
    code_in,
    undocumented,
)
from adapters.salesforce_live import FEED, PUSH, UNMERGED, changes, heard
from adapters.salesforce_writing import ROLES, Writer, refusal
from mapping.spec import Document
from model.errors import (
    ExhaustedError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row, Stage, StageCategory

_COLLECTION = 2000  # ids per composite/sobjects read
_LIKE = 50  # patterns in one query
_IN = 400  # literals per IN (…)
_TEXT = 15_000  # characters of a query as an address has it: a URI holds 16 KB, and the path is in there, too
_TYPES: Mapping[str, FieldType] = {
    "boolean": "BOOLEAN", "int": "NUMBER", "double": "NUMBER", "percent": "NUMBER", "currency": "MONEY", "date": "DATE", "datetime": "DATETIME",
    "picklist": "PICKLIST", "combobox": "PICKLIST", "multipicklist": "MULTI_PICKLIST", "reference": "REFERENCE", "anyType": "JSON", "address": "JSON",
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "native_id": "Id",
    "created_at": {"path": "CreatedDate", "convert": "datetime"},
    # SystemModstamp also moves when automation changes a record; LastModifiedDate does not.
    "updated_at": {"path": "SystemModstamp", "convert": "datetime"},
}
_PERSON: Mapping[str, Any] = {
    **_TIMES,
    "email": {"path": "Email", "convert": "email"}, "emails": {"paths": ["Email"], "convert": "emails"},
    "phone": {"path": "Phone", "convert": "phone"}, "phones": {"paths": ["Phone", "MobilePhone"], "convert": "phones"},
    "name": {"path": "Name", "convert": "text"}, "given_name": {"path": "FirstName", "convert": "text"},
    "family_name": {"path": "LastName", "convert": "text"}, "owner_id": "OwnerId",
}  # fmt: skip
_LISTABLE = {"orders": frozenset({"created", "updated"}), "read_batch": _COLLECTION, "page": 2000, "feed": FEED}
_WRITABLE = {"verbs": frozenset({"create", "update", "delete"}), "write_batch": 200, "if_version": True}
_NAMED: Mapping[str, Any] = {
    "email": "Email", "phone": "Phone", "given_name": "FirstName", "family_name": "LastName", "owner_id": "OwnerId",
}  # fmt: skip
_DESCRIBES = 25  # subrequests in one batch
_CONCURRENCY = re.compile(r"Concurrent", re.IGNORECASE)


class Salesforce(Adapter):
    name = "salesforce"
    label = "Salesforce"
    api_version = "v60.0"
    evidence = "E3"
    shown_by = "tests/conformance/test_salesforce_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        # The answer names no lifetime; 15 minutes is the shortest a session can be set to.
        "oauth": OAuth(token_path="/services/oauth2/token", lifetime=900, learns_host="instance_url"),
    }
    windows = (
        Window(name="daily", limit=100_000, period=86_400),
        Window(name="parallel", limit=20, kind="parallel"),  # 25 requests that run 20 s or more at once; kept below
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="Contact", find=frozenset({"email", "phone"}), find_batch=_IN, **_LISTABLE, **_WRITABLE,  # type: ignore[arg-type]
            mapping={**_PERSON, "title": {"path": "Title", "convert": "text"}, "account_id": "AccountId"},
            writes={**_NAMED, "title": "Title"}, links={"account": "AccountId"},
        ),
        "lead": KindFacts(
            object="Lead", find=frozenset({"email", "phone"}), find_batch=_IN, **_LISTABLE, **_WRITABLE,  # type: ignore[arg-type]
            mapping={**_PERSON, "status": "Status", "company": {"path": "Company", "convert": "text"}},
            writes={**_NAMED, "status": "Status", "company": "Company"},
        ),
        "account": KindFacts(
            object="Account", find=frozenset({"domain"}), find_batch=_LIKE, **_LISTABLE, **_WRITABLE,  # type: ignore[arg-type]
            mapping={
                **_TIMES, "name": {"path": "Name", "convert": "text"}, "domain": {"path": "Website", "convert": "domain"},
                "industry": "Industry", "parent_id": "ParentId", "owner_id": "OwnerId",
            },
            writes={"name": "Name", "domain": "Website", "industry": "Industry", "parent_id": "ParentId", "owner_id": "OwnerId"},
        ),
        "deal": KindFacts(
            object="Opportunity", **{**_LISTABLE, "feed": UNMERGED}, **_WRITABLE,  # type: ignore[arg-type]
            mapping={
                **_TIMES, "name": {"path": "Name", "convert": "text"}, "amount": {"money": {"amount": "Amount", "currency": "CurrencyIsoCode"}},
                "stage": {"path": "StageName", "convert": "stage"}, "probability": {"path": "Probability", "convert": "percent"},
                "close_date": {"path": "CloseDate", "convert": "date"}, "account_id": "AccountId", "owner_id": "OwnerId",
            },
            writes={
                "name": "Name", "amount": {"money": {"amount": "Amount", "currency": "CurrencyIsoCode"}}, "stage": "StageName", "close_date": "CloseDate",
                "owner_id": "OwnerId",
            },
            links={"account": "AccountId", "contact": None},
        ),
        "owner": KindFacts(
            object="User", read_batch=_COLLECTION,
            mapping={**_TIMES, "name": {"path": "Name", "convert": "text"}, "email": {"path": "Email", "convert": "email"}},
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "deal"), ("deal", "contact"), ("account", "contact"), ("account", "deal")})

    push = PUSH
    live = Live(
        push="flows that an administrator makes, which call us with a shared secret after a record was made or edited; change data capture is gRPC or CometD under the session's token (72 hours), outbound messages are not signed, and no JSON webhook is",
        feed="SystemModstamp by SOQL: ten minutes are read again",
        deletes="queryAll shows IsDeleted, and MasterRecordId of merged ones, for 15 days or until the bin is emptied",
        why="nothing is promised of delivery, callouts are not repeated, and long transactions commit late",
    )
    _verb: ClassVar[str] = "query"  # what lists are asked by

    @property
    def _root(self) -> str:
        return f"/services/data/{self.config.api_version or self.api_version}"

    async def check(self, api: Api) -> Checked:
        found = (await api.send(Request(operation="check", path="/services/oauth2/userinfo"))).json()
        return Checked(account=str(found["organization_id"]))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        name = self.kinds[kind].object
        answer = await api.send(Request(operation=f"{kind}.describe", path=f"{self._root}/sobjects/{name}/describe"))
        fields = {each["name"]: _field(each) for each in answer.json()["fields"]}
        # What security hides is left out of the answer, as if it were not there; an org with one currency has no code.
        for path in _mapped(self.kinds[kind].mapping) - fields.keys() - {"CurrencyIsoCode"}:
            fields[path] = FieldMeta(name=path, path=path, type="TEXT", label=path, readable=False, writable=False)
        return ObjectType(name=name, fields=fields, stages=await self._stages(api) if kind == "deal" else {})

    async def _stages(self, api: Api) -> dict[str, Stage]:
        rows = await self._query(
            api, "deal.stages", "SELECT MasterLabel, ApiName, IsClosed, IsWon, DefaultProbability FROM OpportunityStage"
        )
        return {each["MasterLabel"]: _stage(each) for each in rows}

    async def _known(self, api: Api, kind: Kind, fields: Sequence[str]) -> list[str]:
        """Return the fields this org has: CurrencyIsoCode is there only with several currencies, security hides others."""
        return _present(await api.described(kind), fields)

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 2,000) composite reads, which keep the order and say null for what is missing."""
        return await self._collected(api, kind, self.kinds[kind].object, ids, await self._known(api, kind, fields))

    async def _collected(self, api: Api, what: str, name: str, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        path = f"{self._root}/composite/sobjects/{name}"
        asked = [
            api.send(
                Request(operation=f"{what}.read", method="POST", path=path, json={"ids": list(some), "fields": list(fields)})
            )
            for some in batches(ids, _COLLECTION)
        ]
        return list(chain.from_iterable(answer.json() for answer in await asyncio.gather(*asked)))

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """ceil(parents / 400) queries, more where many fields make them long: children come with the role or the lookup that ties
        them to their parent."""
        names = await self._known(api, kind, fields)
        child, parent = self.kinds[kind].object, self.kinds[of].object
        by_role = {of, kind} == {"contact", "deal"}
        if by_role:
            tie = f"{parent}Id"
            select = f"SELECT {tie}, IsPrimary, {', '.join(f'{child}.{name}' for name in names)} FROM {ROLES}"
            where, order = f" AND {child}.IsDeleted = false", f"IsPrimary DESC, {child}.CreatedDate, Id"
        else:
            tie = "AccountId"
            select, where, order = f"SELECT {', '.join(dict.fromkeys([tie, *names]))} FROM {child}", "", "CreatedDate, Id"
        queries = _queries(ids, _IN, lambda some: f"{select} WHERE {tie} IN ({_literals(some)}){where} ORDER BY {order}")
        asked = [self._query(api, f"{of}.{kind}", query) for query in queries]
        found: dict[str, list[Row]] = {}
        for row in chain.from_iterable(await asyncio.gather(*asked)):
            found.setdefault(row[tie], []).append(row[child] if by_role else row)
        return [Related(rows=found.get(id, [])) for id in ids]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 400) queries by e-mail, more where addresses are long; ceil(values / 100) searches by phone (SOSL compares
        digits, not spelling); ceil(values / 50) queries by domain, which stands somewhere in a web address.
        """
        names = await self._known(api, kind, fields)
        name = self.kinds[kind].object
        if key == "email":
            queries = _queries(
                values, _IN, lambda some: f"SELECT {', '.join(names)} FROM {name} WHERE Email IN ({_literals(some)})"
            )
            asked = [self._query(api, f"{kind}.find", query) for query in queries]
        elif key == "domain":
            likes = [" OR ".join(f"Website LIKE {_containing(value)}" for value in some) for some in batches(values, _LIKE)]
            asked = [self._query(api, f"{kind}.find", f"SELECT {', '.join(names)} FROM {name} WHERE {like}") for like in likes]
        else:
            asked = [self._sosl(api, kind, some, names) for some in batches(values, 100)]
        return list({row["Id"]: row for row in chain.from_iterable(await asyncio.gather(*asked))}.values())

    async def _sosl(self, api: Api, kind: Kind, phones: Sequence[str], names: Sequence[str]) -> list[Row]:
        terms = " OR ".join(f'"{phone.removeprefix("+")}"' for phone in phones)
        search = f"FIND {{{terms}}} IN PHONE FIELDS RETURNING {self.kinds[kind].object}({', '.join(names)})"
        answer = await api.send(Request(operation=f"{kind}.search", path=f"{self._root}/search", params=[("q", search)]))
        rows: list[Row] = answer.json()["searchRecords"]
        return rows

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One query a page: SOQL orders by time and id and can start after any such pair."""
        names = await self._known(api, kind, scan.fields)
        column = "CreatedDate" if scan.order == "created" else "SystemModstamp"
        way, beyond = ("DESC", "<") if scan.descending else ("ASC", ">")
        tests = []
        if scan.after is not None:
            at, id = _datetime(scan.after.at), _quoted(scan.after.native_id)
            tests.append(f"({column} {beyond} {at} OR ({column} = {at} AND Id {beyond} {id}))")
        if scan.updated_since is not None:
            tests.append(f"SystemModstamp >= {_datetime(scan.updated_since)}")
        if scan.updated_before is not None:
            tests.append(f"SystemModstamp < {_datetime(scan.updated_before)}")
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        soql = (
            f"SELECT {', '.join(names)} FROM {self.kinds[kind].object}{where} ORDER BY {column} {way}, Id {way} LIMIT {scan.size}"
        )
        rows = await self._query(api, f"{kind}.scan", soql, verb=self._verb)
        return Page(rows=rows, end=len(rows) < scan.size)

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        return await changes(_Whole(self.config), api, kind, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def _query(self, api: Api, operation: str, soql: str, *, verb: str = "query") -> list[Row]:
        found = (await api.send(Request(operation=operation, path=f"{self._root}/{verb}", params=[("q", soql)]))).json()
        rows: list[Row] = found["records"]
        while not found["done"]:
            found = (await api.send(Request(operation=operation, path=found["nextRecordsUrl"]))).json()
            rows += found["records"]
        return rows

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        names = {kind: facts.object for kind, facts in self.kinds.items()}
        writer = Writer(self._root, names, self.config.currency, self.read, self._query, self.today)
        return await writer.write(api, kind, writes)

    @staticmethod
    def today() -> date:
        return datetime.now(UTC).date()

    async def objects(self, api: Api) -> list[ObjectType]:
        """One list, and ceil(objects / 25) batches of descriptions."""
        found = (await api.send(Request(operation="objects", path=f"{self._root}/sobjects"))).json()["sobjects"]
        names = [
            each["name"] for each in found if each["name"].endswith("__c") and each["queryable"] and not each.get("customSetting")
        ]
        version = self._root.rsplit("/", 1)[-1]
        described: list[Row] = []
        for some in batches(names, _DESCRIBES):
            asked = [{"method": "GET", "url": f"{version}/sobjects/{name}/describe"} for name in some]
            request = Request(
                operation="objects.describe", method="POST", path=f"{self._root}/composite/batch", json={"batchRequests": asked}
            )
            for result in (await api.send(request)).json()["results"]:
                if result["statusCode"] != 200:
                    raise RejectedError("an object cannot be described", status=result["statusCode"])
                described.append(result["result"])
        return [
            ObjectType(name=each["name"], label=each["label"], custom=True, id_path="Id", fields={field["name"]: _field(field) for field in each["fields"]})
            for each in described
        ]  # fmt: skip

    async def read_custom(self, api: Api, object: ObjectType, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 2,000) composite reads."""
        return await self._collected(api, "custom", object.name, ids, _present(object, fields))

    async def scan_custom(
        self, api: Api, object: ObjectType, *, after: str | None, size: int, fields: Sequence[str]
    ) -> CustomPage:
        """One query a page, by id."""
        where = f" WHERE Id > {_quoted(after)}" if after else ""
        soql = f"SELECT {', '.join(_present(object, fields))} FROM {object.name}{where} ORDER BY Id LIMIT {size}"
        rows = await self._query(api, "custom.scan", soql)
        return CustomPage(rows=rows, next=rows[-1]["Id"] if len(rows) == size else None)

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        if isinstance(body, dict) and (token_error := code_in(body.get("error"))):
            return _token_fault(token_error, str(body.get("error_description") or ""), status=response.status)
        said = body[0] if isinstance(body, list) and body and isinstance(body[0], dict) else {}
        code, message = code_in(said.get("errorCode")), str(said.get("message") or "")
        facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
        if code == "REQUEST_LIMIT_EXCEEDED":
            # Quota is a 403: too many at once passes soon, the day's total does not (a rolling 24 hours: look again in an hour).
            if _CONCURRENCY.search(message):
                return ThrottledError("too many calls at once", retry_after=2.0, **facts)
            return ExhaustedError("the daily quota is used up", retry_after=3600.0, **facts)
        if code == "INVALID_SESSION_ID" or response.status == 401:
            return TokenExpiredError("the session is not accepted", **facts)
        if response.status >= 500:
            return UnavailableError("not available", **facts)
        if response.status == 412:
            return StaleVersionError("the record changed since the version that was named", **facts)
        if response.status == 403:
            return SourceForbiddenError(f"not allowed: {code}" if code else "not allowed", **facts)
        if not said:
            return undocumented(response)
        return refusal(code, status=response.status)

    def learn(self, response: Response) -> Sequence[Learned]:
        used = re.search(r"api-usage=(\d+)/(\d+)", response.headers.get("sforce-limit-info", ""))
        return [Learned(window="daily", limit=float(used[2]), remaining=float(used[2]) - float(used[1]))] if used else []

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        web = self.config.web_url
        return f"{web}/lightning/r/{self.kinds[kind].object}/{native_id}/view" if web else None


class _Whole(Salesforce):
    """The same org with what is in its recycle bin."""

    _verb = "queryAll"


def _present(meta: ObjectType, fields: Sequence[str]) -> list[str]:
    return ["Id", *(path for path in fields if path != "Id" and (known := meta.fields.get(path)) and known.readable)]


def _mapped(mapping: Mapping[str, Any]) -> set[str]:
    """Return the fields that our mapping reads."""
    rules = Document.model_validate({"fields": mapping}).fields.values()
    return {path for rule in rules for path in rule.native_paths() if "." not in path}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _containing(text: str) -> str:
    escaped = _quoted(text)[1:-1].replace("%", "\\%").replace("_", "\\_")
    return f"'%{escaped}%'"


def _token_fault(code: str, words: str, *, status: int) -> SourceError:
    """Return what the token endpoint's error means: an object, where the API's own are arrays."""
    if "login rate exceeded" in words.lower():  # 3,600 logins an hour, under the code of a dead grant
        return ThrottledError("too many logins", status=status, upstream_code=code, retry_after=60.0)
    if status >= 500:
        return UnavailableError("not available", status=status, upstream_code=code)
    return RejectedError(f"the token endpoint refused: {code}", status=status, upstream_code=code)


def _queries(values: Sequence[str], most: int, query: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """Yield queries over all the values, each over at most so many, and short enough for an address."""
    for some in batches(values, most):
        text = query(some)
        if len(some) > 1 and len(quote_plus(text)) > _TEXT:
            yield from _queries(some, -(-len(some) // 2), query)
        else:
            yield text


def _literals(values: Sequence[str]) -> str:
    return ", ".join(_quoted(value) for value in values)


def _datetime(moment: datetime) -> str:
    # SOQL datetimes are bare, never quoted.
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _field(each: Row) -> FieldMeta:
    options = {value["value"]: value["label"] for value in each.get("picklistValues") or ()}
    return FieldMeta(
        name=each["name"], path=each["name"], type="FORMULA" if each.get("calculated") else _TYPES.get(each["type"], "TEXT"),
        label=each["label"], custom=each["custom"], writable=each["updateable"], options=options,
    )  # fmt: skip


def _stage(each: Row) -> Stage:
    category: StageCategory = ("WON" if each["IsWon"] else "LOST") if each["IsClosed"] else "OPEN"
    return Stage(
        id=each["ApiName"], name=each["MasterLabel"], category=category, pipeline=None, native=each["MasterLabel"],
        probability=each["DefaultProbability"] / 100,
    )  # fmt: skip
