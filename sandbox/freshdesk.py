"""Freshdesk's dialect: an API key as the user name, bare arrays with Link headers, a search of ten pages, 404 without a body.

Written from what is known of the API v2 (the vendor's own page was not available): a help article on rate limits, connectors' issues,
a third-party description of the fields. Growth plan: 200 calls a minute.
"""

import base64
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, json_response
from sandbox.faults import Faults
from sandbox.freshdesk_query import MalformedSearch, Term, parse
from sandbox.freshdesk_rules import Rules
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Profile, Ticket, World

API_KEY = "freshdesk-demo-key"
_PAGE, _DEFAULT, _SEARCH_PAGE, _SEARCH_PAGES, _TICKET_PAGES = 100, 30, 30, 10, 300
_MONTH = 30 * 86_400_000
_BEYOND = 43_000_000_000  # ids of an account start high
_STATUSES, _PRIORITIES = (2, 2, 3, 6, 4, 5), (1, 1, 2, 3, 4)
_TICKET_FILTERS = frozenset({
    "page", "per_page", "filter", "requester_id", "email", "company_id", "updated_since", "order_by", "order_type", "include",
})  # fmt: skip
_SEARCHED = frozenset(
    {"active", "company_id", "created_at", "email", "language", "mobile", "phone", "tag", "time_zone", "updated_at"}
)


