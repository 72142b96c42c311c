"""Pipedrive's dialect: API v2 with cursors and strict types, v1 for users and participants, a price in tokens for every call.

Written from the vendor's documents and its OpenAPI files (operations, parameters, token costs). One company on the Lite plan.
What they leave open is answered so: a cursor is the base64 of the place where the next page begins, as in the examples; a
person "linked to" a deal is its first person or another participant, in both directions; deleted persons and organizations
are not found, deleted deals are found by id and listed with status=deleted for 30 days; an unknown parameter is refused; the
name of a person is required and split at its first space; PATCH merges custom fields; a PATCH of e-mails replaces all of them.
"""

import base64
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import count, dropwhile, islice, takewhile
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sandbox import pipedrive_rows as rows
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, Handler, RollingWindow, Tokens, form, json_response
from sandbox.pipedrive_answers import data_of, error_of, grant_error, public
from sandbox.pipedrive_fields import FIELDS, STATUSES, Refused, check, described
from sandbox.pipedrive_hooks import Hooks
from sandbox.pipedrive_query import coded, matches, place_of, stamp, start_of, whole
from sandbox.pipedrive_recents import recents
from sandbox.pipedrive_writes import blank, handed_over, settled, swallowed
from sandbox.table import Row
from sandbox.world import World

API_TOKEN = "pipedrive-demo-api-token"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "pipedrive-demo-client", "pipedrive-demo-secret", "1:1:pipedrive-demo-refresh"
COMPANY = 7_300_001
_SEATS, _BASE = 7, 30_000
_BURST, _SEARCH, _SECONDS = {"token": 20, "oauth": 80}, 10, 2
_PATIENCE, _BLOCKED = 30, 60.0  # how many 429s in ten seconds an API token may cause, and how long it is shut out then
_KEPT = 30 * 86_400  # seconds a deleted deal can still be listed
_KINDS = {"person": "contact", "organization": "account", "deal": "deal"}
_OBJECTS = {kind: object for object, kind in _KINDS.items()}
_LISTED = frozenset({"ids", "owner_id", "updated_since", "updated_until", "sort_by", "sort_direction", "limit", "cursor"})
_SHOWN = frozenset({"include_fields", "custom_fields", "include_option_labels", "include_labels"})
_FILTERS: Mapping[str, frozenset[str]] = {
    "person": frozenset({"org_id", "deal_id"}), "organization": frozenset(), "deal": frozenset({"person_id", "org_id", "pipeline_id", "stage_id", "status"}),
}  # fmt: skip
_COUNTS: Mapping[str, frozenset[str]] = {
    "person": frozenset({"open_deals_count", "closed_deals_count", "participant_open_deals_count", "participant_closed_deals_count"}),
    "organization": frozenset({"open_deals_count", "closed_deals_count", "people_count"}), "deal": frozenset({"participants_count"}),
}  # fmt: skip
_CLOUDFLARE = "<!DOCTYPE html><html><head><title>Access denied</title></head><body><h1>Error 1015</h1>You are being rate limited</body></html>"


