"""Shopify, by the Admin GraphQL API.

Facts from shopify.dev: Admin API rate limits, search syntax, offline access tokens, and the published 2026-07 schema.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Checked,
    FindKey,
    KindFacts,
    Learned,
    OAuth,
    OrderField,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Window,
    batches,
)
from model.errors import (
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_IDS, _PAGE = 250, 250
_MAX_COST = 1000  # points that one query may cost, on any plan
_VALUES = 50  # e-mail addresses, numbers or customers in one search
_ITEMS = 10  # line items that come with each order; the few longer orders are asked for again
# A metafield is asked for under an alias that says which one it is, in hexadecimal: namespaces and keys may hold dashes.
_METAFIELD = "metafield_"
_TYPES: Mapping[str, FieldType] = {
    "number_integer": "NUMBER", "number_decimal": "NUMBER", "boolean": "BOOLEAN", "date": "DATE", "date_time": "DATETIME", "json": "JSON", "money": "JSON",
}  # fmt: skip
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_TIMES: Mapping[str, Any] = {
    "native_id": {"path": "id", "convert": "last_segment"},
    "created_at": {"path": "createdAt", "convert": "datetime"},
    "updated_at": {"path": "updatedAt", "convert": "datetime"},
}


class Shopify(Adapter):
    name = "shopify"
    label = "Shopify"
    api_version = "2026-07"
    evidence = "E2"
    shown_by = "tests/sandbox/test_shopify.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(token_path="/admin/oauth/access_token", header="X-Shopify-Access-Token", prefix=""),
        "token": Token(header="X-Shopify-Access-Token", prefix=""),
    }
    # Standard plan until the first answer tells better; each call names its own cost in points.
    windows = (Window(name="points", limit=2000, period=20, every_call=False),)
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="Customer", read_batch=_IDS, page=100, find=frozenset({"email", "phone"}), find_batch=_VALUES, unique=frozenset({"email", "phone"}), orders=_BOTH,
            mapping={
                **_TIMES,
                "email": {"path": "defaultEmailAddress.emailAddress", "convert": "email"},
                "emails": {"paths": ["defaultEmailAddress.emailAddress"], "convert": "emails"},
                "phone": {"path": "defaultPhoneNumber.phoneNumber", "convert": "phone"},
                "phones": {"paths": ["defaultPhoneNumber.phoneNumber"], "convert": "phones"},
                "name": {"path": "displayName", "convert": "text"}, "given_name": {"path": "firstName", "convert": "text"},
                "family_name": {"path": "lastName", "convert": "text"}, "locale": "locale",
            },
        ),
        "order": KindFacts(
            object="Order", read_batch=_IDS, page=100, orders=_BOTH,
            mapping={
                **_TIMES,
                "number": "name",
                "status": {
                    "default": "OPEN",
                    "cases": [
                        {"when": {"path": "cancelledAt"}, "value": "CANCELLED"},
                        {"when": {"path": "displayFinancialStatus", "any_of": ["REFUNDED"]}, "value": "REFUNDED"},
                        {"when": {"path": "displayFinancialStatus", "any_of": ["PARTIALLY_REFUNDED"]}, "value": "PARTIALLY_REFUNDED"},
                        {"when": {"path": "displayFinancialStatus", "any_of": ["PENDING", "AUTHORIZED"]}, "value": "PENDING_PAYMENT"},
                        {"when": {"path": "displayFulfillmentStatus", "any_of": ["ON_HOLD"]}, "value": "ON_HOLD"},
                        {"when": {"path": "displayFulfillmentStatus", "any_of": ["PARTIALLY_FULFILLED"]}, "value": "PARTIALLY_FULFILLED"},
                        {"when": {"path": "closedAt"}, "value": "COMPLETED"},
                        {"when": {"path": "displayFulfillmentStatus", "any_of": ["FULFILLED"]}, "value": "FULFILLED"},
                    ],
                },
                "raw_status": {"paths": ["displayFinancialStatus", "displayFulfillmentStatus"], "convert": "join", "default": ""},
                "payment_status": "displayFinancialStatus", "fulfillment_status": "displayFulfillmentStatus",
                # What the order is worth now, after edits and returns, in the shop's own currency.
                "total": {"money": {"amount": "currentTotalPriceSet.shopMoney.amount", "currency": "currentTotalPriceSet.shopMoney.currencyCode"}},
                "placed_at": {"path": "processedAt", "convert": "datetime"},
                "items": {
                    "over": "lineItems.nodes",
                    "each": {
                        "sku": "sku", "title": {"path": "title", "default": ""}, "quantity": {"path": "currentQuantity", "convert": "integer", "default": 0},
                        "price": {"money": {"amount": "originalUnitPriceSet.shopMoney.amount", "currency": "originalUnitPriceSet.shopMoney.currencyCode"}},
                    },
                },
                "contact_id": {"path": "customer.id", "convert": "last_segment"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "order")})

    async def check(self, api: Api) -> Checked:
        shop = (await self._ask(api, "check", "{ shop { myshopifyDomain name } }", {}, 1))["shop"]
        return Checked(account=shop["myshopifyDomain"], name=shop["name"])

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """The shop's currency, and as custom fields its metafield definitions, named "namespace.key"; 250 a call."""
        query = (
            "query($after: String, $owner: MetafieldOwnerType!) { shop { currencyCode }"
            f" metafieldDefinitions(first: {_PAGE}, after: $after, ownerType: $owner) {{"
            " nodes { namespace key name type { name } } pageInfo { hasNextPage endCursor } } }"
        )
        fields: list[FieldMeta] = []
        after: str | None = None
        while True:
            variables = {"after": after, "owner": self.kinds[kind].object.upper()}
            data = await self._ask(api, f"{kind}.describe", query, variables, 1 + 2 * _PAGE)
            found = data["metafieldDefinitions"]
            fields += map(_field, found["nodes"])
            if not found["pageInfo"]["hasNextPage"]:
                named = {field.name: field for field in fields}
                return ObjectType(name=self.kinds[kind].object, fields=named, currency=data["shop"]["currencyCode"])
            after = found["pageInfo"]["endCursor"]

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / n) queries of `nodes`, n = min(250, 1,000 points / the cost of one record)."""
        selection = _Selection(fields)
        name = self.kinds[kind].object
        query = f"query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {name} {{ {selection.text} }} }} }}"
        size = min(_IDS, _MAX_COST // selection.cost)
        asked = [
            self._ask(api, f"{kind}.read", query, {"ids": [self._gid(kind, id) for id in some]}, len(some) * selection.cost)
            for some in batches(ids, size)
        ]
        found = await asyncio.gather(*asked)
        rows = [row or None for data in found for row in data["nodes"]]
        return await self._whole(api, rows, selection)

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """The orders of customers, in whichever way costs fewer calls.

        One query of `nodes` with each customer's first orders, where 1,000 points allow: parents × (1 + first × an order's
        cost). Else searches over 50 customers at a time, ceil(orders / page) calls each, the page as large as the points
        allow, up to 250.
        """
        selection = _Selection([*fields, "customer.id"])
        wanted = min(first, _PAGE)
        if len(ids) * (1 + wanted * selection.cost) <= _MAX_COST:
            return await self._nested(api, of, ids, selection, wanted)
        found: dict[str, list[Row]] = {}
        for rows in await asyncio.gather(*(self._orders_of(api, some, selection) for some in batches(ids, _VALUES))):
            for row in rows:
                found.setdefault(row["customer"]["id"].rsplit("/", 1)[-1], []).append(row)
        return [Related(rows=found.get(id, [])) for id in ids]

    async def _nested(self, api: Api, of: Kind, ids: Sequence[str], selection: "_Selection", first: int) -> list[Related]:
        query = (
            f"query($ids: [ID!]!, $first: Int!) {{ nodes(ids: $ids) {{ ... on {self.kinds[of].object} {{"
            f" orders(first: $first, sortKey: CREATED_AT) {{ nodes {{ {selection.text} }} pageInfo {{ hasNextPage }} }} }} }} }}"
        )
        variables = {"ids": [self._gid(of, id) for id in ids], "first": first}
        data = await self._ask(api, f"{of}.order", query, variables, len(ids) * (1 + first * selection.cost))
        found = []
        for node in data["nodes"]:
            orders: Any = node["orders"] if node else {"nodes": [], "pageInfo": {"hasNextPage": False}}
            rows = await self._whole(api, orders["nodes"], selection)
            found.append(Related(rows=[row for row in rows if row is not None], more=orders["pageInfo"]["hasNextPage"]))
        return found

    async def _orders_of(self, api: Api, ids: Sequence[str], selection: "_Selection") -> list[Row]:
        search = " OR ".join(f"customer_id:{id}" for id in ids)
        found: list[Row] = []
        after: str | None = None
        while True:
            rows, after = await self._page(api, "order", "contact.order", search, "CREATED_AT", selection, _PAGE, after=after)
            found += rows
            if after is None:
                return [row for row in await self._whole(api, found, selection) if row is not None]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 50) searches. The search index lags behind writes by seconds."""
        selection = _Selection(fields)
        parts = await asyncio.gather(*(self._found(api, kind, key, some, selection) for some in batches(values, _VALUES)))
        return list({row["id"]: row for row in chain.from_iterable(parts)}.values())

    async def _found(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], selection: "_Selection") -> list[Row]:
        search = " OR ".join(f"{key}:{_quoted(value)}" for value in values)
        found: list[Row] = []
        after: str | None = None
        while True:
            size = min(2 * len(values), _PAGE)  # an address belongs to one customer; the rest is slack for numbers
            rows, after = await self._page(api, kind, f"{kind}.find", search, "ID", selection, size, after=after)
            found += rows
            if after is None:
                return found

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One query a page, more where many records share a second.

        Times are whole seconds and Shopify states nothing about ties: the page starts again at the second it ended in, and
        the group that crosses its end is read to its end and sorted by id here.
        """
        column, field = (
            ("createdAt", "customer_date" if kind == "contact" else "created_at")
            if scan.order == "created"
            else ("updatedAt", "updated_at")
        )
        tests = []
        if scan.after is not None:
            tests.append(f"{field}:{'<=' if scan.descending else '>='}'{_second(scan.after.at)}'")
        if scan.updated_since is not None:
            tests.append(f"updated_at:>='{_second(scan.updated_since)}'")
        if scan.updated_before is not None:
            tests.append(f"updated_at:<'{_second(scan.updated_before)}'")
        selection = _Selection(scan.fields)
        sort = "CREATED_AT" if scan.order == "created" else "UPDATED_AT"
        rows: list[Row] = []
        after: str | None = None
        while True:
            more, after = await self._page(
                api, kind, f"{kind}.scan", " AND ".join(tests), sort, selection, scan.size, after=after, reverse=scan.descending
            )
            rows += more
            if after is None:
                return Page(rows=await self._listed(api, rows, column, scan, selection), end=True)
            whole = next((at + 1 for at in range(len(rows) - 1, -1, -1) if rows[at][column] != rows[-1][column]), 0)
            if kept := await self._listed(api, rows[:whole], column, scan, selection):
                return Page(rows=kept, end=False)

    async def _listed(self, api: Api, rows: Sequence[Row], column: str, scan: Scan, selection: "_Selection") -> list[Row]:
        def place(row: Row) -> tuple[str, int]:
            return (row[column], int(row["id"].rsplit("/", 1)[-1]))

        ordered = sorted(rows, key=place, reverse=scan.descending)
        if scan.after is not None:
            edge = (_second(scan.after.at), int(scan.after.native_id))
            ordered = [row for row in ordered if (place(row) < edge if scan.descending else place(row) > edge)]
        return [row for row in await self._whole(api, ordered, selection) if row is not None]

    async def _page(
        self, api: Api, kind: Kind, operation: str, search: str, sort: str, selection: "_Selection", size: int, *,
        after: str | None, reverse: bool = False,
    ) -> tuple[list[Row], str | None]:  # fmt: skip
        first = max(1, min(size, _MAX_COST // selection.cost))
        name, keys = ("customers", "CustomerSortKeys") if kind == "contact" else ("orders", "OrderSortKeys")
        query = (
            f"query($first: Int!, $after: String, $query: String, $sort: {keys}!, $reverse: Boolean!) {{"
            f" {name}(first: $first, after: $after, query: $query, sortKey: $sort, reverse: $reverse) {{"
            f" nodes {{ {selection.text} }} pageInfo {{ hasNextPage endCursor }} }} }}"
        )
        variables = {"first": first, "after": after, "query": search or None, "sort": sort, "reverse": reverse}
        found = (await self._ask(api, operation, query, variables, first * selection.cost))[name]
        return found["nodes"], found["pageInfo"]["endCursor"] if found["pageInfo"]["hasNextPage"] else None

    async def _whole(self, api: Api, rows: Sequence[Row | None], selection: "_Selection") -> list[Row | None]:
        """Read again, with all their items, the orders that have more items than came along."""
        if not selection.items:
            return list(rows)

        async def one(row: Row | None) -> Row | None:
            if row is None or not row["lineItems"]["pageInfo"]["hasNextPage"]:
                return row
            query = f"query($id: ID!) {{ order(id: $id) {{ lineItems(first: 250) {{ nodes {{ {selection.items} }} pageInfo {{ hasNextPage }} }} }} }}"
            data = await self._ask(api, "order.items", query, {"id": row["id"]}, 1 + 250 * selection.item_cost)
            return {**row, "lineItems": data["order"]["lineItems"]} if data["order"] else row

        return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _ask(self, api: Api, operation: str, query: str, variables: Mapping[str, Any], cost: int) -> Any:
        path = f"/admin/api/{self.config.api_version or self.api_version}/graphql.json"
        body = {"query": query, "variables": variables}
        answer = await api.send(Request(operation=operation, method="POST", path=path, json=body, cost={"points": cost}))
        return answer.json()["data"]

    def _gid(self, kind: Kind, native_id: str) -> str:
        return f"gid://shopify/{self.kinds[kind].object}/{native_id}"

    def classify(self, response: Response) -> SourceError | None:
        """Look into the body whatever the status: throttling, and most other failures, are an HTTP 200."""
        body = response.json_or_none()
        errors = body.get("errors") if isinstance(body, dict) else None
        facts: dict[str, Any] = {"status": response.status}
        if response.status == 429:
            wait = response.headers.get("retry-after", "")
            return ThrottledError(
                "too many calls", retry_after=float(wait) if wait.replace(".", "", 1).isdigit() else None, **facts
            )
        if response.status == 401:
            return TokenExpiredError("the access token is not accepted", **facts)
        if response.status in {402, 403, 423, 430}:
            return SourceForbiddenError("the shop does not let us in", **facts)
        if response.status >= 500:
            return UnavailableError("not available", **facts)
        if not isinstance(body, dict):
            return ProtocolError(f"answered {response.status} with something that is not JSON", **facts)
        if not errors:
            return None if response.status < 300 else RejectedError("refused", **facts)
        if not isinstance(errors, list):
            return RejectedError("refused", **facts)
        code = str((errors[0].get("extensions") or {}).get("code") or "")
        facts["upstream_code"] = code or None
        if code == "THROTTLED":
            return ThrottledError("out of points", retry_after=_until_paid(body), **facts)
        if code == "ACCESS_DENIED":
            return SourceForbiddenError("the app lacks a scope", **facts)
        if code == "SHOP_INACTIVE":
            return SourceForbiddenError("the shop is not active", **facts)
        if code == "INTERNAL_SERVER_ERROR":
            return UnavailableError("not available", **facts)
        return RejectedError(f"refused: {code or 'the query'}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        body = response.json_or_none()
        status = (
            (((body.get("extensions") or {}).get("cost") or {}).get("throttleStatus") or {}) if isinstance(body, dict) else {}
        )
        if not status:
            return []
        return [
            Learned(
                window="points", limit=float(status["maximumAvailable"]), remaining=float(status["currentlyAvailable"]),
                per_second=float(status["restoreRate"]),
            )
        ]  # fmt: skip

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "customers", "order": "orders"}[kind]
        return f"{self.config.web_url}/admin/{place}/{native_id}" if self.config.web_url else None


class _Selection:
    """A selection set built from native paths, and what one record of it costs: each object 1, scalars nothing.

    Attributes:
        items: the selection inside line items, "" when none is wanted.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        tree: dict[str, Any] = {}
        for path in ["id", *paths]:
            at = tree
            for step in path.split("."):
                at = at.setdefault(step, {})
        lines = tree.get("lineItems", {}).get("nodes")
        self.items = _written(lines) if lines else ""
        self.item_cost = _priced(lines) if lines else 0
        self.cost = _priced({name: below for name, below in tree.items() if name != "lineItems"}) + _ITEMS * self.item_cost
        self.text = _written({name: below for name, below in tree.items() if name != "lineItems"})
        if lines:
            self.text += f" lineItems(first: {_ITEMS}) {{ nodes {{ {self.items} }} pageInfo {{ hasNextPage }} }}"


