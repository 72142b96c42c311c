"""Marketo's dialect: errors in the body of a 200, one token until it has ended, pages that may be empty, records that are skipped.

Written from Adobe's developer pages and the published description of the lead database and identity APIs. One instance: 100 calls in
20 seconds, 10 at once, 50,000 a day, none of it told in headers. What is written is in `sandbox/marketo_sync.py`, campaigns that call
webhooks in `sandbox/marketo_campaigns.py`.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, json_response
from sandbox.marketo_campaigns import Campaigns
from sandbox.marketo_fields import ACTIVITY_TYPES, DEFAULTS, FIELDS, activity_types, described, described_anew, schema
from sandbox.marketo_log import CHANGE, DELETE, MERGE, NEW_LEAD, Entry, Log, Place
from sandbox.marketo_sync import Refusal, Sync
from sandbox.marketo_times import moment
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import CAMPAIGNS, Profile, World

CLIENT_ID, CLIENT_SECRET = "marketo-demo-client", "marketo-demo-secret"
USER = "apis@c360-demo.example"
_PAGE, _VALUES, _MATCHES, _TYPES, _LEADS = 300, 300, 1000, 10, 30
_PRUNED = 14 * 86_400.0  # seconds after which deletions are not told any more
_URI, _BODY, _PARALLEL, _DAILY = 8192, 1_000_000, 10, 50_000
_COLORS = ("red", "green", "blue", "amber")
Said = Mapping[str, list[str]]
Handler = Callable[[Request], Awaitable[Response]]


class Marketo(Dialect):
    """One instance, with the default partition and no CRM integration.

    Attributes:
        forbidden: paths, such as "leads/schema/fields", that the API user's role does not allow.
    """

    name = "marketo"
    objects = {"contact": "leads", "marketing_event": "activities"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=3600, rotate=False)
        self._token = ""  # the one that is given out until it has ended
        self._given: set[str] = set()
        self._burst = RollingWindow(clock, limit=100, period=20)
        self._day: Counter[int] = Counter()
        self._under_way = 0
        self.forbidden: set[str] = set()
        self._requests = count(1)
        profiles = world.profiles[self.name]
        self.leads: Table[Profile] = Table(
            {str(each.id): each for each in profiles if not each.deleted}, self._lead,
            indexes={
                "email": Column(lambda each: (each.email or "").lower() or None, lambda row: (row["email"] or "").lower() or None),
                "favoriteColor": Column(lambda each: _COLORS[each.number % 4], lambda row: (row["favoriteColor"] or "").lower() or None),
                "visitCount": Column(lambda each: str(each.number), lambda row: None if row["visitCount"] is None else str(row["visitCount"])),
            },
        )  # fmt: skip
        self.tables = {"contact": self.leads}
        self.log = Log(profiles, world.events[self.name])
        self._sync = Sync(self.leads, self.log, clock)
        self._campaigns = Campaigns(lambda sending: self.outbox.post(sending))

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}

    def endpoints(self) -> list[Endpoint]:
        found = [Endpoint(method, "/identity/oauth/token", self._identity, open=True) for method in ("GET", "POST")]
        told: Sequence[tuple[str, str, Handler]] = (
            ("GET", "leads", self._by_filter), ("POST", "leads", self._posted), ("POST", "leads/delete", self._deleted),
            ("DELETE", "leads", self._deleted),  # an older spelling, which clients still use
            ("GET", "lead/{id}", self._one), ("POST", "leads/{id}/merge", self._merge),
            ("GET", "leads/describe", partial(self._listed, described())), ("GET", "leads/describe2", partial(self._listed, described_anew())),
            ("GET", "leads/schema/fields", self._schema), ("GET", "leads/schema/fields/{name}", self._schema_of),
            ("GET", "leads/partitions", partial(self._listed, [{"id": 1, "name": "Default", "description": "Initial system lead partition"}])),
            ("GET", "activities/types", partial(self._listed, activity_types())), ("GET", "activities/pagingtoken", self._paging_token),
            ("GET", "activities", self._activities), ("POST", "activities", self._activities), ("GET", "activities/leadchanges", self._changes),
            ("POST", "activities/leadchanges", self._changes), ("GET", "activities/deletedleads", self._gone), ("GET", "stats/usage", self._usage),
        )  # fmt: skip
        return [
            *found,
            *(Endpoint(method, f"/rest/v1/{path}.json", partial(self._answered, handler)) for method, path, handler in told),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if len(request.url.path) + len(request.url.query) > _URI:
            return PlainTextResponse("Request-URI Too Long", 414)
        if len(await request.body()) > _BODY:
            return PlainTextResponse("Request Entity Too Large", 413)
        if endpoint.open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or self.tokens.valid(token) is None:  # neither counts against the quota
            return (
                self._error("602", "Access token expired") if token in self._given else self._error("601", "Access token invalid")
            )
        if self._day[self._today()] >= _DAILY:
            return self.exhausted()
        if not self._burst.take():
            return self.throttled(self._burst.wait())
        if self._under_way >= _PARALLEL:
            return self._error("615", "Concurrent access limit reached")
        if endpoint.path.removeprefix("/rest/v1/").removesuffix(".json") in self.forbidden:
            return self._error("603", "Access denied")
        self._day[self._today()] += 1
        self._under_way += 1
        request.state.under_way = True
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if getattr(request.state, "under_way", False):
            self._under_way -= 1
        return response

    def throttled(self, seconds: float) -> Response:
        return self._error("606", "Max rate limit '100' exceeded with in '20' secs")

    def exhausted(self) -> Response:
        return self._error("607", "Daily API quota reached")

    def unknown(self, request: Request) -> Response:
        return self._error("610", "Requested resource not found")

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.leads.get(native_id) if kind == "contact" else None
        return self._sync.changed(row, fields) if row is not None else None

    def delete(self, kind: str, native_id: str) -> bool:
        return kind == "contact" and self._sync.removed(native_id)

    def merge(self, kind: str, loser: str, winner: str) -> None:
        """Merge as a user of the vendor would."""
        self._sync.merged(winner, [loser])

    def hook(self, url: str, secret: str) -> None:
        """Write a webhook and a campaign that calls it, as an administrator would."""
        self._campaigns.add(url, secret)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._campaigns.listed()

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        self._campaigns.changed(native_id, before, after)

    def _today(self) -> int:
        return int((self.clock.time() - 6 * 3600) // 86_400)  # the day begins at 00:00 CST

    # ---- identity ----

    async def _identity(self, request: Request) -> Response:
        said = request.query_params
        if said.get("client_id") != CLIENT_ID:
            return json_response({"error": "unauthorized", "error_description": "No client with requested id"}, status=401)
        if said.get("client_secret") != CLIENT_SECRET:
            return json_response({"error": "invalid_client", "error_description": "Bad client credentials"}, status=401)
        if said.get("grant_type") != "client_credentials":
            body = {"error": "unsupported_grant_type", "error_description": "Unsupported grant type"}
            return json_response(body, status=400)
        issued = self.tokens.valid(self._token)
        if issued is None:
            self._token = self.tokens.issue(CLIENT_ID)
            self._given.add(self._token)
            issued = self.tokens.valid(self._token)
        assert issued is not None
        left = int(issued.expires - self.clock.time())
        return json_response({"access_token": self._token, "token_type": "bearer", "expires_in": left, "scope": USER})

    # ---- leads ----

    async def _one(self, request: Request) -> Response:
        row = self.leads.get(request.path_params["id"])
        if row is None:
            raise Refusal("1004", f"Lead '{request.path_params['id']}' not found")
        return self._told([_projected(row, _fields(_query(request)))])

    async def _posted(self, request: Request) -> Response:
        """A POST is a query in disguise, or a sync."""
        if (await _whole(request)).get("_method") == ["GET"]:
            return await self._by_filter(request)
        return self._told(await self._sync.synced(request))

    async def _deleted(self, request: Request) -> Response:
        return self._told(await self._sync.deleted(request, [int(id) for id in _many(_query(request), "id") if id.isdecimal()]))

    async def _merge(self, request: Request) -> Response:
        said = _query(request)
        self._sync.merged(request.path_params["id"], [*_many(said, "leadIds"), *_many(said, "leadId")])
        return self._told(None)

    async def _by_filter(self, request: Request) -> Response:
        said = await _whole(request)
        by, values = _needed(said, "filterType"), _many(said, "filterValues")
        if by not in FIELDS:
            raise Refusal("1006", f"Field '{by}' not found")
        if by != "id" and by not in self.leads.indexed:
            raise Refusal("1011", f"Field '{by}' not supported")
        if not values:
            raise Refusal("1002", "Missing value for the required parameter 'filterValues'")
        if len(values) > _VALUES:
            raise Refusal("1003", f"Too many values in filterValues, at most {_VALUES}")
        if by == "id" and (wrong := [value for value in values if not value.isdecimal()]):
            raise Refusal("1001", f"Invalid value '{wrong[0]}'. Required of type 'Integer'")
        fields, size = _fields(said), _size(said)
        rows = self._matching(by, values)
        if len(rows) > _MATCHES:
            raise Refusal("1003", "Too many results match the filter")
        after = _placed(said["nextPageToken"][0]).number if "nextPageToken" in said else 0
        rows = sorted((row for row in rows if row["id"] > after), key=lambda row: row["id"])
        page = [_projected(row, fields) for row in rows[:size]]
        if len(rows) <= size:
            return self._told(page)
        return self._told(page, nextPageToken=Place(0, rows[size - 1]["id"]).token, moreResult=True)

    def _matching(self, by: str, values: Iterable[str]) -> list[Row]:
        if by == "id":
            return [row for value in dict.fromkeys(values) if (row := self.leads.get(value)) is not None]
        return self.leads.having(by, [value.lower() for value in values])

    # ---- metadata ----

    async def _listed(self, rows: list[Row], _: Request) -> Response:
        return self._told(rows)

    async def _schema(self, request: Request) -> Response:
        said = _query(request)
        start, size = _placed(said["nextPageToken"][0]).number if "nextPageToken" in said else 0, _size(said)
        rows = schema()
        more = start + size < len(rows)
        token = {"nextPageToken": Place(0, start + size).token} if more else {}
        return self._told(rows[start : start + size], moreResult=more, **token)

    async def _schema_of(self, request: Request) -> Response:
        rows = [row for row in schema() if row["name"] == request.path_params["name"]]
        if not rows:
            raise Refusal("1006", f"Field '{request.path_params['name']}' not found")
        return self._told(rows)

    async def _usage(self, _: Request) -> Response:
        made = self._day[self._today()]
        return self._told([{"date": f"{self.clock.now():%Y-%m-%d}", "total": made, "users": [{"userId": USER, "count": made}]}])

    # ---- activities ----

    async def _paging_token(self, request: Request) -> Response:
        since = _needed(_query(request), "sinceDatetime")
        try:
            began = datetime.fromisoformat(since)
        except ValueError:
            raise Refusal("704", "Invalid date format") from None
        began = began if began.tzinfo else began.replace(tzinfo=UTC)
        return self._told(None, nextPageToken=Place(round(began.timestamp() * 1000), -1).token)

    async def _activities(self, request: Request) -> Response:
        said = await _whole(request)
        types, leads = _numbers(said, "activityTypeIds"), _numbers(said, "leadIds")
        if not types:
            raise Refusal("1002", "Missing value for the required parameter 'activityTypeIds'")
        if len(types) > _TYPES or len(leads) > _LEADS:
            raise Refusal("1003", f"At most {_TYPES} activityTypeIds and {_LEADS} leadIds")
        if unknown := sorted(types - ACTIVITY_TYPES.keys()):
            raise Refusal("1003", f"Invalid activity type {unknown[0]}")
        return self._paged(said, lambda entry: entry.type in types, _activity, leads=leads or None)

    async def _changes(self, request: Request) -> Response:
        said = await _whole(request)
        fields, leads = set(_many(said, "fields")), _numbers(said, "leadIds")
        if not fields:
            raise Refusal("1002", "Missing value for the required parameter 'fields'")
        if unknown := sorted(fields - FIELDS.keys()):
            raise Refusal("1006", f"Field '{unknown[0]}' not found")
        if len(leads) > _LEADS:
            raise Refusal("1003", f"At most {_LEADS} leadIds")

        def wanted(entry: Entry) -> bool:
            return entry.type == NEW_LEAD or (entry.type == CHANGE and entry.what[0] in fields)

        return self._paged(said, wanted, _change, leads=leads or None)

    async def _gone(self, request: Request) -> Response:
        edge = (self.clock.time() - _PRUNED) * 1000
        return self._paged(_query(request), lambda entry: entry.type == DELETE and entry.at >= edge, _deletion)

    def _paged(
        self, said: Said, wanted: Callable[[Entry], bool], render: Callable[[Entry], Row], *, leads: set[int] | None = None
    ) -> Response:
        found, end, more = self.log.page(_placed(_needed(said, "nextPageToken")), _size(said), wanted, leads=leads)
        return self._told([render(entry) for entry in found], nextPageToken=end.token, moreResult=more)

    # ---- answers ----

    async def _answered(self, handler: Handler, request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return self._error(refusal.code, refusal.message)

    def _told(self, result: list[Row] | None, **more: Any) -> Response:
        body = {"requestId": self._request_id(), "success": True, **({"result": result} if result is not None else {}), **more}
        return json_response(body)

    def _error(self, code: str, message: str) -> Response:
        body = {"requestId": self._request_id(), "success": False, "errors": [{"code": code, "message": message}]}
        return json_response(body)

    def _request_id(self) -> str:
        return f"{next(self._requests):x}#{round(self.clock.time() * 1000):x}"

    def _lead(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1].name if each.company else None
        return {
            "id": each.id, "email": each.email, "firstName": each.given, "lastName": each.family, "phone": each.phone, "mobilePhone": None,
            "title": each.title, "country": each.country, "company": company, "unsubscribed": False, "leadScore": each.number % 100,
            "leadPartitionId": 1, "createdAt": moment(each.created, each.id), "updatedAt": moment(each.updated, each.id),
            "favoriteColor": _COLORS[each.number % 4], "visitCount": each.number, "memberSince": None,
        }  # fmt: skip


# ---- requests ----


def _query(request: Request) -> Said:
    found: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name, []).append(value)
    return found


async def _whole(request: Request) -> Said:
    """Return the parameters, with those of a URL-encoded body."""
    found = dict(_query(request))
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        for name, value in parse_qsl((await request.body()).decode(), keep_blank_values=True):
            found[name] = [*found.get(name, []), value]
    return found


def _needed(said: Said, name: str) -> str:
    if not said.get(name, [""])[0]:
        raise Refusal("1002", f"Missing value for the required parameter '{name}'")
    return said[name][0]


def _many(said: Said, name: str) -> list[str]:
    """Return values that are separated by commas, or repeated."""
    return [each.strip() for value in said.get(name, ()) for each in value.split(",") if each.strip()]


def _numbers(said: Said, name: str) -> set[int]:
    values = _many(said, name)
    if wrong := [value for value in values if not value.isdecimal()]:
        raise Refusal("1001", f"Invalid value '{wrong[0]}'. Required of type 'Integer'")
    return {int(value) for value in values}


def _fields(said: Said) -> Sequence[str]:
    named = _many(said, "fields")
    if unknown := [name for name in named if name not in FIELDS]:
        raise Refusal("1006", f"Field '{unknown[0]}' not found")
    return named or DEFAULTS


def _size(said: Said) -> int:
    text = said.get("batchSize", [str(_PAGE)])[0]
    if not text.isdecimal() or not 1 <= int(text) <= _PAGE:
        raise Refusal("1003", f"batchSize must be 1 to {_PAGE}")
    return int(text)


def _placed(token: str) -> Place:
    try:
        return Place.of(token)
    except ValueError:
        raise Refusal("1003", "Invalid nextPageToken") from None


# ---- rows ----


def _projected(row: Row, fields: Sequence[str]) -> Row:
    """Return the fields asked for; of every other lead, those that are null are left out."""
    named = dict.fromkeys(("id", *fields))
    return {name: row[name] for name in named if row[name] is not None or row["id"] % 2}


def _head(entry: Entry) -> Row:
    # What `id` says is not unique, as the documents warn.
    return {
        "id": entry.number % 65_536, "marketoGUID": str(entry.number), "leadId": entry.lead, "activityDate": moment(entry.at, entry.number),
        "activityTypeId": entry.type,
    }  # fmt: skip


def _activity(entry: Entry) -> Row:
    if entry.type == CHANGE:
        name, _, new = entry.what
        attributes = [{"name": "New Value", "value": new}] if new is not None else []
        return {
            **_head(entry),
            "primaryAttributeValueId": 1,
            "primaryAttributeValue": FIELDS[name].label,
            "attributes": attributes,
        }
    if entry.type == NEW_LEAD:
        return {**_head(entry), "primaryAttributeValue": "Web service API", "attributes": []}
    if entry.type == DELETE:
        return _deletion(entry)
    if entry.type == MERGE:
        return {**_head(entry), "primaryAttributeValueId": entry.lead, "attributes": [{"name": "Merge IDs", "value": entry.what}]}
    campaign = 1000 + entry.what
    return {
        **_head(entry), "primaryAttributeValueId": campaign, "primaryAttributeValue": CAMPAIGNS[entry.what], "campaignId": campaign,
        "attributes": [{"name": "Campaign Run ID", "value": campaign}],
    }  # fmt: skip


def _change(entry: Entry) -> Row:
    attributes = [{"name": "Source", "value": "Web service API"}, {"name": "Lead ID", "value": entry.lead}]
    fields = []
    if entry.type == CHANGE:
        name, old, new = entry.what
        fields = [{"id": [*FIELDS].index(name) + 1, "name": name, "newValue": _text(new), "oldValue": _text(old)}]
    return {**_head(entry), "fields": fields, "attributes": attributes}


def _deletion(entry: Entry) -> Row:
    return {**_head(entry), "primaryAttributeValueId": entry.lead, "primaryAttributeValue": entry.what, "attributes": []}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
