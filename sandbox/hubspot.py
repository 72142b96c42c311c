"""HubSpot's dialect: numeric ids in text, every property a string, an association graph, a search with one sort.

Written from HubSpot's developer pages (CRM objects, search, associations v4, usage guidelines) and the shapes of the
official Python client. Both path families are served: classic v3/v4 and the date-based 2026-09.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from model.keys import normal_phone
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, RollingWindow, Tokens, form, json_response
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, Ticket, User, World

PORTAL = 62515
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "hubspot-demo-app", "hubspot-demo-secret", "na1-demo-refresh-token"
PRIVATE_APP_TOKEN = "pat-na1-demo"
_PAGE, _SEARCH_PAGE, _SEARCH_CAP = 100, 200, 10_000
_OPERATORS = frozenset(
    [
        "EQ",
        "NEQ",
        "LT",
        "LTE",
        "GT",
        "GTE",
        "BETWEEN",
        "IN",
        "NOT_IN",
        "HAS_PROPERTY",
        "NOT_HAS_PROPERTY",
        "CONTAINS_TOKEN",
        "NOT_CONTAINS_TOKEN",
    ]
)
_STAGES = (
    ("appointmentscheduled", "Appointment Scheduled", "0.2", "false"), ("qualifiedtobuy", "Qualified To Buy", "0.4", "false"),
    ("presentationscheduled", "Presentation Scheduled", "0.6", "false"), ("decisionmakerboughtin", "Decision Maker Bought-In", "0.8", "false"),
    ("contractsent", "Contract Sent", "0.9", "false"), ("closedwon", "Closed Won", "1.0", "true"), ("closedlost", "Closed Lost", "0.0", "true"),
)  # fmt: skip
_TICKET_STAGES = (
    ("1", "New", "OPEN"),
    ("2", "Waiting on contact", "OPEN"),
    ("3", "Waiting on us", "OPEN"),
    ("4", "Closed", "CLOSED"),
)
_COLORS = ("blue", "green", "red")

_Type = Literal["string", "number", "date", "datetime", "enumeration", "bool", "phone_number"]
_PROPERTIES: Mapping[str, Mapping[str, tuple[_Type, str, bool]]] = {  # name → (type, label, custom)
    "contacts": {
        "email": ("string", "Email", False), "hs_additional_emails": ("enumeration", "Additional email addresses", False),
        "firstname": ("string", "First Name", False), "lastname": ("string", "Last Name", False), "phone": ("string", "Phone Number", False),
        "mobilephone": ("string", "Mobile Phone Number", False), "jobtitle": ("string", "Job Title", False), "company": ("string", "Company Name", False),
        "country": ("string", "Country/Region", False), "hs_language": ("enumeration", "Preferred language", False),
        "lifecyclestage": ("enumeration", "Lifecycle Stage", False), "hubspot_owner_id": ("enumeration", "Contact owner", False),
        "associatedcompanyid": ("number", "Primary Associated Company ID", False), "createdate": ("datetime", "Create Date", False),
        "lastmodifieddate": ("datetime", "Last Modified Date", False), "hs_object_id": ("number", "Record ID", False),
        "hs_searchable_calculated_phone_number": ("string", "Calculated Phone Number without country code", False),
        "favorite_color": ("enumeration", "Favorite color", True), "loyalty_points": ("number", "Loyalty points", True),
    },
    "companies": {
        "name": ("string", "Company name", False), "domain": ("string", "Company Domain Name", False), "industry": ("enumeration", "Industry", False),
        "country": ("string", "Country/Region", False), "numberofemployees": ("number", "Number of Employees", False),
        "hubspot_owner_id": ("enumeration", "Company owner", False), "hs_parent_company_id": ("number", "Parent Company", False),
        "createdate": ("datetime", "Create Date", False), "hs_lastmodifieddate": ("datetime", "Last Modified Date", False),
        "hs_object_id": ("number", "Record ID", False),
    },
    "deals": {
        "dealname": ("string", "Deal Name", False), "amount": ("number", "Amount", False), "deal_currency_code": ("enumeration", "Currency", False),
        "pipeline": ("enumeration", "Pipeline", False), "dealstage": ("enumeration", "Deal Stage", False), "closedate": ("datetime", "Close Date", False),
        "hs_deal_stage_probability": ("number", "Deal probability", False), "hubspot_owner_id": ("enumeration", "Deal owner", False),
        "createdate": ("datetime", "Create Date", False), "hs_lastmodifieddate": ("datetime", "Last Modified Date", False),
        "hs_object_id": ("number", "Record ID", False), "region": ("enumeration", "Region", True),
    },
    "tickets": {
        "subject": ("string", "Ticket name", False), "content": ("string", "Ticket description", False), "hs_pipeline": ("enumeration", "Pipeline", False),
        "hs_pipeline_stage": ("enumeration", "Ticket status", False), "hs_ticket_priority": ("enumeration", "Priority", False),
        "hubspot_owner_id": ("enumeration", "Ticket owner", False), "createdate": ("datetime", "Create date", False),
        "hs_lastmodifieddate": ("datetime", "Last modified date", False), "hs_object_id": ("number", "Record ID", False),
    },
}  # fmt: skip
_OPTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "favorite_color": [(each, each.title()) for each in _COLORS],
    "region": [("emea", "EMEA"), ("amer", "Americas"), ("apac", "Asia-Pacific")],
    "hs_ticket_priority": [("LOW", "Low"), ("MEDIUM", "Medium"), ("HIGH", "High"), ("URGENT", "Urgent")],
    "lifecyclestage": [("lead", "Lead"), ("customer", "Customer")],
}
_DEFAULTS: Mapping[str, Sequence[str]] = {
    "contacts": ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"),
    "companies": ("createdate", "domain", "hs_lastmodifieddate", "hs_object_id", "name"),
    "deals": ("amount", "closedate", "createdate", "dealname", "dealstage", "hs_lastmodifieddate", "hs_object_id", "pipeline"),
    "tickets": ("content", "createdate", "hs_lastmodifieddate", "hs_object_id", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority", "subject"),
}  # fmt: skip
_MODIFIED = {"contacts": "lastmodifieddate"}
# (from, to) → type ids, the labelled "primary" one first where there is one
_ASSOCIATIONS: Mapping[tuple[str, str], tuple[tuple[int, str | None], ...]] = {
    ("contacts", "companies"): ((1, "Primary"), (279, None)), ("companies", "contacts"): ((2, "Primary"), (280, None)),
    ("contacts", "deals"): ((4, None),), ("deals", "contacts"): ((3, None),), ("deals", "companies"): ((5, "Primary"), (341, None)),
    ("companies", "deals"): ((6, "Primary"), (342, None)), ("contacts", "tickets"): ((15, None),), ("tickets", "contacts"): ((16, None),),
    ("tickets", "companies"): ((26, "Primary"), (339, None)), ("companies", "tickets"): ((25, "Primary"), (340, None)),
}  # fmt: skip
_ALIASES = {
    "0-1": "contacts",
    "0-2": "companies",
    "0-3": "deals",
    "0-5": "tickets",
    "contact": "contacts",
    "company": "companies",
    "deal": "deals",
    "ticket": "tickets",
}


class _Loose(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Filter(_Loose):
    propertyName: str
    operator: str
    value: str | None = None
    highValue: str | None = None
    values: list[str] | None = None


class _Group(_Loose):
    filters: list[_Filter]


class _Sort(_Loose):
    propertyName: str
    direction: Literal["ASCENDING", "DESCENDING"] = "ASCENDING"


class _Search(_Loose):
    filterGroups: list[_Group] = Field(default_factory=list)
    sorts: list[_Sort | str] = Field(default_factory=list)
    query: str | None = None
    properties: list[str] | None = None
    limit: int = 10
    after: str | int | None = None


class _Input(_Loose):
    id: str | int


class _BatchRead(_Loose):
    inputs: list[_Input]
    properties: list[str] = Field(default_factory=list)
    idProperty: str | None = None


class _Refusal(Exception):
    def __init__(self, response: Response) -> None:
        self.response = response


class HubSpot(Dialect):
    """One portal on the Professional plan: 190 calls in 10 s, 650,000 a day, 5 searches a second."""

    name = "hubspot"
    objects = {
        "contact": "contacts",
        "account": "companies",
        "deal": "deals",
        "ticket": "tickets",
        "owner": "owners",
        "lead": "leads",
    }

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.tokens: Tokens = Tokens(clock, lifetime=1800, rotate=False)
        self.tokens.grant(REFRESH_TOKEN)
        self._burst = RollingWindow(clock, limit=190, period=10)
        self._daily = RollingWindow(clock, limit=650_000, period=86_400)
        self._search = RollingWindow(clock, limit=5, period=1)
        profiles, deals, tickets = world.profiles[self.name], world.deals[self.name], world.tickets[self.name]
        self._merged = {str(each.id): str(each.merged_into) for each in profiles if each.merged_into}
        used = {each.company for each in profiles} | {each.company for each in deals}
        self.tables = {
            "contact": _table({str(each.id): each for each in profiles if not each.merged_into}, self._contact, _contact_indexes()),
            "account": _table({_company_id(each.id): each for each in world.companies if each.id in used}, self._company, _company_indexes()),
            "deal": _table({str(each.id): each for each in deals}, self._deal, _deal_indexes()),
            "ticket": _table({str(each.id): each for each in tickets}, self._ticket, _ticket_indexes()),
            "owner": Table({str(each.id): each for each in world.users}, _owner),
        }  # fmt: skip
        self._by_object = {self.objects[kind]: table for kind, table in self.tables.items()}

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
        for objects, owners, properties, pipelines, links in (
            ("/crm/v3/objects", "/crm/v3/owners", "/crm/v3/properties", "/crm/v3/pipelines", "/crm/v4/associations"),
            (
                "/crm/objects/2026-09",
                "/crm/owners/2026-09",
                "/crm/properties/2026-09",
                "/crm/pipelines/2026-09",
                "/crm/associations/2026-09",
            ),
        ):
            single = "/crm/v4/objects" if objects.endswith("v3/objects") else objects
            found += [
                Endpoint("GET", owners, self._owners),
                Endpoint("GET", owners + "/", self._owners),
                Endpoint("GET", owners + "/{id}", self._owner_get),
                Endpoint("GET", properties + "/{type}", self._properties),
                Endpoint("GET", pipelines + "/{type}", self._pipelines),
                Endpoint("POST", links + "/{from}/{to}/batch/read", self._associations),
                Endpoint("GET", single + "/{type}/{id}/associations/{to}", self._associations_of_one),
                *(
                    endpoint
                    for each in _PROPERTIES
                    for endpoint in (
                        Endpoint("GET", f"{objects}/{each}", partial(self._list, each)),
                        Endpoint("POST", f"{objects}/{each}/batch/read", partial(self._batch, each)),
                        Endpoint("POST", f"{objects}/{each}/search", partial(self._find, each)),
                        Endpoint("GET", f"{objects}/{each}/{{id}}", partial(self._get, each)),
                    )
                ),
            ]
        return found

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        given = request.headers.get("authorization", "")
        if not given.startswith("Bearer "):
            return _error(
                401, "INVALID_AUTHENTICATION", "Authentication credentials not found. This API supports OAuth 2.0 authentication."
            )
        token = given.removeprefix("Bearer ")
        if token != PRIVATE_APP_TOKEN and self.tokens.valid(token) is None:
            return _error(401, "EXPIRED_AUTHENTICATION", "The OAuth token used to make this call expired.")
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
        return _error(404, "OBJECT_NOT_FOUND", "resource not found")

    def native(self, kind: str, world_id: int) -> str:
        return _company_id(world_id) if kind == "account" else str(world_id)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        now = _iso(self.clock.time() * 1000)
        modified = _MODIFIED.get(self.objects[kind], "hs_lastmodifieddate")
        said = {name: value if value is None else str(value) for name, value in fields.items()}
        row = {**row, "properties": {**row["properties"], **said, modified: now}, "updatedAt": now}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        row = self.tables[kind].get(native_id)
        if row is None or row["archived"]:
            return False
        self.tables[kind].put(native_id, {**row, "archived": True, "archivedAt": _iso(self.clock.time() * 1000)})
        return True

    def _limited(self, message: str, policy: str) -> Response:
        return json_response(
            {"status": "error", "message": message, "errorType": "RATE_LIMIT", "correlationId": _correlation(), "policyName": policy, "requestId": _correlation()},
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
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
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
        archived = request.query_params.get("archived") == "true"
        rows = sorted((row for row in self.tables["owner"] if row["archived"] is archived), key=lambda row: int(row["id"]))
        if email := request.query_params.get("email"):
            rows = [row for row in rows if row["email"] == email]
        start, size = int(request.query_params.get("after", 0)), int(request.query_params.get("limit", 100))
        return json_response(_paged(rows[start : start + size], str(start + size) if start + size < len(rows) else None))

    async def _owner_get(self, request: Request) -> Response:
        row = self.tables["owner"].get(request.path_params["id"])
        return json_response(row) if row is not None else _error(404, "OBJECT_NOT_FOUND", "resource not found")

    async def _properties(self, request: Request) -> Response:
        known = _PROPERTIES.get(_object(request.path_params["type"]))
        if known is None:
            return _error(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['type']}")
        return json_response({"results": [_property(name, *facts) for name, facts in known.items()]})

    async def _pipelines(self, request: Request) -> Response:
        if _object(request.path_params["type"]) == "deals":
            stages = [
                _stage(id, label, order, {"isClosed": closed, "probability": probability})
                for order, (id, label, probability, closed) in enumerate(_STAGES)
            ]
            return json_response(
                {
                    "results": [
                        {"id": "default", "label": "Sales Pipeline", "displayOrder": 0, "archived": False, "stages": stages}
                    ]
                }
            )
        stages = [_stage(id, label, order, {"ticketState": state}) for order, (id, label, state) in enumerate(_TICKET_STAGES)]
        return json_response(
            {"results": [{"id": "0", "label": "Support Pipeline", "displayOrder": 0, "archived": False, "stages": stages}]}
        )

    # ---- objects ----

    async def _list(self, kind: str, request: Request) -> Response:
        size = request.query_params.get("limit", "10")
        if not size.isdigit() or not 1 <= int(size) <= _PAGE:
            return _error(400, "VALIDATION_ERROR", f"Invalid input JSON: limit must be between 1 and {_PAGE}")
        archived = request.query_params.get("archived") == "true"
        after = request.query_params.get("after")
        wanted = _listed(request, "properties")
        rows: list[Row] = []
        for row in self._by_object[kind].walk("id", start=int(after) if after and after.isdigit() else None):
            if row["archived"] is not archived or (after is not None and row["id"] == after):
                continue
            rows.append(row)
            if len(rows) > int(size):
                break
        page = [self._with_associations(kind, _projected(kind, row, wanted), request) for row in rows[: int(size)]]
        return json_response(_paged(page, page[-1]["id"] if len(rows) > int(size) else None))

    async def _get(self, kind: str, request: Request) -> Response:
        given = request.path_params["id"]
        id_property = request.query_params.get("idProperty")
        row = self._one(kind, given, id_property)
        if row is None or row["archived"] is not (request.query_params.get("archived") == "true"):
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
        return json_response(self._with_associations(kind, _projected(kind, row, _listed(request, "properties")), request))

    async def _batch(self, kind: str, request: Request) -> Response:
        try:
            asked = _BatchRead.model_validate_json(await request.body())
        except ValidationError as error:
            return _invalid(error)
        if len(asked.inputs) > _PAGE:
            return _error(
                400, "VALIDATION_ERROR", f"Invalid input JSON: batch size must be at most {_PAGE}, was {len(asked.inputs)}"
            )
        if asked.idProperty not in {None, "email", "hs_object_id"}:
            return _error(400, "VALIDATION_ERROR", f"Unable to perform read by non-unique {kind} property")
        found: dict[str, Row] = {}
        missing = []
        for each in asked.inputs:
            row = self._one(kind, str(each.id), asked.idProperty)
            if row is None or row["archived"]:
                missing.append(str(each.id))
            else:
                found[row["id"]] = _projected(kind, row, asked.properties)
        # The order of the answer is not the order of the question.
        results = [found[id] for id in sorted(found)]
        times = {"startedAt": _iso(self.clock.time() * 1000), "completedAt": _iso(self.clock.time() * 1000)}
        if not missing:
            return json_response({"status": "COMPLETE", "results": results, **times})
        errors = [
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some objects, they may be deleted or not exist. Check that ids are valid.",
                "context": {"ids": missing},
            }
        ]
        return json_response({"status": "COMPLETE", "results": results, "numErrors": 1, "errors": errors, **times}, status=207)

    def _one(self, kind: str, given: str, id_property: str | None) -> Row | None:
        table = self._by_object[kind]
        if id_property == "email":
            return next((row for row in table.having("email", [given.lower()]) if not row["archived"]), None)
        return table.get(self._merged.get(given, given) if kind == "contacts" else given)

    def _with_associations(self, kind: str, row: Row, request: Request) -> Row:
        asked = [_object(each) for each in _listed(request, "associations")]
        found = {}
        for to in asked:
            ids = self._linked(kind, to, row["id"])
            if ids:
                name = f"{kind.rstrip('s')}_to_{to.rstrip('s')}".replace("companie", "company")
                found[to] = {"results": [{"id": id, "type": name} for id in ids[:100]]}
        return {**row, "associations": found} if found else row

    # ---- associations ----

    async def _associations(self, request: Request) -> Response:
        start, to = _object(request.path_params["from"]), _object(request.path_params["to"])
        types = _ASSOCIATIONS.get((start, to))
        if types is None:
            return _error(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['to']}")
        try:
            asked = _BatchRead.model_validate_json(await request.body())
        except ValidationError as error:
            return _invalid(error)
        if len(asked.inputs) > 1000:
            return _error(400, "VALIDATION_ERROR", "Invalid input JSON: batch size must be at most 1000")
        results, errors = [], []
        for each in asked.inputs:
            ids = self._linked(start, to, str(each.id))
            if ids:
                results.append(
                    {"from": {"id": str(each.id)}, "to": [_association(int(id), types, nth == 0) for nth, id in enumerate(ids)]}
                )
            else:
                errors.append(
                    {
                        "status": "error", "category": "OBJECT_NOT_FOUND", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                        "message": f"No {to.rstrip('s')} is associated with {start.rstrip('s')} {each.id}.",
                        "context": {"fromObjectId": [str(each.id)], "fromObjectType": [start.rstrip("s")], "toObjectType": [to.rstrip("s")]},
                    }
                )  # fmt: skip
        results.reverse()
        body = {
            "status": "COMPLETE",
            "results": results,
            "numErrors": len(errors),
            "errors": errors,
            "startedAt": _iso(self.clock.time() * 1000),
            "completedAt": _iso(self.clock.time() * 1000),
        }
        return json_response(body, status=207 if errors else 200)

    async def _associations_of_one(self, request: Request) -> Response:
        start, to = _object(request.path_params["type"]), _object(request.path_params["to"])
        types = _ASSOCIATIONS.get((start, to))
        if types is None or self._by_object[start].get(request.path_params["id"]) is None:
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
        ids = self._linked(start, to, request.path_params["id"])
        return json_response({"results": [_association(int(id), types, nth == 0) for nth, id in enumerate(ids)]})

    def _linked(self, start: str, to: str, native_id: str) -> list[str]:
        """Return the ids of live records of `to`, the primary one first."""
        table = self._by_object[start]
        entry = table.entry(native_id)
        if entry is None:
            return []
        match start, to:
            case (("contacts" | "deals" | "tickets"), "companies"):
                ids = [_company_id(entry.company)] if entry.company else []
            case "deals", "contacts":
                ids = [str(each) for each in entry.contacts]
            case "tickets", "contacts":
                ids = [str(entry.contact)]
            case "contacts", _:
                ids = [row["id"] for row in self._by_object[to].having("contact", [int(native_id)])]
            case _:
                ids = [row["id"] for row in self._by_object[to].having("company", [entry.id])]
        live = (id for id in ids if (row := self._by_object[to].get(id)) is not None and not row["archived"])
        return list(live)

    # ---- search ----

    async def _find(self, kind: str, request: Request) -> Response:
        try:
            asked = _Search.model_validate_json(await request.body())
            self._check(kind, asked)
        except ValidationError as error:
            return _invalid(error)
        except _Refusal as refusal:
            return refusal.response
        start = int(asked.after or 0)
        if start >= _SEARCH_CAP:
            return _error(400, "VALIDATION_ERROR", f"There was a problem with the request: after must be below {_SEARCH_CAP}")
        rows = [row for row in self._candidates(kind, asked) if not row["archived"] and _matches(kind, row, asked)]
        sort = _sort(asked)
        if sort is not None:
            name = sort.propertyName
            # Rows without a value come last; ties are in no order that the vendor states.
            rows.sort(
                key=lambda row: (_comparable(kind, name, row["properties"].get(name)), _shuffled(row["id"])),
                reverse=sort.direction == "DESCENDING",
            )
        page = rows[start : start + asked.limit]
        after = str(start + asked.limit) if start + asked.limit < len(rows) else None
        return json_response(
            {"total": len(rows), **_paged([_projected(kind, row, asked.properties or ()) for row in page], after)}
        )

    def _check(self, kind: str, asked: _Search) -> None:
        if not 1 <= asked.limit <= _SEARCH_PAGE:
            raise _Refusal(_error(400, "VALIDATION_ERROR", f"Invalid input JSON: limit must be between 1 and {_SEARCH_PAGE}"))
        if len(asked.filterGroups) > 5 or any(len(group.filters) > 6 for group in asked.filterGroups):
            raise _Refusal(
                _error(400, "VALIDATION_ERROR", "Too many filters: at most 5 filterGroups of at most 6 filters each are allowed.")
            )
        if len(asked.sorts) > 1:
            raise _Refusal(_error(400, "VALIDATION_ERROR", "Only one sort is allowed."))
        if asked.after is not None and not str(asked.after).isdigit():
            raise _Refusal(_error(400, "VALIDATION_ERROR", "Invalid input JSON: after must be a number"))
        known = _PROPERTIES[kind]
        names = [each.propertyName for group in asked.filterGroups for each in group.filters]
        for name in [*names, *([sort.propertyName] if (sort := _sort(asked)) else [])]:
            if name not in known:
                raise _Refusal(
                    _error(400, "VALIDATION_ERROR", f"There was a problem with the request: Property {name} does not exist")
                )
        for each in (each for group in asked.filterGroups for each in group.filters):
            if each.operator not in _OPERATORS:
                raise _Refusal(_error(400, "VALIDATION_ERROR", f"Invalid input JSON: unknown operator {each.operator}"))
            if each.operator in {"IN", "NOT_IN"} and each.values is None:
                raise _Refusal(_error(400, "VALIDATION_ERROR", f"operator {each.operator} requires values"))
            if each.operator == "BETWEEN" and each.highValue is None:
                raise _Refusal(_error(400, "VALIDATION_ERROR", "operator BETWEEN requires highValue"))

    def _candidates(self, kind: str, asked: _Search) -> Iterable[Row]:
        """Return rows among which all matches are: by an index, by a span of time, or all."""
        table = self._by_object[kind]
        found: dict[str, Row] = {}
        for group in asked.filterGroups:
            rows = self._narrowed(kind, table, group)
            if rows is None:
                return table
            found |= {row["id"]: row for row in rows}
        return found.values() if asked.filterGroups else table

    def _narrowed(self, kind: str, table: Table[Any], group: _Group) -> Iterable[Row] | None:
        for each in group.filters:
            values = (
                each.values
                if each.operator == "IN"
                else [each.value or ""]
                if each.operator in {"EQ", "CONTAINS_TOKEN"}
                else None
            )
            if values is not None and each.propertyName == "hs_object_id":
                return [row for value in values if (row := table.get(value)) is not None]
            index = {"email": "email", "hs_additional_emails": "more", "hs_searchable_calculated_phone_number": "phone"}.get(
                each.propertyName
            )
            if values is not None and index is not None and kind == "contacts":
                return table.having(index, [value.lower() for value in values])
        for each in group.filters:
            if each.operator in {"GT", "GTE", "EQ", "BETWEEN"} and each.propertyName in {
                "createdate",
                _MODIFIED.get(kind, "hs_lastmodifieddate"),
            }:
                order = "created" if each.propertyName == "createdate" else "updated"
                return _until(table.walk(order, start=_millis(each.value)), kind, each)
        return None

    # ---- rendering ----

    def _contact(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1] if each.company else None
        properties = {
            "email": each.email.lower() if each.email else None,  # HubSpot lower-cases addresses
            "hs_additional_emails": ";".join(each.more_emails) or None,
            "firstname": each.given, "lastname": each.family, "phone": each.phone, "mobilephone": None, "jobtitle": each.title,
            "company": company.name if company else None, "country": each.country, "hs_language": "en", "lifecyclestage": "customer" if each.number % 2 else "lead",
            "hubspot_owner_id": str(each.owner), "associatedcompanyid": _company_id(each.company) if each.company else None,
            "hs_searchable_calculated_phone_number": _searchable(each.phone),
            "favorite_color": _COLORS[each.number % 3], "loyalty_points": str(each.number),
            "createdate": _iso(each.created), "lastmodifieddate": _iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated, archived=each.deleted)

    def _company(self, each: Company) -> Row:
        id = _company_id(each.id)
        properties = {
            "name": each.name, "domain": each.domain, "industry": each.industry.upper(), "country": each.country,
            "numberofemployees": str(each.employees), "hubspot_owner_id": "1", "hs_parent_company_id": None,
            "createdate": _iso(each.created), "hs_lastmodifieddate": _iso(each.created), "hs_object_id": id,
        }  # fmt: skip
        return _record(id, properties, each.created, each.created)

    def _deal(self, each: Deal) -> Row:
        id, _, probability, _ = _STAGES[each.stage]
        properties = {
            "dealname": each.name, "amount": f"{each.cents / 100:.2f}", "deal_currency_code": each.currency, "pipeline": "default", "dealstage": id,
            "closedate": _iso(each.close), "hs_deal_stage_probability": probability, "hubspot_owner_id": str(each.owner),
            "region": ("emea", "amer", "apac")[each.number % 3], "createdate": _iso(each.created), "hs_lastmodifieddate": _iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated, archived=each.deleted)

    def _ticket(self, each: Ticket) -> Row:
        properties = {
            "subject": each.subject, "content": each.subject, "hs_pipeline": "0", "hs_pipeline_stage": str(1 + min(each.status, 3)),
            "hs_ticket_priority": (None, "LOW", "MEDIUM", "HIGH", "URGENT")[each.priority], "hubspot_owner_id": "1",
            "createdate": _iso(each.created), "hs_lastmodifieddate": _iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated)


def _record(id: str, properties: Row, created: int, updated: int, *, archived: bool = False) -> Row:
    row: Row = {"id": id, "properties": properties, "createdAt": _iso(created), "updatedAt": _iso(updated), "archived": archived}
    return {**row, "archivedAt": _iso(updated)} if archived else row


def _owner(user: User) -> Row:
    return {
        "id": str(user.id), "email": user.email, "type": "PERSON", "firstName": user.given, "lastName": user.family, "userId": 9000 + user.id,
        "userIdIncludingInactive": 9000 + user.id, "createdAt": "2023-01-01T00:00:00.000Z", "updatedAt": "2023-01-01T00:00:00.000Z", "archived": not user.active,
    }  # fmt: skip


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "id": Column(_entry_id, lambda row: int(row["id"])),
        "created": Column(lambda entry: entry.created, lambda row: _millis(row["createdAt"])),
        "updated": Column(lambda entry: getattr(entry, "updated", entry.created), lambda row: _millis(row["updatedAt"])),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _entry_id(entry: Any) -> int:
    return int(_company_id(entry.id)) if isinstance(entry, Company) else int(entry.id)


def _contact_indexes() -> Mapping[str, Column[Profile]]:
    return {
        "email": Column(lambda each: each.email.lower() if each.email else None, lambda row: row["properties"].get("email")),
        "more": Column(
            lambda each: each.more_emails, lambda row: tuple((row["properties"].get("hs_additional_emails") or "").split(";"))
        ),
        "phone": Column(lambda each: _searchable(each.phone), lambda row: _searchable(row["properties"].get("phone"))),
        "company": Column(
            lambda each: each.company or None, lambda row: _company_number(row["properties"].get("associatedcompanyid"))
        ),
    }


def _company_indexes() -> Mapping[str, Column[Company]]:
    return {}


def _deal_indexes() -> Mapping[str, Column[Deal]]:
    # Associations are not properties: a changed row keeps those of its entry, found by id.
    return {
        "contact": Column(lambda each: each.contacts, lambda row: ()),
        "company": Column(lambda each: each.company or None, lambda row: ()),
    }


def _ticket_indexes() -> Mapping[str, Column[Ticket]]:
    return {
        "contact": Column(lambda each: each.contact, lambda row: ()),
        "company": Column(lambda each: each.company or None, lambda row: ()),
    }


def _company_id(number: int) -> str:
    return str(9_000_000_000 + number)


def _company_number(native_id: str | None) -> int | None:
    return int(native_id) - 9_000_000_000 if native_id else None


def _searchable(phone: str | None) -> str | None:
    """Return area code and local number only, as HubSpot's calculated property holds them."""
    normal = normal_phone(phone, "US") if phone else None
    return str(phonenumbers.parse(normal, None).national_number) if normal else None


