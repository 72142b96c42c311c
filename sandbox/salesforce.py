"""Salesforce's dialect: SOQL and SOSL, composite collections, 18-character ids, errors in arrays, quota as a 403.

Written from the REST API developer guide's facts (query, queryAll, sobjects, composite, limits, OAuth) and the field
lists of the standard objects. One multi-currency org, Enterprise edition.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from model.keys import normal_phone
from sandbox import soql
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.soql import MalformedQuery, Ordering, Query
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, User, World

VERSION = "v60.0"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "3MVG9-demo", "salesforce-demo-secret", "5Aep861-demo-refresh"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DESCRIBED_AT = datetime(2026, 1, 5, tzinfo=UTC)
_STAGES = (
    ("Prospecting", 10, False, False), ("Qualification", 10, False, False), ("Needs Analysis", 20, False, False),
    ("Proposal/Price Quote", 75, False, False), ("Negotiation/Review", 90, False, False), ("Closed Won", 100, True, True), ("Closed Lost", 0, True, False),
)  # fmt: skip
_TIERS, _REGIONS = ("Gold", "Silver", "Bronze"), ("EMEA", "AMER", "APAC")
_SYSTEM = {
    "Id": "id", "OwnerId": "reference", "CurrencyIsoCode": "picklist", "CreatedDate": "datetime", "LastModifiedDate": "datetime",
    "SystemModstamp": "datetime", "IsDeleted": "boolean",
}  # fmt: skip
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Contact": {
        **_SYSTEM, "MasterRecordId": "reference", "AccountId": "reference", "FirstName": "string", "LastName": "string", "Name": "string", "Email": "email", "Phone": "phone",
        "MobilePhone": "phone", "HomePhone": "phone", "Title": "string", "Department": "string", "MailingCountry": "string", "LeadSource": "picklist",
        "HasOptedOutOfEmail": "boolean", "Description": "textarea", "Loyalty_Tier__c": "picklist", "Newsletter__c": "boolean", "Score__c": "double",
    },
    "Account": {
        **_SYSTEM, "MasterRecordId": "reference", "Name": "string", "Type": "picklist", "ParentId": "reference", "Website": "url", "Phone": "phone", "Industry": "picklist",
        "AnnualRevenue": "currency", "NumberOfEmployees": "int", "BillingCountry": "string", "Description": "textarea",
    },
    "Opportunity": {
        **_SYSTEM, "AccountId": "reference", "Name": "string", "StageName": "picklist", "CloseDate": "date", "Amount": "currency", "Probability": "percent",
        "ForecastCategory": "picklist", "Type": "picklist", "LeadSource": "picklist", "NextStep": "string", "IsClosed": "boolean", "IsWon": "boolean",
        "Description": "textarea", "Region__c": "picklist",
    },
    "Lead": {
        **_SYSTEM, "MasterRecordId": "reference", "FirstName": "string", "LastName": "string", "Name": "string", "Company": "string", "Email": "email", "Phone": "phone",
        "MobilePhone": "phone", "Title": "string", "Status": "picklist", "LeadSource": "picklist", "Rating": "picklist", "IsConverted": "boolean",
        "Lead_Score__c": "double",
    },
    "User": {
        "Id": "id", "Username": "string", "Email": "email", "Name": "string", "FirstName": "string", "LastName": "string", "IsActive": "boolean",
        "TimeZoneSidKey": "picklist", "CreatedDate": "datetime", "LastModifiedDate": "datetime", "SystemModstamp": "datetime",
    },
    "OpportunityContactRole": {
        "Id": "id", "OpportunityId": "reference", "ContactId": "reference", "Role": "picklist", "IsPrimary": "boolean", "CreatedDate": "datetime",
        "LastModifiedDate": "datetime", "SystemModstamp": "datetime", "IsDeleted": "boolean",
    },
    "OpportunityStage": {
        "Id": "id", "MasterLabel": "string", "ApiName": "string", "IsActive": "boolean", "IsClosed": "boolean", "IsWon": "boolean",
        "DefaultProbability": "percent", "SortOrder": "int", "ForecastCategoryName": "string",
    },
}  # fmt: skip
_PICKLISTS: Mapping[str, Sequence[str]] = {
    "Loyalty_Tier__c": _TIERS, "Region__c": _REGIONS, "StageName": [each[0] for each in _STAGES], "CurrencyIsoCode": ("USD", "EUR", "GBP"),
    "Status": ("Open - Not Contacted", "Working - Contacted", "Closed - Converted", "Closed - Not Converted"),
}  # fmt: skip
_PARENTS: Mapping[tuple[str, str], tuple[str, str]] = {  # (object, relationship) → (lookup field, object)
    ("Contact", "Account"): ("AccountId", "Account"), ("Opportunity", "Account"): ("AccountId", "Account"), ("Account", "Parent"): ("ParentId", "Account"),
    ("OpportunityContactRole", "Opportunity"): ("OpportunityId", "Opportunity"), ("OpportunityContactRole", "Contact"): ("ContactId", "Contact"),
    ("Contact", "Owner"): ("OwnerId", "User"), ("Account", "Owner"): ("OwnerId", "User"), ("Opportunity", "Owner"): ("OwnerId", "User"), ("Lead", "Owner"): ("OwnerId", "User"),
}  # fmt: skip
_CHILDREN: Mapping[tuple[str, str], tuple[str, str]] = {  # (object, relationship) → (child object, lookup field)
    ("Account", "Contacts"): ("Contact", "AccountId"), ("Account", "Opportunities"): ("Opportunity", "AccountId"),
    ("Contact", "OpportunityContactRoles"): ("OpportunityContactRole", "ContactId"), ("Opportunity", "OpportunityContactRoles"): ("OpportunityContactRole", "OpportunityId"),
}  # fmt: skip
_CREATED = ("CreatedDate", "SystemModstamp", "LastModifiedDate")


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.response = _error(status, code, message)


class Salesforce(Dialect):
    """One org with 100,000 calls in 24 hours."""

    name = "salesforce"
    objects = {"contact": "Contact", "account": "Account", "deal": "Opportunity", "lead": "Lead", "owner": "User"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=7200, rotate=True)  # refresh token rotation is switched on
        self.tokens.grant(REFRESH_TOKEN)
        self._daily = RollingWindow(clock, limit=100_000, period=86_400)
        self._cursors: dict[str, list[Row]] = {}
        profiles, leads, deals = world.profiles[self.name], world.leads[self.name], world.deals[self.name]
        used = {each.company for each in profiles} | {each.company for each in deals}
        self.tables = {
            "contact": _table({sf_id("003", each.id): each for each in profiles}, self._contact, _person_indexes()),
            "account": _table({sf_id("001", each.id): each for each in world.companies if each.id in used}, self._account, {}),
            "deal": _table({sf_id("006", each.id): each for each in deals}, self._opportunity, {
                "AccountId": Column(lambda each: sf_id("001", each.company) if each.company else None, lambda row: row["AccountId"]),
            }),
            "lead": _table({sf_id("00Q", each.id): each for each in leads}, self._lead, _person_indexes()),
            "owner": Table({sf_id("005", each.id): each for each in world.users}, _user),
        }  # fmt: skip
        roles = {
            sf_id("00K", deal.id * 4 + nth): (deal, contact, nth) for deal in deals for nth, contact in enumerate(deal.contacts)
        }
        self._by_object: dict[str, Table[Any]] = {
            **{self.objects[kind]: table for kind, table in self.tables.items()},
            "OpportunityContactRole": Table(roles, self._role, indexes={
                "ContactId": Column(lambda each: sf_id("003", each[1]), lambda row: row["ContactId"]),
                "OpportunityId": Column(lambda each: sf_id("006", each[0].id), lambda row: row["OpportunityId"]),
            }),
            "OpportunityStage": Table({sf_id("01J", at): at for at in range(len(_STAGES))}, _stage),
        }  # fmt: skip

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        root = f"/services/data/{VERSION}"
        return [
            Endpoint("POST", "/services/oauth2/token", self._token, open=True),
            Endpoint("GET", "/services/data", self._versions, open=True),
            Endpoint("GET", "/services/data/", self._versions, open=True),
            Endpoint("GET", "/services/oauth2/userinfo", self._userinfo),
            *(
                Endpoint("GET", f"{root}/{verb}{slash}", handler)
                for verb, handler in (("query", self._query), ("queryAll", self._query_all))
                for slash in ("", "/")
            ),
            Endpoint("GET", f"{root}/query/{{locator}}", self._more),
            Endpoint("GET", f"{root}/search", self._search),
            Endpoint("GET", f"{root}/search/", self._search),
            Endpoint("GET", f"{root}/limits", self._limits),
            Endpoint("GET", f"{root}/limits/", self._limits),
            Endpoint("GET", f"{root}/sobjects", self._sobjects),
            Endpoint("GET", f"{root}/sobjects/", self._sobjects),
            Endpoint("GET", f"{root}/sobjects/{{object}}/describe", self._describe),
            Endpoint("GET", f"{root}/sobjects/{{object}}/{{id}}", self._get),
            Endpoint("POST", f"{root}/composite/sobjects/{{object}}", self._collection),
            Endpoint("POST", f"{root}/composite/batch", self._batch),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme not in {"Bearer", "OAuth"} or self.tokens.valid(token) is None:
            return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        return None if self._daily.take() else self.exhausted()

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open:
            response.headers["Sforce-Limit-Info"] = f"api-usage={self._daily.limit - self._daily.remaining}/{self._daily.limit}"
        return response

    def throttled(self, seconds: float) -> Response:
        return _error(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.")

    def exhausted(self) -> Response:
        return _error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")

    def unknown(self, request: Request) -> Response:
        return _error(404, "NOT_FOUND", "The requested resource does not exist")

    def native(self, kind: str, world_id: int) -> str:
        return sf_id({"contact": "003", "account": "001", "deal": "006", "lead": "00Q", "owner": "005"}[kind], world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        now = _datetime(self.clock.time() * 1000)
        row = {**row, **fields, "LastModifiedDate": now, "SystemModstamp": now}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        row = self.tables[kind].get(native_id)
        if row is None or row.get("IsDeleted"):
            return False
        return self.change(kind, native_id, {"IsDeleted": True}) is not None

    # ---- OAuth ----

    async def _token(self, request: Request) -> Response:
        said = await form(request)
        if said.get("client_id") != CLIENT_ID:
            return _token_error("invalid_client_id", "client identifier invalid")
        if said.get("client_secret") != CLIENT_SECRET:
            return _token_error("invalid_client", "invalid client credentials")
        grant = said.get("grant_type")
        body = {
            "instance_url": self.base_url or f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}", "id": "https://login.salesforce.com/id/00Dxx0000000001EAA/005xx000001Sv6AAAS",
            "token_type": "Bearer", "issued_at": str(int(self.clock.time() * 1000)), "scope": "refresh_token api", "signature": secrets.token_hex(16),
        }  # fmt: skip
        if grant == "client_credentials":
            return json_response({"access_token": self.tokens.issue(CLIENT_ID, prefix="00Dxx0000000001!"), **body})
        if grant != "refresh_token":
            return _token_error("unsupported_grant_type", "grant type not supported")
        following = self.tokens.refresh(str(said.get("refresh_token", "")), prefix="5Aep861")
        if following is None:
            return _token_error("invalid_grant", "expired access/refresh token")
        return json_response(
            {"access_token": self.tokens.issue(CLIENT_ID, prefix="00Dxx0000000001!"), "refresh_token": following, **body}
        )

    async def _versions(self, _: Request) -> Response:
        return json_response([{"label": "Spring '24", "url": f"/services/data/{VERSION}", "version": VERSION.removeprefix("v")}])

    async def _userinfo(self, _: Request) -> Response:
        return json_response(
            {"user_id": sf_id("005", 1), "organization_id": "00Dxx0000000001EAA", "preferred_username": "demo@c360-demo.example"}
        )

    async def _limits(self, _: Request) -> Response:
        return json_response(
            {
                "DailyApiRequests": {"Max": self._daily.limit, "Remaining": self._daily.remaining},
                "DailyBulkV2QueryJobs": {"Max": 10000, "Remaining": 10000},
            }
        )

    # ---- metadata ----

    async def _sobjects(self, _: Request) -> Response:
        found = [
            {
                "name": name,
                "label": name,
                "queryable": True,
                "custom": False,
                "urls": {"describe": f"/services/data/{VERSION}/sobjects/{name}/describe"},
            }
            for name in FIELDS
        ]
        return json_response({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": found})

    async def _describe(self, request: Request) -> Response:
        name = request.path_params["object"]
        if name not in FIELDS:
            return self.unknown(request)
        since = request.headers.get("if-modified-since")
        if since is not None and parsedate_to_datetime(since) >= _DESCRIBED_AT:
            return Response(status_code=304)
        fields = [_described(field, type) for field, type in FIELDS[name].items()]
        body = {
            "name": name,
            "label": name,
            "custom": False,
            "keyPrefix": {"Contact": "003", "Account": "001", "Opportunity": "006", "Lead": "00Q", "User": "005"}.get(name),
            "queryable": True,
            "fields": fields,
        }
        return json_response(body, headers={"Last-Modified": format_datetime(_DESCRIBED_AT, usegmt=True)})

    # ---- records ----

    async def _get(self, request: Request) -> Response:
        name, id = request.path_params["object"], request.path_params["id"]
        row = self._row(name, id) if name in self._by_object else None
        if row is None:
            return self.unknown(request)
        if row.get("IsDeleted"):
            return _error(404, "ENTITY_IS_DELETED", "entity is deleted")
        asked = request.query_params.get("fields")
        names = asked.split(",") if asked else list(FIELDS[name])
        try:
            return json_response(self._shown(name, row, names))
        except _Refusal as refusal:
            return refusal.response

    async def _collection(self, request: Request) -> Response:
        name = request.path_params["object"]
        if name not in FIELDS:
            return self.unknown(request)
        try:
            asked = orjson.loads(await request.body())
            ids, names = asked["ids"], asked["fields"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return _error(400, "JSON_PARSER_ERROR", "ids and fields are required")
        if len(ids) > 2000:
            return _error(400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 2000 records in this call")
        try:
            rows = (self._row(name, id) for id in ids)
            return json_response([self._shown(name, row, names) if row and not row.get("IsDeleted") else None for row in rows])
        except _Refusal as refusal:
            return refusal.response

    async def _batch(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())["batchRequests"]
        if len(asked) > 25:
            return _error(400, "INVALID_BATCH_SIZE", "at most 25 subrequests")
        results = []
        for each in asked:
            path, _, query = each["url"].partition("?")
            answer = await self._routed(request, path, query)
            results.append({"statusCode": answer.status_code, "result": orjson.loads(bytes(answer.body))})
        return json_response({"hasErrors": any(each["statusCode"] >= 400 for each in results), "results": results})

    async def _routed(self, request: Request, path: str, query: str) -> Response:
        parts = path.removeprefix("/services/data/").split("/")
        scope = {**request.scope, "query_string": query.encode(), "path_params": {}}
        if parts[1:2] == ["limits"]:
            return await self._limits(request)
        if parts[1:2] == ["query"]:
            return await self._query(Request(scope))
        if parts[1:2] == ["sobjects"] and len(parts) == 4:
            scope["path_params"] = {"object": parts[2], "id": parts[3]}
            return await (self._describe if parts[3] == "describe" else self._get)(Request(scope))
        return self.unknown(request)

    def _row(self, name: str, id: str) -> Row | None:
        table = self._by_object[name]
        return table.get(id if len(id) == 18 else id + _checksum(id)) if len(id) in {15, 18} else None

    # ---- SOQL ----

    async def _query(self, request: Request) -> Response:
        return self._answer(request, deleted=False)

    async def _query_all(self, request: Request) -> Response:
        return self._answer(request, deleted=True)

    def _answer(self, request: Request, *, deleted: bool) -> Response:
        text = request.query_params.get("q")
        if not text:
            return _error(400, "MALFORMED_QUERY", "SOQL query is missing")
        try:
            query = soql.parse(text)
            rows = self._run(query, deleted=deleted)
        except MalformedQuery as error:
            return _error(400, "MALFORMED_QUERY", str(error))
        except _Refusal as refusal:
            return refusal.response
        if query.count:
            return json_response({"totalSize": len(rows), "done": True, "records": []})
        return self._envelope(request, rows)

    def _envelope(self, request: Request, rows: list[Row]) -> Response:
        hint = re.search(r"batchSize=(\d+)", request.headers.get("sforce-query-options", ""))
        size = min(max(int(hint[1]), 200), 2000) if hint else 2000
        if len(rows) <= size:
            return json_response({"totalSize": len(rows), "done": True, "records": rows})
        locator = "01g" + secrets.token_hex(6)
        self._cursors[locator] = rows
        while len(self._cursors) > 10:  # a user holds ten open cursors; the oldest is dropped
            del self._cursors[next(iter(self._cursors))]
        return self._page(locator, 0, size)

    def _page(self, locator: str, start: int, size: int) -> Response:
        rows = self._cursors[locator]
        done = start + size >= len(rows)
        body: Row = {"totalSize": len(rows), "done": done, "records": rows[start : start + size]}
        if not done:
            body["nextRecordsUrl"] = f"/services/data/{VERSION}/query/{locator}-{start + size}-{size}"
        return json_response(body)

    async def _more(self, request: Request) -> Response:
        locator, start, size = [*request.path_params["locator"].split("-"), "", ""][:3]
        if locator not in self._cursors or not start.isdigit() or not size.isdigit():
            return _error(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(locator, int(start), int(size))

    def _run(self, query: Query, *, deleted: bool) -> list[Row]:
        if query.table not in self._by_object:
            raise _Refusal(400, "INVALID_TYPE", f"sObject type '{query.table}' is not supported.")
        for path in (
            *query.paths,
            *(each.path for each in query.order),
            *(each.path for each in soql.comparisons(query.condition)),
        ):
            self._resolve(query.table, path)
        if (query.offset or 0) > 2000:
            raise _Refusal(400, "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        matching = (
            row
            for row in self._candidates(query)
            if (deleted or not row.get("IsDeleted")) and soql.holds(query.condition, partial(self._comparable, query.table, row))
        )
        rows = self._ordered(query, matching)
        end = None if query.limit is None else query.offset + query.limit
        return [
            {"attributes": {}} if query.count else self._shown(query.table, row, query.paths, query.children)
            for row in rows[query.offset : end]
        ]

    def _ordered(self, query: Query, rows: Iterator[Row]) -> list[Row]:
        """Sort; rows that come in the order asked already are taken only as far as the limit reaches."""
        if self._walks(query) and query.limit is not None:
            wanted, found = query.offset + query.limit, []
            for row in rows:
                found.append(row)
                if len(found) == wanted:
                    break
            return found
        found = list(rows)
        for order in reversed(query.order):
            found.sort(key=lambda row, order=order: self._sort_key(query.table, row, order), reverse=order.descending)  # type: ignore[misc]
        return found

    def _walks(self, query: Query) -> bool:
        """The table can be walked in exactly the order asked: (time, id), both in one direction."""
        paths = [each.path for each in query.order]
        one_way = len({each.descending for each in query.order}) == 1
        return (
            query.table in {"Contact", "Account", "Opportunity", "Lead"}
            and one_way
            and len(paths) == 2
            and paths[0] in _CREATED
            and paths[1] == "Id"
            and self._lookup(query) is None
        )

    def _sort_key(self, table: str, row: Row, order: Ordering) -> tuple[bool, Any]:
        value = self._comparable(table, row, order.path)
        nulls_high = order.nulls_last != order.descending
        return (
            (value is None) == nulls_high,
            value.lower() if isinstance(value, str) and order.path != "Id" else value or 0 if value is None else value,
        )

    def _candidates(self, query: Query) -> Iterable[Row]:
        table = self._by_object[query.table]
        if (rows := self._lookup(query)) is not None:
            return rows
        if self._walks(query):
            order = query.order[0]
            start = soql.bound(query.condition, order.path, upper=order.descending)
            name = "created" if order.path == "CreatedDate" else "updated"
            return table.walk(name, start=_millis(start) if start is not None else None, descending=order.descending)
        return table

    def _lookup(self, query: Query) -> list[Row] | None:
        table = self._by_object[query.table]
        if (ids := soql.equals(query.condition, "Id")) is not None:
            return [row for id in ids if (row := self._row(query.table, str(id))) is not None]
        for index in table.indexed:
            values = soql.equals(query.condition, index)
            if values is not None:
                return table.having(
                    index, [value.lower() if index == "Email" and isinstance(value, str) else value for value in values]
                )
        return None

    def _resolve(self, table: str, path: str) -> None:
        """Raise the vendor's error unless the path leads to a field."""
        *steps, field = path.split(".")
        at = table
        for step in steps:
            parent = _PARENTS.get((at, step))
            if parent is None:
                raise _Refusal(
                    400,
                    "INVALID_FIELD",
                    f"\nSELECT {path} FROM {table}\n       ^\nERROR at Row:1:Column:8\nDidn't understand relationship '{step}' in field path.",
                )
            at = parent[1]
        if field not in FIELDS[at]:
            raise _Refusal(
                400,
                "INVALID_FIELD",
                f"\nSELECT {path} FROM {table}\n       ^\nERROR at Row:1:Column:8\nNo such column '{field}' on entity '{at}'. If you are attempting to use a custom field, be sure to append the '__c' after the custom field name.",
            )

    def _value(self, table: str, row: Row, path: str) -> Any:
        step, _, rest = path.partition(".")
        if not rest:
            return row.get(step)
        lookup, parent = _PARENTS[table, step]
        above = self._by_object[parent].get(row.get(lookup) or "")
        return self._value(parent, above, rest) if above is not None else None

    def _comparable(self, table: str, row: Row, path: str) -> Any:
        value = self._value(table, row, path)
        return _moment(value) if isinstance(value, str) and path.split(".")[-1] in _CREATED else value

    def _shown(self, table: str, row: Row, paths: Iterable[str], children: Sequence[Query] = ()) -> Row:
        shown: Row = {"attributes": {"type": table, "url": f"/services/data/{VERSION}/sobjects/{table}/{row['Id']}"}}
        nested: dict[str, list[str]] = {}
        for path in paths:
            step, _, rest = path.partition(".")
            if rest:
                nested.setdefault(step, []).append(rest)
            else:
                self._resolve(table, path)
                shown[path] = row.get(path)
        for step, rests in nested.items():
            self._resolve(table, f"{step}.{rests[0]}")
            lookup, parent = _PARENTS[table, step]
            above = self._by_object[parent].get(row.get(lookup) or "")
            shown[step] = self._shown(parent, above, rests) if above is not None else None
        for child in children:
            relation = _CHILDREN.get((table, child.table))
            if relation is None:
                raise _Refusal(400, "INVALID_TYPE", f"Didn't understand relationship '{child.table}' in FROM part of query call.")
            name, lookup = relation
            rows = [each for each in self._by_object[name].having(lookup, [row["Id"]]) if not each.get("IsDeleted")]
            kept = [each for each in rows if soql.holds(child.condition, partial(self._comparable, name, each))]
            shown[child.table] = (
                {
                    "totalSize": len(kept),
                    "done": True,
                    "records": [self._shown(name, each, child.paths) for each in kept[: child.limit]],
                }
                if kept
                else None
            )
        return shown

    # ---- SOSL ----

    async def _search(self, request: Request) -> Response:
        text = request.query_params.get("q", "")
        asked = re.fullmatch(
            r"\s*FIND\s*\{(?P<terms>.*)\}\s*IN\s+(?P<scope>EMAIL|PHONE|ALL|NAME)\s+FIELDS\s+RETURNING\s+(?P<object>\w+)\s*\((?P<fields>[^)]*)\)\s*",
            text,
            re.IGNORECASE | re.DOTALL,
        )
        if asked is None or asked["object"] not in FIELDS:
            return _error(400, "MALFORMED_SEARCH", "unexpected token: FIND")
        index = "digits" if asked["scope"].upper() == "PHONE" else "Email"
        table = self._by_object[asked["object"]]
        if index not in table.indexed:
            return json_response({"searchRecords": []})
        terms = [term.strip().strip('"').replace("\\", "") for term in re.split(r"\s+OR\s+", asked["terms"], flags=re.IGNORECASE)]
        values = [re.sub(r"\D", "", term) if index == "digits" else term.lower() for term in terms]
        names = [each.strip() for each in asked["fields"].split(",")]
        try:
            rows = [self._shown(asked["object"], row, names) for row in table.having(index, values) if not row.get("IsDeleted")]
        except _Refusal as refusal:
            return refusal.response
        return json_response({"searchRecords": rows[:2000]})

    # ---- rendering ----

    def _contact(self, each: Profile) -> Row:
        return {
            "Id": sf_id("003", each.id), "MasterRecordId": sf_id("003", each.merged_into) if each.merged_into else None, "AccountId": sf_id("001", each.company) if each.company else None,
            **_names(each), "Email": each.email, "Phone": each.phone, "MobilePhone": None, "HomePhone": None, "Title": each.title, "Department": None,
            "MailingCountry": each.country, "LeadSource": "Web", "HasOptedOutOfEmail": False, "Description": None,
            "Loyalty_Tier__c": _TIERS[each.number % 3], "Newsletter__c": each.number % 2 == 0, "Score__c": float(each.number),
            **_stamps(each.owner, each.created, each.updated, each.country), "IsDeleted": each.deleted,
        }  # fmt: skip

    def _lead(self, each: Profile) -> Row:
        return {
            "Id": sf_id("00Q", each.id), "MasterRecordId": None, **_names(each), "Company": self.world.companies[each.company - 1].name if each.company else "Self-employed",
            "Email": each.email, "Phone": each.phone, "MobilePhone": None, "Title": each.title, "Status": ("Open - Not Contacted", "Working - Contacted")[each.number % 2],
            "LeadSource": "Web", "Rating": ("Hot", "Warm", "Cold")[each.number % 3], "IsConverted": False, "Lead_Score__c": float(each.number % 100),
            **_stamps(each.owner, each.created, each.updated, each.country), "IsDeleted": each.deleted,
        }  # fmt: skip

    def _account(self, each: Company) -> Row:
        return {
            "Id": sf_id("001", each.id), "MasterRecordId": None, "Name": each.name, "Type": "Customer", "ParentId": None, "Website": f"https://www.{each.domain}", "Phone": None,
            "Industry": each.industry, "AnnualRevenue": each.employees * 100_000.0, "NumberOfEmployees": each.employees, "BillingCountry": each.country, "Description": None,
            **_stamps(1, each.created, each.created, each.country), "IsDeleted": False,
        }  # fmt: skip

    def _opportunity(self, each: Deal) -> Row:
        stage, probability, closed, won = _STAGES[each.stage]
        row: Row = {
            "Id": sf_id("006", each.id), "AccountId": sf_id("001", each.company) if each.company else None, "Name": each.name, "StageName": stage, "CloseDate": _datetime(each.close)[:10],
            "Amount": each.cents / 100, "Probability": float(probability), "ForecastCategory": "Pipeline", "Type": "New Customer", "LeadSource": "Web", "NextStep": None,
            "IsClosed": closed, "IsWon": won, "Description": None, "Region__c": _REGIONS[each.number % 3], **_stamps(each.owner, each.created, each.updated, "US"), "IsDeleted": each.deleted,
        }  # fmt: skip
        return {**row, "CurrencyIsoCode": each.currency}

    def _role(self, each: tuple[Deal, int, int]) -> Row:
        deal, contact, nth = each
        stamps = _stamps(1, deal.created, deal.created, "US")
        return {
            "Id": sf_id("00K", deal.id * 4 + nth), "OpportunityId": sf_id("006", deal.id), "ContactId": sf_id("003", contact), "Role": "Decision Maker" if nth == 0 else "Influencer",
            "IsPrimary": nth == 0, "IsDeleted": deal.deleted, **{name: stamps[name] for name in _CREATED},
        }  # fmt: skip


