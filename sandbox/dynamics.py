"""Dynamics 365 on Dataverse: its Web API, tokens from another host, service protection limits.

Written from the vendor's documents: composing requests and handling errors, authentication, query pages, batch operations, bulk
operations, API limits. Reading, writing, metadata and batches are in `dynamics_*.py`. What the documents do not say, and is
assumed here: that columns which cannot be set are ignored in a body, and the codes of an opportunity that is closed wrongly.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from sandbox import odata
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.dynamics_batch import answer_batch
from sandbox.dynamics_hooks import Hooks
from sandbox.dynamics_metadata import CASTS, attributes, csdl, cut, definition
from sandbox.dynamics_reading import VERSION, Call, Reader, Refusal, missing, schema_of
from sandbox.dynamics_store import Store, guid
from sandbox.dynamics_tables import SCHEMAS, SETS
from sandbox.dynamics_tracking import is_tracked, tracked
from sandbox.dynamics_writing import Writer
from sandbox.odata import Compare, MalformedQuery
from sandbox.table import Row
from sandbox.world import World

TENANT = "11112222-bbbb-3333-cccc-4444dddd5555"
ORGANIZATION = "97bf0e8b-aaaa-4bbb-8ccc-1234567890ab"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "00001111-aaaa-2222-bbbb-3333cccc4444", "dynamics-demo-secret", "0.AAAA-demo-refresh"
_ROOT = f"/api/data/{VERSION}"
_REQUESTS, _WINDOW, _PARALLEL, _EXECUTION = 6000, 300.0, 52, 1_200_000.0
_CALL_MS = 15.0  # execution time that one operation is counted with
_MESSAGES = {
    "0x80072322": f"Number of requests exceeded the limit of {_REQUESTS} over time window of 300 seconds.",
    "0x80072321": "Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds over time window of 300 seconds. Decrease number of concurrent requests or reduce the duration of requests and try again later.",
    "0x80072326": f"Number of concurrent requests exceeded the limit of {_PARALLEL}.",
}  # fmt: skip


class Dynamics(Dialect):
    """One environment on one web server: 6,000 requests and 20 minutes of execution in 5 minutes, 52 at a time."""

    name = "dynamics"
    objects = {"contact": "contacts", "account": "accounts", "lead": "leads", "deal": "opportunities", "owner": "systemusers"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=3599, rotate=True, grace=True)  # a replaced refresh token stays good
        self.tokens.grant(REFRESH_TOKEN)
        self.store = Store(world, clock, self.name)
        self.tables = {kind: self.store.tables[SETS[name].logical] for kind, name in self.objects.items()}
        self._reader = Reader(self.store)
        self._writer = Writer(self.store, self._reader)
        self.hooks = Hooks(self.store, lambda: self.outbox, organization="c360demo")
        self._requests = RollingWindow(clock, limit=_REQUESTS, period=_WINDOW)
        self._spent: deque[tuple[float, float]] = deque()  # (time, milliseconds of execution)
        self._flying = 0

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}

    def demo_options(self, sandbox: str) -> Mapping[str, str]:
        return {"tenant": TENANT, "authority": f"{sandbox}/{self.name}/login"}

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", "/login/{tenant}/oauth2/v2.0/token", self._token, open=True),
            Endpoint("GET", f"{_ROOT}/$metadata", self._csdl),
            Endpoint("POST", f"{_ROOT}/$batch", self._operated),
            Endpoint("GET", f"{_ROOT}/WhoAmI", self._who),
            Endpoint("GET", f"{_ROOT}/WhoAmI()", self._who),
            Endpoint("GET", f"{_ROOT}/EntityDefinitions", self._definitions),
            Endpoint("GET", f"{_ROOT}/EntityDefinitions({{key}})", self._definition),
            Endpoint("GET", f"{_ROOT}/EntityDefinitions({{key}})/Attributes", self._attributes),
            Endpoint("GET", f"{_ROOT}/EntityDefinitions({{key}})/Attributes/{{cast}}", self._attributes),
            Endpoint("POST", f"{_ROOT}/WinOpportunity", self._operated),
            Endpoint("POST", f"{_ROOT}/LoseOpportunity", self._operated),
            *(
                Endpoint(method, f"{_ROOT}/{name}{rest}", self._operated)
                for name in SETS
                for method, rest in (
                    ("GET", ""), ("POST", ""), ("POST", "/Microsoft.Dynamics.CRM.CreateMultiple"), ("POST", "/Microsoft.Dynamics.CRM.UpdateMultiple"),
                    ("GET", "({key})"), ("PATCH", "({key})"), ("DELETE", "({key})"), ("GET", "({key})/{navigation}"), ("DELETE", "({key})/{navigation}/$ref"),
                )
            ),
        ]  # fmt: skip

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        self._flying += 1
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.valid(token) is None:
            said = f'Bearer error="invalid_token", error_description="The token is expired", authorization_uri=https://login.microsoftonline.com/{TENANT}/oauth2/authorize, resource_id={self._address(request)}/'
            return Response(status_code=401, headers={"WWW-Authenticate": said})
        if self._flying > _PARALLEL:
            return self._limited("0x80072326", 2.0)
        if self._execution() >= _EXECUTION:
            return self._limited("0x80072321", self._spent[0][0] + _WINDOW - self.clock.time())
        if not self._requests.take():
            return self._limited("0x80072322", self._requests.wait())
        self._spend(_CALL_MS)
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open:
            self._flying -= 1
            response.headers["x-ms-ratelimit-burst-remaining-xrm-requests"] = str(max(self._requests.remaining, 0))
            response.headers["x-ms-ratelimit-time-remaining-xrm-requests"] = (
                f"{max(_EXECUTION - self._execution(), 0) / 1000:,.2f}"
            )
            response.headers.setdefault("OData-Version", "4.0")
            response.headers["Set-Cookie"] = "ARRAffinity=5f2b; path=/; HttpOnly"
        return response

    def throttled(self, seconds: float) -> Response:
        return self._limited("0x80072322", seconds)

    def exhausted(self) -> Response:
        return self._limited("0x80072321", _WINDOW)

    def _limited(self, code: str, seconds: float) -> Response:
        headers = {"Retry-After": str(max(math.ceil(seconds), 1))}
        return json_response({"error": {"code": code, "message": _MESSAGES[code]}}, status=429, headers=headers)

    def _execution(self) -> float:
        while self._spent and self._spent[0][0] <= self.clock.time() - _WINDOW:
            self._spent.popleft()
        return sum(ms for _, ms in self._spent)

    def _spend(self, ms: float) -> None:
        self._spent.append((self.clock.time(), ms))

    def unknown(self, request: Request) -> Response:
        segment = request.url.path.partition(f"{_ROOT}/")[2].partition("(")[0].partition("/")[0]
        return Refusal(404, "0x8006088a", f"Resource not found for the segment '{segment}'.").response

    def native(self, kind: str, world_id: int) -> str:
        return str(guid(SETS[self.objects[kind]].logical, world_id))

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        schema = SETS[self.objects[kind]]
        row = self.store.get(schema.logical, native_id)
        return None if row is None else self.store.put(schema, {**row, **fields})

    def delete(self, kind: str, native_id: str) -> bool:
        return self.store.remove(SETS[self.objects[kind]], native_id)

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge as the Merge message does: the loser stays, inactive, and names its master; the winner takes what it lacks."""
        schema = SETS[self.objects[kind]]
        gone, kept = self.store.get(schema.logical, loser), self.store.get(schema.logical, winner)
        if gone is None or kept is None or loser == winner or "merged" not in schema.columns or gone["merged"] or kept["merged"]:
            return False
        taken = {name: value for name, value in gone.items() if kept.get(name) is None and value is not None}
        inactive = {"statecode": 2, "statuscode": 7} if schema.logical == "lead" else {"statecode": 1, "statuscode": 2}
        with self.hooks.quiet():
            self.store.put(schema, {**gone, "merged": True, "_masterid_value": winner, **inactive})
            self.store.put(schema, {**kept, **taken})
        self.store.repoint(schema, loser, winner)
        target = {"Id": winner, "LogicalName": schema.logical}
        self.hooks.tell("Merge", schema, winner, {"Target": target, "SubordinateId": loser, "PerformParentingChecks": False})
        return True

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        self.hooks.changed(SETS[self.objects[kind]].logical, native_id, before, after)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self.hooks.listed()

    def hook(self, url: str, secret: str) -> None:
        self.hooks.register(url, secret)

    @contextmanager
    def _transaction(self) -> Iterator[Callable[[], None]]:
        """Send what a change set did at its end, and nothing where it was taken back."""
        with self.hooks.held() as held, self.store.transaction() as undo:

            def undone() -> None:
                undo()
                held.clear()

            yield undone

    def _address(self, request: Request) -> str:
        return self.base_url or f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"

    # ---- tokens, from what is another host in the real world ----

    async def _token(self, request: Request) -> Response:
        said = await form(request)
        if request.path_params["tenant"] != TENANT:
            return _token_error(
                400, "invalid_request", 90002, "Tenant not found. Check to make sure you have the correct tenant ID."
            )
        if said.get("client_id") != CLIENT_ID:
            return _token_error(400, "unauthorized_client", 700016, "Application was not found in the directory.")
        if said.get("client_secret") != CLIENT_SECRET:
            return _token_error(401, "invalid_client", 7000215, "Invalid client secret provided.")
        if f"{self._address(request)}/.default" not in said.get("scope", "").split(" "):
            return _token_error(400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid.")
        body: Row = {
            "token_type": "Bearer",
            "expires_in": 3599,
            "ext_expires_in": 3599,
            "access_token": self.tokens.issue(CLIENT_ID, prefix="eyJ0"),
        }
        if said.get("grant_type") == "client_credentials":
            return json_response(body)
        if said.get("grant_type") != "refresh_token":
            return _token_error(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        following = self.tokens.refresh(said.get("refresh_token", ""), prefix="0.")
        if following is None:
            return _token_error(400, "invalid_grant", 700082, "The refresh token has expired due to inactivity.")
        return json_response({**body, "refresh_token": following})

    # ---- rows ----

    async def _operated(self, request: Request) -> Response:
        """Answer whatever reads or writes rows: alone, or many in a batch."""
        raw = request.url.path.partition(f"{_ROOT}/")[2]
        call = Call(
            method=request.method, resource=unquote(raw), query=dict(parse_qsl(request.url.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in request.headers.items()}, body=await request.body(), root=f"{self._address(request)}{_ROOT}",
        )  # fmt: skip
        if call.resource != "$batch":
            return self._operate(call)
        try:
            return answer_batch(call, self._counted, transaction=self._transaction)
        except Refusal as refusal:
            return refusal.response

    def _counted(self, call: Call) -> Response:
        self._spend(_CALL_MS)
        return self._operate(call)

    def _operate(self, call: Call) -> Response:
        try:
            return self._routed(call)
        except Refusal as refusal:
            return refusal.response

    def _routed(self, call: Call) -> Response:
        if call.resource in {"WinOpportunity", "LoseOpportunity"} and call.method == "POST":
            return self._writer.close(call, call.resource)
        head, _, tail = call.resource.partition(")/") if "(" in call.resource else call.resource.partition("/")
        name, _, key = head.removesuffix(")").partition("(")
        schema = schema_of(name)
        match call.method, bool(key), tail:
            case "GET", False, "" if is_tracked(call):
                size, view, applied = self._reader.asked(call, schema)
                return tracked(call, schema, self.store, size=size, shown=view, applied=applied)
            case "GET", False, "":
                return self._reader.rows(call, schema)
            case "POST", False, "":
                return self._writer.create(call, schema)
            case "POST", False, "Microsoft.Dynamics.CRM.CreateMultiple":
                return self._writer.create_multiple(call, schema)
            case "POST", False, "Microsoft.Dynamics.CRM.UpdateMultiple":
                return self._writer.update_multiple(call, schema)
            case "PATCH", True, "":
                return self._writer.update(call, schema, key)
            case "DELETE", True, "":
                return self._writer.delete(call, schema, key)
            case "DELETE", True, _ if tail.endswith("/$ref"):
                return self._writer.unlink(schema, key, tail.removesuffix("/$ref"))
            case "GET", True, _:
                return self._one(call, name, key, tail)
        raise Refusal(405, "0x80060888", "The requested resource does not support this method.")

    def _one(self, call: Call, name: str, key: str, navigation: str) -> Response:
        schema = schema_of(name)
        id, row, _ = self._writer.named(schema, key)
        if row is None:
            raise missing(schema, id or key)
        if not navigation:
            return self._reader.one(call, schema, row)
        if navigation in schema.collections:
            table, lookup = schema.collections[navigation]
            child = SCHEMAS[table]
            return self._reader.rows(call, child, within=Compare(child.stored(lookup), "eq", row[schema.id]))
        if navigation not in schema.navigations():
            raise Refusal(404, "0x8006088a", f"Resource not found for the segment '{navigation}'.")
        lookup, table = schema.navigations()[navigation]
        held = row.get(schema.stored(lookup))
        other = self.store.get(table, held) if held else None
        return self._reader.one(call, SCHEMAS[table], other) if other is not None else Response(status_code=204)

    # ---- metadata ----

    async def _who(self, request: Request) -> Response:
        context = f"{self._address(request)}{_ROOT}/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse"
        return json_response({
            "@odata.context": context, "BusinessUnitId": guid("unit", 1), "UserId": guid("systemuser", 1), "OrganizationId": ORGANIZATION,
        })  # fmt: skip

    async def _csdl(self, _: Request) -> Response:
        return Response(csdl(), media_type="application/xml")

    async def _definitions(self, request: Request) -> Response:
        said = request.query_params
        try:
            node = odata.parse_filter(said["$filter"]) if said.get("$filter") else None
            select, expand = (
                odata.names(said.get("$select")),
                odata.parse_expand(said.get("$expand") or "") if said.get("$expand") else (),
            )
        except MalformedQuery as error:
            return Refusal(400, "0x80060888", str(error)).response
        rows = []
        for schema in SCHEMAS.values():
            whole = definition(schema)
            if node is None or odata.holds(node, whole.get):
                rows.append(
                    cut(whole, select)
                    | {each.navigation: [cut(one, each.select) for one in attributes(schema)] for each in expand}
                )
        return json_response({"@odata.context": f"{self._address(request)}{_ROOT}/$metadata#EntityDefinitions", "value": rows})

    async def _definition(self, request: Request) -> Response:
        schema = self._named(request)
        if schema is None:
            return _no_entity(request)
        said = request.query_params
        expand = odata.parse_expand(said["$expand"]) if said.get("$expand") else ()
        body = cut(definition(schema), odata.names(said.get("$select")))
        return json_response(body | {each.navigation: [cut(one, each.select) for one in attributes(schema)] for each in expand})

    async def _attributes(self, request: Request) -> Response:
        schema, cast = self._named(request), request.path_params.get("cast", "").removeprefix("Microsoft.Dynamics.CRM.") or None
        if schema is None:
            return _no_entity(request)
        if cast is not None and cast not in CASTS:
            return Refusal(404, "0x8006088a", f"Resource not found for the segment '{cast}'.").response
        said = request.query_params
        keep = odata.names(said.get("$expand")) or ()
        rows = [cut(each, odata.names(said.get("$select")), keep) for each in attributes(schema, cast)]
        return json_response({"@odata.context": f"{self._address(request)}{_ROOT}/$metadata#Attributes", "value": rows})

    def _named(self, request: Request) -> Any:
        name, _, value = str(request.path_params["key"]).partition("=")
        return SCHEMAS.get(value.strip("'")) if name == "LogicalName" else None


def _no_entity(request: Request) -> Response:
    return Refusal(404, "0x80060888", "Could not find an entity with the specified key.").response


def _token_error(status: int, error: str, code: int, words: str) -> Response:
    body = {
        "error": error, "error_description": f"AADSTS{code}: {words}", "error_codes": [code], "timestamp": "2026-02-03 09:15:27Z", "trace_id": str(uuid4()),
        "correlation_id": str(uuid4()), "error_uri": f"https://login.microsoftonline.com/error?code={code}",
    }  # fmt: skip
    return json_response(body, status=status)


__all__ = ["CLIENT_ID", "CLIENT_SECRET", "TENANT", "Dynamics"]