class Pipedrive(Dialect):
    name = "pipedrive"
    gone = "is_deleted"
    objects = {"contact": "persons", "account": "organizations", "deal": "deals", "owner": "users"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=3599, rotate=True)
        self.tokens.grant(REFRESH_TOKEN)
        self.tables = rows.tables(world, self.name)
        self.daily_limit = _BASE * _SEATS
        self._day, self._spent = 0, 0.0
        self._bursts: dict[str, RollingWindow] = {}
        self._searches: dict[str, RollingWindow] = defaultdict(lambda: RollingWindow(clock, limit=_SEARCH, period=_SECONDS))
        self._strikes = RollingWindow(clock, limit=_PATIENCE, period=10)
        self._blocked_until = 0.0
        self._ids = count(2_000_000_001)
        self._hooks = Hooks(clock, lambda sending: self.outbox.post(sending), COMPANY)

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        v1, v2 = "/api/v1", "/api/v2"
        found = [
            Endpoint("POST", "/oauth/token", self._token, open=True),
            Endpoint("GET", f"{v1}/users/me", self._me, cost={"daily": 2}),
            Endpoint("GET", f"{v1}/users", self._users, cost={"daily": 20}),
            Endpoint("GET", f"{v1}/users/{{id}}", self._user, cost={"daily": 2}),
            Endpoint("GET", f"{v1}/deals/{{id}}/participants", self._of("deal", self._participants), cost={"daily": 10}),
            Endpoint("POST", f"{v1}/deals/{{id}}/participants", self._of("deal", self._participate), cost={"daily": 10}),
            Endpoint("GET", f"{v2}/stages", self._stages, cost={"daily": 5}),
            Endpoint("GET", f"{v2}/pipelines", self._pipelines, cost={"daily": 5}),
            Endpoint("GET", f"{v1}/recents", self._of("", self._recents), cost={"daily": 20}),
            *self._hooks.endpoints(),
        ]
        for object in _KINDS:
            base = f"{v2}/{object}s"
            found += [
                Endpoint("GET", f"{v2}/{object}Fields", self._of(object, self._fields), cost={"daily": 10}),
                Endpoint("GET", f"{base}/search", self._of(object, self._search), cost={"daily": 20, "search": 1}),
                Endpoint("GET", base, self._of(object, self._list), cost={"daily": 10}),
                Endpoint("POST", base, self._of(object, self._create), cost={"daily": 5}),
                Endpoint("GET", f"{base}/{{id}}", self._of(object, self._get), cost={"daily": 1}),
                Endpoint("PATCH", f"{base}/{{id}}", self._of(object, self._update), cost={"daily": 5}),
                Endpoint("DELETE", f"{base}/{{id}}", self._of(object, self._remove), cost={"daily": 3}),
            ]
        return found

    def _of(self, object: str, handler: Callable[[str, Request], Any]) -> Handler:
        async def handle(request: Request) -> Response:
            try:
                body = orjson.loads(await request.body() or b"null") if request.method in {"POST", "PATCH"} else None
                request.state.body = body
                answer: Response = handler(object, request)
            except orjson.JSONDecodeError:
                return error_of(400, "Invalid JSON in the request body")
            except Refused as refused:
                return error_of(refused.status, refused.error, code=refused.code, field=refused.field)
            return answer

        return handle

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        token, kind = self._credential(request)
        if kind is None:
            body = {
                "success": False,
                "error": "unauthorized access",
                "errorCode": 401,
                "error_info": "Please check developers.pipedrive.com",
            }
            return json_response(body, status=401, headers={"x-401-by-gw": "true"})
        if kind == "token" and self.clock.time() < self._blocked_until:
            return HTMLResponse(_CLOUDFLARE, 403)
        burst = self._burst(token, kind)
        windows = [burst, self._searches[token]] if "search" in endpoint.cost else [burst]
        if any(each.remaining < 1 for each in windows):
            if not self._strikes.take() and kind == "token":
                self._blocked_until = self.clock.time() + _BLOCKED
                return HTMLResponse(_CLOUDFLARE, 403)
            return self.throttled(max(each.wait() for each in windows))
        for each in windows:
            each.take()
        if self.spent + endpoint.cost["daily"] > self.daily_limit:
            return self.exhausted()
        self._spent += endpoint.cost["daily"]
        return None

    @property
    def spent(self) -> float:
        """Tokens of today; the day begins at midnight of the server's time."""
        today = int(self.clock.time() // 86_400)
        if today != self._day:
            self._day, self._spent = today, 0.0
        return self._spent

    def _credential(self, request: Request) -> tuple[str, str | None]:
        token = request.headers.get("x-api-token", "")
        if token == API_TOKEN:
            return token, "token"
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return bearer, "oauth" if self.tokens.valid(bearer) else None

    def _burst(self, token: str, kind: str) -> RollingWindow:
        if token not in self._bursts:
            self._bursts[token] = RollingWindow(self.clock, limit=_BURST[kind], period=_SECONDS)
        return self._bursts[token]

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        token, kind = self._credential(request)
        if kind is not None and response.media_type != "text/html":
            burst = self._burst(token, kind)
            response.headers.setdefault("x-ratelimit-limit", str(burst.limit))
            response.headers.setdefault("x-ratelimit-remaining", str(burst.remaining))
            response.headers.setdefault("x-ratelimit-reset", str(_SECONDS))
            response.headers.setdefault("x-daily-ratelimit-token-limit", str(self.daily_limit))
            response.headers.setdefault("x-daily-ratelimit-token-remaining", str(int(self.daily_limit - self.spent)))
        return response

    def throttled(self, seconds: float) -> Response:
        headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(max(math.ceil(seconds), 1))}
        return json_response({"success": False, "error": "Rate limit exceeded", "errorCode": 429}, status=429, headers=headers)

    def exhausted(self) -> Response:
        body = {"success": False, "error": "Rate limit exceeded", "errorCode": 429}
        return json_response(body, status=429, headers={"x-daily-ratelimit-token-remaining": "0"})

    def unknown(self, request: Request) -> Response:
        return error_of(404, "Unknown method.")

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None or row["is_deleted"]:
            return None
        self._put(kind, {**row, **fields})
        return public(self.tables[kind].get(native_id) or {})

    def delete(self, kind: str, native_id: str) -> bool:
        gone: Row = {"is_deleted": True, **({"status": "deleted"} if kind == "deal" else {})}
        return self.change(kind, native_id, gone) is not None

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two persons or organizations, as a user would: the winner keeps what it has, and takes addresses and deals."""
        gone, kept = (self.tables[kind].get(each) for each in (loser, winner))
        if (
            kind not in {"contact", "account"}
            or not gone
            or not kept
            or loser == winner
            or gone["is_deleted"]
            or kept["is_deleted"]
        ):
            return False
        self._hooks.merging = {loser: {"merged_to_id": winner}, winner: {"merged_from_id": loser}}
        try:
            self.delete(kind, loser)
            self.change(kind, winner, swallowed(kept, gone))
        finally:
            self._hooks.merging = {}
        tie = "person" if kind == "contact" else "org"
        for deal in self.tables["deal"].having(tie, [gone["id"]]):
            self.change("deal", str(deal["id"]), handed_over(deal, f"{tie}_id", gone["id"], kept["id"]))
        return True

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if after is not None and (object := _OBJECTS.get(kind)) is not None:
            self._hooks.changed(object, before, after)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._hooks.listed()

    def _put(self, kind: str, row: Row) -> None:
        if kind != "owner":
            row["update_time"] = self._now()
        self.tables[kind].put(str(row["id"]), row)

    def _now(self) -> str:
        return rows.moment(self.clock.time() * 1000)

    # ---- OAuth, users, metadata ----

    async def _token(self, request: Request) -> Response:
        said = await form(request)
        pair = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {pair}":
            return grant_error("invalid_client", "Invalid client: client is invalid")
        if said.get("grant_type") != "refresh_token":
            missing = "grant_type" not in said
            return grant_error(
                "invalid_request" if missing else "unsupported_grant_type",
                "Missing parameter: grant_type" if missing else "Unsupported grant type",
            )
        following = self.tokens.refresh(said.get("refresh_token", ""), prefix="1:1:")
        if following is None:
            return grant_error("invalid_grant", "Invalid grant: refresh_token is invalid")
        domain = self.base_url or f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}"
        return json_response({
            "access_token": self.tokens.issue(CLIENT_ID, prefix="v1u:"), "token_type": "Bearer", "expires_in": 3599, "refresh_token": following,
            "scope": "base,deals:full,contacts:full,users:read,search:read,webhooks:full,admin", "api_domain": domain,
        })  # fmt: skip

    async def _me(self, _: Request) -> Response:
        company = {
            "company_id": COMPANY,
            "company_name": "Demo company",
            "company_domain": "c360-demo",
            "company_country": "DE",
            "company_industry": "Software",
        }
        return data_of({**(self.tables["owner"].get("1") or {}), **company})

    async def _users(self, _: Request) -> Response:
        return data_of(list(self.tables["owner"]))

    async def _user(self, request: Request) -> Response:
        row = self.tables["owner"].get(request.path_params["id"])
        return (
            data_of(row) if row else json_response({"success": False, "error": "User not found or not accessible."}, status=404)
        )

    async def _stages(self, request: Request) -> Response:
        asked = request.query_params.get("pipeline_id")
        return data_of(rows.stages(int(asked) if asked else None), next_cursor=None)

    async def _pipelines(self, _: Request) -> Response:
        return data_of(rows.pipelines(), next_cursor=None)

    def _fields(self, object: str, request: Request) -> Response:
        start, size = start_of(request.query_params), whole(request.query_params, "limit", 100, most=500)
        found = described(object)
        more = start + size < len(found)
        return data_of(found[start : start + size], next_cursor=coded({"start": start + size}) if more else None)

    # ---- reading ----

    def _recents(self, _: str, request: Request) -> Response:
        return recents({object: self.tables[kind] for object, kind in _KINDS.items()}, request, self.clock.time())

    def _list(self, object: str, request: Request) -> Response:
        said = request.query_params
        if unknown := sorted(said.keys() - _LISTED - _SHOWN - _FILTERS[object]):
            raise Refused(400, f"Validation failed: {unknown[0]}: no such parameter", code="ERR_SCHEMA_VALIDATION_FAILED")
        field, way = said.get("sort_by", "id"), said.get("sort_direction", "asc")
        if field not in {"id", "add_time", "update_time"} or way not in {"asc", "desc"}:
            raise Refused(400, "Validation failed: sort_by", code="ERR_SCHEMA_VALIDATION_FAILED")
        size = whole(said, "limit", 100, most=500)
        start = place_of(said["cursor"], field, way) if "cursor" in said else None
        found = (row for row in self._walked(object, said, field, way, start) if self._passes(object, row, said))
        page = list(islice(found, size + 1))
        following = None
        if len(page) > size:
            following = coded({"field": field, "fieldValue": page[size][field], "sortDirection": way, "id": page[size]["id"]})
        return data_of([self._shown(object, row, said) for row in page[:size]], next_cursor=following)

    def _walked(self, object: str, said: Mapping[str, str], field: str, way: str, start: tuple[Any, int] | None) -> Iterator[Row]:
        """Walk the rows that may be meant, from the cursor on, by (value, id) in one direction."""
        table, descending = self.tables[_KINDS[object]], way == "desc"
        few = self._few(object, said)
        if few is not None:
            walked: Iterator[Row] = iter(sorted(few, key=lambda row: (row[field], row["id"]), reverse=descending))
        else:
            first, last = (said.get(name) if field == "update_time" else None for name in ("updated_since", "updated_until"))
            first, last = (last, first) if descending else (first, last)
            edge = start[0] if start else rows.moment(stamp(first) * 1000) if first else None
            walked = table.walk(field, start=edge, descending=descending)
            if last:
                end = rows.moment(stamp(last) * 1000)
                walked = takewhile(lambda row: row[field] >= end if descending else row[field] <= end, walked)
        if start is None:
            return walked
        return dropwhile(lambda row: (row[field], row["id"]) > start if descending else (row[field], row["id"]) < start, walked)

    def _few(self, object: str, said: Mapping[str, str]) -> list[Row] | None:
        """Return the rows that an index tells, None where all must be looked at."""
        table = self.tables[_KINDS[object]]
        if "ids" in said:
            ids = said["ids"].split(",")
            if len(ids) > 100 or not all(id.isdigit() for id in ids):
                raise Refused(400, "Validation failed: ids: at most 100 numbers", code="ERR_SCHEMA_VALIDATION_FAILED")
            return [row for id in dict.fromkeys(ids) if (row := table.get(id)) is not None]
        if "deal_id" in said:
            deal = self.tables["deal"].get(str(whole(said, "deal_id", 0)))
            return [row for id in (deal or {}).get("_participants", ()) if (row := table.get(str(id))) is not None]
        for name, index in (("person_id", "person"), ("org_id", "org")):
            if name in said:
                return table.having(index, [whole(said, name, 0)])
        return None

    def _passes(self, object: str, row: Row, said: Mapping[str, str]) -> bool:
        statuses = said["status"].split(",") if "status" in said else STATUSES
        if object == "deal":
            if row["is_archived"] or row["status"] not in statuses or self._purged(row):
                return False
        elif row["is_deleted"]:
            return False
        if "updated_since" in said and stamp(row["update_time"]) < stamp(said["updated_since"]):
            return False
        if "updated_until" in said and stamp(row["update_time"]) >= stamp(said["updated_until"]):
            return False
        return all(
            row[name] == whole(said, name, 0) for name in ("owner_id", "org_id", "pipeline_id", "stage_id") if name in said
        )

    def _get(self, object: str, request: Request) -> Response:
        return data_of(self._shown(object, self._found(object, request), request.query_params))

    def _found(self, object: str, request: Request, *, live: bool = False) -> Row:
        id = request.path_params["id"]
        row = self.tables[_KINDS[object]].get(id) if id.isdigit() else None
        if row is None or (row["is_deleted"] and (live or object != "deal" or self._purged(row))):
            raise Refused(404, f"{object.capitalize()} not found")
        return row

    def _purged(self, row: Row) -> bool:
        return row["is_deleted"] and self.clock.time() - stamp(row["update_time"]) > _KEPT

    def _shown(self, object: str, row: Row, said: Mapping[str, str]) -> Row:
        wanted = said["custom_fields"].split(",") if said.get("custom_fields") else None
        if wanted is not None and len(wanted) > 15:
            raise Refused(400, "Validation failed: custom_fields: at most 15 keys", code="ERR_SCHEMA_VALIDATION_FAILED")
        values = {code: value for code, value in row["custom_fields"].items() if wanted is None or code in wanted}
        if said.get("include_option_labels") == "true":
            values = {code: rows.labelled(FIELDS[object][code], value) for code, value in values.items()}
        extra = said["include_fields"].split(",") if said.get("include_fields") else []
        if unknown := sorted(set(extra) - _COUNTS[object]):
            raise Refused(400, f"Validation failed: include_fields: {unknown[0]}", code="ERR_SCHEMA_VALIDATION_FAILED")
        return {**public(row), "custom_fields": values, **{name: self._counted(object, row, name) for name in extra}}

    def _counted(self, object: str, row: Row, name: str) -> int:
        if object == "deal":
            return len(row["_participants"])
        if name == "people_count":
            return sum(not each["is_deleted"] for each in self.tables["contact"].having("org", [row["id"]]))
        found = self.tables["deal"].having("person" if object == "person" else "org", [row["id"]])
        if object == "person":
            found = [each for each in found if (each["person_id"] != row["id"]) is name.startswith("participant_")]
        statuses = {"open"} if "open" in name else {"won", "lost"}
        return sum(each["status"] in statuses for each in found)

    def _search(self, object: str, request: Request) -> Response:
        said = request.query_params
        exact, term = said.get("exact_match") == "true", said.get("term", "")
        if len(term) < (1 if exact else 2):
            raise Refused(400, "The term must be at least 2 characters long.", code="ERR_SCHEMA_VALIDATION_FAILED")
        fields = frozenset(said["fields"].split(",")) if said.get("fields") else None
        table = self.tables[_KINDS[object]]
        by_index = exact and object == "person" and fields == frozenset({"email"})
        candidates = table.having("email", [term.lower()]) if by_index else iter(table)
        found = [row for row in candidates if not row["is_deleted"] and matches(object, row, term, fields, exact=exact)]
        start, size = start_of(request.query_params), whole(said, "limit", 100, most=500)
        items = [{"result_score": 1.0 if exact else 0.5, "item": self._item(object, row)} for row in found[start : start + size]]
        return data_of({"items": items}, next_cursor=coded({"start": start + size}) if start + size < len(found) else None)

    def _item(self, object: str, row: Row) -> Row:
        item: Row = {
            "id": row["id"],
            "type": object,
            "visible_to": row["visible_to"],
            "owner": {"id": row["owner_id"]},
            "custom_fields": [],
            "notes": [],
        }
        org = self.tables["account"].get(str(row.get("org_id")))
        tied = {"organization": {"id": org["id"], "name": org["name"], "address": None} if org else None}
        if object == "person":
            return {
                **item,
                "name": row["name"],
                "phones": [each["value"] for each in row["phones"]],
                "emails": [each["value"] for each in row["emails"]],
                **tied,
            }
        return (
            {**item, "title": row["title"], "status": row["status"], **tied}
            if object == "deal"
            else {**item, "name": row["name"], "address": None}
        )

    # ---- writing ----

    def _create(self, object: str, request: Request) -> Response:
        body = check(object, request.state.body, creating=True)
        return self._written(object, blank(object, next(self._ids), self._now()), body, status=201)

    def _update(self, object: str, request: Request) -> Response:
        body = check(object, request.state.body, creating=False)
        return self._written(object, self._found(object, request, live=True), body)

    def _written(self, object: str, row: Row, body: Row, *, status: int = 200) -> Response:
        for name, kind in (("person_id", "contact"), ("org_id", "account"), ("owner_id", "owner")):
            if (id := body.get(name)) is not None and (self.tables[kind].get(str(id)) or {"is_deleted": True})["is_deleted"]:
                raise Refused(400, f"Validation failed: {name}: not found", code="ERR_SCHEMA_VALIDATION_FAILED")
        changed = settled(object, row, body, self._now())
        self._put(_KINDS[object], changed)
        return data_of(public(changed), status=status)

    def _remove(self, object: str, request: Request) -> Response:
        row = self._found(object, request, live=True)
        self.delete(_KINDS[object], str(row["id"]))
        return data_of({"id": row["id"]})

    def _participants(self, object: str, request: Request) -> Response:
        found = [self._participant(id) for id in self._found(object, request)["_participants"]]
        paging = {"start": 0, "limit": 100, "more_items_in_collection": False}
        return json_response({"success": True, "data": found, "additional_data": {"pagination": paging}})

    def _participate(self, object: str, request: Request) -> Response:
        row, body = self._found(object, request, live=True), request.state.body
        id = body.get("person_id") if isinstance(body, dict) else None
        if not isinstance(id, int) or (self.tables["contact"].get(str(id)) or {"is_deleted": True})["is_deleted"]:
            raise Refused(400, "Person not found")
        if id in row["_participants"]:
            raise Refused(400, "Person is already a participant of this deal")
        self._put("deal", {**row, "_participants": (*row["_participants"], id), "person_id": row["person_id"] or id})
        return data_of(self._participant(id))

    def _participant(self, id: int) -> Row:
        name = (self.tables["contact"].get(str(id)) or {}).get("name")
        return {"id": id, "person_id": {"active_flag": True, "name": name, "value": id}, "active_flag": True}
