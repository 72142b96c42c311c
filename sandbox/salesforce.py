"""Salesforce's dialect: SOQL and SOSL, composite collections, 18-character ids, errors in arrays, quota as a 403.

Written from the REST API developer guide's facts (query, queryAll, sobjects, composite, limits, OAuth) and the field
lists of the standard objects. One multi-currency org, Enterprise edition. Reading by query stands in `salesforce_queries`, writing
in `salesforce_writing`, the population as rows in `salesforce_rows`, what the org knows of its objects in `salesforce_fields`.
"""

import secrets
from collections.abc import Mapping
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from itertools import takewhile
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.faults import Faults
from sandbox.salesforce_answers import VERSION, Refusal, error, millis, sf_id, spelled
from sandbox.salesforce_fields import (
    DESCRIBED_AT,
    EXTERNAL,
    FIELDS,
    PREFIXES,
    REQUIRED,
    described,
    listed,
)
from sandbox.salesforce_flows import Flows
from sandbox.salesforce_graph import Graphs
from sandbox.salesforce_queries import Queries
from sandbox.salesforce_rows import Rows
from sandbox.salesforce_writing import Writing
from sandbox.table import Row
from sandbox.world import World

CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "3MVG9-demo", "salesforce-demo-secret", "5Aep861-demo-refresh"
_URI = 16_384  # bytes


