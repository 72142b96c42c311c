"""Shopify, by the Admin GraphQL API.

Facts from shopify.dev: Admin API rate limits, search syntax, offline access tokens, and the published 2026-07 schema. Not verified:
how soon the search shows what was written, and that twenty mutations in one document are taken (their points are known).
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Changes,
    Checked,
    Delivery,
    Feed,
    FindKey,
    Heard,
    KindFacts,
    Learned,
    Live,
    OAuth,
    OrderField,
    Outcome,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Watch,
    Window,
    Write,
    batches,
    undocumented,
)
from adapters.changes import scanned_changes
from adapters.shopify_live import PUSH, heard, unwatched, watched
from adapters.shopify_queries import Selection, metafield_alias
from adapters.shopify_writing import Document, code_of, error_named, is_answer_to_writes, sets_metafields
from adapters.writing import settled
from mapping.paths import pick
from model.errors import (
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_IDS, _PAGE = 250, 250
_WRITTEN = 20  # customers in one document of writes: at most 400 of the 1,000 points, and a short wait for all of them
_LAG = 30.0  # seconds; the search is "eventually consistent", and nobody says how soon
_MAX_COST = 1000  # points that one query may cost, on any plan
_VALUES = 50  # e-mail addresses, numbers or customers in one search
# Refunds, transactions and edits move an order's time late, and the search shows it later still: five to ten minutes, by what connectors saw.
_FEED = Feed(overlap=300.0)
_TYPES: Mapping[str, FieldType] = {
    "number_integer": "NUMBER", "number_decimal": "NUMBER", "boolean": "BOOLEAN", "date": "DATE", "date_time": "DATETIME", "json": "JSON", "money": "JSON",
}  # fmt: skip
_SHUT: Mapping[int, str] = {
    402: "the shop is frozen until its owner pays", 403: "the app lacks a scope", 423: "the shop is locked", 430: "refused for security",
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
    evidence = "E3"
    shown_by = "tests/conformance/test_shopify_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(token_path="/admin/oauth/access_token", header="X-Shopify-Access-Token", prefix=""),
        "token": Token(header="X-Shopify-Access-Token", prefix=""),
    }
    live = Live(
        push="webhooks with the record as REST spells it, signed with HMAC-SHA256 over the raw body (the app's secret)",
        feed="lists by updated_at, to the second", deletes="webhooks of deleted and merged customers and deleted orders; lists leave them out",
        why="no time and no delivery is promised: eight failures in a row delete the subscription, so lists must be compared as well",
    )  # fmt: skip
    push = PUSH
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
            writes={"email": "email", "phone": "phone", "given_name": "firstName", "family_name": "lastName", "locale": "locale"},
            verbs=frozenset({"create", "update", "upsert", "delete"}), write_batch=_WRITTEN, upsert_by=frozenset({"email"}), lag=_LAG, feed=_FEED,
        ),
        "order": KindFacts(
            object="Order", read_batch=_IDS, page=100, orders=_BOTH, feed=_FEED,
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
        selection = Selection(fields)
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
        selection = Selection([*fields, "customer.id"])
        wanted = min(first, _PAGE)
        if len(ids) * (1 + wanted * selection.cost) <= _MAX_COST:
            return await self._nested(api, of, ids, selection, wanted)
        found: dict[str, list[Row]] = {}
        for rows in await asyncio.gather(*(self._orders_of(api, some, selection) for some in batches(ids, _VALUES))):
            for row in rows:
                found.setdefault(row["customer"]["id"].rsplit("/", 1)[-1], []).append(row)
        return [Related(rows=found.get(id, [])) for id in ids]

    async def _nested(self, api: Api, of: Kind, ids: Sequence[str], selection: Selection, first: int) -> list[Related]:
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

    async def _orders_of(self, api: Api, ids: Sequence[str], selection: Selection) -> list[Row]:
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
        selection = Selection(fields)
        parts = await asyncio.gather(*(self._found(api, kind, key, some, selection) for some in batches(values, _VALUES)))
        return list({row["id"]: row for row in chain.from_iterable(parts)}.values())

    async def _found(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], selection: Selection) -> list[Row]:
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
        selection = Selection(scan.fields)
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

    async def _listed(self, api: Api, rows: Sequence[Row], column: str, scan: Scan, selection: Selection) -> list[Row]:
        def place(row: Row) -> tuple[str, int]:
            return (row[column], int(row["id"].rsplit("/", 1)[-1]))

        ordered = sorted(rows, key=place, reverse=scan.descending)
        if scan.after is not None:
            edge = (_second(scan.after.at), int(scan.after.native_id))
            ordered = [row for row in ordered if (place(row) < edge if scan.descending else place(row) > edge)]
        return [row for row in await self._whole(api, ordered, selection) if row is not None]

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        """One query for each 100 that changed, fewer where a record costs more points."""
        return await scanned_changes(self, api, kind, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(partial(self._ask, api), url)

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(partial(self._ask, api), url)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """ceil(writes / 20) documents of mutations, creates apart from what may be sent again; one more query each where upserts
        set metafields."""
        if kind != "contact":
            raise UnsupportedError("orders are written by the shop itself")
        outcomes: dict[int, Outcome] = {}
        for repeatable in (True, False):
            chosen = [at for at, write in enumerate(writes) if write.repeatable is repeatable]
            for some in batches(chosen, _WRITTEN):
                found = await settled([writes[at] for at in some], lambda part: self._write(api, part))
                outcomes |= dict(zip(some, found, strict=True))
        return [outcomes[at] for at in range(len(writes))]

    async def _write(self, api: Api, writes: Sequence[Write]) -> list[Outcome]:
        known = await self._identified(api, [write for write in writes if write.verb == "upsert" and sets_metafields(write)])

        def gid(write: Write) -> str | None:
            if write.native_id:
                return self._gid("contact", write.native_id)
            return known.get(str(write.row["email"])) if write.verb == "upsert" else None

        document = Document(writes, [gid(write) for write in writes])
        answer = await self._send(api, "contact.write", document.query, document.variables, document.cost, safe=document.safe)
        return document.outcomes(answer.json())

    async def _identified(self, api: Api, writes: Sequence[Write]) -> dict[str, str]:
        """Return the ids of the customers with the e-mail addresses that are written, from the store and not from its search."""
        if not writes:
            return {}
        emails = [str(write.row["email"]) for write in writes]
        heads = ", ".join(f"$by_{at}: CustomerIdentifierInput!" for at in range(len(emails)))
        fields = " ".join(f"_{at}: customerByIdentifier(identifier: $by_{at}) {{ id }}" for at in range(len(emails)))
        variables = {f"by_{at}": {"emailAddress": email} for at, email in enumerate(emails)}
        data = await self._ask(api, "contact.identify", f"query({heads}) {{ {fields} }}", variables, len(emails))
        return {email: found["id"] for at, email in enumerate(emails) if (found := data[f"_{at}"])}

    async def _page(
        self, api: Api, kind: Kind, operation: str, search: str, sort: str, selection: Selection, size: int, *,
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

    async def _whole(self, api: Api, rows: Sequence[Row | None], selection: Selection) -> list[Row | None]:
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
        return (await self._send(api, operation, query, variables, cost)).json()["data"]

    async def _send(
        self, api: Api, operation: str, query: str, variables: Mapping[str, Any], cost: int, *, safe: bool = True
    ) -> Response:
        path = f"/admin/api/{self.config.api_version or self.api_version}/graphql.json"
        body = {"query": query, "variables": variables}
        return await api.send(Request(operation=operation, method="POST", path=path, json=body, cost={"points": cost}, safe=safe))

    def _gid(self, kind: Kind, native_id: str) -> str:
        return f"gid://shopify/{self.kinds[kind].object}/{native_id}"

    def classify(self, response: Response) -> SourceError | None:
        """Look into the body whatever the status: throttling, and most other failures, are an HTTP 200."""
        body = response.json_or_none()
        errors = body.get("errors") if isinstance(body, dict) else None
        facts: dict[str, Any] = {"status": response.status}
        if response.status == 429:
            return ThrottledError("too many calls", retry_after=response.retry_after, **facts)
        if response.status == 401:
            return TokenExpiredError("the access token is not accepted", **facts)
        if response.status in _SHUT:
            return SourceForbiddenError(_SHUT[response.status], **facts)
        if response.status >= 500:
            return UnavailableError("not available", **facts)
        if not isinstance(body, dict):
            return undocumented(response)
        if not errors:
            return None if response.status < 300 else RejectedError("refused", **facts)
        if not isinstance(errors, list):
            return RejectedError("refused", **facts)
        if is_answer_to_writes(body):
            return None
        code = code_of(errors[0])
        if code == "THROTTLED":
            return ThrottledError("out of points", retry_after=_until_paid(body), upstream_code=code, **facts)
        return error_named(code, **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        _, most, left, rate = _points(response.json_or_none())
        if most is None or left is None or rate is None:
            return []
        return [Learned(window="points", limit=most, remaining=left, per_second=rate)]

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "customers", "order": "orders"}[kind]
        return f"{self.config.web_url}/admin/{place}/{native_id}" if self.config.web_url else None


def _field(definition: Row) -> FieldMeta:
    namespace, key, type = definition["namespace"], definition["key"], definition["type"]["name"]
    return FieldMeta(
        name=f"{namespace}.{key}", path=f"{metafield_alias(namespace, key)}.value", type="REFERENCE" if type.endswith("_reference") else _TYPES.get(type, "TEXT"),
        label=definition["name"], custom=True,
    )  # fmt: skip


def _until_paid(body: Mapping[str, Any]) -> float:
    """Return the seconds until the query can be paid: (requested − available) / restore rate."""
    requested, _, left, rate = _points(body)
    return max(((requested or 0) - (left or 0)) / (rate or 50), 0.1)


def _points(body: Any) -> tuple[float | None, ...]:
    """Return the points a query asks for, that the bucket holds, that are left, and that come back each second; None where unsaid."""
    cost = pick(body, "extensions.cost")
    paths = (
        "requestedQueryCost",
        "throttleStatus.maximumAvailable",
        "throttleStatus.currentlyAvailable",
        "throttleStatus.restoreRate",
    )
    return tuple(float(said) if isinstance(said := pick(cost, path), int | float) else None for path in paths)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