def _written(tree: Mapping[str, Any]) -> str:
    return " ".join(f"{_asked(name)} {{ {_written(below)} }}" if below else name for name, below in tree.items())


def _asked(name: str) -> str:
    if not name.startswith(_METAFIELD):
        return name
    namespace, _, key = bytes.fromhex(name.removeprefix(_METAFIELD)).decode().rpartition(".")  # a key holds no dot
    return f'{name}: metafield(namespace: "{namespace}", key: "{key}")'


def _field(definition: Row) -> FieldMeta:
    name, type = f"{definition['namespace']}.{definition['key']}", definition["type"]["name"]
    return FieldMeta(
        name=name, path=f"{_METAFIELD}{name.encode().hex()}.value", type="REFERENCE" if type.endswith("_reference") else _TYPES.get(type, "TEXT"),
        label=definition["name"], custom=True,
    )  # fmt: skip


def _priced(tree: Mapping[str, Any]) -> int:
    return 1 + sum(_priced(below) for below in tree.values() if below)


def _until_paid(body: Mapping[str, Any]) -> float:
    """Return the seconds until the query can be paid: (requested − available) / restore rate."""
    cost = (body.get("extensions") or {}).get("cost") or {}
    status = cost.get("throttleStatus") or {}
    missing = float(cost.get("requestedQueryCost") or 0) - float(status.get("currentlyAvailable") or 0)
    return max(missing / float(status.get("restoreRate") or 50), 0.1)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