class Salesforce(Dialect):
    """One org with 100,000 calls in 24 hours."""

    name = "salesforce"
    gone = "IsDeleted"
    objects = {"contact": "Contact", "account": "Account", "deal": "Opportunity", "lead": "Lead", "owner": "User"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=7200, rotate=True)  # refresh token rotation is switched on
        self.tokens.grant(REFRESH_TOKEN)
        self._daily = RollingWindow(clock, limit=100_000, period=86_400)
        self._by_object = Rows(world).tables()
        self.tables = {kind: self._by_object[name] for kind, name in self.objects.items()}
        self.hidden: set[str] = set()  # see Queries
        self._queries = Queries(self._by_object, self.hidden)
        self._writing = Writing(clock, self._by_object)
        self._flows = Flows()

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
                for verb, handler in (("query", self._queries.query), ("queryAll", self._queries.query_all))
                for slash in ("", "/")
            ),
            Endpoint("GET", f"{root}/query/{{locator}}", self._queries.more),
            Endpoint("GET", f"{root}/search", self._queries.search),
            Endpoint("GET", f"{root}/search/", self._queries.search),
            Endpoint("GET", f"{root}/limits", self._limits),
            Endpoint("GET", f"{root}/limits/", self._limits),
            Endpoint("GET", f"{root}/sobjects", self._sobjects),
            Endpoint("GET", f"{root}/sobjects/", self._sobjects),
            Endpoint("GET", f"{root}/sobjects/{{object}}/describe", self._describe),
            *(
                Endpoint("GET", f"{root}/sobjects/{{object}}/{verb}{slash}", handler)
                for verb, handler in (("updated", self._updated), ("deleted", self._deleted))
                for slash in ("", "/")
            ),
            Endpoint("GET", f"{root}/sobjects/{{object}}/{{id}}", self._get),
            Endpoint("GET", f"{root}/sobjects/{{object}}/{{field}}/{{value:path}}", self._get_by_external_id),
            Endpoint("POST", f"{root}/composite/sobjects/{{object}}", self._collection),
            Endpoint("POST", f"{root}/composite/batch", self._batch),
            Endpoint("POST", f"{root}/composite/graph", Graphs(self._writing).answer),
            *self._writing.endpoints(),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if len(request.url.path) + len(request.url.query) >= _URI:
            return PlainTextResponse("URI Too Long", 414)
        if endpoint.open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme not in {"Bearer", "OAuth"} or self.tokens.valid(token) is None:
            return error(401, "INVALID_SESSION_ID", "Session expired or invalid")
        return None if self._daily.take() else self.exhausted()

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open:
            response.headers["Sforce-Limit-Info"] = f"api-usage={self._daily.limit - self._daily.remaining}/{self._daily.limit}"
        return response

    def throttled(self, seconds: float) -> Response:
        return error(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.")

    def exhausted(self) -> Response:
        return error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")

    def unknown(self, request: Request) -> Response:
        return error(404, "NOT_FOUND", "The requested resource does not exist")

    def native(self, kind: str, world_id: int) -> str:
        return sf_id(PREFIXES[self.objects[kind]], world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        now = spelled(self.clock.time() * 1000)
        row = {**row, **fields, "LastModifiedDate": now, "SystemModstamp": now}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        row = self.tables[kind].get(native_id)
        if row is None or row.get("IsDeleted"):
            return False
        return self.change(kind, native_id, {"IsDeleted": True}) is not None

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two contacts, leads or accounts as a user would; the REST API has no call for it."""
        rows = [self.tables[kind].get(id) for id in (winner, loser)]
        if kind not in {"contact", "lead", "account"} or winner == loser or any(not row or row["IsDeleted"] for row in rows):
            return False
        self._writing.merge(self.objects[kind], *(row for row in rows if row))
        return True

    # ---- flows ----

    def hook(self, url: str, secret: str) -> None:
        """Let an administrator make flows that call this address, with the secret in `X-Webhook-Secret`."""
        self._flows.add(url, secret)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._flows.listed()

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        self._flows.outbox = self.outbox

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if after is not None:
            self._writing.after_commit(partial(self._flows.saved, self.objects[kind], after))

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
        return json_response({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [listed(name) for name in FIELDS]})

    async def _describe(self, request: Request) -> Response:
        name = request.path_params["object"]
        if name not in FIELDS:
            return self.unknown(request)
        since = request.headers.get("if-modified-since")
        if since is not None and parsedate_to_datetime(since) >= DESCRIBED_AT:
            return Response(status_code=304)
        said = described(name)
        said["fields"] = [each for each in said["fields"] if f"{name}.{each['name']}" not in self.hidden]
        return json_response(said, headers={"Last-Modified": format_datetime(DESCRIBED_AT, usegmt=True)})

    # ---- records ----

    async def _get(self, request: Request) -> Response:
        name, id = request.path_params["object"], request.path_params["id"]
        row = self._queries.row(name, id) if name in self._by_object else None
        if row is None:
            return self.unknown(request)
        if row.get("IsDeleted"):
            return error(404, "ENTITY_IS_DELETED", "entity is deleted")
        return self._shown(request, name, row)

    async def _get_by_external_id(self, request: Request) -> Response:
        name, field = request.path_params["object"], request.path_params["field"]
        if field not in EXTERNAL or field not in FIELDS.get(name, {}):
            return error(404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}")
        rows = (row for row in self._by_object[name].having(field, [request.path_params["value"]]) if not row["IsDeleted"])
        row = next(rows, None)
        return self.unknown(request) if row is None else self._shown(request, name, row)

    def _shown(self, request: Request, name: str, row: Row) -> Response:
        asked = request.query_params.get("fields")
        try:
            return json_response(self._queries.shown(name, row, asked.split(",") if asked else list(FIELDS[name])))
        except Refusal as refusal:
            return refusal.response

    async def _collection(self, request: Request) -> Response:
        name = request.path_params["object"]
        if name not in FIELDS:
            return self.unknown(request)
        try:
            asked = orjson.loads(await request.body())
            ids, names = asked["ids"], asked["fields"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return error(400, "JSON_PARSER_ERROR", "ids and fields are required")
        if len(ids) > 2000:
            return error(400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 2000 records in this call")
        try:
            rows = (self._queries.row(name, id) for id in ids)
            return json_response(
                [self._queries.shown(name, row, names) if row and not row.get("IsDeleted") else None for row in rows]
            )
        except Refusal as refusal:
            return refusal.response

    async def _updated(self, request: Request) -> Response:
        try:
            rows, end = self._span(request, days=30)
        except Refusal as refusal:
            return refusal.response
        return json_response({"ids": [row["Id"] for row in rows if not row["IsDeleted"]], "latestDateCovered": spelled(end)})

    async def _deleted(self, request: Request) -> Response:
        try:
            rows, end = self._span(request, days=15)
        except Refusal as refusal:
            return refusal.response
        gone = [{"id": row["Id"], "deletedDate": row["SystemModstamp"]} for row in rows if row["IsDeleted"]]
        earliest = spelled((self.clock.time() - 15 * 86_400) * 1000)
        return json_response({"deletedRecords": gone, "earliestDateAvailable": earliest, "latestDateCovered": spelled(end)})

    def _span(self, request: Request, *, days: int) -> tuple[list[Row], int]:
        """Return the rows that changed from `start` to `end`, which is asked for in milliseconds."""
        name, said = request.path_params["object"], request.query_params
        if name not in REQUIRED or name == "OpportunityContactRole":
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        try:
            start, end = millis(said["start"]), millis(said["end"])
        except (KeyError, ValueError):
            raise Refusal(400, "INVALID_REPLICATION_DATE", "start and end are required, as ISO dates with an offset") from None
        if start < (self.clock.time() - days * 86_400) * 1000 or end - start < 60_000:
            raise Refusal(
                400, "INVALID_REPLICATION_DATE", f"startDate cannot be more than {days} days ago, and the span at least a minute"
            )
        rows = takewhile(lambda row: millis(row["SystemModstamp"]) < end, self._by_object[name].walk("updated", start=start))
        return list(rows), end

    async def _batch(self, request: Request) -> Response:
        asked = orjson.loads(await request.body())["batchRequests"]
        if len(asked) > 25:
            return error(400, "INVALID_BATCH_SIZE", "at most 25 subrequests")
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
            return await self._queries.query(Request(scope))
        if parts[1:2] == ["sobjects"] and len(parts) == 4:
            scope["path_params"] = {"object": parts[2], "id": parts[3]}
            return await (self._describe if parts[3] == "describe" else self._get)(Request(scope))
        return self.unknown(request)


def _token_error(code: str, description: str) -> Response:
    return json_response({"error": code, "error_description": description}, status=400)