def sf_id(prefix: str, number: int) -> str:
    """Return the 18-character id of a number: prefix, twelve digits of base 62, three characters of checksum."""
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    id = prefix + digits.rjust(12, "0")
    return id + _checksum(id)


def _checksum(id: str) -> str:
    """Return the three characters that make a 15-character id safe to compare without case."""
    found = ""
    for part in (id[:5], id[5:10], id[10:]):
        found += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[sum(1 << at for at, each in enumerate(part) if each.isupper())]
    return found


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "created": Column(lambda entry: entry.created, lambda row: _millis(row["CreatedDate"])),
        "updated": Column(lambda entry: getattr(entry, "updated", entry.created), lambda row: _millis(row["SystemModstamp"])),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _person_indexes() -> Mapping[str, Column[Profile]]:
    return {
        "Email": Column(
            lambda each: each.email.lower() if each.email else None, lambda row: (row["Email"] or "").lower() or None
        ),
        "digits": Column(lambda each: _digits(each.phone), lambda row: _digits(row["Phone"])),
        "AccountId": Column(lambda each: sf_id("001", each.company) if each.company else None, lambda row: row.get("AccountId")),
    }


def _digits(phone: str | None) -> tuple[str, ...] | None:
    """Return the digits a number can be searched by: all of them, and without the country code."""
    if not phone:
        return None
    bare = re.sub(r"\D", "", phone)
    normal = normal_phone(phone, "US")
    return (bare, *({normal[1:], normal[2:], normal[3:]} - {bare} if normal else ()))


