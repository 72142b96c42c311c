"""SugarCRM's dialect: a password for a token in a header of its own, filters as JSON, offsets that end at -1, and no word about too many calls.

Written from the Sugar Developer Guide (REST v10 to v11.27), the SugarCloud policy guide and the stock vocabulary. One cloud instance, 20 calls
a second; who exceeds them finds the line cut for ten seconds. What the documents leave open is said in docs/sandbox.md.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from sandbox import sugarcrm_filter as filters
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, json_response
from sandbox.faults import Faults, Reset
from sandbox.sugarcrm_asked import json_body, names_in, true, whole
from sandbox.sugarcrm_hooks import Hooks
from sandbox.sugarcrm_metadata import HASH, LINKS, language, metadata, options, types
from sandbox.sugarcrm_records import ADMIN, Records, Refusal, millis, native
from sandbox.table import Row
from sandbox.world import World

USERNAME, PASSWORD, PLATFORM = "c360", "sugarcrm-demo-password", "c360_integration"
_PLATFORMS = frozenset({"base", "mobile", "portal", PLATFORM})
_VERSIONS = frozenset({"v10", "v11", *(f"v11_{minor}" for minor in range(1, 28))})
_REFRESH_LIFE, _BLOCKED = 1_209_600, 10.0  # seconds
_DEFAULT, _MOST, _BULK = 20, 1000, 50
_DATES = ("date_entered", "date_modified")


class SugarCRM(Dialect):
    """One cloud instance."""

    name = "sugarcrm"
    cuts = True
    gone = "deleted"
    objects = {"contact": "Contacts", "account": "Accounts", "deal": "Opportunities", "lead": "Leads", "owner": "Users"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=3600, rotate=True)
        self._sessions: dict[str, str] = {}  # platform → the one session that lives there
        self._refresh: dict[str, tuple[str, str, float]] = {}  # refresh token → platform, session, end
        self._window = RollingWindow(clock, limit=20, period=1.0)
        self._blocked = 0.0
        self._records = Records(world, self.name, clock.time)
        self._hooks = Hooks(clock.time, lambda module, row: self._records.shown(module, row))
        self.tables = {kind: self._records.tables[module] for kind, module in self.objects.items()}
        self._routes = [(Route(each.path, each.handler, methods=[each.method]), each) for each in self.endpoints()]

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "password", "username": USERNAME, "password": PASSWORD}

    def endpoints(self) -> list[Endpoint]:
        root = "/rest/{version}"
        return [
            Endpoint("POST", f"{root}/oauth2/token", self._answered(self._token), open=True),
            Endpoint("POST", f"{root}/oauth2/logout", self._answered(self._logout)),
            Endpoint("GET", f"{root}/me", self._answered(self._me)),
            Endpoint("GET", f"{root}/ping", self._answered(self._ping)),
            Endpoint("GET", f"{root}/metadata", self._answered(self._metadata)),
            Endpoint("GET", f"{root}/metadata/_hash", self._answered(self._hash)),
            Endpoint("GET", f"{root}/lang/{{language}}", self._answered(self._language)),
            Endpoint("POST", f"{root}/bulk", self._answered(self._bulk)),
            *self._hooks.endpoints(f"{root}/WebLogicHooks", self._answered),
            Endpoint("PATCH", f"{root}/integrate/{{module}}/sync_key/{{key}}", self._answered(self._upsert)),
            Endpoint("GET", f"{root}/{{module}}", self._answered(self._list)),
            Endpoint("POST", f"{root}/{{module}}", self._answered(self._create)),
            Endpoint("GET", f"{root}/{{module}}/filter", self._answered(self._list)),
            Endpoint("POST", f"{root}/{{module}}/filter", self._answered(self._list)),
            Endpoint("GET", f"{root}/{{module}}/count", self._answered(self._count)),
            Endpoint("GET", f"{root}/{{module}}/enum/{{field}}", self._answered(self._enum)),
            Endpoint("GET", f"{root}/{{module}}/{{id}}", self._answered(self._get)),
            Endpoint("PUT", f"{root}/{{module}}/{{id}}", self._answered(self._update)),
            Endpoint("DELETE", f"{root}/{{module}}/{{id}}", self._answered(self._delete)),
            Endpoint("POST", f"{root}/{{module}}/{{id}}/link", self._answered(self._tie)),
            Endpoint("GET", f"{root}/{{module}}/{{id}}/link/{{link}}", self._answered(self._linked)),
            Endpoint("DELETE", f"{root}/{{module}}/{{id}}/link/{{link}}/{{other}}", self._answered(self._untie)),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if self.clock.time() < self._blocked:
            return Reset()
        if not self._window.take():
            return self.throttled(_BLOCKED)
        if request.path_params["version"] not in _VERSIONS:
            return _error(
                301, "incorrect_version", "The version of the API you are using is not correct for the current request."
            )
        if endpoint.open:
            return None
        issued = self.tokens.valid(request.headers.get("oauth-token", ""))
        if issued is None or self._sessions.get(issued.scope) != issued.session:
            return _error(401, "invalid_grant", "The access token provided is invalid.")
        if request.headers.get("x-metadata-hash", HASH) != HASH:
            return json_response({
                "error": "metadata_out_of_date", "error_message": "Your metadata or user hash did not match the server.", "metadata_hash": HASH,
            }, status=412)  # fmt: skip
        return None

    def throttled(self, seconds: float) -> Response:
        self._blocked = self.clock.time() + seconds
        return Reset()

    def exhausted(self) -> Response:
        return self.throttled(_BLOCKED)  # there is no other quota

    def unknown(self, request: Request) -> Response:
        return _error(
            404, "no_method", "Your request was not supported. Could not find the HTTP method of your request for this path."
        )

    def native(self, kind: str, world_id: int) -> str:
        return native(self.objects[kind], world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        return None if row is None or row["deleted"] else self._records.put(self.objects[kind], row, fields)

    def delete(self, kind: str, native_id: str) -> bool:
        try:
            self._records.delete(self.objects[kind], native_id)
        except Refusal:
            return False
        return True

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two records as a user would: what is empty is filled, what belonged to the loser moves, and the loser is deleted."""
        if kind not in self.objects or kind == "owner" or loser == winner:
            return False
        return self._records.merge(self.objects[kind], loser, winner)

    # ---- web logic hooks ----

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._hooks.listed()

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        self._hooks.outbox = self.outbox

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if kind != "owner" and after is not None:
            self._hooks.changed(self.objects[kind], before, after)

    def _answered(self, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """Let a handler return what is answered with 200, or raise what is answered instead."""

        async def answered(request: Request) -> Response:
            try:
                if "module" in request.path_params and request.path_params["module"] not in LINKS:
                    return self.unknown(request)
                found = await handler(request)
            except Refusal as refusal:
                return json_response(refusal.body, status=refusal.status)
            except filters.FilterError as error:
                return _error(422, "invalid_parameter", str(error))
            return found if isinstance(found, Response) else json_response(found)

        return answered

    # ---- sessions ----

    async def _token(self, request: Request) -> Any:
        said = await json_body(request)
        platform = str(said.get("platform") or "base")
        if platform not in _PLATFORMS:
            return _error(422, "invalid_grant", "The platform is not registered.")
        if said.get("client_id") != "sugar" or said.get("client_secret"):
            return _error(400, "invalid_client", "The client credentials are invalid")
        if said.get("grant_type") == "password":
            if (said.get("username"), said.get("password")) != (USERNAME, PASSWORD):
                return _error(401, "need_login", "You must specify a valid username and password.")
            self._sessions[platform] = secrets.token_hex(8)  # the session that was here ends
        elif said.get("grant_type") == "refresh_token":
            of, session, ends = self._refresh.pop(str(said.get("refresh_token")), ("", "", 0.0))
            if of != platform or self._sessions.get(platform) != session or ends <= self.clock.time():
                return _error(400, "invalid_grant", "Invalid refresh token")
        else:
            return _error(400, "unsupported_grant_type", "Unsupported grant type")
        session, following = self._sessions[platform], secrets.token_urlsafe(24)
        self._refresh[following] = (platform, session, self.clock.time() + _REFRESH_LIFE)
        access = self.tokens.issue("sugar", session=session, scope=platform)
        return {
            "access_token": access, "expires_in": 3600, "token_type": "bearer", "scope": None, "refresh_token": following,
            "refresh_expires_in": _REFRESH_LIFE, "download_token": secrets.token_hex(16),
        }  # fmt: skip

    async def _logout(self, request: Request) -> Any:
        issued = self.tokens.valid(request.headers["oauth-token"])
        assert issued is not None, "admitted"
        self._sessions.pop(issued.scope, None)
        return {"success": True}

    async def _me(self, _: Request) -> Any:
        preferences = {"timezone": "Asia/Kolkata", "currency_id": "-99", "datepref": "Y-m-d", "timepref": "H:i"}
        return {"current_user": {"id": ADMIN, "user_name": USERNAME, "type": "admin", "preferences": preferences, "_hash": HASH}}

    async def _ping(self, _: Request) -> Any:
        return json_response("pong")

    # ---- metadata ----

    async def _metadata(self, request: Request) -> Any:
        said = request.query_params
        return metadata(names_in(said.get("type_filter")) or (), names_in(said.get("module_filter")) or ())

    async def _hash(self, _: Request) -> Any:
        return {"_hash": HASH}

    async def _language(self, request: Request) -> Any:
        if request.path_params["language"] != "en_us":
            raise Refusal(404, "not_found", "Could not find the language")
        return language()

    async def _enum(self, request: Request) -> Any:
        choices = options(request.path_params["module"], request.path_params["field"])
        if choices is None:
            raise Refusal(404, "not_found", "Could not find the field")
        return choices

    # ---- lists ----

    async def _list(self, request: Request) -> Any:
        module = request.path_params["module"]
        said, tests = await self._asked(request)
        rows = self._chosen(module, tests, str(said.get("order_by") or "date_modified:desc"), deleted=true(said.get("deleted")))
        return self._page(module, rows, said)

    async def _count(self, request: Request) -> Any:
        module = request.path_params["module"]
        _, tests = await self._asked(request)
        return {"record_count": sum(1 for _ in self._chosen(module, tests, "id:asc", deleted=False))}

    async def _asked(self, request: Request) -> tuple[Mapping[str, Any], list[Any]]:
        said: Mapping[str, Any] = await json_body(request) if request.method == "POST" else request.query_params
        text = said.get("filter", [])
        tests = filters.from_query(request.query_params.multi_items(), "filter") if isinstance(said, QueryParams) else text
        if isinstance(text, str):
            tests = orjson.loads(text)
        module = request.path_params["module"]
        for name in filters.fields_of(tests):
            link, _, field = name.partition(".")
            known = name in types(module) or (link in LINKS[module] and field == "id") or name == "email_addresses.email_address"
            if not known:
                raise Refusal(422, "invalid_parameter", f"Unknown field in filter: {name}")
        return said, tests

    def _page(self, module: str, rows: Iterator[Row], said: Mapping[str, Any]) -> Any:
        size, offset = whole(said.get("max_num"), _DEFAULT), whole(said.get("offset"), 0)
        size = min(size or _DEFAULT, _MOST)
        part = list(islice(rows, offset, offset + size + 1))
        shown = [self._records.shown(module, row, names_in(said.get("fields"))) for row in part[:size]]
        return {"next_offset": offset + size if len(part) > size else -1, "records": shown}

    def _chosen(self, module: str, tests: Sequence[Mapping[str, Any]], order_by: str, *, deleted: bool) -> Iterator[Row]:
        """Walk the rows for which the tests hold, in the order that was asked for."""
        order = [(name, way == "desc") for name, _, way in (each.strip().partition(":") for each in order_by.split(","))]
        if unknown := [name for name, _ in order if name not in types(module)]:
            raise Refusal(422, "invalid_parameter", f"Unknown field in order_by: {unknown[0]}")
        for row in self._ordered(module, tests, order):
            if (deleted or not row["deleted"]) and filters.holds(tests, lambda name, row=row: self._value(module, row, name)):  # type: ignore[misc]
                yield row

    def _ordered(self, module: str, tests: Sequence[Mapping[str, Any]], order: Sequence[tuple[str, bool]]) -> Iterator[Row]:
        few = self._few(module, tests)
        (column, descending), table = order[0], self._records.tables[module]
        if few is None and column in _DATES and module != "Users":
            low, high = (millis(edge.isoformat()) if edge else None for edge in filters.bounds(tests, column))
            group: list[Row] = []
            for row in table.walk(column, start=high if descending else low, descending=descending):
                at = millis(row[column])
                if (low is not None and at < low) or (high is not None and at > high):
                    break
                if group and group[0][column] != row[column]:
                    yield from _sorted(group, order[1:])
                    group = []
                group.append(row)
            yield from _sorted(group, order[1:])
        else:
            yield from _sorted(list(table) if few is None else few, order)

    def _few(self, module: str, tests: Sequence[Mapping[str, Any]]) -> list[Row] | None:
        """Return the rows that an index names, None where none does."""
        table = self._records.tables[module]
        if (ids := filters.equals(tests, ["id"])) is not None:
            return [row for id in dict.fromkeys(map(str, ids)) if (row := table.get(id)) is not None]
        for index, names in (
            ("email", ["email_addresses.email_address", "email1"]),
            ("account_id", ["account_id", "accounts.id"]),
        ):
            if index in table.indexed and (values := filters.equals(tests, names)) is not None:
                return table.having(index, [str(value).lower() if index == "email" else value for value in values])
        for link, other in LINKS[module].items():
            if (parents := filters.equals(tests, [f"{link}.id"])) is not None:
                back = next(name for name, each in LINKS[other].items() if each == module)
                found = dict.fromkeys(id for parent in parents for id in self._records.linked(other, str(parent), back))
                return [row for id in found if (row := table.get(id)) is not None]
        return None

    def _value(self, module: str, row: Row, name: str) -> Any:
        if name == "email_addresses.email_address":
            return tuple(each["email_address"] for each in row["email"])
        link, _, field = name.partition(".")
        return tuple(self._records.linked(module, row["id"], link)) if field else row.get(name)

    # ---- records ----

    async def _get(self, request: Request) -> Any:
        module = request.path_params["module"]
        row = self._records.live(module, request.path_params["id"])
        return self._records.shown(module, row, names_in(request.query_params.get("fields")))

    async def _create(self, request: Request) -> Any:
        module = _writable(request)
        return self._records.shown(module, self._records.create(module, await json_body(request)))

    async def _update(self, request: Request) -> Any:
        module, said = _writable(request), await json_body(request)
        stamp = request.headers.get("x-timestamp") or (said.get("_headers") or {}).get("X_TIMESTAMP")
        seen = filters.moment(stamp) if stamp else None
        return self._records.shown(module, self._records.update(module, request.path_params["id"], said, seen=seen))

    async def _delete(self, request: Request) -> Any:
        self._records.delete(_writable(request), request.path_params["id"])
        return {"id": request.path_params["id"]}

    async def _upsert(self, request: Request) -> Any:
        """By a key of the caller's own, kept in `sync_key`; nothing to do with addresses."""
        module, key, said = _writable(request), request.path_params["key"], await json_body(request)
        known = next((row for row in self._records.tables[module].having("sync_key", [key]) if not row["deleted"]), None)
        if known is None:
            row = self._records.create(module, {**said, "sync_key": key})
        else:
            row = self._records.update(module, known["id"], said)
        return json_response({"record": row["id"]}, status=200 if known else 201)

    async def _linked(self, request: Request) -> Any:
        module, id, link = (request.path_params[each] for each in ("module", "id", "link"))
        self._records.live(module, id)
        ids = self._records.linked(module, id, link)
        other, said = LINKS[module][link], request.query_params
        rows = self._chosen(other, [{"id": {"$in": ids}}], said.get("order_by") or "date_modified:desc", deleted=False)
        return self._page(other, rows, said)

    async def _tie(self, request: Request) -> Any:
        module, id, said = _writable(request), request.path_params["id"], await json_body(request)
        link, others = said.get("link_name"), said.get("ids")
        if not link or not isinstance(others, list):
            raise Refusal(400, "missing_parameter", "Missing parameter link_name or ids")
        for other in others:
            self._records.tie(module, id, str(link), str(other))
        related = [
            self._records.shown(LINKS[module][link], self._records.live(LINKS[module][link], str(other))) for other in others
        ]
        return {"record": self._records.shown(module, self._records.live(module, id)), "related_records": related}

    async def _untie(self, request: Request) -> Any:
        module, id, link, other = (request.path_params[each] for each in ("module", "id", "link", "other"))
        self._records.untie(module, id, link, other)
        return {"record": self._records.shown(module, self._records.live(module, id))}

    # ---- many at once ----

    async def _bulk(self, request: Request) -> Any:
        calls = (await json_body(request)).get("requests")
        if not isinstance(calls, list):
            raise Refusal(400, "missing_parameter", "Missing parameter requests")
        if len(calls) > _BULK:
            raise Refusal(413, "request_too_large", "The request is too large.")
        return [await self._called(each) for each in calls]

    async def _called(self, call: Mapping[str, Any]) -> Row:
        address = urlsplit(str(call.get("url")))
        named = [str(each).partition(":") for each in call.get("headers") or ()]
        scope = {
            "type": "http", "method": call.get("method", "GET"), "path": f"/rest/{address.path.lstrip('/')}", "root_path": "",
            "query_string": address.query.encode(), "headers": [(name.lower().encode(), value.strip().encode()) for name, _, value in named],
        }  # fmt: skip
        body = call.get("data") or ""
        answer = await self._dispatched(scope, body.encode() if isinstance(body, str) else orjson.dumps(body))
        return {
            "contents": orjson.loads(answer.body), "headers": {"Content-Type": "application/json"}, "status": answer.status_code,
            "status_text": "OK" if answer.status_code < 300 else "",
        }  # fmt: skip

    async def _dispatched(self, scope: dict[str, Any], body: bytes) -> Response:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        for route, endpoint in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                response: Response = await endpoint.handler(Request({**scope, **more}, receive))
                return response
        return self.unknown(Request(scope, receive))


def _writable(request: Request) -> str:
    module: str = request.path_params["module"]
    if module == "Users":
        raise Refusal(403, "not_authorized", "You are not authorized to perform this action.")
    return module


def _sorted(rows: list[Row], order: Sequence[tuple[str, bool]]) -> list[Row]:
    """Sort by several fields; what ties stays in an order that says nothing, but is always the same."""
    found = sorted(rows, key=lambda row: str(row["id"])[::-1])
    for name, descending in reversed(order):
        found.sort(key=lambda row: _sortable(name, row[name]), reverse=descending)
    return found


def _sortable(name: str, value: Any) -> tuple[bool, Any]:
    if name in _DATES and value:
        return True, millis(value)
    return value not in (None, ""), str(value).lower()


def _error(status: int, error: str, message: str) -> Response:
    return json_response({"error": error, "error_message": message}, status=status)
