"""Zoho CRM's dialect: `Zoho-oauthtoken`, token errors under HTTP 200, an empty 204 for nothing, fields that must be named, pages by
number to 2,000 records and by token from there, COQL, a search index that lags, one verdict a record, credits a day.

Written from the vendor's documents (API v8) and its published description. An Enterprise org with eight users in India: 58,000
credits in 24 hours. What the documents leave open is answered so: an unknown id is a 204, a list where all records are refused is a 400
with its verdicts, an upsert changes the oldest record that matches, text compares without case.
"""

import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox import coql
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.table import Row, Table
from sandbox.world import World
from sandbox.zoho_answers import (
    Refusal,
    error,
    guarded,
    is_beyond,
    moment_of,
    named,
    needed,
    picked,
    place_of,
    rows_response,
    since_of,
    size_of,
)  # fmt: skip
from sandbox.zoho_hooks import Notifications
from sandbox.zoho_modules import (
    Module,
    iso,
    lookup_of,
    millis,
    modules,
    user_row,
    zoho_id,
)
from sandbox.zoho_query import Reader
from sandbox.zoho_relations import Relations
from sandbox.zoho_settings import Settings
from sandbox.zoho_writes import Invalid, Writer, live

CLIENT_ID, CLIENT_SECRET = "1000.C360DEMO", "zoho-demo-secret"
REFRESH_TOKEN, GRANT_CODE = "1000.c360-demo.refresh", "1000.c360-demo.code"
SEARCH_LAG = 5.0  # seconds until the Search API knows a new record
_CREDITS, _PARALLEL, _REFRESHES, _REFRESH_SPAN = 58_000, 20, 10, 600
_BY_NUMBER, _ROWS = 2000, 100
_TOKEN_LIFE = 86_400.0  # of a page token
_SORTS = frozenset({"id", "Created_Time", "Modified_Time"})
_TOO_MANY = "You have made too many requests continuously. Please try again after some time."