def _projected(kind: str, row: Row, wanted: Iterable[str]) -> Row:
    names = {*_DEFAULTS[kind], *wanted} & _PROPERTIES[kind].keys()  # unknown names are silently ignored
    return {**row, "properties": {name: row["properties"].get(name) for name in sorted(names)}}


def _property(name: str, type: _Type, label: str, custom: bool) -> Row:
    options = [
        {"label": each, "value": value, "displayOrder": at, "hidden": False}
        for at, (value, each) in enumerate(_OPTIONS.get(name, ()))
    ]
    field_type = {"enumeration": "select", "number": "number", "datetime": "date", "date": "date", "bool": "booleancheckbox"}.get(
        type, "text"
    )
    return {
        "name": name, "label": label, "type": type, "fieldType": field_type, "groupName": "custom" if custom else "information", "description": "",
        "options": options, "hasUniqueValue": False, "calculated": name.startswith("hs_searchable"), "externalOptions": False, "hubspotDefined": not custom,
        "modificationMetadata": {"archivable": custom, "readOnlyDefinition": not custom, "readOnlyValue": name in {"createdate", "hs_object_id"}},
        "updatedAt": "2024-01-01T00:00:00.000Z",
    }  # fmt: skip


def _stage(id: str, label: str, order: int, metadata: Mapping[str, str]) -> Row:
    return {"id": id, "label": label, "displayOrder": order, "metadata": dict(metadata), "archived": False}


