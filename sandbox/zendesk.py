"""Zendesk Support's dialect: show_many that leaves out what is missing, cursor and offset pages, a capped search.

Written from developer.zendesk.com (rate limits, users, tickets, organizations, search, OAuth). Enterprise plan: 700
calls a minute. Searching stands in `zendesk_search`, writing in `zendesk_writing`, with its paths in `zendesk_routes`.
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
from sandbox.faults import Faults
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Profile, Ticket, User, World
from sandbox.zendesk_exports import Exports
from sandbox.zendesk_hooks import Hooks
from sandbox.zendesk_routes import Routes
from sandbox.zendesk_search import PAGE, Search, alive, invalid, millis
from sandbox.zendesk_writing import STATUSES, Refused, Writing

SUBDOMAIN = "c360-demo"
_BASE = f"https://{SUBDOMAIN}.zendesk.com/api/v2"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "zendesk-demo-client", "zendesk-demo-secret", "zendesk-demo-refresh"
AGENT, API_TOKEN = "agent1@c360-demo.example", "zendesk-demo-api-token"
_BEYOND = 1 << 32  # Zendesk's ids do not fit in 31 bits
_OFFSET_CAP = 10_000
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
        self._search = Search(self._by_object)
        kinds = {"users": "contact", "organizations": "account", "tickets": "ticket"}
        self._writing = Writing(
            self._by_object, clock, blank=_blank, alive=alive, delete=lambda object, id: self.delete(kinds[object], id), agent=1 + _BEYOND,
            merged=lambda loser, winner: self._hooks.merged(loser, winner),
        )  # fmt: skip
        self._routes = Routes(self._writing, clock, base=_BASE)
        self._exports = Exports(self._by_object, clock, base=_BASE)
        self._hooks = Hooks(clock, skew=lambda: self.skew)

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        found = [Endpoint("POST", "/oauth/tokens", self._token, open=True)]
        for suffix in (".json", ""):
            found += [
                *self._routes.endpoints(suffix),
                *self._exports.endpoints(suffix),
                *self._hooks.endpoints(suffix),
                Endpoint("GET", f"/api/v2/users/me{suffix}", self._me),
                Endpoint("GET", f"/api/v2/users/search{suffix}", self._search.users),
                Endpoint("GET", f"/api/v2/users/{{id:int}}/tickets/requested{suffix}", self._requested),
                Endpoint("GET", f"/api/v2/organizations/{{id:int}}/users{suffix}", self._organization_users),
                Endpoint("GET", f"/api/v2/search{suffix}", self._search.everything),
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
        if row is None or not alive(row):
            return False
        return self.change(kind, native_id, {"active": False} if kind == "contact" else {"status": "deleted"}) is not None

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two end-users, as an agent would."""
        if kind != "contact":
            return False
        try:
            self._writing.merge(loser, winner)
        except Refused:
            return False
        return True

    # ---- what it tells ----

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        self._hooks.outbox = self.outbox

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if after is not None and before != after:
            self._exports.changed(self.objects[kind], int(native_id))
            self._hooks.changed(self.objects[kind], before, after)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._hooks.listed()

    def hook(self, url: str, secret: str) -> None:
        self._hooks.enter(url, secret)

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
        if row is None or (kind != "users" and not alive(row)):  # a deleted user is shown, and is not active
            return _not_found()
        return json_response({kind.rstrip("s"): row})

    async def _many(self, kind: str, request: Request) -> Response:
        ids = [each for each in request.query_params.get("ids", "").split(",") if each]
        if not ids or not all(each.isdigit() for each in ids):
            return invalid("You passed an invalid value for the ids attribute. Invalid parameter: ids must be a list of integers")
        if len(ids) > PAGE:
            return invalid(f"You passed an invalid value for the ids attribute. Too many ids: at most {PAGE}")
        rows = [
            row for each in sorted(set(ids), reverse=True) if (row := self._by_object[kind].get(each)) is not None and alive(row)
        ]
        return json_response({kind: rows, "next_page": None, "previous_page": None, "count": len(rows)})

    async def _list(self, kind: str, request: Request) -> Response:
        rows = (row for row in self._by_object[kind].walk("id") if alive(row))
        if kind == "users" and (role := request.query_params.get("role")):
            rows = (row for row in rows if row["role"] == role)
        return self._paged(request, kind, rows)

    async def _requested(self, request: Request) -> Response:
        if self.tables["contact"].get(str(request.path_params["id"])) is None:
            return _not_found()
        rows = [row for row in self.tables["ticket"].having("requester", [request.path_params["id"]]) if alive(row)]
        return self._paged(request, "tickets", sorted(rows, key=lambda row: row["id"]))

    async def _organization_users(self, request: Request) -> Response:
        rows = [row for row in self.tables["contact"].having("organization_id", [request.path_params["id"]]) if alive(row)]
        return self._paged(request, "users", sorted(rows, key=lambda row: row["id"]))

    def _paged(self, request: Request, kind: str, rows: Iterable[Row]) -> Response:
        """Answer by cursor where `page[size]` is given, by offset otherwise."""
        query = request.query_params
        if "page[size]" in query or "page[after]" in query:
            size = query.get("page[size]", str(PAGE))
            after = query.get("page[after]", "")
            if not size.isdigit() or not 1 <= int(size) <= PAGE or (after and not after.isdigit()):
                return invalid("You passed an invalid value for the page attribute.")
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
        size, number = query.get("per_page", str(PAGE)), query.get("page", "1")
        if not (size.isdigit() and number.isdigit()) or int(number) < 1:
            return invalid("You passed an invalid value for the page attribute. Invalid parameter: page must be an integer")
        start = (int(number) - 1) * min(int(size), PAGE)
        if start >= _OFFSET_CAP:
            return invalid("Pagination limit reached for offset model")
        every = list(rows)
        page = every[start : start + min(int(size), PAGE)]
        more = start + len(page) < len(every)
        return json_response(
            {
                kind: page,
                "count": len(every),
                "next_page": str(request.url.include_query_params(page=int(number) + 1)) if more else None,
                "previous_page": None,
            }
        )

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
        return tuple(each["value"].lower() for each in self._writing.addresses(row)) if alive(row) else ()

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
        "created": Column(lambda each: getattr(each, "created", 0), lambda row: millis(row["created_at"])),
        "updated": Column(
            lambda each: getattr(each, "updated", getattr(each, "created", 0)), lambda row: millis(row["updated_at"])
        ),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _emails(each: Profile | User) -> str | None:
    return each.email.lower() if each.email else None


def _phone(each: Profile | User) -> str | None:
    return normal_phone(each.phone, "US") if isinstance(each, Profile) and each.phone else None


def _organization(each: Profile | User) -> int | None:
    return each.company + _BEYOND if isinstance(each, Profile) and each.company else None


def _iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _not_found() -> Response:
    return json_response({"error": "RecordNotFound", "description": "Not found"}, status=404)


def _refused(status: int, code: str, description: str) -> Response:
    return json_response({"error": code, "error_description": description}, status=status)
