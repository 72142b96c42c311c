"""BigCommerce.

Facts from the vendor's documents: orders V2 (the order API; V3 has payments and refunds only), customers V3, rate limits, status
codes, API accounts. One vendor with three dialects: V2 lists are bare arrays, empty ones a 204, V2 dates RFC 2822 and V2 errors
arrays; V3 wraps its rows, writes ISO dates and answers errors as objects. Unverified: that 250 is the largest page; that a
refused batch of customers writes none of them; the words in which an e-mail address that is taken is refused.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
    OrderField,
    Outcome,
    Page,
    Position,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Watch,
    Window,
    Write,
    answer_or_none,
    batches,
    undocumented,
)
from adapters.bigcommerce_feed import changed_orders
from adapters.bigcommerce_live import PUSH, heard, unwatched, watched
from adapters.changes import scanned_changes
from adapters.ties import whole_groups
from adapters.writing import bisected, settled_one
from mapping.convert import instant, rfc2822
from model.errors import (
    DuplicateError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_PAGE = 250
_WRITTEN = 10  # customers in one write; more are a 413
_TAKEN = re.compile(r"email.*(?:already|in use|taken|exists)|(?:already|duplicate).*email", re.IGNORECASE)
_VALUES = 50  # e-mail addresses in one filter: keeps the URL below 2,000 characters
_PASSING = frozenset({423, 499})  # locked; given up on, and maybe carried out
_PROTECTED = 60.0  # seconds; a 429 without headers is the platform protecting the store: back off longer
_FEED = Feed(overlap=120.0)
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_COLUMNS: Mapping[OrderField, str] = {"created": "date_created", "updated": "date_modified"}
_TYPES: Mapping[str, FieldType] = {"number": "NUMBER", "date": "DATE", "array": "JSON"}


class BigCommerce(Adapter):
    name = "bigcommerce"
    label = "BigCommerce"
    api_version = "v3"
    evidence = "E2"
    shown_by = "tests/adapters/test_bigcommerce.py"
    auth: ClassVar[Mapping[str, Auth]] = {"token": Token(header="X-Auth-Token", prefix="")}  # does not expire by time
    live = Live(
        push="webhooks without the record, proved by a header of ours or signed by Standard Webhooks", feed="lists by date_modified; what is written to a customer's attributes does not move it",
        deletes="webhooks of deleted customers and archived orders; lists leave them out",
        why="no time of delivery is promised; a webhook names the record only, and a new subscription may take a minute to work",
    )  # fmt: skip
    push = PUSH
    # Standard plan until the first answer tells better; shared by all apps of the store.
    windows = (Window(name="window", limit=150, period=30, kind="fixed"),)
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="customers", read_batch=_PAGE, page=_PAGE, find=frozenset({"email"}), find_batch=_VALUES, orders=_BOTH,
            mapping={
                "native_id": {"path": "id", "convert": "id"},
                "created_at": {"path": "date_created", "convert": "datetime"}, "updated_at": {"path": "date_modified", "convert": "datetime"},
                "email": {"path": "email", "convert": "email"}, "emails": {"paths": ["email"], "convert": "emails"},
                "phone": {"path": "phone", "convert": "phone"}, "phones": {"paths": ["phone"], "convert": "phones"},
                "given_name": {"path": "first_name", "convert": "text"}, "family_name": {"path": "last_name", "convert": "text"},
            },
            writes={
                "email": "email", "phone": {"path": "phone", "empty": ""}, "given_name": {"path": "first_name", "empty": ""},
                "family_name": {"path": "last_name", "empty": ""},
            },
            verbs=frozenset({"create", "update", "delete"}), write_batch=_WRITTEN, unique=frozenset({"email"}), feed=_FEED,
        ),
        "order": KindFacts(
            object="orders", read_batch=1, page=_PAGE, orders=_BOTH, feed=_FEED,
            mapping={
                "native_id": {"path": "id", "convert": "id"}, "number": {"path": "id", "convert": "id"},
                "created_at": {"path": "date_created", "convert": "rfc2822"}, "updated_at": {"path": "date_modified", "convert": "rfc2822"},
                "placed_at": {"path": "date_created", "convert": "rfc2822"},
                # By id: merchants may rename statuses.
                "status": {
                    "path": "status_id", "convert": "id", "default": "UNKNOWN",
                    "values": {
                        "0": "INCOMPLETE", "1": "OPEN", "2": "FULFILLED", "3": "PARTIALLY_FULFILLED", "4": "REFUNDED", "5": "CANCELLED", "6": "CANCELLED",
                        "7": "PENDING_PAYMENT", "8": "OPEN", "9": "OPEN", "10": "COMPLETED", "11": "OPEN", "12": "ON_HOLD", "13": "DISPUTED", "14": "PARTIALLY_REFUNDED",
                    },
                },
                "raw_status": "status", "payment_status": {"path": "payment_status", "convert": "text"},
                "total": {"money": {"amount": "total_inc_tax", "currency": "currency_code"}},
                "items": {
                    "over": "products.items",
                    "each": {
                        "sku": {"path": "sku", "convert": "text"}, "title": {"path": "name", "default": ""}, "quantity": {"path": "quantity", "convert": "integer", "default": 0},
                        "price": {"money": {"amount": "price_inc_tax", "currency": "currency"}},
                    },
                },
                "contact_id": {"path": "customer_id", "convert": ["nonzero", "id"]},  # a guest's order has 0
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "order")})

    async def check(self, api: Api) -> Checked:
        store = (await api.send(_request("check", "/v2/store"))).json()
        return Checked(account=str(store["id"]), name=store.get("name"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """The store's currency and, of customers, their attributes as custom fields, by name."""
        store = (await api.send(_request(f"{kind}.describe", "/v2/store"))).json()
        found: list[Row] = []
        if kind == "contact":
            found = await self._customers(api, "contact.describe", {}, path="/v3/customers/attributes")
        fields = {each["name"]: _field(each) for each in found}
        return ObjectType(name=self.kinds[kind].object, fields=fields, currency=store.get("currency"))

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 250) customer lists; orders have no batch: one call each, and one more each for their items."""
        if kind == "order":
            return list(await asyncio.gather(*(self._order(api, id, fields) for id in ids)))
        asked = (
            self._customers(api, "contact.read", {"id:in": ",".join(some), **_included(fields)}) for some in batches(ids, _PAGE)
        )
        found = {str(row["id"]): row for row in chain.from_iterable(await asyncio.gather(*asked))}
        return [found.get(id) for id in ids]

    async def _order(self, api: Api, id: str, fields: Sequence[str]) -> Row | None:
        answer = await answer_or_none(api, _request("order.read", f"/v2/orders/{id}"))
        if answer is None:
            return None
        [whole] = await self._with_items(api, [answer.json()], fields)
        return None if whole["is_deleted"] else whole

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """One list a customer: the filter takes one id; items cost one call more an order, where they are wanted."""
        wanted = min(first + 1, _PAGE)

        async def one(id: str) -> Related:
            rows = await self._orders(api, "contact.order", {"customer_id": id, "sort": "date_created:asc"}, size=wanted)
            return Related(rows=await self._with_items(api, rows[:first], fields), more=len(rows) > first)

        return list(await asyncio.gather(*(one(id) for id in ids)))

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 50) lists. Phones match by their spelling only, so customers are not found by them."""
        asked = (
            self._customers(api, "contact.find", {"email:in": ",".join(some), **_included(fields)})
            for some in batches(values, _VALUES)
        )
        return list({row["id"]: row for row in chain.from_iterable(await asyncio.gather(*asked))}.values())

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One list a page, more where many records share a second.

        The documents do not say whether an edge belongs to its span, so spans are asked for a second wider and cut here.
        """
        contact = kind == "contact"
        column, spelled = _COLUMNS[scan.order], "{0}:{1}" if contact else "{1}_{0}"
        parameters = {"sort": f"{column}:{'desc' if scan.descending else 'asc'}"}
        second = timedelta(seconds=1)
        spans: list[tuple[str, str, datetime | None]] = [
            (column, "max" if scan.descending else "min", scan.after.at if scan.after else None),
            ("date_modified", "min", scan.updated_since), ("date_modified", "max", scan.updated_before),
        ]  # fmt: skip
        for name, edge, moment in spans:
            if moment is not None:
                wider = moment + second if edge == "max" else moment - second
                # With several spans of one column the narrower one serves.
                parameters.setdefault(spelled.format(name, edge), f"{wider.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")
        size = min(scan.size, _PAGE)
        parse = instant if contact else rfc2822

        async def fetch(number: int | None) -> tuple[list[Row], int | None]:
            at = number or 1
            paged = {**parameters, "page": str(at), "limit": str(size)}
            if contact:
                rows, more = await self._customer_page(api, "contact.scan", {**paged, **_included(scan.fields)})
            else:
                rows = await self._order_page(api, "order.scan", paged)
                more = len(rows) == size
            return [row for row in rows if _within(scan, parse(row["date_modified"]))], at + 1 if more else None

        def place(row: Row) -> Position:
            moment = parse(row[column])
            assert moment is not None
            return Position.of(moment, str(row["id"]))

        page = await whole_groups(scan, fetch, place)
        return page if contact else Page(rows=await self._with_items(api, page.rows, scan.fields), end=page.end)

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        """One list for each 250 that changed, and one more for each changed order where its items are wanted."""
        if kind == "order":
            return await changed_orders(self, api, cursor, fields, lambda rows: self._with_items(api, rows, fields), now=now)
        return await scanned_changes(self, api, kind, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(api, url, secret)

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(api, url)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """ceil(creates / 10) + ceil(updates / 10) calls, one more each where attributes are written; one call for each delete."""
        if kind != "contact":
            raise UnsupportedError("orders are written by the shop itself")
        outcomes: dict[int, Outcome] = {}
        for verb, method in (("create", "POST"), ("update", "PUT")):
            chosen = [at for at, write in enumerate(writes) if write.verb == verb]
            for some in batches(chosen, _WRITTEN):  # one after the other: the vendor allows three at a time

                async def call(part: Sequence[Write], method: str = method) -> Sequence[Outcome]:
                    return await self._saved(api, method, part)

                outcomes |= dict(zip(some, await bisected([writes[at] for at in some], call), strict=True))
        for at, write in enumerate(writes):
            if write.verb == "delete":
                outcomes[at] = await settled_one(write, lambda each: self._removed(api, each))
        return [outcomes[at] for at in range(len(writes))]

    async def _saved(self, api: Api, method: str, writes: Sequence[Write]) -> Sequence[Outcome]:
        """Send customers, and their attributes after them: an update takes no attributes."""
        bodies = [{name: value for name, value in write.row.items() if name != "attributes"} for write in writes]
        bodies = [
            body | ({"id": int(write.native_id)} if write.native_id else {}) for body, write in zip(bodies, writes, strict=True)
        ]
        safe = all(write.repeatable for write in writes)
        plain = [body for body in bodies if body.keys() != {"id"}]
        rows: list[Row] = []
        if plain:
            rows = (
                await api.send(_request(f"contact.{method.lower()}", "/v3/customers", json=plain, method=method, safe=safe))
            ).json()["data"]
        if method == "PUT":
            here = {str(row["id"]) for row in rows} | {str(body["id"]) for body in bodies if body.keys() == {"id"}}
            ids = [write.native_id if write.native_id in here else None for write in writes]
        else:
            by_email = {str(row["email"]).lower(): str(row["id"]) for row in rows}
            ids = [by_email.get(str(write.row.get("email", "")).lower()) for write in writes]
        values = [
            {"attribute_id": each["attribute_id"], "value": str(each["attribute_value"]), "customer_id": int(id)}
            for write, id in zip(writes, ids, strict=True)
            if id is not None
            for each in write.row.get("attributes", ())
        ]
        for some in batches(values, _WRITTEN):
            await api.send(_request("contact.attributes", "/v3/customers/attribute-values", json=list(some), method="PUT"))
        gone = Outcome(state="REJECTED", error=RejectedError("there is no such customer", status=404))
        return [Outcome(state="APPLIED", native_id=id, created=method == "POST") if id is not None else gone for id in ids]

    async def _removed(self, api: Api, write: Write) -> Outcome:
        id = write.native_id or ""
        if not await self._customers(api, "contact.read", {"id:in": id}):
            return Outcome(state="UNCHANGED", native_id=id)
        await api.send(_request("contact.delete", "/v3/customers", {"id:in": id}, method="DELETE"))
        return Outcome(state="APPLIED", native_id=id)

    async def _customers(
        self, api: Api, operation: str, parameters: Mapping[str, str], *, path: str = "/v3/customers"
    ) -> list[Row]:
        rows: list[Row] = []
        number = 1
        while True:
            paged = {**parameters, "page": str(number), "limit": str(_PAGE)}
            more, is_more = await self._customer_page(api, operation, paged, path=path)
            rows += more
            if not is_more:
                return rows
            number += 1

    async def _customer_page(
        self, api: Api, operation: str, parameters: Mapping[str, str], *, path: str = "/v3/customers"
    ) -> tuple[list[Row], bool]:
        body = (await api.send(_request(operation, path, parameters))).json()
        paging = body["meta"]["pagination"]
        return body["data"], paging["current_page"] < paging["total_pages"]

    async def _orders(self, api: Api, operation: str, parameters: Mapping[str, str], *, size: int) -> list[Row]:
        return await self._order_page(api, operation, {**parameters, "page": "1", "limit": str(size)})

    async def _order_page(self, api: Api, operation: str, parameters: Mapping[str, str]) -> list[Row]:
        answer = await api.send(_request(operation, "/v2/orders", parameters))
        rows: list[Row] = answer.json() if answer.body else []  # nothing found is a 204
        return rows

    async def _with_items(self, api: Api, rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
        """Put each order's items beside the link to them, where they are wanted."""
        if not any(path.startswith("products.") for path in fields):
            return list(rows)

        async def one(row: Row) -> Row:
            items = await self._items(api, row["id"])
            return {
                **row,
                "products": {**row["products"], "items": [{**item, "currency": row["currency_code"]} for item in items]},
            }

        return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _items(self, api: Api, order: int) -> list[Row]:
        """One list, and one more for each 250 items: what is not the last page is full."""
        items: list[Row] = []
        while True:
            paged = {"page": str(len(items) // _PAGE + 1), "limit": str(_PAGE)}
            answer = await api.send(_request("order.items", f"/v2/orders/{order}/products", paged))
            items += (more := answer.json() if answer.body else [])
            if len(more) < _PAGE:
                return items

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        facts: dict[str, Any] = {"status": response.status}
        if response.status == 429:
            reset = response.number("x-rate-limit-time-reset-ms")
            return ThrottledError("too many calls", retry_after=_PROTECTED if reset is None else reset / 1000, **facts)
        if response.status == 401:
            return TokenExpiredError("the token is not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError("the account lacks a scope", **facts)
        if response.status in _PASSING or (response.status >= 500 and response.status != 507):
            return UnavailableError("not available", **facts)
        if not isinstance(response.json_or_none(), list | dict):
            return undocumented(response)
        if response.status in {409, 422} and _TAKEN.search(response.body.decode(errors="replace")):
            return DuplicateError("another customer has this e-mail address", **facts)
        return RejectedError(f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        quota, left, reset = (
            response.number(f"x-rate-limit-{header}") for header in ("requests-quota", "requests-left", "time-reset-ms")
        )
        if quota is None or left is None or reset is None:
            return []
        return [Learned(window="window", limit=quota, remaining=left, reset_after=reset / 1000)]

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "customers", "order": "orders"}[kind]
        return f"{self.config.web_url}/manage/{place}/{native_id}" if self.config.web_url else None


def _request(
    operation: str,
    path: str,
    parameters: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    json: object = None,
    safe: bool = True,
) -> Request:
    return Request(
        operation=operation, path=path, params=list((parameters or {}).items()), method=method, json=json, safe=safe,
        headers={"Accept": "application/json"},  # V2 answers XML to whoever does not ask for JSON
    )  # fmt: skip


def _included(fields: Sequence[str]) -> dict[str, str]:
    return {"include": "attributes"} if any(path.startswith("attributes[") for path in fields) else {}


def _within(scan: Scan, modified: datetime | None) -> bool:
    if modified is None:
        return True
    return (scan.updated_since is None or modified >= scan.updated_since) and (
        scan.updated_before is None or modified < scan.updated_before
    )


def _field(attribute: Row) -> FieldMeta:
    return FieldMeta(
        name=attribute["name"], path=f"attributes[attribute_id={attribute['id']}].attribute_value", type=_TYPES.get(attribute["type"], "TEXT"),
        label=attribute["name"], custom=True,
    )  # fmt: skip