def _association(id: int, types: Sequence[tuple[int, str | None]], primary: bool) -> Row:
    shown = types if primary or len(types) == 1 else types[1:]
    return {
        "toObjectId": id,
        "associationTypes": [{"category": "HUBSPOT_DEFINED", "typeId": type_id, "label": label} for type_id, label in shown],
    }


# ---- search evaluation ----


def _sort(asked: _Search) -> _Sort | None:
    if not asked.sorts:
        return None
    given = asked.sorts[0]
    if isinstance(given, _Sort):
        return given
    return _Sort(propertyName=given.removeprefix("-"), direction="DESCENDING" if given.startswith("-") else "ASCENDING")


def _matches(kind: str, row: Row, asked: _Search) -> bool:
    if asked.query and not any(asked.query.lower() in str(value).lower() for value in row["properties"].values() if value):
        return False
    return not asked.filterGroups or any(all(_holds(kind, row, each) for each in group.filters) for group in asked.filterGroups)


def _holds(kind: str, row: Row, each: _Filter) -> bool:
    name = each.propertyName
    value = row["properties"].get(name)
    several = str(value).lower().split(";") if name == "hs_additional_emails" and value else None
    if each.operator == "HAS_PROPERTY":
        return value not in (None, "")
    if each.operator == "NOT_HAS_PROPERTY":
        return value in (None, "")
    if each.operator in {"NEQ", "NOT_IN", "NOT_CONTAINS_TOKEN"}:
        opposite = {"NEQ": "EQ", "NOT_IN": "IN", "NOT_CONTAINS_TOKEN": "CONTAINS_TOKEN"}[each.operator]
        return not _holds(kind, row, each.model_copy(update={"operator": opposite}))
    if value is None:
        return False
    if each.operator == "CONTAINS_TOKEN":
        wanted = (each.value or "").lower().strip("*")
        return any(wanted in token for token in re.split(r"[\s;]+", str(value).lower()))
    mine = _comparable(kind, name, value)
    if each.operator == "IN":
        return (
            any(one in (each.values or ()) for one in several)
            if several
            else any(mine == _comparable(kind, name, one) for one in each.values or ())
        )
    other = _comparable(kind, name, each.value)
    match each.operator:
        case "EQ":
            return other[1] in several if several else bool(mine == other)
        case "GT":
            return bool(mine > other)
        case "GTE":
            return bool(mine >= other)
        case "LT":
            return bool(mine < other)
        case "LTE":
            return bool(mine <= other)
        case _:
            return bool(other <= mine <= _comparable(kind, name, each.highValue))


