"""Shopify's dialect: GraphQL under a bucket of points, throttling in an HTTP 200, global ids, expiring offline tokens.

Written from shopify.dev (Admin API rate limits, search syntax, offline access tokens) and the published schema. One
store on the Advanced plan: 200 points a second, 4,000 in the bucket.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson
from graphql import GraphQLError, OperationType, execute_sync, get_operation_ast, parse, validate
from starlette.requests import Request
from starlette.responses import Response

from sandbox import shopify_query as search
from sandbox.clock import SandboxClock
from sandbox.dialect import Bucket, Dialect, Endpoint, Tokens, form, json_response
from sandbox.shopify_cost import MAX_COST, SCHEMA, cost_of, counted
from sandbox.shopify_customers import GID, Customers
from sandbox.shopify_hooks import Hooks
from sandbox.shopify_pages import ORDERS, PAGE, Position, lines, ordered, paged, place, read_cursor, span
from sandbox.shopify_refusals import answering, places, problem_of, wrong_variables
from sandbox.shopify_searched import email_of, fits, phone_of, tests_of
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import PRODUCTS, Order, Profile, World

SHOP = "c360-demo.myshopify.com"
_SHOP: Row = {"__typename": "Shop", "id": "gid://shopify/Shop/1", "name": "Demo", "myshopifyDomain": SHOP, "currencyCode": "USD", "ianaTimezone": "America/New_York"}  # fmt: skip
CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN = "shopify-demo-app", "shopify-demo-secret", "shprt_demo"
ADMIN_TOKEN = "shpat_demo"
_DAY = 86_400
_RATES = {"USD": 100, "EUR": 110, "GBP": 125}  # shop money (USD) per 100 of the presentment currency
_STATES = (
    ("PAID", "UNFULFILLED"), ("PAID", "PARTIALLY_FULFILLED"), ("PAID", "FULFILLED"), ("VOIDED", "UNFULFILLED"), ("REFUNDED", "FULFILLED"),
    ("PARTIALLY_REFUNDED", "FULFILLED"), ("PENDING", "UNFULFILLED"),
)  # fmt: skip


class Shopify(Dialect):
    """One store."""

    name = "shopify"
    objects = {"contact": "Customer", "order": "Order"}

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        # The old refresh token stays good until its replacement is used (since 2026-08-28).
        self.tokens: Tokens = Tokens(clock, lifetime=3600, rotate=True, grace=True)
        self.tokens.grant(REFRESH_TOKEN)
        self._bucket = Bucket(clock, limit=4000, per_second=200)
        profiles, orders = world.profiles[self.name], world.orders[self.name]
        self.tables = {
            "contact": _table({str(each.id): each for each in profiles if not each.deleted}, self._customer, {
                "email": Column(lambda each: each.email.lower() if each.email else None, lambda row: email_of(row)),
                "phone": Column(lambda each: phone_of(each.phone), lambda row: phone_of((row["defaultPhoneNumber"] or {}).get("phoneNumber"))),
            }),
            "order": _table({str(each.id): each for each in orders}, self._order, {
                "customer": Column(lambda each: each.contact, lambda row: int(row["customerId"])),
            }),
        }  # fmt: skip
        self._customers = Customers(
            self.tables["contact"], clock, blank=self._blank, orders=self._orders_of, shop=_SHOP,
            types={(space, key): type for owner, space, key, _, type in _DEFINITIONS if owner == "CUSTOMER"},
        )  # fmt: skip
        self.hooks = Hooks(
            clock, lambda sending: self.outbox.post(sending), shop=SHOP, secret=CLIENT_SECRET, metafields=_DEFINITIONS
        )
        self._merged: set[str] = set()

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
        if not endpoint.open and (version := answering(request.path_params["version"])):
            response.headers["X-Shopify-API-Version"] = version  # which version really answered
        return response

    def throttled(self, seconds: float) -> Response:
        return self._throttled(min(MAX_COST, self._bucket.level + seconds * self._bucket.per_second), seconds)

    def exhausted(self) -> Response:
        return self._throttled(MAX_COST, 60.0)  # points come back by the second; Shopify has no daily quota here

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
        if fields.keys() & {"firstName", "lastName"}:
            row["displayName"] = " ".join(each for each in (row["firstName"], row["lastName"]) if each)
        self.tables[kind].put(native_id, row)
        return {name: value for name, value in row.items() if not callable(value)}

    def delete(self, kind: str, native_id: str) -> bool:
        if self.tables[kind].get(native_id) is None:
            return False
        self.tables[kind].remove(native_id)
        return True

    def merge(self, kind: str, loser: str, winner: str) -> bool:
        """Merge two customers as a user does; their orders become the winner's, who takes the address and number that are missing."""
        table = self.tables[kind]
        gone, kept = table.get(loser), table.get(winner)
        if kind != "contact" or gone is None or kept is None or loser == winner:
            return False
        for order in self._orders_of(int(loser)):
            row = {
                **order,
                "customer": lambda _: table.get(winner),
                "customerId": winner,
                "updatedAt": _iso(self.clock.time() * 1000),
            }
            self.tables["order"].put(order["legacyResourceId"], row)
        self._merged.add(loser)
        table.remove(loser)
        taken = {
            name: kept[name] or gone[name] for name in ("firstName", "lastName", "defaultEmailAddress", "defaultPhoneNumber")
        }
        table.put(winner, {**kept, **taken, "updatedAt": _iso(self.clock.time() * 1000)})
        said = {"admin_graphql_api_customer_kept_id": kept["id"], "admin_graphql_api_customer_deleted_id": gone["id"]}
        self.hooks.tell(["CUSTOMERS_MERGE"], {**said, "admin_graphql_api_job_id": None, "status": "completed", "errors": []})
        return True

    # ---- webhooks ----

    def hook(self, url: str, secret: str = CLIENT_SECRET) -> None:
        """Do what is done in the app's settings: name where the compliance topics go, and rotate the app's client secret."""
        self.hooks.compliance, self.hooks.secret = url, secret

    def comply(self, topic: str, native_id: str = "") -> None:
        """Send a compliance topic: customers/redact and customers/data_request of a customer, shop/redact of the shop."""
        self.hooks.comply(topic, self.tables["contact"].get(native_id), self._orders_of(int(native_id)) if native_id else [])

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self.hooks.listed()

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        if native_id not in self._merged:  # a customer who went into another is told of as merged
            self.hooks.changed(kind, native_id, before, after)

    # ---- OAuth ----

    async def _token(self, request: Request) -> Response:
        try:
            json = "json" in request.headers.get("content-type", "")
            said: Mapping[str, Any] = dict(orjson.loads(await request.body()) if json else await form(request))
        except (ValueError, TypeError):
            return json_response({"error": "invalid_request", "error_description": "The body cannot be read"}, status=400)
        if said.get("client_id") != CLIENT_ID or said.get("client_secret") != CLIENT_SECRET:
            return json_response({"error": "invalid_client", "error_description": "Client authentication failed"}, status=400)
        scope = {"scope": "read_customers,write_customers,read_orders,read_all_orders"}
        if said.get("grant_type") == "client_credentials":
            token = self.tokens.issue(CLIENT_ID, prefix="shpat_", lifetime=_DAY)
            return json_response({"access_token": token, **scope, "expires_in": _DAY - 1})
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
        if answering(request.path_params["version"]) is None:
            return self.unknown(request)
        try:
            said = orjson.loads(await request.body())
            query, variables, name = said["query"], said.get("variables") or {}, said.get("operationName")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            query, variables, name = None, {}, None
        if not isinstance(query, str) or not isinstance(variables, dict):
            return json_response({"errors": {"query": "Required parameter missing or invalid"}}, status=400)
        try:
            document = parse(query)
        except GraphQLError as error:
            return json_response({"errors": [{"message": error.message, "locations": places(error)}]})
        if problems := validate(SCHEMA, document):
            return json_response({"errors": [problem_of(each) for each in problems]})
        operation = get_operation_ast(document, name)
        if operation is None:
            return json_response({"errors": [{"message": "An operation name is required"}]})
        if wrong := wrong_variables(operation, variables):
            return json_response({"errors": wrong})
        requested = cost_of(document, operation, variables)
        if requested > MAX_COST:
            message = f"Query cost is {requested}, which exceeds the single query max cost limit ({MAX_COST})."
            facts = {"code": "MAX_COST_EXCEEDED", "cost": requested, "maxCost": MAX_COST}
            return json_response({"errors": [{"message": message, "extensions": facts}]})
        if not self._bucket.take(requested):
            return self._throttled(requested, self._bucket.wait(requested))
        warnings: list[Row] = []
        result = execute_sync(SCHEMA, document, root_value=self._root(warnings), variable_values=variables, operation_name=name)
        is_mutation = operation.operation is OperationType.MUTATION
        actual = requested if is_mutation else min(requested, counted(result.data))
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
            body["errors"] = [{"message": each.message, "locations": places(each), "path": each.path} for each in result.errors]
        return json_response(body)

    def _root(self, warnings: list[Row]) -> Row:
        customers, orders = self.tables["contact"], self.tables["order"]
        return {
            "shop": _SHOP,
            **self._customers.mutations(),
            **self.hooks.fields(),
            "node": lambda _, id: self._node(id),
            "nodes": lambda _, ids: self._nodes(ids),
            "customer": lambda _, id: self._node(id, "Customer"),
            "order": lambda _, id: self._node(id, "Order"),
            "customerByIdentifier": lambda _, identifier: self._identified(identifier),
            "customers": lambda _, **said: self._connection("customers", customers, warnings, **said),
            "orders": lambda _, **said: self._connection("orders", orders, warnings, **said),
            "metafieldDefinitions": lambda _, ownerType, first=None, after=None, namespace=None, key=None: _definitions(ownerType, first, after, namespace, key),
            "ordersCount": lambda _, query=None, limit=10_000: self._count(orders, query, limit, warnings),
        }  # fmt: skip

    def _nodes(self, ids: list[str]) -> list[Row | None]:
        if len(ids) > PAGE:
            raise GraphQLError(f"The input array size of {len(ids)} is greater than the maximum allowed of {PAGE}.")
        return [self._node(id) for id in ids]

    def _node(self, id: str, type: str | None = None) -> Row | None:
        """Return what the global id names, None when the store has no such thing (deleted, merged away, another type)."""
        if (parts := GID.fullmatch(id)) is None:
            raise GraphQLError(f"Invalid global id `{id}`")
        table = {"Customer": self.tables["contact"], "Order": self.tables["order"]}.get(parts["type"])
        return table.get(parts["number"]) if table is not None and type in {None, parts["type"]} else None

    def _identified(self, identifier: Mapping[str, str]) -> Row | None:
        if "id" in identifier:
            return self._node(identifier["id"], "Customer")
        index, value = (
            ("email", identifier["emailAddress"].lower())
            if "emailAddress" in identifier
            else ("phone", phone_of(identifier["phoneNumber"]))
        )
        return next(iter(self.tables["contact"].having(index, [value])), None)

    def _count(self, table: Table[Any], query: str | None, limit: int, warnings: list[Row]) -> Row:
        found = sum(1 for _ in islice(self._found("orders", table, warnings, query=query), limit + 1))
        return {"count": min(found, limit), "precision": "EXACT" if found <= limit else "AT_LEAST"}

    def _connection(
        self, kind: str, table: Table[Any], warnings: list[Row], *, first: int | None = None, after: str | None = None, query: str | None = None,
        reverse: bool = False, sortKey: str = "ID", among: list[Row] | None = None,
    ) -> Row:  # fmt: skip
        if sortKey not in ORDERS:
            raise GraphQLError(f"sortKey {sortKey} is not served by this sandbox")
        start = read_cursor(after) if after else None
        rows = self._found(kind, table, warnings, query=query, sort=sortKey, reverse=reverse, start=start, among=among)
        return paged(rows, ORDERS[sortKey][1], first, start, reverse)

    def _found(
        self, kind: str, table: Table[Any], warnings: list[Row], *, query: str | None, sort: str = "ID", reverse: bool = False,
        start: "Position | None" = None, among: list[Row] | None = None,
    ) -> Iterator[Row]:  # fmt: skip
        """Yield the rows that match, in the order asked, without rendering more of them than are taken.

        Args:
            start: where the page before ended; rows up to it may be left out.
            among: only these, where the rows are known from elsewhere.
        """
        try:
            expression = search.parse(query or "")
        except search.MalformedSearch as error:
            raise GraphQLError(f"Invalid search query: {error}") from error
        tests, ignored = tests_of(kind, expression)
        if ignored:
            warnings.append({"path": [kind], "query": query, "warnings": ignored})
        order, field = ORDERS[sort]
        few = among if among is not None else self._looked_up(kind, table, expression)
        if few is None:
            low, high = span(expression, order)
            other = "updated" if order == "created" else "created"
            aside = span(expression, other)
            if (low, high) == (None, None) != aside:
                few = list(ordered(table, other, "updatedAt" if other == "updated" else "createdAt", *aside, reverse=False))
            else:
                if start is not None:
                    low, high = (low, start[0]) if reverse else (start[0], high)
                rows = ordered(table, order, field, low, high, reverse=reverse)
        if few is not None:
            rows = iter(sorted(few, key=lambda row: place(field, row), reverse=reverse))
        # A term that is not understood is ignored: everything is returned.
        return (row for row in rows if fits(expression, tests, row))

    def _looked_up(self, kind: str, table: Table[Any], expression: search.Expression) -> list[Row] | None:
        """Return the few rows that an index knows for the search, None when it says too little."""
        if (ids := search.equals(expression, "id")) is not None:
            return [row for id in dict.fromkeys(ids) if (row := table.get(id.rsplit("/", 1)[-1])) is not None]
        if kind == "customers" and (emails := search.equals(expression, "email")) is not None:
            return table.having("email", [each.lower() for each in emails])
        if kind == "customers" and (phones := search.equals(expression, "phone")) is not None:
            return table.having("phone", [each for phone in phones if (each := phone_of(phone))])
        if kind == "orders" and (owners := search.equals(expression, "customer_id")) is not None:
            return table.having("customer", [int(each) for each in owners if each.isdigit()])
        return None

    # ---- rendering ----

    def _customer(self, each: Profile) -> Row:
        return {
            "__typename": "Customer", "id": f"gid://shopify/Customer/{each.id}", "legacyResourceId": str(each.id), "firstName": each.given, "lastName": each.family,
            "displayName": f"{each.given} {each.family}", "createdAt": _iso(each.created), "updatedAt": _iso(each.updated), "state": "ENABLED", "locale": "en", "note": None,
            "tags": ["vip"] if each.number > 900 else [], "taxExempt": False, "verifiedEmail": True, "numberOfOrders": lambda _: str(len(self._orders_of(each.id))),
            "amountSpent": lambda _: _money(sum(_shop_cents(self.tables["order"].entry(row["legacyResourceId"])) for row in self._orders_of(each.id)), "USD"),
            "defaultEmailAddress": {"emailAddress": each.email, "marketingState": "SUBSCRIBED" if each.number % 2 else "NOT_SUBSCRIBED"} if each.email else None,
            "defaultPhoneNumber": {"phoneNumber": phone_of(each.phone)} if each.phone else None,
            "defaultAddress": {"address1": None, "city": None, "country": {"US": "United States", "DE": "Germany", "GB": "United Kingdom"}[each.country], "zip": None},
            "metafield": lambda _, key, namespace="custom": _metafield(each.id, namespace, key, {"points": ("number_integer", str(each.number)), "vip-since": ("date", _iso(each.created)[:10])}),
            "orders": lambda _, **said: self._connection("orders", self.tables["order"], [], **said, among=self._orders_of(each.id)),
        }  # fmt: skip

    def _blank(self, number: int) -> Row:
        row = self._customer(Profile(number, 0, "", "", None, (), None, "", "US", 0, 0, 0, 0, 0))
        return {**row, "defaultAddress": None, "metafield": lambda _, key, namespace="custom": None}

    def _orders_of(self, customer: int) -> list[Row]:
        return self.tables["order"].having("customer", [customer])

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
            "metafield": lambda _, key, namespace="custom": _metafield(each.id, namespace, key, {"gift": ("boolean", "true" if each.id % 5 == 0 else "false")}),
            "lineItems": lambda _, first=None, after=None, reverse=False: lines(_items(each), first, after, reverse),
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
        "id": Column(lambda each: each.id, lambda row: int(row["legacyResourceId"])),
        "created": Column(lambda each: each.created, lambda row: search.millis(row["createdAt"])),
        "updated": Column(lambda each: each.updated, lambda row: search.millis(row["updatedAt"])),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


_DEFINITIONS = (  # owner, namespace, key, name, type
    ("CUSTOMER", "custom", "points", "Loyalty points", "number_integer"),
    ("CUSTOMER", "custom", "vip-since", "VIP since", "date"),
    ("ORDER", "custom", "gift", "Is a gift", "boolean"),
)


def _definitions(owner: str, first: int | None, after: str | None, namespace: str | None, key: str | None) -> Row:
    rows = [
        {
            "id": f"gid://shopify/MetafieldDefinition/{number}", "ownerType": kind, "namespace": space, "key": name, "name": label,
            "type": {"name": type, "category": type.partition("_")[0].upper()},
        }
        for number, (kind, space, name, label, type) in enumerate(_DEFINITIONS, 1)
        if kind == owner and namespace in {None, space} and key in {None, name}
    ]  # fmt: skip
    return lines(rows, first, after, reverse=False)


def _metafield(owner: int, namespace: str, key: str, values: Mapping[str, tuple[str, str]]) -> Row | None:
    if namespace != "custom" or key not in values:
        return None
    type, value = values[key]
    number = owner * 10 + list(values).index(key)
    return {"id": f"gid://shopify/Metafield/{number}", "key": key, "namespace": namespace, "type": type, "value": value}


def _iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