class Zoho(Dialect):
    """One org. Its accounts server stands under `/accounts`, its API domain beside it: who assumes one from the other finds nothing."""

    name = "zoho"
    objects = {"contact": "Contacts", "account": "Accounts", "deal": "Deals", "lead": "Leads", "owner": "users"}
    gone = "$deleted"
    base_path = "/accounts"

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=3600, rotate=False)
        self.tokens.grant(REFRESH_TOKEN)
        self._refreshes: dict[str, RollingWindow] = {}
        self._credits = RollingWindow(clock, limit=_CREDITS, period=86_400)
        self._running = 0
        self._pages: dict[str, tuple[str, str, bool, int, str, float]] = {}  # token → module, sort, descending, value, id, expiry
        self.modules = modules(world, self.name)
        users = {zoho_id("users", each.id): each for each in world.users}
        self.tables = {kind: self.modules[name].table for kind, name in self.objects.items() if kind != "owner"}
        self.tables["owner"] = Table(users, user_row)
        self._reader = Reader(self.modules)
        self._writer = Writer(self.modules, world.users, self._now)
        self._settings = Settings(self.modules, self.tables["owner"], self._module)
        self._relations = Relations(self.modules, self._writer)
        self._notifications = Notifications(
            clock, lambda: self.outbox, now=self._now, base=lambda: self.base_url or "https://www.zohoapis.in"
        )

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        root = "/crm/v8"
        return [
            Endpoint("POST", "/accounts/oauth/v2/token", self._token, open=True),
            Endpoint("POST", "/accounts/oauth/v2/token/revoke", self._revoke, open=True),
            Endpoint("GET", f"{root}/org", self._settings.org),
            Endpoint("GET", f"{root}/users", self._settings.users),
            Endpoint("GET", f"{root}/users/{{id}}", self._settings.user),
            Endpoint("GET", f"{root}/settings/modules", self._settings.modules),
            Endpoint("GET", f"{root}/settings/fields", guarded(self._settings.fields)),
            Endpoint("GET", f"{root}/settings/layouts", guarded(self._settings.layouts)),
            Endpoint("GET", f"{root}/settings/pipeline", guarded(self._settings.pipeline)),
            Endpoint("POST", f"{root}/coql", self._coql),
            *self._notifications.endpoints(root),
            Endpoint("GET", f"{root}/Contacts/roles", self._relations.roles),
            Endpoint("GET", f"{root}/{{module}}/search", guarded(self._search)),
            Endpoint("GET", f"{root}/{{module}}/deleted", guarded(self._deleted)),
            Endpoint("GET", f"{root}/{{module}}/actions/count", guarded(self._count)),
            Endpoint("POST", f"{root}/{{module}}/upsert", guarded(self._upsert)),
            Endpoint("GET", f"{root}/{{module}}", guarded(self._list)),
            Endpoint("POST", f"{root}/{{module}}", guarded(self._create)),
            Endpoint("PUT", f"{root}/{{module}}", guarded(self._update)),
            Endpoint("DELETE", f"{root}/{{module}}", guarded(self._delete)),
            Endpoint("GET", f"{root}/{{module}}/{{id}}", guarded(self._get)),
            Endpoint("PUT", f"{root}/{{module}}/{{id}}", guarded(self._update)),
            Endpoint("DELETE", f"{root}/{{module}}/{{id}}", guarded(self._delete)),
            Endpoint("GET", f"{root}/{{module}}/{{id}}/{{relation}}", self._relations.listed),
            Endpoint("PUT", f"{root}/Deals/{{id}}/Contact_Roles/{{contact}}", self._relations.tie),
            Endpoint("DELETE", f"{root}/Deals/{{id}}/Contact_Roles/{{contact}}", self._relations.untie),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Zoho-oauthtoken":
            return error(401, "AUTHENTICATION_FAILURE", "Authentication failed")
        if self.tokens.valid(token) is None:
            return error(401, "INVALID_TOKEN", "invalid oauth token")
        if self._running >= _PARALLEL:
            return self.throttled(0)
        if not self._credits.take():
            return self.exhausted()
        self._running += 1
        request.state.counted = True
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if getattr(request.state, "counted", False):
            self._running -= 1
        if not endpoint.open and self._credits.remaining < _CREDITS / 2:  # told only when half of them are used
            response.headers.setdefault("X-API-CREDITS-REMAINING", str(max(self._credits.remaining, 0)))
        return response

    def _charge(self, credits: int) -> None:
        """Take what a call costs above its one credit."""
        for _ in range(credits - 1):
            self._credits.take()

    def throttled(self, seconds: float) -> Response:
        return error(429, "TOO_MANY_REQUESTS", _TOO_MANY)  # credits or calls at once: the vendor does not say, nor for how long

    def exhausted(self) -> Response:
        response = error(429, "TOO_MANY_REQUESTS", _TOO_MANY)
        response.headers["X-API-CREDITS-REMAINING"] = "0"
        return response

    def unknown(self, request: Request) -> Response:
        return error(404, "INVALID_URL_PATTERN", "Please check if the URL trying to access is a correct one")

    def native(self, kind: str, world_id: int) -> str:
        return zoho_id(self.objects[kind], world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        module = self.modules[self.objects[kind]]
        row = live(module, native_id)
        return self._writer.change(module, {**row, **fields}) if row is not None else None

    def delete(self, kind: str, native_id: str) -> bool:
        module = self.modules[self.objects[kind]]
        row = live(module, native_id)
        return row is not None and bool(self._writer.change(module, {**row, "$deleted": iso(self._now())}))

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge as a user does by "find and merge duplicates": the winner takes what it lacks, the loser goes to the recycle bin."""
        module = self.modules[self.objects[kind]]
        gone, kept = live(module, loser), live(module, winner)
        if gone is None or kept is None or loser == winner:
            return False
        self._writer.merge(module, gone, kept)
        return True

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if kind != "owner" and after is not None:
            self._notifications.changed(self.objects[kind], native_id, before, after)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._notifications.listed()

    def _now(self) -> int:
        return int((self.clock.time() + self.skew) * 1000)

    # ---- accounts ----

    async def _token(self, request: Request) -> Response:
        said = {**request.query_params, **await form(request)}
        if said.get("client_id") != CLIENT_ID:
            return json_response({"error": "invalid_client"})
        if said.get("client_secret") != CLIENT_SECRET:
            return json_response({"error": "invalid_client_secret"})
        refresh = said.get("refresh_token", "") if said.get("grant_type") == "refresh_token" else ""
        if said.get("grant_type") == "authorization_code" and said.get("code") == GRANT_CODE:
            refresh = REFRESH_TOKEN
        if not self.tokens.knows(refresh):
            return json_response({"error": "invalid_code"})
        window = self._refreshes.setdefault(refresh, RollingWindow(self.clock, limit=_REFRESHES, period=_REFRESH_SPAN))
        if not window.take():
            return json_response({"error_description": _TOO_MANY, "error": "Access Denied", "status": "failure"}, status=400)
        domain = self.base_url or f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
        body = {
            "access_token": self.tokens.issue(CLIENT_ID, prefix="1000."), "scope": "ZohoCRM.modules.ALL ZohoCRM.settings.ALL ZohoCRM.coql.READ", "api_domain": domain,
            "token_type": "Bearer", "expires_in": 3600,
        }  # fmt: skip
        return json_response(body | ({"refresh_token": refresh} if said.get("grant_type") == "authorization_code" else {}))

    async def _revoke(self, request: Request) -> Response:
        said = {**request.query_params, **await form(request)}
        if not self.tokens.knows(said.get("token", "")):
            return json_response({"status": "failure", "error": "invalid_token"})
        self.tokens.revoke_all()
        return json_response({"status": "success"})

    # ---- reading ----

    def _module(self, name: str) -> Module:
        module = self.modules.get(name)
        if module is None:
            raise Refusal(400, "INVALID_MODULE", "the module name given seems to be invalid", resource_path_index=0)
        return module

    async def _list(self, request: Request) -> Response:
        module, said = self._module(request.path_params["module"]), request.query_params
        names = named(request)
        size, since = size_of(said), since_of(request)
        if "ids" in said:
            ids = said["ids"].split(",")
            if len(ids) > _ROWS:
                raise Refusal(400, "LIMIT_EXCEEDED", "more ids than allowed", param_name="ids", limit=_ROWS)
            rows = [row for id in dict.fromkeys(ids) if (row := live(module, id)) is not None]
            return rows_response(rows, names, {"per_page": size, "count": len(rows), "page": 1, "more_records": False})
        if "page" in said and "page_token" in said:
            raise Refusal(400, "AMBIGUITY_DURING_PROCESSING", "You cannot use page and page_token together", ambiguity_due_to=[])
        sort, descending = said.get("sort_by", "id"), said.get("sort_order", "desc") == "desc"
        if sort not in _SORTS:
            raise Refusal(400, "INVALID_DATA", "invalid data", param_name="sort_by")
        number, start, beyond = int(said.get("page", "1")), None, None
        if "page_token" in said:
            kept = self._pages.get(said["page_token"])
            if kept is None or kept[0] != module.name:
                raise Refusal(400, "INVALID_DATA", "invalid data", param_name="page_token")
            _, sort, descending, start, beyond, expiry = kept
            if expiry < self.clock.time():
                raise Refusal(400, "EXPIRED_VALUE", "The value provided has expired.", param_name="page_token")
        elif number * size > _BY_NUMBER:
            message = "You can only get the first 2000 records without using page_token param."
            raise Refusal(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", message, limit=_BY_NUMBER)
        skip = 0 if beyond else (number - 1) * size
        walked = (
            row
            for row in module.table.walk(sort, start=start, descending=descending)
            if is_beyond(row, sort, start, beyond, descending)
        )
        found: list[Row] = list(
            islice(
                (row for row in walked if row["$deleted"] is None and (since is None or millis(row["Modified_Time"]) > since)),
                skip,
                skip + size + 1,
            )
        )
        if not found and since is not None:
            return Response(status_code=304)
        rows, more = found[:size], len(found) > size
        token = expires = None
        if more:
            token, expires = secrets.token_hex(24), self.clock.time() + _TOKEN_LIFE
            self._pages[token] = (module.name, sort, descending, place_of(rows[-1], sort), rows[-1]["id"], expires)
        return rows_response(rows, names, {
            "per_page": size, "count": len(rows), "page": number, "sort_by": sort, "sort_order": "desc" if descending else "asc", "more_records": more,
            "next_page_token": token, "previous_page_token": None, "page_token_expiry": iso(expires * 1000) if expires else None,
        })  # fmt: skip

    async def _get(self, request: Request) -> Response:
        module = self._module(request.path_params["module"])
        row = live(module, request.path_params["id"])
        if row is None:
            return Response(status_code=204)
        names = request.query_params["fields"].split(",") if "fields" in request.query_params else list(module.specs)
        return json_response({"data": [{**picked(row, names), "$approved": True, "$editable": True, "$currency_symbol": "$"}]})

    async def _coql(self, request: Request) -> Response:
        try:
            query = coql.parse(str(orjson.loads(await request.body())["select_query"]))
            rows, more = self._reader.query(query)
        except coql.Malformed as wrong:
            return error(400, wrong.code, wrong.message, **wrong.details)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return error(
                400, "MANDATORY_NOT_FOUND", "required field not found", api_name="select_query", json_path="$.select_query"
            )
        self._charge(1 if query.limit <= 200 else 2 if query.limit <= 1000 else 3)
        return (
            json_response({"data": rows, "info": {"count": len(rows), "more_records": more}})
            if rows
            else Response(status_code=204)
        )

    async def _search(self, request: Request) -> Response:
        module, said = self._module(request.path_params["module"]), request.query_params
        size, number = size_of(said), int(said.get("page", "1"))
        if number * size > _BY_NUMBER:
            raise Refusal(400, "LIMIT_REACHED", "maximum response iteration limit reached", limit=str(_BY_NUMBER))
        edge = self._now() - SEARCH_LAG * 1000
        found = sorted(
            (row for row in self._searched(module, said) if row["$deleted"] is None and row.get("$fresh", 0) <= edge),
            key=lambda row: row["id"],
            reverse=True,
        )
        names = said["fields"].split(",") if "fields" in said else list(module.specs)
        rows = found[(number - 1) * size : number * size]
        return rows_response(
            rows, names, {"per_page": size, "count": len(rows), "page": number, "more_records": len(found) > number * size}
        )

    def _searched(self, module: Module, said: Mapping[str, str]) -> list[Row]:
        try:
            if "criteria" in said:
                return self._reader.search(module, said["criteria"])
            if "email" in said:
                emails = [name for name, spec in module.specs.items() if spec.type == "email"]
                return list(
                    {row["id"]: row for name in emails for row in module.table.having(name, [said["email"].lower()])}.values()
                )
        except coql.Malformed as wrong:
            raise Refusal(400, wrong.code, wrong.message, **wrong.details) from wrong
        if "phone" in said:
            return [row for row in module.table if said["phone"] in (row.get("Phone"), row.get("Mobile"))]
        if "word" in said:
            word = said["word"].lower()
            return [
                row
                for row in module.table
                if any(word in str(value).lower().split() for name, value in row.items() if not name.startswith("$"))
            ]
        raise Refusal(
            400,
            "EXPECTED_PARAM_MISSING",
            "one of the expected parameter is missing",
            param_names=["criteria", "email", "phone", "word"],
        )

    async def _deleted(self, request: Request) -> Response:
        module, said = self._module(request.path_params["module"]), request.query_params
        if said.get("type") not in {"all", "recycle", "permanent"}:
            raise Refusal(400, "REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", param_name="type")
        self._charge(2)
        since, size, number = since_of(request), size_of(said), int(said.get("page", "1"))
        if number * size > _BY_NUMBER:
            message = "You can only get the first 2000 records without using page_token param."
            raise Refusal(400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED", message, limit=_BY_NUMBER)
        gone = (
            []
            if said["type"] == "permanent"
            else [row for row in module.table.having("$deleted", [True]) if since is None or millis(row["$deleted"]) > since]
        )
        gone.sort(key=lambda row: (row["$deleted"], row["id"]), reverse=True)
        by = lookup_of(self.world.users[0])
        rows = [
            {
                "id": row["id"],
                "display_name": self._relations.name_of(module, row),
                "type": "recycle",
                "deleted_by": by,
                "created_by": row["Created_By"],
                "deleted_time": row["$deleted"],
            }
            for row in gone[(number - 1) * size : number * size]
        ]
        if not rows:
            return Response(status_code=204)
        return json_response(
            {
                "data": rows,
                "info": {"per_page": size, "count": len(rows), "page": number, "more_records": len(gone) > number * size},
            }
        )

    async def _count(self, request: Request) -> Response:
        module = self._module(request.path_params["module"])
        return json_response({"count": len(module.table) - len(module.table.having("$deleted", [True]))})

    # ---- writing ----

    async def _create(self, request: Request) -> Response:
        module, _, rows = await self._said(request)
        return self._verdicts(rows, lambda row, at: self._writer.create(module, row, at), status=201)

    async def _upsert(self, request: Request) -> Response:
        module, body, rows = await self._said(request)
        checks = body.get("duplicate_check_fields") or []
        if self._moved_on(request, (self._writer.matching(module, row, checks)[0] for row in rows)):
            return _already_modified()
        return self._verdicts(rows, lambda row, at: self._writer.upsert(module, row, checks, at), status=200)

    async def _update(self, request: Request) -> Response:
        module, _, rows = await self._said(request)
        if "id" in request.path_params:
            rows = [{**rows[0], "id": request.path_params["id"]}]
        if self._moved_on(request, (live(module, str(each.get("id"))) for each in rows)):
            return _already_modified()

        def update(row: Row, at: str) -> Row:
            if "id" not in row:
                raise Invalid("MANDATORY_NOT_FOUND", "required field not found", api_name="id", json_path=f"{at}.id")
            return self._writer.update(module, str(row["id"]), row, at)

        return self._verdicts(rows, update, status=200)

    def _moved_on(self, request: Request, rows: Iterable[Row | None]) -> bool:
        """Tell whether one of the records was modified after the call's If-Unmodified-Since."""
        edge = request.headers.get("if-unmodified-since")
        return edge is not None and any(row is not None and millis(row["Modified_Time"]) > moment_of(edge) for row in rows)

    async def _delete(self, request: Request) -> Response:
        module = self._module(request.path_params["module"])
        ids = [request.path_params["id"]] if "id" in request.path_params else needed(request, "ids").split(",")
        if len(ids) > _ROWS:
            raise Refusal(400, "LIMIT_EXCEEDED", "more ids than allowed", param_name="ids", limit=_ROWS)
        return self._verdicts([{"id": id} for id in ids], lambda row, _: self._writer.delete(module, row["id"]), status=200)

    async def _said(self, request: Request) -> tuple[Module, dict[str, Any], list[Row]]:
        module = self._module(request.path_params["module"])
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            raise Refusal(400, "INVALID_DATA", "body", expected_data_type="jsonobject") from None
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not rows or not all(isinstance(each, dict) for each in rows):
            raise Refusal(
                400, "INVALID_DATA", "invalid data", expected_data_type="jsonarray", api_name="data", json_path="$.data"
            )
        if len(rows) > _ROWS:
            raise Refusal(400, "INVALID_DATA", "invalid data", maximum_length=_ROWS, api_name="data", json_path="$.data")
        return module, body, rows

    def _verdicts(self, rows: list[Row], write: Callable[[Row, str], Row], *, status: int) -> Response:
        self._charge(math.ceil(len(rows) / 10))
        verdicts = []
        for nth, row in enumerate(rows):
            try:
                verdicts.append(write(row, f"$.data[{nth}]"))
            except Invalid as invalid:
                verdicts.append(invalid.verdict)
        refused = sum(each["status"] == "error" for each in verdicts)
        return json_response({"data": verdicts}, status=400 if refused == len(rows) else 207 if refused else status)


def _already_modified() -> Response:
    return error(412, "ALREADY_MODIFIED", "Record updated time has already passed if-unmodified-since time")