def _comparable(kind: str, name: str, value: str | None) -> tuple[int, Any]:
    """Return a value that compares as its property type does; no value is the greatest."""
    if value in (None, ""):
        return (1, 0)
    type = _PROPERTIES[kind][name][0]
    try:
        if type == "datetime":
            return (0, _millis(value))
        if type == "number":
            return (0, float(str(value)))
    except ValueError:
        return (1, 0)
    return (0, str(value).lower())


def _until(rows: Iterator[Row], kind: str, each: _Filter) -> Iterator[Row]:
    """Stop a walk up in time where a filter's upper end lies."""
    end = _millis(each.value) if each.operator == "EQ" else _millis(each.highValue) if each.operator == "BETWEEN" else None
    for row in rows:
        if end is not None and (_millis(row["properties"].get(each.propertyName)) or 0) > end:
            return
        yield row


def _shuffled(id: str) -> int:
    return int(id) * 2_654_435_761 % 4_294_967_296


def _millis(value: Any) -> int:
    """Milliseconds from ISO text or from milliseconds in text; HubSpot takes both."""
    text = str(value)
    if text.lstrip("-").isdigit():
        return int(text)
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _iso(millis: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=round(millis))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _object(name: str) -> str:
    return _ALIASES.get(name, name)


def _listed(request: Request, name: str) -> list[str]:
    return [each for given in request.query_params.getlist(name) for each in given.split(",") if each]


def _paged(results: list[Row], after: str | None) -> Row:
    return (
        {"results": results, "paging": {"next": {"after": after, "link": f"?after={after}"}}} if after else {"results": results}
    )


def _invalid(error: ValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _error(400, "VALIDATION_ERROR", f"Invalid input JSON on line 1, column 1: {where}: {first['msg']}")


def _error(status: int, category: str, message: str) -> Response:
    return json_response(
        {"status": "error", "message": message, "correlationId": _correlation(), "category": category}, status=status
    )


def _correlation() -> str:
    raw = secrets.token_hex(16)
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
