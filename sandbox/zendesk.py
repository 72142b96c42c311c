"""Zendesk Support's dialect: show_many that leaves out what is missing, cursor and offset pages, a capped search.

Written from developer.zendesk.com (rate limits, users, tickets, organizations, search, OAuth). Enterprise plan: 700
calls a minute.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from model.keys import normal_phone
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, json_response
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Profile, Ticket, User, World
from sandbox.zendesk_query import MalformedSearch, Term, parse
from sandbox.zendesk_routes import Routes
from sandbox.zendesk_writing import STATUSES, Writing

SUBDOMAIN = "c360-demo"
_BASE = f"https://{SUBDOMAIN}.zendesk.com/api/v2"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "zendesk-demo-client", "zendesk-demo-secret", "zendesk-demo-refresh"
AGENT, API_TOKEN = "agent1@c360-demo.example", "zendesk-demo-api-token"
_BEYOND = 1 << 32  # Zendesk's ids do not fit in 31 bits
_SEARCH_CAP, _OFFSET_CAP, _PAGE = 1000, 10_000, 100
_PRIORITIES = (None, "low", "normal", "high", "urgent")
_PLANS = ("basic", "plus", "enterprise")
_FIELD_ID = 27642


class Zendesk(Dialect):
    """One account."""

    name = "zendesk"
    objects = {"contact": "users", "account": "organizations", "ticket": "tickets", "lead": "users"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=7200, rotate=True)  # the old tokens die with a refresh, at once
        self.tokens.grant(REFRESH_TOKEN)
        self._minute = RollingWindow(clock, limit=700, period=60)
        profiles, tickets = world.profiles[self.name], world.tickets[self.name]
        users: dict[str, Profile | User] = {_id(each.id): each for each in profiles}
        users |= {_id(each.id): each for each in world.users}
        used = {each.company for each in profiles}
        self.tables = {
            "contact": _table(users, self._user, {
                "email": Column(_emails, self._addresses),
                "phone": Column(lambda each: _phone(each), lambda row: normal_phone(row["phone"], "US") if row["phone"] else None),
                "organization_id": Column(_organization, lambda row: row["organization_id"]),
            }),
            "account": _table({_id(each.id): each for each in world.companies if each.id in used}, self._company, {
                "name": Column(lambda each: each.name.lower(), lambda row: row["name"].lower()),
            }),
            "ticket": _table({_id(each.id): each for each in tickets}, self._ticket, {
                "requester": Column(lambda each: each.contact + _BEYOND, lambda row: row["requester_id"]),
            }),
        }  # fmt: skip
        self._by_object = {
            "users": self.tables["contact"],
            "organizations": self.tables["account"],
            "tickets": self.tables["ticket"],
        }
        kinds = {"users": "contact", "organizations": "account", "tickets": "ticket"}
        self._writing = Writing(
            self._by_object, clock, blank=_blank, alive=_alive, delete=lambda object, id: self.delete(kinds[object], id), agent=1 + _BEYOND,
        )  # fmt: skip
        self._routes = Routes(self._writing, clock, base=_BASE)

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        found = [Endpoint("POST", "/oauth/tokens", self._token, open=True)]
        for suffix in (".json", ""):
            found += [
                *self._routes.endpoints(suffix),
                Endpoint("GET", f"/api/v2/users/me{suffix}", self._me),
                Endpoint("GET", f"/api/v2/users/search{suffix}", self._user_search),
                Endpoint("GET", f"/api/v2/users/{{id:int}}/tickets/requested{suffix}", self._requested),
                Endpoint("GET", f"/api/v2/organizations/{{id:int}}/users{suffix}", self._organization_users),
                Endpoint("GET", f"/api/v2/search{suffix}", self._search),
                *(Endpoint("GET", f"/api/v2/{each}{suffix}", partial(self._list, each)) for each in self._by_object),
                *(Endpoint("GET", f"/api/v2/{each}/show_many{suffix}", partial(self._many, each)) for each in self._by_object),
                *(Endpoint("GET", f"/api/v2/{each}/{{id:int}}{suffix}", partial(self._get, each)) for each in self._by_object),
                *(
                    Endpoint("GET", f"/api/v2/{each}_fields{suffix}", partial(self._fields, each))
                    for each in ("user", "ticket", "organization")
                ),
            ]
        return found

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic" and given == base64.b64encode(f"{AGENT}/token:{API_TOKEN}".encode()).decode():
            pass
        elif scheme != "Bearer" or self.tokens.valid(given) is None:
            if scheme == "Bearer":
                description = "The access token provided is expired, revoked, malformed or invalid for other reasons."
                return json_response({"error": "invalid_token", "error_description": description}, status=401)
            return json_response({"error": "Couldn't authenticate you"}, status=401)
        return None if self._minute.take() else self.throttled(self._minute.wait())

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open:
            remaining = str(max(self._minute.remaining, 0))
            response.headers["X-Rate-Limit"] = str(self._minute.limit)
            response.headers["X-Rate-Limit-Remaining"] = remaining
            if "/tickets" in endpoint.path:
                response.headers["ratelimit-limit"] = str(self._minute.limit)
                response.headers["ratelimit-remaining"] = remaining
                response.headers["ratelimit-reset"] = str(math.ceil(60 - self.clock.time() % 60))
        return response

    def throttled(self, seconds: float) -> Response:
        return PlainTextResponse(
            "Number of allowed API requests per minute exceeded",
            status_code=429,
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
        )

    def exhausted(self) -> Response:
        return self.throttled(60)  # Zendesk counts by the minute only

    def unknown(self, request: Request) -> Response:
        return json_response({"error": {"title": "No help desk at this address", "message": "Not found"}}, status=404)

    def native(self, kind: str, world_id: int) -> str:
        return _id(world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        row = {**row, **fields, "updated_at": _iso(self.clock.time() * 1000)}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        row = self.tables[kind].get(native_id)
        if row is None or not _alive(row):
            return False
        return self.change(kind, native_id, {"active": False} if kind == "contact" else {"status": "deleted"}) is not None

    # ---- OAuth ----

    async def _token(self, request: Request) -> Response:
        try:
            said = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            said = {}
        if said.get("client_id") != CLIENT_ID or said.get("client_secret") != CLIENT_SECRET:
            return _refused(
                401,
                "invalid_client",
                "Client authentication failed due to unknown client, no client authentication included, or unsupported authentication method.",
            )
        if said.get("grant_type") != "refresh_token":
            return _refused(
                400, "unsupported_grant_type", "The authorization grant type is not supported by the authorization server."
            )
        following = self.tokens.refresh(str(said.get("refresh_token", "")), prefix="zr")
        if following is None:
            return _refused(
                400,
                "invalid_grant",
                "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the authorization request, or was issued to another client.",
            )
        self.tokens.revoke_access()
        return json_response(
            {
                "access_token": self.tokens.issue(CLIENT_ID),
                "token_type": "bearer",
                "refresh_token": following,
                "scope": "read write",
                "expires_in": int(self.tokens.lifetime),
            }
        )

    # ---- reading ----

    async def _me(self, _: Request) -> Response:
        return json_response({"user": self.tables["contact"].get(_id(1))})

    async def _get(self, kind: str, request: Request) -> Response:
        row = self._by_object[kind].get(str(request.path_params["id"]))
        if row is None or (kind != "users" and not _alive(row)):  # a deleted user is shown, and is not active
            return _not_found()
        return json_response({kind.rstrip("s"): row})

    async def _many(self, kind: str, request: Request) -> Response:
        ids = [each for each in request.query_params.get("ids", "").split(",") if each]
        if not ids or not all(each.isdigit() for each in ids):
            return _invalid(
                "You passed an invalid value for the ids attribute. Invalid parameter: ids must be a list of integers"
            )
        if len(ids) > _PAGE:
            return _invalid(f"You passed an invalid value for the ids attribute. Too many ids: at most {_PAGE}")
        rows = [
            row for each in sorted(set(ids), reverse=True) if (row := self._by_object[kind].get(each)) is not None and _alive(row)
        ]
        return json_response({kind: rows, "next_page": None, "previous_page": None, "count": len(rows)})

    async def _list(self, kind: str, request: Request) -> Response:
        rows = (row for row in self._by_object[kind].walk("id") if _alive(row))
        if kind == "users" and (role := request.query_params.get("role")):
            rows = (row for row in rows if row["role"] == role)
        return self._paged(request, kind, rows)

    async def _requested(self, request: Request) -> Response:
        if self.tables["contact"].get(str(request.path_params["id"])) is None:
            return _not_found()
        rows = [row for row in self.tables["ticket"].having("requester", [request.path_params["id"]]) if _alive(row)]
        return self._paged(request, "tickets", sorted(rows, key=lambda row: row["id"]))

    async def _organization_users(self, request: Request) -> Response:
        rows = [row for row in self.tables["contact"].having("organization_id", [request.path_params["id"]]) if _alive(row)]
        return self._paged(request, "users", sorted(rows, key=lambda row: row["id"]))

    def _paged(self, request: Request, kind: str, rows: Iterable[Row]) -> Response:
        """Answer by cursor where `page[size]` is given, by offset otherwise."""
        query = request.query_params
        if "page[size]" in query or "page[after]" in query:
            size = query.get("page[size]", str(_PAGE))
            after = query.get("page[after]", "")
            if not size.isdigit() or not 1 <= int(size) <= _PAGE or (after and not after.isdigit()):
                return _invalid("You passed an invalid value for the page attribute.")
            left = [row for row in rows if not after or row["id"] > int(after)]
            page = left[: int(size)]
            more = len(left) > len(page)
            cursor = str(page[-1]["id"]) if page else None
            link = str(request.url.include_query_params(**{"page[size]": size, "page[after]": cursor})) if more else None
            return json_response(
                {
                    kind: page,
                    "meta": {"has_more": more, "after_cursor": cursor, "before_cursor": None},
                    "links": {"next": link, "prev": None},
                }
            )
        size, number = query.get("per_page", str(_PAGE)), query.get("page", "1")
        if not (size.isdigit() and number.isdigit()) or int(number) < 1:
            return _invalid("You passed an invalid value for the page attribute. Invalid parameter: page must be an integer")
        start = (int(number) - 1) * min(int(size), _PAGE)
        if start >= _OFFSET_CAP:
            return _invalid("Pagination limit reached for offset model")
        every = list(rows)
        page = every[start : start + min(int(size), _PAGE)]
        more = start + len(page) < len(every)
        return json_response(
            {
                kind: page,
                "count": len(every),
                "next_page": str(request.url.include_query_params(page=int(number) + 1)) if more else None,
                "previous_page": None,
            }
        )

    # ---- search ----

    async def _user_search(self, request: Request) -> Response:
        return self._found(request, "users", [Term("type", ":", "user", False)])

    async def _search(self, request: Request) -> Response:
        return self._found(request, "results", [])

    def _found(self, request: Request, key: str, given: list[Term]) -> Response:
        query = request.query_params
        number, size = query.get("page", "1"), query.get("per_page", str(_PAGE))
        if any(name.startswith("page[") for name in query) or not (number.isdigit() and size.isdigit()):
            return _invalid("You passed an invalid value for the page attribute. Invalid parameter: page must be an integer")
        try:
            terms = given + parse(query.get("query", ""))
        except MalformedSearch as error:
            return json_response({"error": "invalid", "description": f"Invalid search: {error}"}, status=422)
        per_page = min(int(size), _PAGE)
        start = (int(number) - 1) * per_page
        if start >= _SEARCH_CAP:
            return json_response(
                {
                    "error": "invalid",
                    "description": "Invalid search: Requested response size was greater than Search Response Limits",
                },
                status=422,
            )
        rows = self._matching(terms)
        if sort := query.get("sort_by"):
            if sort not in {"created_at", "updated_at", "priority", "status", "ticket_type"}:
                return json_response(
                    {"error": "invalid", "description": f"Invalid search: sort_by {sort} is not supported"}, status=422
                )
            # Ties are in no order that Zendesk states.
            rows.sort(
                key=lambda row: (row.get(sort) or "", row["id"] * 2_654_435_761 % 4_294_967_296),
                reverse=query.get("sort_order", "desc") == "desc",
            )
        page = rows[start : start + per_page]
        more = start + len(page) < min(len(rows), _SEARCH_CAP)
        return json_response(
            {
                key: page,
                "count": len(rows),
                "next_page": str(request.url.include_query_params(page=int(number) + 1)) if more else None,
                "previous_page": None,
                "facets": None,
            }
        )

    def _matching(self, terms: list[Term]) -> list[Row]:
        grouped: dict[tuple[str, str, bool], list[str]] = {}
        for term in terms:
            grouped.setdefault((term.name, term.operator, term.negated), []).append(term.value)
        kinds = [f"{each}s" for each in grouped.pop(("type", ":", False), ["user", "ticket", "organization"])]
        found = []
        for kind in kinds:
            if (table := self._by_object.get(kind)) is None:
                continue
            for row in self._candidates(kind, table, grouped):
                if _alive(row) and all(
                    _holds(kind, row, name, operator, values) is not negated
                    for (name, operator, negated), values in grouped.items()
                ):
                    found.append({**row, "result_type": kind.rstrip("s")})
        return found

    def _candidates(self, kind: str, table: Table[Any], grouped: Mapping[tuple[str, str, bool], list[str]]) -> Iterable[Row]:
        for (name, operator, negated), values in grouped.items():
            if negated or operator != ":":
                continue
            if name in {"requester", "requester_id"} and kind == "tickets" and all(each.isdigit() for each in values):
                return table.having("requester", [int(each) for each in values])
            if name in {"organization", "organization_id"} and kind == "users" and all(each.isdigit() for each in values):
                return table.having("organization_id", [int(each) for each in values])
            if name == "email" and kind == "users":
                return table.having("email", [each.lower() for each in values])
            if name == "phone" and kind == "users":
                return table.having("phone", [each for value in values if (each := normal_phone(value, "US"))])
        for (name, operator, negated), values in grouped.items():
            if name in {"created", "updated"} and operator in {">", ">="} and not negated:
                return table.walk(name, start=min(_millis(each) for each in values))
        return table

    # ---- metadata ----

    async def _fields(self, kind: str, _: Request) -> Response:
        base = {"active": True, "description": "", "created_at": "2024-01-01T00:00:00Z", "updated_at": "2024-01-01T00:00:00Z"}
        if kind == "user":
            options = [{"id": at, "name": each.title(), "value": each} for at, each in enumerate(_PLANS)]
            fields = [
                {"id": 7, "key": "plan", "title": "Plan", "type": "dropdown", "custom_field_options": options, **base},
                {"id": 8, "key": "seats", "title": "Seats", "type": "integer", **base},
            ]
        elif kind == "ticket":
            fields = [{"id": _FIELD_ID, "title": "Order number", "type": "text", "removable": True, **base}]
        else:
            fields = [{"id": 9, "key": "tier", "title": "Tier", "type": "text", **base}]
        return json_response({f"{kind}_fields": fields, "next_page": None, "previous_page": None, "count": len(fields)})

    # ---- rendering ----

    def _addresses(self, row: Row) -> tuple[str, ...]:
        """All the addresses of a user: those of people who are deleted are free again."""
        return tuple(each["value"].lower() for each in self._writing.addresses(row)) if _alive(row) else ()

    def _user(self, each: Profile | User) -> Row:
        id = each.id + _BEYOND
        common: Row = {
            "id": id,
            "url": f"{_BASE}/users/{id}.json",
            "name": f"{each.given} {each.family}",
            "email": each.email,
        }
        if isinstance(each, User):
            stamp = "2023-01-01T00:00:00Z"
            return {
                **common,
                "phone": None,
                "role": "agent",
                "organization_id": None,
                "external_id": None,
                "active": each.active,
                "suspended": False,
                "verified": True,
                "locale": "en-US",
                "time_zone": "UTC",
                "tags": [],
                "user_fields": {},
                "created_at": stamp,
                "updated_at": stamp,
            }
        return {
            **common, "phone": each.phone, "role": "end-user", "organization_id": each.company + _BEYOND if each.company else None, "external_id": None,
            "active": not each.deleted, "suspended": False, "verified": True, "locale": "en-US", "time_zone": "Eastern Time (US & Canada)", "tags": [],
            "user_fields": {"plan": _PLANS[each.number % 3], "seats": each.number}, "created_at": _iso(each.created), "updated_at": _iso(each.updated),
        }  # fmt: skip

    def _company(self, each: Company) -> Row:
        id = each.id + _BEYOND
        return {
            "id": id, "url": f"{_BASE}/organizations/{id}.json", "name": each.name, "domain_names": [each.domain], "external_id": None, "tags": [],
            "organization_fields": {"tier": "standard"}, "created_at": _iso(each.created), "updated_at": _iso(each.created),
        }  # fmt: skip

    def _ticket(self, each: Ticket) -> Row:
        id = each.id + _BEYOND
        custom = [{"id": _FIELD_ID, "value": str(each.number)}]
        return {
            "id": id, "url": f"{_BASE}/tickets/{id}.json", "external_id": None, "type": "question", "subject": each.subject, "raw_subject": each.subject,
            "description": each.subject, "priority": _PRIORITIES[each.priority], "status": STATUSES[each.status], "requester_id": each.contact + _BEYOND,
            "submitter_id": each.contact + _BEYOND, "assignee_id": 1 + _BEYOND, "organization_id": each.company + _BEYOND if each.company else None, "group_id": None,
            "collaborator_ids": [], "has_incidents": False, "is_public": True, "due_at": None, "tags": [], "custom_fields": custom, "fields": custom,
            "satisfaction_rating": {"score": "unoffered"}, "via": {"channel": "web"}, "created_at": _iso(each.created), "updated_at": _iso(each.updated),
        }  # fmt: skip


def _blank(object: str, id: int) -> Row:
    """Return the row of a record that was made through the API, before anything is said of it."""
    common: Row = {"id": id, "url": f"{_BASE}/{object}/{id}.json", "external_id": None, "tags": []}
    if object == "users":
        return {
            **common, "name": "", "email": None, "phone": None, "role": "end-user", "organization_id": None, "active": True, "suspended": False, "verified": False,
            "locale": "en-US", "time_zone": "Eastern Time (US & Canada)", "user_fields": {"plan": None, "seats": None},
        }  # fmt: skip
    if object == "organizations":
        return {**common, "name": "", "domain_names": [], "organization_fields": {"tier": None}}
    custom = [{"id": _FIELD_ID, "value": None}]
    return {
        **common, "type": None, "subject": None, "raw_subject": None, "description": "", "priority": None, "status": "new", "requester_id": None, "submitter_id": None,
        "assignee_id": None, "organization_id": None, "group_id": None, "collaborator_ids": [], "has_incidents": False, "is_public": True, "due_at": None,
        "custom_fields": custom, "fields": custom, "satisfaction_rating": {"score": "unoffered"}, "via": {"channel": "api"},
    }  # fmt: skip


def _id(number: int) -> str:
    return str(number + _BEYOND)


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "id": Column(lambda each: each.id + _BEYOND, lambda row: row["id"]),
        "created": Column(lambda each: getattr(each, "created", 0), lambda row: _millis(row["created_at"])),
        "updated": Column(
            lambda each: getattr(each, "updated", getattr(each, "created", 0)), lambda row: _millis(row["updated_at"])
        ),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _emails(each: Profile | User) -> str | None:
    return each.email.lower() if each.email else None


def _phone(each: Profile | User) -> str | None:
    return normal_phone(each.phone, "US") if isinstance(each, Profile) and each.phone else None


def _organization(each: Profile | User) -> int | None:
    return each.company + _BEYOND if isinstance(each, Profile) and each.company else None


def _alive(row: Row) -> bool:
    return row.get("active", True) and row.get("status") != "deleted"


def _holds(kind: str, row: Row, name: str, operator: str, values: list[str]) -> bool:
    """Tell whether any of the values fits: terms of one property are alternatives."""
    return any(_fits(kind, row, name, operator, each) for each in values)


def _fits(kind: str, row: Row, name: str, operator: str, value: str) -> bool:
    if name == "":
        return any(value.lower() in str(row.get(field) or "").lower() for field in ("name", "email", "subject", "description"))
    if name in {"created", "updated"}:
        at, other = _millis(row[f"{name}_at"]), _millis(value)
        return {":": at == other, "<": at < other, "<=": at <= other, ">": at > other, ">=": at >= other}[operator]
    field = {"requester": "requester_id", "organization": "organization_id"}.get(name, name)
    mine = row.get(field)
    if name == "phone":
        return mine is not None and normal_phone(mine, "US") == normal_phone(value, "US")
    if name == "status" and operator != ":":
        order = STATUSES.index(str(mine)), STATUSES.index(value) if value in STATUSES else -1
        return {"<": order[0] < order[1], "<=": order[0] <= order[1], ">": order[0] > order[1], ">=": order[0] >= order[1]}[
            operator
        ]
    return str(mine or "").lower() == value.lower()


def _iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _millis(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp() * 1000)


def _not_found() -> Response:
    return json_response({"error": "RecordNotFound", "description": "Not found"}, status=404)


def _invalid(message: str) -> Response:
    return json_response({"error": {"title": "Invalid attribute", "message": message}}, status=400)


def _refused(status: int, code: str, description: str) -> Response:
    return json_response({"error": code, "error_description": description}, status=status)
