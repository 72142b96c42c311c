"""HubSpot's dialect: numeric ids in text, every property a string, an association graph, a search with one sort.

Written from HubSpot's developer pages (CRM objects, search, associations v4, usage guidelines) and the shapes of the
official Python client. Both path families are served: classic v3/v4 and the date-based 2026-09. What is said once stands in modules
of its own: `hubspot_properties`, `hubspot_rows`, `hubspot_links`, `hubspot_search`, `hubspot_values`, `hubspot_writing`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox import hubspot_links as graph
from sandbox import hubspot_search as searching
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.faults import Faults
from sandbox.hubspot_answers import Loose, Refusal, batch, correlation, error, invalid, listed, paged
from sandbox.hubspot_properties import (
    PORTAL,
    PROPERTIES,
    SUBSCRIPTION,
    SUBSCRIPTION_TYPE,
    object_name,
    pipelines,
    projected,
    properties,
    schema,
)
from sandbox.hubspot_rows import HELD, Rows, company_id, owner
from sandbox.hubspot_store import Store
from sandbox.hubspot_values import searchable
from sandbox.hubspot_writing import Writing
from sandbox.table import Row, Table
from sandbox.world import World

CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "hubspot-demo-app", "hubspot-demo-secret", "na1-demo-refresh-token"
PRIVATE_APP_TOKEN = "pat-na1-demo"
_PAGE = 100
_FAMILIES = (
    # objects, owners, properties, pipelines, associations, single associations, schemas
    ("/crm/v3/objects", "/crm/v3/owners", "/crm/v3/properties", "/crm/v3/pipelines", "/crm/v4/associations", "/crm/v4/objects", "/crm-object-schemas/v3/schemas"),
    ("/crm/objects/2026-09", "/crm/owners/2026-09", "/crm/properties/2026-09", "/crm/pipelines/2026-09", "/crm/associations/2026-09", "/crm/objects/2026-09", "/crm-object-schemas/2026-09/schemas"),
)  # fmt: skip


class _Input(Loose):
    id: str
    after: str | None = None  # of associations


class _BatchRead(Loose):
    inputs: list[_Input]
    properties: list[str] = []
    idProperty: str | None = None


class HubSpot(Dialect):
    """One portal on the Professional plan: 190 calls in 10 s, 650,000 a day, 5 searches a second."""

    name = "hubspot"
    gone = "archived"
    objects = {
        "contact": "contacts",
        "account": "companies",
        "deal": "deals",
        "ticket": "tickets",
        "owner": "owners",
        "lead": "leads",
    }

    links_page = 500  # associations of one record in an answer; tests set less

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=1800, rotate=False)
        self.tokens.grant(REFRESH_TOKEN)
        self._burst = RollingWindow(clock, limit=190, period=10)
        self._daily = RollingWindow(clock, limit=650_000, period=86_400)
        self._search = RollingWindow(clock, limit=5, period=1)
        merged = {str(each.id): str(each.merged_into) for each in world.profiles[self.name] if each.merged_into}
        rows = Rows(world, merged)
        made = rows.tables()
        self._store = Store(clock, made, rows.tables(), merged)
        self._store.links = graph.Links(made, HELD, self._store.live)
        self.tables = {
            **{kind: made[self.objects[kind]] for kind in ("contact", "account", "deal", "ticket")},
            "owner": Table({str(each.id): each for each in world.users}, owner),
        }
        self._writing = Writing(self._store)

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        found = [
            Endpoint("POST", "/oauth/v1/token", self._token, open=True),
            Endpoint("POST", "/oauth/2026-09/token", self._token, open=True),
            Endpoint("GET", "/oauth/v1/access-tokens/{token}", self._token_info, open=True),
            Endpoint("GET", "/account-info/v3/details", self._details),
        ]
        names = [*((each, each) for each in PROPERTIES), (SUBSCRIPTION_TYPE, SUBSCRIPTION)]
        for objects, owners, described, stages, links, single, schemas in _FAMILIES:
            found += [
                Endpoint("GET", owners, self._owners),
                Endpoint("GET", owners + "/", self._owners),
                Endpoint("GET", owners + "/{id}", self._owner_get),
                Endpoint("GET", described + "/{type}", self._properties),
                Endpoint("GET", stages + "/{type}", self._pipelines),
                Endpoint("GET", schemas, self._schemas),
                Endpoint("POST", links + "/{from}/{to}/batch/read", self._associations),
                Endpoint("GET", single + "/{type}/{id}/associations/{to}", self._associations_of_one),
                *(
                    endpoint
                    for name, kind in names
                    for endpoint in (
                        Endpoint("GET", f"{objects}/{name}", partial(self._list, kind)),
                        Endpoint("POST", f"{objects}/{name}/batch/read", partial(self._batch, kind)),
                        Endpoint("POST", f"{objects}/{name}/search", partial(self._find, kind)),
                        Endpoint("GET", f"{objects}/{name}/{{id}}", partial(self._get, kind)),
                    )
                ),
                *self._writing.endpoints(objects, links, single, names),
            ]
        found.append(Endpoint("GET", "/crm/v3/schemas", self._schemas))
        return found

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        given = request.headers.get("authorization", "")
        if not given.startswith("Bearer "):
            return error(
                401, "INVALID_AUTHENTICATION", "Authentication credentials not found. This API supports OAuth 2.0 authentication."
            )
        token = given.removeprefix("Bearer ")
        if token != PRIVATE_APP_TOKEN and self.tokens.valid(token) is None:
            return error(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired.")
        if endpoint.path.endswith("/search") and not self._search.take():
            return self._limited("You have reached your secondly limit.", "SECONDLY")
        if not self._daily.take():
            return self.exhausted()
        return None if self._burst.take() else self.throttled(self._burst.wait())

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open and not endpoint.path.endswith("/search"):  # search answers carry no budget headers
            response.headers["X-HubSpot-RateLimit-Max"] = str(self._burst.limit)
            response.headers["X-HubSpot-RateLimit-Remaining"] = str(max(self._burst.remaining, 0))
            response.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = "10000"
        return response

    def throttled(self, seconds: float) -> Response:
        return self._limited("You have reached your ten_secondly_rolling limit.", "TEN_SECONDLY_ROLLING")

    def exhausted(self) -> Response:
        return self._limited("You have reached your daily limit.", "DAILY")

    def unknown(self, request: Request) -> Response:
        return error(404, "OBJECT_NOT_FOUND", "resource not found")

    def native(self, kind: str, world_id: int) -> str:
        return company_id(world_id) if kind == "account" else str(world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        said = {name: value if value is None else str(value) for name, value in fields.items()}
        if "phone" in said:
            said["hs_searchable_calculated_phone_number"] = searchable(said["phone"])
        return self._store.change(self.objects[kind], row, said)

    def delete(self, kind: str, native_id: str) -> bool:
        return self._store.archive(self.objects[kind], native_id)

    def restore(self, kind: str, native_id: str) -> bool:
        """Take a record out of the recycle bin, as a user of the portal would; there is no call for it."""
        return self._store.restore(self.objects[kind], native_id)

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two contacts as a user of the portal would; other kinds are not merged here."""
        return kind == "contact" and self._writing.merge(winner, loser) is not None

    # ---- webhooks ----

    def hook(self, url: str, client_secret: str, *, only: Sequence[str] | None = None) -> None:
        """Let the portal's app have an address for webhooks.

        Args:
            only: the subscriptions it has, such as "contact.creation" or "contact.propertyChange email"; None: all.
        """
        self._store.hooks.add(url, client_secret, only)

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self._store.hooks.listed()

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if kind != "owner" and after is not None and native_id not in self._store.quiet:
            self._store.hooks.changed(self.objects[kind], native_id, before, after)

    def listen(self, faults: Faults) -> None:
        super().listen(faults)
        self._store.hooks.outbox, self._store.hooks.skew = self.outbox, lambda: self.skew

    def _limited(self, message: str, policy: str) -> Response:
        return json_response(
            {"status": "error", "message": message, "errorType": "RATE_LIMIT", "correlationId": correlation(), "policyName": policy, "requestId": correlation()},
            status=429,
        )  # fmt: skip

    # ---- OAuth ----

    async def _token(self, request: Request) -> Response:
        said = await form(request)
        if said.get("client_id") != CLIENT_ID or said.get("client_secret") != CLIENT_SECRET:
            return json_response({"status": "BAD_CLIENT_SECRET", "message": "missing or unknown client secret"}, status=400)
        if said.get("grant_type") != "refresh_token":
            return json_response({"status": "BAD_GRANT_TYPE", "message": "missing or unknown grant type"}, status=400)
        given = str(said.get("refresh_token", ""))
        if self.tokens.refresh(given) is None:
            return json_response({"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token"}, status=400)
        return json_response(
            {
                "token_type": "bearer", "refresh_token": given, "access_token": self.tokens.issue(CLIENT_ID, prefix="CJ"),
                "expires_in": int(self.tokens.lifetime), "hub_id": PORTAL, "scopes": ["oauth", "crm.objects.contacts.read"],
            }
        )  # fmt: skip

    async def _token_info(self, request: Request) -> Response:
        issued = self.tokens.valid(request.path_params["token"])
        if issued is None:
            return error(404, "OBJECT_NOT_FOUND", "resource not found")
        left = int(issued.expires - self.clock.time())
        return json_response(
            {"token": request.path_params["token"], "hub_id": PORTAL, "app_id": 54321, "expires_in": left, "token_type": "access"}
        )

    # ---- metadata ----

    async def _details(self, _: Request) -> Response:
        return json_response(
            {
                "portalId": PORTAL,
                "accountType": "STANDARD",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "dataHostingLocation": "na1",
            }
        )

    async def _owners(self, request: Request) -> Response:
        archived = request.query_params.get("archived", "").lower() == "true"
        rows = sorted((row for row in self.tables["owner"] if row["archived"] is archived), key=lambda row: int(row["id"]))
        if email := request.query_params.get("email"):
            rows = [row for row in rows if row["email"] == email]
        start, size = int(request.query_params.get("after", 0)), int(request.query_params.get("limit", 100))
        return json_response(paged(rows[start : start + size], str(start + size) if start + size < len(rows) else None))

    async def _owner_get(self, request: Request) -> Response:
        row = self.tables["owner"].get(request.path_params["id"])
        return json_response(row) if row is not None else error(404, "OBJECT_NOT_FOUND", "resource not found")

    async def _properties(self, request: Request) -> Response:
        kind = object_name(request.path_params["type"])
        if kind not in PROPERTIES:
            return error(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['type']}")
        return json_response({"results": properties(kind)})

    async def _pipelines(self, request: Request) -> Response:
        return json_response({"results": pipelines(object_name(request.path_params["type"]))})

    async def _schemas(self, request: Request) -> Response:
        return json_response({"results": [] if request.query_params.get("archived", "").lower() == "true" else [schema()]})

    # ---- objects ----

    async def _list(self, kind: str, request: Request) -> Response:
        size = request.query_params.get("limit", "10")
        if not size.isdigit() or not 1 <= int(size) <= _PAGE:
            return error(400, "VALIDATION_ERROR", f"Invalid input JSON: limit must be between 1 and {_PAGE}")
        archived = request.query_params.get("archived", "").lower() == "true"
        wanted = listed(request, "properties")
        rows = list(islice(self._store.listed(kind, request.query_params.get("after"), archived=archived), int(size) + 1))
        page = [self._with_associations(kind, projected(kind, row, wanted), request) for row in rows[: int(size)]]
        return json_response(paged(page, page[-1]["id"] if len(rows) > int(size) else None))

    async def _get(self, kind: str, request: Request) -> Response:
        row = self._store.one(kind, request.path_params["id"], request.query_params.get("idProperty"))
        if row is None or row["archived"] is not (request.query_params.get("archived", "").lower() == "true"):
            return error(404, "OBJECT_NOT_FOUND", "resource not found")
        return json_response(self._with_associations(kind, projected(kind, row, listed(request, "properties")), request))

    async def _batch(self, kind: str, request: Request) -> Response:
        try:
            asked = _BatchRead.model_validate_json(await request.body())
        except ValidationError as found:
            return invalid(found)
        if len(asked.inputs) > _PAGE:
            return error(
                400, "VALIDATION_ERROR", f"Invalid input JSON: batch size must be at most {_PAGE}, was {len(asked.inputs)}"
            )
        if asked.idProperty not in ({None, "email", "hs_object_id"} if kind == "contacts" else {None, "hs_object_id"}):
            return error(400, "VALIDATION_ERROR", f"Unable to perform read by non-unique {kind} property")
        rows: dict[str, Row] = {}
        missing = []
        for each in asked.inputs:
            row = self._store.one(kind, each.id, asked.idProperty)
            if row is None or row["archived"]:
                missing.append(each.id)
            else:
                rows[row["id"]] = projected(kind, row, asked.properties)
        message = "Could not get some objects, they may be deleted or not exist. Check that ids are valid."
        errors = [Refusal(404, "OBJECT_NOT_FOUND", message).of_record(ids=missing)] if missing else []
        # The order of the answer is not the order of the question.
        return batch(self.clock.time(), [rows[id] for id in sorted(rows)], errors)

    def _with_associations(self, kind: str, row: Row, request: Request) -> Row:
        found = {}
        for to in map(object_name, listed(request, "associations")):
            ids = self._store.links.of(kind, to, row["id"]) if (kind, to) in graph.TYPES else []
            if ids:
                name = f"{kind.rstrip('s')}_to_{to.rstrip('s')}".replace("companie", "company")
                found[to] = {"results": [{"id": id, "type": name} for id in ids[:100]]}
        return {**row, "associations": found} if found else row

    async def _associations(self, request: Request) -> Response:
        pair = graph.pair(request.path_params["from"], request.path_params["to"])
        if pair is None:
            return error(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['to']}")
        try:
            asked = _BatchRead.model_validate_json(await request.body())
        except ValidationError as found:
            return invalid(found)
        if len(asked.inputs) > 1000:
            return error(400, "VALIDATION_ERROR", "Invalid input JSON: batch size must be at most 1000")
        tied = {each.id: self._links_page(self._store.links.typed(*pair, each.id), each.after) for each in asked.inputs}
        results = [{"from": {"id": id}, **page} for id, page in tied.items() if page["to"]]
        alone = [id for id, page in tied.items() if not page["to"]]
        return batch(self.clock.time(), results[::-1], graph.none_associated(*pair, alone))

    def _links_page(self, to: list[Row], after: str | None) -> Row:
        """Return the part of a record's associations that one answer holds, and where the next one begins."""
        start = int(after) if after and after.isdigit() else 0
        end = start + self.links_page
        following = {"paging": {"next": {"after": str(end), "link": f"?after={end}"}}} if end < len(to) else {}
        return {"to": to[start:end], **following}

    async def _associations_of_one(self, request: Request) -> Response:
        pair = graph.pair(request.path_params["type"], request.path_params["to"])
        if pair is None or not self._store.live(pair[0], request.path_params["id"]):
            return error(404, "OBJECT_NOT_FOUND", "resource not found")
        return json_response({"results": self._store.links.typed(*pair, request.path_params["id"])})

    async def _find(self, kind: str, request: Request) -> Response:
        try:
            asked = searching.Search.model_validate_json(await request.body())
            searching.check(kind, asked)
        except ValidationError as found:
            return invalid(found)
        except Refusal as refusal:
            return refusal.response
        rows, total = searching.found(kind, *self._store.searched(kind), asked)
        start = int(asked.after or 0) + asked.limit
        page = [projected(kind, row, asked.properties or ()) for row in rows]
        return json_response({"total": total, **paged(page, str(start) if start < total else None)})
