"""BigCommerce's dialect: bare arrays, 204s and RFC 2822 in V2, envelopes and ISO dates in V3, one quota per store and window.

Written from the vendor's documents (orders V2, customers V3, rate limits, status codes). Standard plan: 150 calls in 30 s.
What they leave open is answered so: the edges of date filters belong to the span, an unknown filter is refused, a page holds
250 rows at most; a batch with one bad customer writes none of them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.bigcommerce_answers import DEFAULT, PAGE, iso, millis, paged, rfc2822, v2_error, v3_error, whole
from sandbox.bigcommerce_hooks import Hooks
from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, json_response
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import PRODUCTS, Order, Profile, World

STORE = "c360demo"
TOKEN, CLIENT_SECRET = "bigcommerce-demo-token", "bigcommerce-demo-secret"
_QUOTA, _WINDOW, _MOST = 150, 30, 10
_STATUSES = (
    "Incomplete", "Pending", "Shipped", "Partially Shipped", "Refunded", "Cancelled", "Declined", "Awaiting Payment", "Awaiting Pickup",
    "Awaiting Shipment", "Completed", "Awaiting Fulfillment", "Manual Verification Required", "Disputed", "Partially Refunded",
)  # fmt: skip
_STATES = (11, 3, 10, 5, 4, 14, 7)  # the population's seven states as status ids
_PAYMENTS = ("captured", "captured", "captured", "void", "refunded", "partially refunded", "")
_ATTRIBUTES = ((1, "loyalty_level", "string"), (2, "visits", "number"))
_CUSTOMER_FILTERS = frozenset({
    "id:in", "company:in", "customer_group_id:in", "date_created", "date_created:max", "date_created:min", "date_modified", "date_modified:min",
    "date_modified:max", "email:in", "name:in", "name:like", "phone:in", "registration_ip_address:in", "include", "sort", "after", "before", "page", "limit",
})  # fmt: skip
_CUSTOMER_SORTS = frozenset(
    {f"{name}:{way}" for name in ("date_created", "last_name", "date_modified") for way in ("asc", "desc")}
)
_ORDER_FILTERS = frozenset({
    "min_id", "max_id", "min_total", "max_total", "customer_id", "email", "status_id", "cart_id", "payment_method", "min_date_created", "max_date_created",
    "min_date_modified", "max_date_modified", "page", "limit", "sort", "channel_id", "include", "consignment_structure", "external_order_id",
})  # fmt: skip
_ORDER_SORTS = frozenset({"id", "customer_id", "date_created", "date_modified", "status_id", "channel_id", "external_id"})


class BigCommerce(Dialect):
    """One store."""

    name = "bigcommerce"
    objects = {"contact": "customers", "order": "orders"}
    base_path = f"/stores/{STORE}"

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self._window, self._used = -1, 0
        self._deleted: set[str] = set()
        self.hooks = Hooks(clock, lambda sending: self.outbox.post(sending), store=STORE, secret=CLIENT_SECRET)
        self._last = 2_000_000_000  # id of the customer made last; the population's are below
        customers = {str(each.id): each for each in world.profiles[self.name] if not each.deleted}
        orders = {str(each.id): each for each in world.orders[self.name]}
        self.tables = {
            "contact": Table(
                customers, self._customer,
                indexes={"email": Column(lambda each: _email(each).lower(), lambda row: row["email"].lower())},
                orders={
                    "date_created": Column(lambda each: each.created, lambda row: millis(row["date_created"])),
                    "date_modified": Column(lambda each: each.updated, lambda row: millis(row["date_modified"])),
                    "last_name": Column(lambda each: each.family.lower(), lambda row: row["last_name"].lower()),
                },
            ),
            "order": Table(
                orders, self._order,
                indexes={"customer": Column(lambda each: each.contact, lambda row: row["customer_id"])},
                orders={
                    "id": Column(lambda each: each.id, lambda row: row["id"]),
                    "date_created": Column(lambda each: each.created, lambda row: millis(row["date_created"])),
                    "date_modified": Column(lambda each: each.updated, lambda row: millis(row["date_modified"])),
                },
            ),
        }  # fmt: skip

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "token", "token": TOKEN}

    def endpoints(self) -> list[Endpoint]:
        root = "/stores/{store}"
        return [
            Endpoint("GET", f"{root}/v2/store", self._store),
            Endpoint("GET", f"{root}/v2/orders", self._orders),
            Endpoint("GET", f"{root}/v2/orders/count", self._order_count),
            Endpoint("GET", f"{root}/v2/order_statuses", self._order_statuses),
            Endpoint("GET", f"{root}/v2/orders/{{id:int}}", self._one_order),
            Endpoint("GET", f"{root}/v2/orders/{{id:int}}/products", self._products),
            Endpoint("GET", f"{root}/v3/customers", self._customers),
            Endpoint("POST", f"{root}/v3/customers", self._create),
            Endpoint("PUT", f"{root}/v3/customers", self._update),
            Endpoint("DELETE", f"{root}/v3/customers", self._remove),
            Endpoint("GET", f"{root}/v3/customers/attributes", self._attributes),
            Endpoint("PUT", f"{root}/v3/customers/attribute-values", self._set_attributes),
            *self.hooks.endpoints(root),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if request.path_params["store"] != STORE or request.headers.get("x-auth-token") != TOKEN:
            return json_response({"error": "Your credentials are invalid or expired.", "status": 401}, status=401)
        if "/v2/" in endpoint.path and "json" not in request.headers.get("accept", ""):
            return Response('<?xml version="1.0" encoding="UTF-8"?><result/>', media_type="application/xml")
        window = int(self.clock.time() // _WINDOW)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= _QUOTA:
            return self.throttled(self._reset())
        self._used += 1
        return None

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        response.headers.setdefault("X-Rate-Limit-Time-Window-Ms", str(_WINDOW * 1000))
        response.headers.setdefault("X-Rate-Limit-Time-Reset-Ms", str(round(self._reset() * 1000)))
        response.headers.setdefault("X-Rate-Limit-Requests-Quota", str(_QUOTA))
        response.headers.setdefault("X-Rate-Limit-Requests-Left", str(_QUOTA - self._used))
        return response

    def throttled(self, seconds: float) -> Response:
        headers = {"X-Rate-Limit-Time-Reset-Ms": str(math.ceil(seconds * 1000)), "X-Rate-Limit-Requests-Left": "0"}
        return json_response({"status": 429, "title": "Too many requests", "type": "about:blank"}, status=429, headers=headers)

    def exhausted(self) -> Response:
        return json_response(
            {"status": 429, "title": "Too many requests", "type": "about:blank"}, status=429
        )  # platform protection

    def unknown(self, request: Request) -> Response:
        if "/v2/" in request.url.path:
            return v2_error(404, "The requested resource was not found.")
        return v3_error(404, "Resource not found.")

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None or native_id in self._deleted:
            return None
        now = self.clock.time() * 1000
        row = {**row, **fields, "date_modified": iso(now) if kind == "contact" else rfc2822(now)}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        row = self.tables[kind].get(native_id)
        if row is None or native_id in self._deleted:
            return False
        if kind == "order":  # archived, and still readable by its id
            self._deleted.add(native_id)
            self.tables[kind].put(native_id, {**row, "is_deleted": True})
        else:
            self.tables[kind].remove(native_id)
        return True

    def subscriptions(self) -> list[Mapping[str, Any]]:
        return self.hooks.listed()

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        self.hooks.changed(kind, native_id, before, after)

    def _reset(self) -> float:
        return _WINDOW - self.clock.time() % _WINDOW

    # ---- V3 ----

    async def _customers(self, request: Request) -> Response:
        said = request.query_params
        if unknown := sorted(said.keys() - _CUSTOMER_FILTERS):
            return v3_error(422, f"The filter(s): {', '.join(unknown)} are not valid filter parameter(s).")
        sort = said.get("sort", "")
        if sort and sort not in _CUSTOMER_SORTS:
            return v3_error(422, f"The value {sort} is not a valid sort.")
        try:
            rows = list(self._chosen(said, sort))
            return paged(rows, said)
        except ValueError as error:
            return v3_error(422, str(error))

    def _chosen(self, said: Mapping[str, str], sort: str) -> Iterator[Row]:
        table = self.tables["contact"]
        column, _, way = (sort or "date_created:asc").partition(":")
        bounds = {name: _spans(said, f"{name}:min", f"{name}:max") for name in ("date_created", "date_modified")}
        if "email:in" in said or "id:in" in said:
            if "email:in" in said:
                few = table.having("email", [each.strip().lower() for each in said["email:in"].split(",")])
            else:
                few = [row for id in dict.fromkeys(said["id:in"].split(",")) if (row := table.get(id)) is not None]
            rows: Iterator[Row] = iter(sorted(few, key=lambda row: row[column], reverse=way == "desc"))
        else:
            rows = _scattered(table, column, bounds.get(column, (None, None)), descending=way == "desc", parse=millis)
        phones = set(said["phone:in"].split(",")) if "phone:in" in said else None
        with_attributes = "attributes" in said.get("include", "").split(",")
        for row in rows:
            if phones is not None and row["phone"] not in phones:
                continue
            if all(_between(millis(row[name]), *bound) for name, bound in bounds.items()):
                yield row if with_attributes else {name: value for name, value in row.items() if name != "attributes"}

    async def _create(self, request: Request) -> Response:
        bodies = _customers_in(await request.body())
        if isinstance(bodies, Response):
            return bodies
        rows: list[Row] = []
        for body in bodies:
            problem = self._problem(body, ("email", "first_name", "last_name"), rows)
            if problem is not None:
                return v3_error(422, "Create customers failed.", {".customer_create": problem})
            self._last += 1
            now = iso(self.clock.time() * 1000)
            blank = self._customer(Profile(self._last, 0, "", "", None, (), None, "", "US", 0, 0, 0, 0, 0))
            told = {name: value for name, value in body.items() if name in blank and name != "attributes"}
            attributes = [
                {**each, "customer_id": self._last, "id": self._last * 2 + nth}
                for nth, each in enumerate(body.get("attributes", ()))
            ]
            rows.append(
                {
                    **blank,
                    **told,
                    "company": body.get("company", ""),
                    "id": self._last,
                    "date_created": now,
                    "date_modified": now,
                    "attributes": attributes,
                }
            )
        for row in rows:
            self.tables["contact"].put(str(row["id"]), row)
        return json_response({"data": rows, "meta": {}})

    async def _update(self, request: Request) -> Response:
        bodies = _customers_in(await request.body())
        if isinstance(bodies, Response):
            return bodies
        rows: list[Row] = []
        for body in bodies:
            row = self.tables["contact"].get(str(body.get("id")))
            if row is None:
                continue  # what is not there is left out of the answer
            problem = self._problem(body, (), rows)
            if problem is not None:
                return v3_error(422, "Update customers failed.", {".customer_update": problem})
            rows.append(
                {
                    **row,
                    **{name: value for name, value in body.items() if name != "attributes"},
                    "date_modified": iso(self.clock.time() * 1000),
                }
            )
        for row in rows:
            self.tables["contact"].put(str(row["id"]), row)
        return json_response({"data": rows, "meta": {}})

    def _problem(self, body: Row, required: tuple[str, ...], others: list[Row]) -> str | None:
        """Return why the vendor would not take a customer, None when it would."""
        if missing := [name for name in required if not body.get(name)]:
            return f"{missing[0]} is required"
        if "email" not in body:
            return None
        email = str(body["email"]).lower()
        if "@" not in email:
            return "invalid email"
        taken = [*self.tables["contact"].having("email", [email]), *(row for row in others if row["email"].lower() == email)]
        return "email already in use" if any(str(row["id"]) != str(body.get("id")) for row in taken) else None

    async def _remove(self, request: Request) -> Response:
        ids = request.query_params.get("id:in", "")
        if not ids:
            return v3_error(422, "The filter id:in is required.")
        for id in ids.split(","):
            self.delete("contact", id)
        return Response(status_code=204)

    async def _set_attributes(self, request: Request) -> Response:
        bodies = _customers_in(await request.body())
        if isinstance(bodies, Response):
            return bodies
        known = {id for id, _, _ in _ATTRIBUTES}
        if any(
            each.get("attribute_id") not in known or self.tables["contact"].get(str(each.get("customer_id"))) is None
            for each in bodies
        ):
            return v3_error(422, "Update attribute values failed.", {".attribute_value": "attribute or customer not found"})
        for each in bodies:
            row = self.tables["contact"].get(str(each["customer_id"])) or {}
            others = [one for one in row["attributes"] if one["attribute_id"] != each["attribute_id"]]
            value = {
                "attribute_id": each["attribute_id"],
                "attribute_value": each["value"],
                "customer_id": row["id"],
                "id": row["id"] * 2 + each["attribute_id"] - 1,
            }
            self.tables["contact"].put(
                str(row["id"]), {**row, "attributes": [*others, value]}
            )  # date_modified stays: the vendor says so
        return json_response({"data": bodies, "meta": {}})

    async def _attributes(self, request: Request) -> Response:
        rows = [
            {
                "id": id,
                "name": name,
                "type": type,
                "date_created": "2025-01-01T00:00:00Z",
                "date_modified": "2025-01-01T00:00:00Z",
            }
            for id, name, type in _ATTRIBUTES
        ]
        return paged(rows, request.query_params)

    # ---- V2 ----

    async def _store(self, _: Request) -> Response:
        return json_response(
            {"id": STORE, "name": "Demo store", "domain": "demo.example", "currency": "USD", "plan_name": "Standard"}
        )

    async def _orders(self, request: Request) -> Response:
        said = request.query_params
        if unknown := sorted(said.keys() - _ORDER_FILTERS):
            return v2_error(400, f"The field '{unknown[0]}' is not supported by this resource.")
        column, _, way = said.get("sort", "id:asc").partition(":")
        if column not in _ORDER_SORTS or way not in {"asc", "desc", ""}:
            return v2_error(400, f"The field 'sort' is invalid: '{said['sort']}'.")
        try:
            size, page = whole(said, "limit", DEFAULT, most=PAGE), whole(said, "page", 1)
            rows = list(islice(self._chosen_orders(said, column, way), (page - 1) * size, page * size))
        except ValueError as error:
            return v2_error(400, str(error))
        return json_response(rows) if rows else Response(status_code=204)

    def _chosen_orders(self, said: Mapping[str, str], column: str, way: str) -> Iterator[Row]:
        table = self.tables["order"]
        bounds = {name: _spans(said, f"min_{name}", f"max_{name}") for name in ("date_created", "date_modified")}
        if "customer_id" in said:
            found = table.having("customer", [int(said["customer_id"])])
            rows: Iterator[Row] = iter(sorted(found, key=lambda row: _sortable(row[column]), reverse=way == "desc"))
        else:
            walked = column if column in {"id", "date_created", "date_modified"} else "id"
            rows = _scattered(table, walked, bounds.get(walked, (None, None)), descending=way == "desc", parse=millis)
        for row in rows:
            if row["is_deleted"] or ("status_id" in said and str(row["status_id"]) != said["status_id"]):
                continue
            if "email" in said and (row["billing_address"]["email"] or "").lower() != said["email"].lower():
                continue
            if all(_between(millis(row[name]), *bound) for name, bound in bounds.items()):
                yield row

    async def _order_count(self, _: Request) -> Response:
        return json_response({"count": len(self.tables["order"]) - len(self._deleted), "statuses": []})

    async def _order_statuses(self, _: Request) -> Response:
        return json_response(
            [{"id": id, "name": name, "system_label": name, "custom_label": name} for id, name in enumerate(_STATUSES)]
        )

    async def _one_order(self, request: Request) -> Response:
        row = self.tables["order"].get(str(request.path_params["id"]))
        return json_response(row) if row is not None else v2_error(404, "The requested resource was not found.")

    async def _products(self, request: Request) -> Response:
        id = request.path_params["id"]
        order = self.tables["order"].entry(str(id))
        if order is None:
            return v2_error(404, "The requested resource was not found.")
        try:
            size = whole(request.query_params, "limit", DEFAULT, most=PAGE)
            start = (whole(request.query_params, "page", 1) - 1) * size
        except ValueError as error:
            return v2_error(400, str(error))
        items = [_item(order, nth, which, quantity) for nth, (which, quantity) in enumerate(order.items)][start : start + size]
        return json_response(items) if items else Response(status_code=204)

    # ---- rendering ----

    def _customer(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1].name if each.company else ""
        return {
            "id": each.id, "authentication": {"force_password_reset": False}, "company": company, "customer_group_id": 0, "email": _email(each),
            "first_name": each.given, "last_name": each.family, "notes": "", "phone": each.phone or "", "registration_ip_address": "", "tax_exempt_category": "",
            "date_created": iso(each.created), "date_modified": iso(each.updated), "accepts_product_review_abandoned_cart_emails": False,
            "channel_ids": None, "origin_channel_id": 1, "address_count": 0, "attribute_count": len(_ATTRIBUTES),
            "attributes": [
                {"attribute_id": 1, "attribute_value": ("gold", "silver")[each.number % 2], "customer_id": each.id, "id": each.id * 2},
                {"attribute_id": 2, "attribute_value": str(each.number), "customer_id": each.id, "id": each.id * 2 + 1},
            ],
        }  # fmt: skip

    def _order(self, each: Order) -> Row:
        total, status = f"{each.cents / 100:.4f}", _STATES[each.state]
        link = f"/stores/{STORE}/v2/orders/{each.id}/products"
        return {
            "id": each.id, "customer_id": each.contact, "date_created": rfc2822(each.created), "date_modified": rfc2822(each.updated), "date_shipped": "",
            "status_id": status, "status": _STATUSES[status], "custom_status": _STATUSES[status], "subtotal_ex_tax": total, "subtotal_inc_tax": total,
            "total_ex_tax": total, "total_inc_tax": total, "total_tax": "0.0000", "refunded_amount": total if status == 4 else "0.0000", "discount_amount": "0.0000",
            "coupon_discount": "0.0000", "shipping_cost_inc_tax": "0.0000", "items_total": sum(quantity for _, quantity in each.items), "items_shipped": 0,
            "payment_method": "Credit card", "payment_status": _PAYMENTS[each.state], "currency_code": each.currency, "default_currency_code": "USD",
            "billing_address": {"email": each.email or f"c{each.contact}@guest.example"}, "products": {"url": f"https://api.bigcommerce.com{link}", "resource": f"/orders/{each.id}/products"},
            "is_deleted": False, "order_source": "www", "channel_id": 1, "external_order_id": None, "external_id": None, "cart_id": None, "staff_notes": "", "customer_message": "",
        }  # fmt: skip


def _item(order: Order, nth: int, which: int, quantity: int) -> Row:
    sku, name, cents = PRODUCTS[which]
    price, total = f"{cents / 100:.4f}", f"{cents * quantity / 100:.4f}"
    return {
        "id": order.id * 10 + nth, "order_id": order.id, "product_id": which + 1, "variant_id": which + 1, "name": name, "sku": sku, "quantity": quantity,
        "quantity_shipped": 0, "quantity_refunded": 0, "base_price": price, "price_ex_tax": price, "price_inc_tax": price, "total_ex_tax": total, "total_inc_tax": total,
        "total_tax": "0.0000", "is_refunded": False, "refund_amount": "0.0000", "type": "physical", "product_options": [], "applied_discounts": [],
    }  # fmt: skip


def _email(each: Profile) -> str:
    return each.email or f"c{each.id}@guest.example"  # the vendor has no customer without one


def _scattered(
    table: Table[Any], column: str, bound: tuple[int | None, int | None], *, descending: bool, parse: Callable[[str], int]
) -> Iterator[Row]:
    """Walk from one edge to the other; rows of equal times in no order that the documents state, but always the same."""
    low, high = bound
    group: list[Row] = []
    for row in table.walk(column, start=high if descending else low, descending=descending):
        value = row[column] if not column.startswith("date_") else parse(row[column])
        if column.startswith("date_") and ((high is not None and value > high) or (low is not None and value < low)):
            break
        if group and group[0][column] != row[column]:
            yield from sorted(group, key=lambda each: each["id"] * 2_654_435_761 % 4_294_967_296)
            group = []
        group.append(row)
    yield from sorted(group, key=lambda each: each["id"] * 2_654_435_761 % 4_294_967_296)


def _spans(said: Mapping[str, str], low: str, high: str) -> tuple[int | None, int | None]:
    return (millis(said[low]) if low in said else None, millis(said[high]) if high in said else None)


def _between(value: int, low: int | None, high: int | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _sortable(value: Any) -> Any:
    return millis(value) if isinstance(value, str) and "," in value else (value is not None, value)


def _customers_in(raw: bytes) -> list[Row] | Response:
    """Return the rows of a write, or the refusal of a body that is none."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return v3_error(400, "Input is invalid.")
    if not isinstance(body, list) or not all(isinstance(each, dict) for each in body):
        return v3_error(422, "The body must be an array.")
    return v3_error(413, "Too many items.") if len(body) > _MOST else body