def _names(each: Profile) -> Row:
    return {"FirstName": each.given, "LastName": each.family, "Name": f"{each.given} {each.family}"}


def _stamps(owner: int, created: int, updated: int, country: str) -> Row:
    changed = _datetime(updated)
    return {
        "OwnerId": sf_id("005", owner), "CurrencyIsoCode": {"US": "USD", "DE": "EUR", "GB": "GBP"}[country],
        "CreatedDate": _datetime(created), "LastModifiedDate": changed, "SystemModstamp": changed,
    }  # fmt: skip


def _user(each: User) -> Row:
    stamp = "2023-01-01T00:00:00.000+0000"
    return {
        "Id": sf_id("005", each.id), "Username": each.email, "Email": each.email, "Name": f"{each.given} {each.family}", "FirstName": each.given, "LastName": each.family,
        "IsActive": each.active, "TimeZoneSidKey": "America/New_York", "CreatedDate": stamp, "LastModifiedDate": stamp, "SystemModstamp": stamp,
    }  # fmt: skip


def _stage(at: int) -> Row:
    label, probability, closed, won = _STAGES[at]
    return {
        "Id": sf_id("01J", at), "MasterLabel": label, "ApiName": label, "IsActive": True, "IsClosed": closed, "IsWon": won,
        "DefaultProbability": float(probability), "SortOrder": at + 1, "ForecastCategoryName": "Closed" if closed else "Pipeline",
    }  # fmt: skip


def _described(name: str, type: str) -> Row:
    values = [
        {"active": True, "defaultValue": False, "label": each, "validFor": None, "value": each}
        for each in _PICKLISTS.get(name, ())
    ]
    return {
        "name": name, "label": name.removesuffix("__c").replace("_", " "), "type": type, "length": 255, "nillable": True, "createable": name not in _SYSTEM, "updateable": name not in _SYSTEM,
        "custom": name.endswith("__c"), "unique": False, "externalId": False, "idLookup": name == "Id", "calculated": False, "filterable": True, "sortable": True,
        "restrictedPicklist": False, "referenceTo": [], "relationshipName": None, "picklistValues": values,
    }  # fmt: skip


def _datetime(millis: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis // 1000 * 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text))


def _millis(value: Any) -> int:
    return round((value if isinstance(value, datetime) else _moment(str(value))).timestamp() * 1000)


def _token_error(code: str, description: str) -> Response:
    return json_response({"error": code, "error_description": description}, status=400)


def _error(status: int, code: str, message: str) -> Response:
    return json_response([{"message": message, "errorCode": code}], status=status)
