"""Shopify's dialect: GraphQL under a bucket of points, throttling in an HTTP 200, global ids, expiring offline tokens.

Written from shopify.dev (Admin API rate limits, search syntax, offline access tokens) and the published schema. One
store on the Advanced plan: 200 points a second, 4,000 in the bucket.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLObjectType,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    build_schema,
    execute_sync,
    get_named_type,
    parse,
    validate,
)
from graphql.pyutils import Undefined
from graphql.utilities import value_from_ast_untyped
from starlette.requests import Request
from starlette.responses import Response

from model.keys import normal_phone
from sandbox import shopify_query as search
from sandbox.clock import SandboxClock
from sandbox.dialect import Bucket, Dialect, Endpoint, Tokens, form, json_response
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import PRODUCTS, Order, Profile, World

VERSION = "2026-07"
SHOP = "c360-demo.myshopify.com"
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "shopify-demo-app", "shopify-demo-secret", "shprt_demo"
ADMIN_TOKEN = "shpat_demo"
_MAX_COST = 1000
_RATES = {"USD": 100, "EUR": 110, "GBP": 125}  # shop money (USD) per 100 of the presentment currency
_STATES = (
    ("PAID", "UNFULFILLED"), ("PAID", "PARTIALLY_FULFILLED"), ("PAID", "FULFILLED"), ("VOIDED", "UNFULFILLED"), ("REFUNDED", "FULFILLED"),
    ("PARTIALLY_REFUNDED", "FULFILLED"), ("PENDING", "UNFULFILLED"),
)  # fmt: skip
_SEARCHABLE = {
    "customers": frozenset(["country", "customer_date", "email", "first_name", "id", "last_name", "orders_count", "order_date", "phone", "state", "tag", "tag_not", "total_spent", "updated_at", "accepts_marketing"]),
    "orders": frozenset(["channel", "created_at", "current_total_price", "customer_id", "discount_code", "email", "financial_status", "fulfillment_status", "id", "location_id", "name", "po_number", "processed_at", "sku", "status", "tag", "tag_not", "test", "updated_at"]),
}  # fmt: skip
_SCHEMA = build_schema((Path(__file__).parent / "shopify.graphql").read_text())


class Shopify(Dialect):
    """One store."""

    name = "shopify"
    objects = {"contact": "Customer", "order": "Order", "lead": "Customer"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        # The old refresh token stays good until its replacement is used (since 2026-08-28).
        self.tokens: Tokens = Tokens(clock, lifetime=3600, rotate=True, grace=True)
        self.tokens.grant(REFRESH_TOKEN)
        self._bucket = Bucket(clock, limit=4000, per_second=200)
        profiles, orders = world.profiles[self.name], world.orders[self.name]
        self.tables = {
            "contact": _table({str(each.id): each for each in profiles if not each.deleted}, self._customer, {
                "email": Column(lambda each: each.email.lower() if each.email else None, lambda row: _email(row)),
                "phone": Column(lambda each: _phone(each.phone), lambda row: _phone((row["defaultPhoneNumber"] or {}).get("phoneNumber"))),
            }),
            "order": _table({str(each.id): each for each in orders}, self._order, {
                "customer": Column(lambda each: each.contact, lambda row: int(row["customerId"])),
            }),
        }  # fmt: skip

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "oauth", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", "/admin/oauth/access_token", self._token, open=True),
            Endpoint("POST", "/admin/api/{version}/graphql.json", self._graphql),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if endpoint.open:
            return None
        token = request.headers.get("x-shopify-access-token", "")
        if token != ADMIN_TOKEN and self.tokens.valid(token) is None:
            return json_response(
                {"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}, status=401
            )
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        if not endpoint.open:
            response.headers["X-Shopify-API-Version"] = VERSION  # which version really answered
        return response

    def throttled(self, seconds: float) -> Response:
        return self._throttled(min(_MAX_COST, self._bucket.level + seconds * self._bucket.per_second), seconds)

    def exhausted(self) -> Response:
        return self._throttled(_MAX_COST, 60.0)  # points come back by the second; Shopify has no daily quota here

    def _throttled(self, requested: float, seconds: float) -> Response:
        errors = [
            {
                "message": "Throttled",
                "extensions": {"code": "THROTTLED", "documentation": "https://shopify.dev/api/usage/rate-limits"},
            }
        ]
        # What is missing comes back in the seconds asked for.
        available = max(0, round(requested - seconds * self._bucket.per_second))
        status = {"maximumAvailable": self._bucket.limit, "currentlyAvailable": available, "restoreRate": self._bucket.per_second}
        cost = {"requestedQueryCost": round(requested), "actualQueryCost": None, "throttleStatus": status}
        return json_response({"errors": errors, "extensions": {"cost": cost}})

    def unknown(self, request: Request) -> Response:
        return json_response({"errors": "Not Found"}, status=404)

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        row = {**row, **fields, "updatedAt": _iso(self.clock.time() * 1000)}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        if self.tables[kind].get(native_id) is None:
            return False
        self.tables[kind].remove(native_id)
        return True

    # ---- OAuth ----

    async def _token(self, request: Request) -> Response:
        said: Mapping[str, Any]
        if "json" in request.headers.get("content-type", ""):
            said = orjson.loads(await request.body())
        else:
            said = await form(request)
        if said.get("client_id") != CLIENT_ID or said.get("client_secret") != CLIENT_SECRET:
            return json_response({"error": "invalid_client", "error_description": "Client authentication failed"}, status=400)
        scope = {"scope": "read_customers,read_orders,read_all_orders"}
        if said.get("grant_type") == "client_credentials":
            return json_response({"access_token": self.tokens.issue(CLIENT_ID, prefix="shpat_"), **scope, "expires_in": 86_399})
        following = self.tokens.refresh(str(said.get("refresh_token", "")), prefix="shprt_")
        if said.get("grant_type") != "refresh_token" or following is None:
            return json_response(
                {"error": "invalid_grant", "error_description": "The refresh token is invalid or expired"}, status=400
            )
        return json_response(
            {
                "access_token": self.tokens.issue(CLIENT_ID, prefix="shpat_"),
                **scope,
                "expires_in": int(self.tokens.lifetime),
                "refresh_token": following,
                "refresh_token_expires_in": 7_776_000,
            }
        )

    # ---- GraphQL ----

    async def _graphql(self, request: Request) -> Response:
        try:
            said = orjson.loads(await request.body())
            document = parse(said["query"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return json_response({"errors": {"query": "Required parameter missing or invalid"}}, status=400)
        except GraphQLError as error:
            return json_response(
                {"errors": [{"message": error.message, "locations": [], "extensions": {"code": "undefinedField"}}]}
            )
        variables = said.get("variables") or {}
        problems = validate(_SCHEMA, document)
        if problems:
            return json_response(
                {
                    "errors": [
                        {"message": each.message, "extensions": {"code": "argumentLiteralsIncompatible"}} for each in problems
                    ]
                }
            )
        requested = _cost(document, variables)
        if requested > _MAX_COST:
            message = f"Query cost is {requested}, which exceeds the single query max cost limit ({_MAX_COST})."
            return json_response(
                {
                    "errors": [
                        {"message": message, "extensions": {"code": "MAX_COST_EXCEEDED", "cost": requested, "maxCost": _MAX_COST}}
                    ]
                }
            )
        if not self._bucket.take(requested):
            return self._throttled(requested, self._bucket.wait(requested))
        warnings: list[Row] = []
        result = execute_sync(_SCHEMA, document, root_value=self._root(warnings), variable_values=variables)
        actual = min(requested, _counted(result.data))
        self._bucket.give(requested - actual)
        status = {
            "maximumAvailable": float(self._bucket.limit),
            "currentlyAvailable": int(self._bucket.level),
            "restoreRate": float(self._bucket.per_second),
        }
        body: Row = {
            "data": result.data,
            "extensions": {"cost": {"requestedQueryCost": requested, "actualQueryCost": actual, "throttleStatus": status}},
        }
        if warnings:
            body["extensions"]["search"] = warnings
        if result.errors:
            body["errors"] = [{"message": each.message, "path": each.path} for each in result.errors]
        return json_response(body)

    def _root(self, warnings: list[Row]) -> Row:
        customers, orders = self.tables["contact"], self.tables["order"]
        return {
            "shop": {"__typename": "Shop", "id": "gid://shopify/Shop/1", "name": "Demo", "myshopifyDomain": SHOP, "currencyCode": "USD", "ianaTimezone": "America/New_York"},
            "node": lambda _, id: self._node(id),
            "nodes": lambda _, ids: self._nodes(ids),
            "customer": lambda _, id: self._node(id, "Customer"),
            "order": lambda _, id: self._node(id, "Order"),
            "customerByIdentifier": lambda _, identifier: self._identified(identifier),
            "customers": lambda _, **said: self._connection("customers", customers, warnings, **said),
            "orders": lambda _, **said: self._connection("orders", orders, warnings, **said),
            "ordersCount": lambda _, query=None, limit=10_000: {"count": min(len(self._matching("orders", orders, query, warnings)), limit), "precision": "EXACT"},
        }  # fmt: skip

    def _nodes(self, ids: list[str]) -> list[Row | None]:
        if len(ids) > 250:
            raise GraphQLError("The input array size of 250 is exceeded")
        return [self._node(id) for id in ids]

    def _node(self, id: str, type: str | None = None) -> Row | None:
        prefix, _, number = id.rpartition("/")
        name = prefix.removeprefix("gid://shopify/")
        table = {"Customer": self.tables["contact"], "Order": self.tables["order"]}.get(name)
        if table is None or (type is not None and name != type):
            raise GraphQLError(f"Invalid global id '{id}'")
        return table.get(number)

    def _identified(self, identifier: Mapping[str, str]) -> Row | None:
        if "id" in identifier:
            return self._node(identifier["id"], "Customer")
        index, value = (
            ("email", identifier["emailAddress"].lower())
            if "emailAddress" in identifier
            else ("phone", _phone(identifier["phoneNumber"]))
        )
        return next(iter(self.tables["contact"].having(index, [value])), None)

    def _connection(
        self, kind: str, table: Table[Any], warnings: list[Row], *, first: int | None = None, after: str | None = None, query: str | None = None,
        reverse: bool = False, sortKey: str = "ID",
    ) -> Row:  # fmt: skip
        rows = self._matching(kind, table, query, warnings)
        rows.sort(key=partial(_sort_key, sortKey), reverse=reverse)
        return _page(rows, first, after)

    def _matching(self, kind: str, table: Table[Any], query: str | None, warnings: list[Row]) -> list[Row]:
        try:
            expression = search.parse(query or "")
        except search.MalformedSearch as error:
            raise GraphQLError(f"Invalid search query: {error}") from error
        unknown = {term.field for term in search.terms(expression) if term.field and term.field not in _SEARCHABLE[kind]}
        warnings += [
            {
                "path": [kind],
                "query": query,
                "warnings": [{"field": each, "message": "Invalid search field for this query.", "code": "invalid_field"}],
            }
            for each in sorted(unknown)
        ]
        candidates = self._candidates(kind, table, expression)
        # A field that is not known is ignored: everything is returned.
        return [row for row in candidates if search.holds(expression, partial(_fits, row, unknown))]

    def _candidates(self, kind: str, table: Table[Any], expression: search.Expression) -> Iterable[Row]:
        if (ids := search.equals(expression, "id")) is not None:
            return [row for id in ids if (row := table.get(id.rsplit("/", 1)[-1])) is not None]
        if kind == "customers" and (emails := search.equals(expression, "email")) is not None:
            return table.having("email", [each.lower() for each in emails])
        if kind == "customers" and (phones := search.equals(expression, "phone")) is not None:
            return table.having("phone", [each for phone in phones if (each := _phone(phone))])
        if kind == "orders" and (owners := search.equals(expression, "customer_id")) is not None:
            return table.having("customer", [int(each) for each in owners if each.isdigit()])
        return self._span(kind, table, expression)

    def _span(self, kind: str, table: Table[Any], expression: search.Expression) -> Iterable[Row]:
        parts = expression.parts if isinstance(expression, search.Logic) and expression.word == "and" else (expression,)
        for part in parts:
            if (
                isinstance(part, search.Term)
                and part.operator in {">", ">="}
                and part.field in {"customer_date", "created_at", "updated_at"}
            ):
                return table.walk("updated" if part.field == "updated_at" else "created", start=_millis(part.value))
        return table

    # ---- rendering ----

    def _customer(self, each: Profile) -> Row:
        return {
            "__typename": "Customer", "id": f"gid://shopify/Customer/{each.id}", "legacyResourceId": str(each.id), "firstName": each.given, "lastName": each.family,
            "displayName": f"{each.given} {each.family}", "createdAt": _iso(each.created), "updatedAt": _iso(each.updated), "state": "ENABLED", "locale": "en", "note": None,
            "tags": ["vip"] if each.number > 900 else [], "taxExempt": False, "verifiedEmail": True, "numberOfOrders": lambda _: str(len(self._orders_of(each.id))),
            "amountSpent": lambda _: _money(sum(_shop_cents(self.tables["order"].entry(row["legacyResourceId"])) for row in self._orders_of(each.id)), "USD"),
            "defaultEmailAddress": {"emailAddress": each.email, "marketingState": "SUBSCRIBED" if each.number % 2 else "NOT_SUBSCRIBED"} if each.email else None,
            "defaultPhoneNumber": {"phoneNumber": _phone(each.phone)} if each.phone else None,
            "defaultAddress": {"address1": None, "city": None, "country": {"US": "United States", "DE": "Germany", "GB": "United Kingdom"}[each.country], "zip": None},
            "metafield": lambda _, key, namespace="custom": {"id": f"gid://shopify/Metafield/{each.id}", "key": key, "namespace": namespace, "type": "number_integer", "value": str(each.number)} if (namespace, key) == ("custom", "points") else None,
            "orders": lambda _, **said: self._orders_connection(each.id, **said),
        }  # fmt: skip

    def _orders_of(self, customer: int) -> list[Row]:
        return self.tables["order"].having("customer", [customer])

    def _orders_connection(
        self,
        customer: int,
        *,
        first: int | None = None,
        after: str | None = None,
        reverse: bool = False,
        sortKey: str = "ID",
        query: str | None = None,
    ) -> Row:
        rows = sorted(self._orders_of(customer), key=partial(_sort_key, sortKey), reverse=reverse)
        return _page(rows, first, after)

    def _order(self, each: Order) -> Row:
        financial, fulfillment = _STATES[each.state]
        total = {"presentmentMoney": _money(each.cents, each.currency), "shopMoney": _money(_shop_cents(each), "USD")}
        refunded = (
            {**total, "presentmentMoney": _money(0, each.currency), "shopMoney": _money(0, "USD")} if each.state == 4 else total
        )
        return {
            "__typename": "Order", "id": f"gid://shopify/Order/{each.id}", "legacyResourceId": str(each.id), "name": f"#{each.number}", "number": each.number, "confirmationNumber": None,
            "createdAt": _iso(each.created), "processedAt": _iso(each.created), "updatedAt": _iso(each.updated), "cancelledAt": _iso(each.updated) if each.state == 3 else None,
            "cancelReason": "CUSTOMER" if each.state == 3 else None, "closed": each.state == 2, "closedAt": _iso(each.updated) if each.state == 2 else None, "test": False, "currencyCode": "USD",
            "presentmentCurrencyCode": each.currency, "email": each.email, "phone": None, "customer": lambda _: self.tables["contact"].get(str(each.contact)), "customerId": str(each.contact),
            "note": None, "tags": [], "displayFinancialStatus": financial, "displayFulfillmentStatus": fulfillment, "currentTotalPriceSet": refunded, "totalPriceSet": total,
            "lineItems": lambda _, first=None, after=None, reverse=False: _page(_items(each), first, after),
        }  # fmt: skip


def _items(order: Order) -> list[Row]:
    return [
        {
            "id": f"gid://shopify/LineItem/{order.id}{at}", "name": PRODUCTS[which][1], "title": PRODUCTS[which][1], "sku": PRODUCTS[which][0], "quantity": quantity,
            "currentQuantity": quantity, "vendor": "Demo",
            "originalUnitPriceSet": {"presentmentMoney": _money(PRODUCTS[which][2], order.currency), "shopMoney": _money(PRODUCTS[which][2] * _RATES[order.currency] // 100, "USD")},
        }
        for at, (which, quantity) in enumerate(order.items)
    ]  # fmt: skip


def _shop_cents(order: Order | None) -> int:
    return order.cents * _RATES[order.currency] // 100 if order else 0


def _money(cents: int, currency: str) -> Row:
    return {"amount": f"{cents // 100}.{cents % 100:02d}", "currencyCode": currency}


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "created": Column(lambda each: each.created, lambda row: _millis(row["createdAt"])),
        "updated": Column(lambda each: each.updated, lambda row: _millis(row["updatedAt"])),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _page(rows: list[Row], first: int | None, after: str | None) -> Row:
    if first is None or not 1 <= first <= 250:
        raise GraphQLError("you must provide one of first or last, from 1 to 250")
    start = next((at + 1 for at, row in enumerate(rows) if row["id"] == after), 0) if after else 0
    page = rows[start : start + first]
    info = {
        "hasNextPage": start + first < len(rows),
        "hasPreviousPage": start > 0,
        "startCursor": page[0]["id"] if page else None,
        "endCursor": page[-1]["id"] if page else None,
    }
    return {"nodes": page, "edges": [{"cursor": row["id"], "node": row} for row in page], "pageInfo": info}


def _sort_key(name: str, row: Row) -> tuple[Any, int]:
    number = int(row["legacyResourceId"])
    field = {"CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt", "PROCESSED_AT": "processedAt"}.get(name)
    # Ties are in no order that Shopify states.
    return (row[field], number * 2_654_435_761 % 4_294_967_296) if field else (number, 0)


def _fits(row: Row, ignored: set[str], term: search.Term) -> bool:
    if term.field in ignored:
        return True
    if term.field == "":
        return term.value.lower() in f"{row.get('displayName', row.get('name'))} {_email(row)}".lower()
    if term.field in {"customer_date", "created_at", "updated_at", "processed_at"}:
        field = {
            "customer_date": "createdAt",
            "created_at": "createdAt",
            "updated_at": "updatedAt",
            "processed_at": "processedAt",
        }[term.field]
        mine, other = _millis(row[field]), _millis(term.value)
        return {":": mine == other, "<": mine < other, "<=": mine <= other, ">": mine > other, ">=": mine >= other}[term.operator]
    values: Mapping[str, Any] = {
        "id": row["legacyResourceId"], "email": _email(row), "customer_id": row.get("customerId"), "first_name": row.get("firstName"), "last_name": row.get("lastName"),
        "state": row.get("state"), "name": row.get("name"), "financial_status": row.get("displayFinancialStatus"), "fulfillment_status": row.get("displayFulfillmentStatus"),
    }  # fmt: skip
    if term.field == "phone":
        return _phone((row.get("defaultPhoneNumber") or {}).get("phoneNumber")) == _phone(term.value)
    return str(values.get(term.field) or "").lower() == term.value.rsplit("/", 1)[-1].lower()


def _cost(document: DocumentNode, variables: Mapping[str, Any]) -> int:
    """Return the requested cost: an object 1, a connection its size times what a node costs, scalars nothing."""
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    operation = next(each for each in document.definitions if isinstance(each, OperationDefinitionNode))
    return sum(_priced(operation.selection_set, "QueryRoot", fragments, variables))


def _priced(
    selection: SelectionSetNode, parent: str, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, Any]
) -> Iterable[int]:
    for node in selection.selections:
        if isinstance(node, FragmentSpreadNode):
            fragment = fragments[node.name.value]
            yield from _priced(fragment.selection_set, fragment.type_condition.name.value, fragments, variables)
        elif isinstance(node, InlineFragmentNode):
            yield from _priced(
                node.selection_set, node.type_condition.name.value if node.type_condition else parent, fragments, variables
            )
        elif isinstance(node, FieldNode) and node.selection_set is not None:
            owner = _SCHEMA.get_type(parent)
            assert isinstance(owner, GraphQLObjectType)
            type = get_named_type(owner.fields[node.name.value].type).name
            below = sum(_priced(node.selection_set, type, fragments, variables))
            said = {each.name.value: value_from_ast_untyped(each.value, dict(variables)) for each in node.arguments or ()}
            if type.endswith("Connection"):
                size = said.get("first")
                yield (0 if size in (None, Undefined) else int(size)) * max(below, 1)
            elif node.name.value in {"edges", "pageInfo"}:
                yield below
            elif node.name.value == "nodes" and parent == "QueryRoot":
                yield len(said.get("ids") or ()) * (1 + below)
            else:
                yield 1 + below


def _counted(data: Any) -> int:
    """Return the actual cost: the objects that really came."""
    if isinstance(data, list):
        return sum(_counted(each) for each in data)
    if not isinstance(data, dict):
        return 0
    own = 0 if data.keys() <= {"nodes", "edges", "pageInfo", "hasNextPage", "endCursor", "node", "cursor"} else 1
    return own + sum(_counted(each) for each in data.values())


def _email(row: Row) -> str | None:
    found = (row.get("defaultEmailAddress") or {}).get("emailAddress") or row.get("email")
    return found.lower() if isinstance(found, str) else None


def _phone(phone: str | None) -> str | None:
    return normal_phone(phone, "US") if phone else None


def _iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _millis(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp() * 1000)