class Freshdesk(Dialect):
    """One account."""

    name = "freshdesk"
    gone = "deleted"
    objects = {"contact": "contacts", "account": "companies", "ticket": "tickets"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self._minute = RollingWindow(clock, limit=200, period=60)
        self._rules = Rules(clock)
        self._last = _BEYOND * 2  # id of the record made last
        profiles = [each for each in world.profiles[self.name] if not each.deleted]
        used = {each.company for each in profiles}
        self.tables = {
            "contact": Table(
                {_id(each.id): each for each in profiles}, self._contact,
                indexes={
                    "email": Column(lambda each: (each.email or "").lower() or None, lambda row: (row["email"] or "").lower() or None),
                    "company": Column(lambda each: each.company + _BEYOND if each.company else None, lambda row: row["company_id"]),
                },
            ),
            "account": Table({_id(each.id): each for each in world.companies if each.id in used}, self._company),
            "ticket": Table(
                {_id(each.id): each for each in world.tickets[self.name]}, self._ticket,
                indexes={"requester": Column(lambda each: each.contact + _BEYOND, lambda row: row["requester_id"])},
            ),
        }  # fmt: skip

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "basic", "username": API_KEY, "password": "X"}

    def endpoints(self) -> list[Endpoint]:
        found = [
            Endpoint("GET", "/api/v2/agents/me", self._me), Endpoint("GET", "/api/v2/tickets", self._tickets),
            Endpoint("GET", "/api/v2/contacts", self._contacts), Endpoint("GET", "/api/v2/companies", self._companies),
            Endpoint("GET", "/api/v2/search/contacts", self._search),
        ]  # fmt: skip
        for kind, object in self.objects.items():
            found.append(Endpoint("GET", f"/api/v2/{object}/{{id:int}}", partial(self._one, kind)))
            if kind != "ticket":
                found += [
                    Endpoint("POST", f"/api/v2/{object}", partial(self._create, kind)),
                    Endpoint("PUT", f"/api/v2/{object}/{{id:int}}", partial(self._update, kind)),
                    Endpoint("DELETE", f"/api/v2/{object}/{{id:int}}", partial(self._remove, kind)),
                ]
            word = "company" if kind == "account" else kind
            found.append(Endpoint("GET", f"/api/v2/{word}_fields", partial(self._fields, kind)))
        return found

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user = base64.b64decode(given).decode().partition(":")[0] if scheme == "Basic" else ""
        except ValueError:
            user = ""
        # Failed calls count too.
        allowed = self._minute.take()
        if not allowed:
            return self.throttled(self._minute.wait())
        if user != API_KEY:
            body = {"code": "invalid_credentials", "message": "You have to be logged in to perform this action."}
            return json_response(body, status=401)
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        response.headers["X-RateLimit-Total"] = str(self._minute.limit)
        response.headers["X-RateLimit-Remaining"] = str(max(self._minute.remaining, 0))
        response.headers["X-RateLimit-Used-CurrentRequest"] = "1"
        return response

    def throttled(self, seconds: float) -> Response:
        headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
        return json_response({"message": "You have exceeded the limit of requests per minute"}, status=429, headers=headers)

    def exhausted(self) -> Response:
        return self.throttled(3600)

    def unknown(self, request: Request) -> Response:
        return Response(status_code=404)

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
        if row is None or row.get("deleted"):
            return False
        if kind == "account":
            self.tables[kind].remove(native_id)
        else:  # in the recycle bin: still read by its id, and marked
            # Connectors follow deleted tickets by the time of their last change; of contacts nothing is known.
            moved = {"updated_at": _iso(self.clock.time() * 1000)} if kind == "ticket" else {}
            self.tables[kind].put(native_id, {**row, **moved, "deleted": True})
        return True

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two contacts as an agent would: addresses and tickets move, the loser is deleted, and nothing names the winner."""
        rows = [self.tables[kind].get(id) for id in (loser, winner)] if kind == "contact" and loser != winner else [None]
        if any(row is None or row.get("deleted") for row in rows):
            return False
        gone, kept = [row for row in rows if row is not None]
        for ticket in self.tables["ticket"].having("requester", [gone["id"]]):
            self.change("ticket", str(ticket["id"]), {"requester_id": kept["id"]})
        self.delete("contact", loser)
        addresses = [each for each in (gone["email"], *gone["other_emails"]) if each]
        self.change("contact", winner, {"other_emails": [*kept["other_emails"], *addresses]})
        return True

    # ---- rules ----

    def hook(self, url: str, secret: str) -> None:
        """Let an administrator make the rules that call this address, with the secret in `X-Webhook-Secret`."""
        self._rules.add(url, secret)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._rules.listed()

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        self._rules.outbox = self.outbox

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if kind == "ticket" and after is not None and not after.get("deleted"):
            self._rules.saved(native_id, before, after)

    # ---- endpoints ----

    async def _me(self, _: Request) -> Response:
        return json_response({"id": _BEYOND + 1, "type": "support_agent", "contact": {"name": "Agent One"}})

    async def _one(self, kind: str, request: Request) -> Response:
        row = self.tables[kind].get(str(request.path_params["id"]))
        return json_response(row) if row is not None else Response(status_code=404)

    async def _tickets(self, request: Request) -> Response:
        said = request.query_params
        if unknown := sorted(said.keys() - _TICKET_FILTERS):
            return _invalid(unknown[0], "Unexpected/invalid field in request", "invalid_field")
        if said.get("page", "1").isdigit() and int(said.get("page", "1")) > _TICKET_PAGES:
            text = "You cannot access tickets beyond the 300th page. Please provide a smaller page number."
            return _invalid("page", text, "invalid_value")
        table = self.tables["ticket"]
        if "requester_id" in said:
            rows = table.having("requester", [int(said["requester_id"])]) if said["requester_id"].isdigit() else []
        elif "email" in said:
            owners = [row["id"] for row in self.tables["contact"].having("email", [said["email"].lower()])]
            rows = table.having("requester", owners)
        else:
            rows = list(table)
        deleted = said.get("filter") == "deleted"
        rows = [row for row in rows if bool(row.get("deleted")) == deleted]
        try:
            if "updated_since" in said:
                since = _millis(said["updated_since"])
                rows = [row for row in rows if _millis(row["updated_at"]) >= since]
            else:
                rows = [row for row in rows if _millis(row["created_at"]) >= self.clock.time() * 1000 - _MONTH]
        except ValueError:
            return _invalid("updated_since", "It should be in the 'combined date and time ISO8601' format", "invalid_value")
        by = said.get("order_by", "created_at")
        if by not in {"created_at", "due_by", "updated_at", "status", "priority"}:
            return _invalid(
                "order_by", "It should be one of these values: 'due_by,created_at,updated_at,priority,status'", "invalid_value"
            )
        rows.sort(key=lambda row: (row[by] or "", row["id"]), reverse=said.get("order_type", "desc") == "desc")
        return self._paged(request, rows)

    async def _contacts(self, request: Request) -> Response:
        said = request.query_params
        known = {"page", "per_page", "email", "phone", "mobile", "company_id", "state", "_updated_since"}
        if unknown := sorted(said.keys() - known):
            return _invalid(unknown[0], "Unexpected/invalid field in request", "invalid_field")
        table = self.tables["contact"]
        if "email" in said:
            rows = table.having("email", [said["email"].lower()])
        elif "company_id" in said:
            rows = table.having("company", [int(said["company_id"])]) if said["company_id"].isdigit() else []
        else:
            rows = list(table)
        rows = [row for row in rows if bool(row.get("deleted")) == (said.get("state") == "deleted")]
        for name in ("phone", "mobile"):
            if name in said:
                rows = [row for row in rows if row[name] == said[name]]
        if "_updated_since" in said:
            rows = [row for row in rows if _millis(row["updated_at"]) >= _millis(said["_updated_since"])]
        return self._paged(request, sorted(rows, key=lambda row: row["name"]))

    async def _companies(self, request: Request) -> Response:
        return self._paged(request, sorted(self.tables["account"], key=lambda row: row["name"]))

    async def _create(self, kind: str, request: Request) -> Response:
        body = await _object(request)
        if isinstance(body, Response):
            return body
        if problem := self._problem(kind, body, None):
            return problem
        self._last += 1
        now = _iso(self.clock.time() * 1000)
        if kind == "contact":
            blank = self._contact(Profile(self._last - _BEYOND, 0, "", "", None, (), None, "", "US", 0, 0, 0, 0, 0)) | {
                "custom_fields": {}
            }
        else:
            blank = self._company(Company(self._last - _BEYOND, "", "", "", "US", 0, 0)) | {"domains": []}
        row = {**blank, **body, "id": self._last, "created_at": now, "updated_at": now}
        self.tables[kind].put(str(self._last), row)
        return json_response(row, status=201)

    async def _update(self, kind: str, request: Request) -> Response:
        body, id = await _object(request), str(request.path_params["id"])
        if isinstance(body, Response):
            return body
        row = self.tables[kind].get(id)
        if row is None or row.get("deleted"):
            return Response(status_code=404)
        if problem := self._problem(kind, body, id):
            return problem
        customs = {"custom_fields": {**row["custom_fields"], **body.get("custom_fields", {})}}
        return json_response(self.change(kind, id, {**body, **customs}))

    async def _remove(self, kind: str, request: Request) -> Response:
        return Response(status_code=204 if self.delete(kind, str(request.path_params["id"])) else 404)

    def _problem(self, kind: str, body: Row, id: str | None) -> Response | None:
        """Refuse a record as the vendor would, None when it would take it."""
        table = self.tables[kind]
        if id is None and not body.get("name"):
            return _invalid("name", "It should be a/an String", "missing_field")
        if unknown := sorted(body.keys() - _WRITABLE[kind]):
            return _invalid(unknown[0], "Unexpected/invalid field in request", "invalid_field")
        known = {each["name"] for each in _FIELDS[kind] if not each["default"]}
        if unknown := sorted(body.get("custom_fields", {}).keys() - known):
            return _invalid(unknown[0], "Unexpected/invalid field in request", "invalid_field")
        if kind == "account":
            same = [row for row in table if row["name"] == body.get("name") and str(row["id"]) != id]
            return _taken("name", same[0]["id"]) if same else None
        if id is None and not (body.keys() & {"email", "phone", "mobile", "unique_external_id"}):
            return _invalid("email", "Please fill at least 1 of email, phone, mobile, twitter_id fields", "missing_field")
        if not body.get("email"):
            return None
        if "@" not in body["email"]:
            return _invalid("email", "It should be a valid email address.", "invalid_value")
        same = [row for row in table.having("email", [body["email"].lower()]) if str(row["id"]) != id and not row.get("deleted")]
        return _taken("email", same[0]["id"]) if same else None

    async def _search(self, request: Request) -> Response:
        said = request.query_params
        try:
            terms, test = parse(said.get("query", ""))
        except MalformedSearch:
            return _invalid("query", "Given query is invalid", "invalid_value")
        for term in terms:
            if term.field not in _SEARCHED:
                return _invalid(term.field, "Unexpected/invalid field in request", "invalid_field")
        page = said.get("page", "1")
        if not page.isdigit() or not 1 <= int(page) <= _SEARCH_PAGES:
            return _invalid("page", f"It should be a Positive Integer less than or equal to {_SEARCH_PAGES}", "invalid_value")
        table = self.tables["contact"]
        by_email = all(term.field == "email" and term.bound is None for term in terms)
        rows = table.having("email", [term.value.lower() for term in terms]) if by_email else list(table)
        rows = sorted((row for row in rows if not row.get("deleted") and test(partial(_fits, row))), key=lambda row: row["id"])
        part = rows[(int(page) - 1) * _SEARCH_PAGE : int(page) * _SEARCH_PAGE]
        return json_response({"total": len(rows), "results": part})

    async def _fields(self, kind: str, _: Request) -> Response:
        return json_response(_FIELDS[kind])

    def _paged(self, request: Request, rows: list[Row]) -> Response:
        said = request.query_params
        page, size = said.get("page", "1"), said.get("per_page", str(_DEFAULT))
        if not (page.isdigit() and int(page) > 0):
            return _invalid("page", "It should be a Positive Integer", "invalid_value")
        if not (size.isdigit() and 1 <= int(size) <= _PAGE):
            return _invalid("per_page", f"It should be a Positive Integer less than or equal to {_PAGE}", "invalid_value")
        start = (int(page) - 1) * int(size)
        part = rows[start : start + int(size)]
        headers = {}
        if start + int(size) < len(rows):
            following = request.url.include_query_params(page=int(page) + 1)
            headers["Link"] = f'<{following}>; rel="next"'
        return json_response(part, headers=headers)

    # ---- rendering ----

    def _contact(self, each: Profile) -> Row:
        return {
            "id": each.id + _BEYOND, "active": True, "name": f"{each.given} {each.family}", "email": each.email, "phone": each.phone, "mobile": None,
            "other_emails": list(each.more_emails), "company_id": each.company + _BEYOND if each.company else None, "other_companies": [], "job_title": each.title,
            "language": "en", "time_zone": "Berlin" if each.country == "DE" else "Eastern Time (US & Canada)", "tags": [], "unique_external_id": None,
            "view_all_tickets": False, "custom_fields": {"cf_segment": ("basic", "plus")[each.number % 2], "cf_seats": each.number},
            "created_at": _iso(each.created), "updated_at": _iso(each.updated),
        }  # fmt: skip

    def _company(self, each: Company) -> Row:
        return {
            "id": each.id + _BEYOND, "name": each.name, "domains": [each.domain], "description": None, "note": None, "custom_fields": {},
            "created_at": _iso(each.created), "updated_at": _iso(each.created),
        }  # fmt: skip

    def _ticket(self, each: Ticket) -> Row:
        return {
            "id": each.id + _BEYOND, "subject": each.subject, "status": _STATUSES[each.status], "priority": _PRIORITIES[each.priority], "source": 1,
            "requester_id": each.contact + _BEYOND, "responder_id": None, "group_id": None, "company_id": each.company + _BEYOND if each.company else None,
            "product_id": None, "type": None, "cc_emails": [], "fwd_emails": [], "reply_cc_emails": [], "to_emails": None, "tags": [], "spam": False,
            "is_escalated": False, "fr_escalated": False, "due_by": _iso(each.created + 86_400_000), "fr_due_by": _iso(each.created + 3_600_000),
            "custom_fields": {"cf_orders": each.number}, "created_at": _iso(each.created), "updated_at": _iso(each.updated),
        }  # fmt: skip


_FIELDS: Mapping[str, list[Row]] = {
    "contact": [
        {"id": 1, "name": "name", "label": "Full name", "type": "default_name", "default": True},
        {"id": 2, "name": "email", "label": "Email", "type": "default_email", "default": True},
        {"id": 3, "name": "cf_segment", "label": "Segment", "type": "custom_dropdown", "default": False, "choices": ["basic", "plus"]},
        {"id": 4, "name": "cf_seats", "label": "Seats", "type": "custom_number", "default": False},
    ],
    "account": [{"id": 5, "name": "name", "label": "Company name", "type": "default_name", "default": True}],
    "ticket": [
        {"id": 6, "name": "subject", "label": "Subject", "type": "default_subject", "default": True},
        {
            "id": 7, "name": "status", "label": "Status", "type": "default_status", "default": True,
            "choices": {"2": ["Open", "Being Processed"], "3": ["Pending", "Awaiting your Reply"], "4": ["Resolved", "This ticket has been Resolved"], "5": ["Closed", "This ticket has been Closed"], "6": ["Waiting on vendor", "On hold"]},
        },
        {"id": 8, "name": "cf_orders", "label": "Orders", "type": "custom_number", "default": False},
    ],
}  # fmt: skip


_WRITABLE: Mapping[str, frozenset[str]] = {
    "contact": frozenset({
        "name", "email", "phone", "mobile", "twitter_id", "unique_external_id", "other_emails", "company_id", "view_all_tickets", "other_companies", "address",
        "custom_fields", "description", "job_title", "language", "tags", "time_zone",
    }),
    "account": frozenset({"name", "custom_fields", "description", "domains", "note", "health_score", "account_tier", "renewal_date", "industry"}),
}  # fmt: skip


async def _object(request: Request) -> Row | Response:
    """Return the fields of a body, or the refusal of what is none."""
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict) or not body:
        return json_response({"code": "invalid_json", "message": "Request body has invalid json format"}, status=400)
    return body


def _taken(field: str, id: int) -> Response:
    error = {
        "field": field,
        "additional_info": {"user_id": id},
        "message": "It should be a unique value",
        "code": "duplicate_value",
    }
    return json_response({"description": "Validation failed", "errors": [error]}, status=409)


def _fits(row: Row, term: Term) -> bool:
    held = row.get("tags" if term.field == "tag" else term.field)
    if term.bound is not None:  # to the day
        day = str(held or "")[:10]
        return day >= term.value if term.bound == ">" else day <= term.value
    if isinstance(held, list):
        return term.value in held
    return str(held).lower() == term.value.lower()


def _invalid(field: str, message: str, code: str) -> Response:
    body = {"description": "Validation failed", "errors": [{"field": field, "message": message, "code": code}]}
    return json_response(body, status=400)


def _id(number: int) -> str:
    return str(number + _BEYOND)


def _iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _millis(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
