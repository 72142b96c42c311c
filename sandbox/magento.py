"""Magento's dialect: `searchCriteria`, UTC times without a zone, messages with placeholders, customers of websites.

Written from the vendor's documents, its OpenAPI description of 2.4.8 and its published source (Customer/Model, Framework/Webapi).
What they leave open is answered so: a property that a customer does not have is refused; the hosting, not the product, throttles,
with a 429 in HTML; deleting a customer leaves their orders without a `customer_id`, as the foreign key says.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, Endpoint, Tokens, json_response
from sandbox.magento_oauth import Integration, Signatures
from sandbox.magento_query import Columns, QueryError, millis, parsed, projected, searched
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import PRODUCTS, Order, Profile, World

ADMIN, PASSWORD = "c360-admin", "magento-demo-1"
INTEGRATION = Integration("magentoconsumerkey00000000000000", "magentoconsumersecret00000000000", "magentoaccesstoken00000000000000", "magentoaccesssecret0000000000000")  # fmt: skip
STORES = {"default": 1, "second": 2, "all": 0}  # store code → website and store, one store each
_TOKEN_LIFE = 4 * 3600.0
_TAX = 1.2
_STATES = (
    ("processing", "processing"), ("processing", "partially_shipped"), ("complete", "complete"), ("canceled", "canceled"), ("closed", "closed"),
    ("complete", "partly_refunded"), ("pending_payment", "pending_payment"),
)  # fmt: skip  # the population's seven states; statuses may be the merchant's own
_HELD = ("holded", "fraud_check")
_TIERS, _INTERESTS = {"11": "Gold", "12": "Silver", "13": "Bronze"}, {"21": "Garden", "22": "Lighting", "23": "Office"}
PROPERTIES = frozenset({
    "id", "group_id", "default_billing", "default_shipping", "confirmation", "created_at", "updated_at", "created_in", "dob", "email", "firstname",
    "lastname", "middlename", "prefix", "suffix", "gender", "store_id", "taxvat", "website_id", "addresses", "disable_auto_group_change",
    "extension_attributes", "custom_attributes",
})  # fmt: skip
_KEPT = frozenset({"id", "created_at", "updated_at", "created_in"})  # what a caller says of these is not heeded
_REQUIRED = '"%fieldName" is required. Enter and try again.'
_MISSING = "No such entity with %fieldName = %fieldValue"
_TAKEN = "A customer with the same email address already exists in an associated website."
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_CUSTOMERS = Columns(
    "id",
    {
        "entity_id": "number", "created_at": "time", "updated_at": "time", "email": "text", "firstname": "text", "lastname": "text", "group_id": "number",
        "website_id": "number", "store_id": "number",
    },
    {"entity_id": "id"},
)  # fmt: skip
_ORDERS = Columns(
    "entity_id",
    {
        "entity_id": "number", "created_at": "time", "updated_at": "time", "customer_id": "number", "customer_email": "text", "increment_id": "text",
        "state": "text", "status": "text", "store_id": "number", "customer_is_guest": "number", "grand_total": "number",
    },
)  # fmt: skip


class Magento(Dialect):
    """One shop with two websites of one store each.

    Attributes:
        limited: input limits are switched on (they are off by default).
    """

    name = "magento"
    objects = {"contact": "customer", "order": "order"}
    base_path = "/rest/default"

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        super().__init__(world, clock, base_url=base_url)
        self.limited = False
        self.tokens = Tokens(clock, lifetime=_TOKEN_LIFE, rotate=False)
        self._signatures = Signatures(INTEGRATION)
        self._next = 950_000_000
        customers = {str(each.id): each for each in world.profiles[self.name] if not each.deleted}
        orders = {str(each.id): each for each in world.orders[self.name]}
        self.tables = {
            "contact": Table(
                customers, self._customer, indexes={"email": Column(lambda each: _email(each).lower(), lambda row: row["email"].lower())},
                orders=_orders("id"),
            ),
            "order": Table(
                orders, self._order,
                indexes={
                    "customer_id": Column(lambda each: str(each.contact), lambda row: str(row.get("customer_id", ""))),
                    "customer_email": Column(lambda each: (each.email or "").lower(), lambda row: row.get("customer_email", "").lower()),
                },
                orders=_orders("entity_id"),
            ),
        }  # fmt: skip

    # ---- surroundings ----

    def demo_auth(self) -> Mapping[str, str]:
        return {"scheme": "login", "username": ADMIN, "password": PASSWORD}

    def endpoints(self) -> list[Endpoint]:
        root = "/rest/{store}/V1"
        return [
            Endpoint("POST", f"{root}/integration/admin/token", self._token, open=True),
            Endpoint("GET", f"{root}/store/storeConfigs", self._stores),
            Endpoint("GET", f"{root}/attributeMetadata/customer", self._attributes),
            Endpoint("GET", f"{root}/customers/search", self._customers),
            Endpoint("POST", f"{root}/customers", self._create),
            Endpoint("GET", f"{root}/customers/{{id:int}}", self._one_customer),
            Endpoint("PUT", f"{root}/customers/{{id:int}}", self._update),
            Endpoint("DELETE", f"{root}/customers/{{id:int}}", self._delete),
            Endpoint("GET", f"{root}/orders", self._all_orders),
            Endpoint("GET", f"{root}/orders/{{id:int}}", self._one_order),
        ]

    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        if request.path_params["store"] not in STORES:
            return _refused(404, "The store that was requested wasn't found. Verify the store and try again.")
        if endpoint.open:
            return None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "oauth":
            fault = self._signatures.fault(request, self.clock.time() + self.skew)
            return _refused(fault[0], fault[1], **fault[2]) if fault else None
        # An integration's token alone is refused as a bearer since 2.4.4.
        if scheme.lower() == "bearer" and self.tokens is not None and self.tokens.valid(token) is not None:
            return None
        return _refused(401, "The consumer isn't authorized to access %resources.", resources=_resource(endpoint))

    def throttled(self, seconds: float) -> Response:
        headers = {"retry-after": str(max(round(seconds), 1))}
        return HTMLResponse("<html><head><title>429 Too Many Requests</title></head></html>", 429, headers)

    def exhausted(self) -> Response:
        return HTMLResponse("<html><head><title>429 Too Many Requests</title></head></html>", 429)

    def unknown(self, request: Request) -> Response:
        return _refused(404, "Request does not match any route.")

    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        row = self.tables[kind].get(native_id)
        if row is None:
            return None
        row = {**row, **fields, "updated_at": self._now()}
        self.tables[kind].put(native_id, row)
        return row

    def delete(self, kind: str, native_id: str) -> bool:
        if self.tables[kind].get(native_id) is None:
            return False
        self.tables[kind].remove(native_id)
        if kind == "contact":
            for row in self.tables["order"].having("customer_id", [native_id]):
                del row["customer_id"]
                self.tables["order"].put(str(row["entity_id"]), row)
        return True

    def _now(self) -> str:
        return _time(self.clock.time() * 1000)

    # ---- what is not a record ----

    async def _token(self, request: Request) -> Response:
        body = await _json(request)
        for name in ("username", "password"):
            if not isinstance(body, dict) or not body.get(name):
                return _refused(400, _REQUIRED, fieldName=name)
        if (body["username"], body["password"]) != (ADMIN, PASSWORD):
            return _refused(
                401, "The account sign-in was incorrect or your account is disabled temporarily. Please wait and try again later."
            )
        assert self.tokens is not None
        return json_response(self.tokens.issue(ADMIN))

    async def _stores(self, _: Request) -> Response:
        url = "https://shop.example/"
        return json_response([
            {
                "id": id, "code": code, "website_id": id, "locale": "en_US", "base_currency_code": "USD", "default_display_currency_code": "USD",
                "timezone": "America/New_York", "weight_unit": "lbs", "base_url": url, "base_link_url": url, "base_static_url": f"{url}static/",
                "base_media_url": f"{url}media/", "secure_base_url": url, "secure_base_link_url": url, "secure_base_static_url": f"{url}static/",
                "secure_base_media_url": f"{url}media/",
            }
            for code, id in STORES.items() if id
        ])  # fmt: skip

    async def _attributes(self, _: Request) -> Response:
        system = (
            ("email", "Email", "text", "static"), ("firstname", "First Name", "text", "static"), ("lastname", "Last Name", "text", "static"),
            ("created_at", "Created At", "date", "static"), ("dob", "Date of Birth", "date", "static"), ("taxvat", "Tax/VAT Number", "text", "static"),
        )  # fmt: skip
        own: tuple[tuple[str, str, str, str, Mapping[str, str]], ...] = (
            ("loyalty_tier", "Loyalty tier", "select", "int", _TIERS), ("interests", "Interests", "multiselect", "varchar", _INTERESTS),
            ("visits", "Visits", "text", "int", {}), ("gift_wrap", "Likes gift wrap", "boolean", "int", {"1": "Yes", "0": "No"}),
        )  # fmt: skip
        return json_response([
            *(_attribute(*each, user_defined=False) for each in system),
            {**_attribute("password_hash", "Password Hash", "hidden", "static", user_defined=False), "visible": False, "frontend_label": ""},
            *(_attribute(*each, user_defined=True) for each in own),
        ])  # fmt: skip

    # ---- reading ----

    async def _customers(self, request: Request) -> Response:
        return self._search(request, "contact", _CUSTOMERS)

    async def _all_orders(self, request: Request) -> Response:
        return self._search(request, "order", _ORDERS)

    def _search(self, request: Request, kind: str, columns: Columns) -> Response:
        try:
            criteria = parsed(request.query_params.multi_items(), limited=self.limited)
            rows, total = searched(self.tables[kind], columns, criteria)
        except QueryError as error:
            return _refused(400, error.message, **error.parameters)
        except (ValueError, TypeError):  # what the database makes of a value that is none
            return _internal()
        body = {"items": rows, "search_criteria": criteria.echoed(), "total_count": total}
        return _trimmed(request, body)

    async def _one_customer(self, request: Request) -> Response:
        id = request.path_params["id"]
        row = self.tables["contact"].get(str(id))
        return _trimmed(request, row) if row is not None else _refused(404, _MISSING, fieldName="customerId", fieldValue=id)

    async def _one_order(self, request: Request) -> Response:
        row = self.tables["order"].get(str(request.path_params["id"]))
        if row is None:
            return _refused(404, "The entity that was requested doesn't exist. Verify the entity and try again.")
        return _trimmed(request, row)

    # ---- writing ----

    async def _create(self, request: Request) -> Response:
        said = _customer_in(await _json(request))
        if isinstance(said, Response):
            return said
        place = STORES[request.path_params["store"]]
        row = {"group_id": 1, "store_id": place, "website_id": place, "addresses": [], "custom_attributes": [], **_own(said)}
        if (refusal := self._invalid(row, None)) is not None:
            return refusal
        self._next += 1
        now = self._now()
        row |= {
            "id": self._next,
            "created_at": now,
            "updated_at": now,
            "created_in": "Default Store View",
            "disable_auto_group_change": 0,
        }
        row["extension_attributes"] = {"is_subscribed": False}
        return json_response(self._saved(row, said))

    async def _update(self, request: Request) -> Response:
        id = request.path_params["id"]
        before = self.tables["contact"].get(str(id))
        if before is None:
            return _refused(404, _MISSING, fieldName="customerId", fieldValue=id)
        said = _customer_in(await _json(request))
        if isinstance(said, Response):
            return said
        row = {**before, **_own(said), "updated_at": self._now()}
        if (refusal := self._invalid(row, id)) is not None:
            return refusal
        return json_response(self._saved(row, said))

    async def _delete(self, request: Request) -> Response:
        id = request.path_params["id"]
        if not self.delete("contact", str(id)):
            return _refused(404, _MISSING, fieldName="customerId", fieldValue=id)
        return json_response(True)

    def _saved(self, row: Row, said: Row) -> Row:
        """Keep a row: attributes that are not said stay, empty ones go, unknown ones are not heeded."""
        known = ("loyalty_tier", "interests", "visits", "gift_wrap")
        values = {each["attribute_code"]: each["value"] for each in row.get("custom_attributes") or ()}
        values |= {each["attribute_code"]: each.get("value") for each in said.get("custom_attributes") or ()}
        kept = [{"attribute_code": code, "value": values[code]} for code in known if values.get(code) not in (None, "")]
        row = {name: value for name, value in row.items() if value is not None} | {"custom_attributes": kept}
        self.tables["contact"].put(str(row["id"]), row)
        return row

    def _invalid(self, row: Row, id: int | None) -> Response | None:
        faults: list[tuple[str, Row]] = [
            (_REQUIRED, {"fieldName": name}) for name in ("firstname", "lastname") if not str(row.get(name) or "").strip()
        ]
        if not _EMAIL.fullmatch(str(row.get("email") or "")):
            said = {"fieldName": "email", "value": row.get("email")}
            faults.append(('Invalid value of "%value" provided for the %fieldName field.', said))
        if len(faults) == 1:
            return _refused(400, faults[0][0], **faults[0][1])
        if faults:
            errors = [{"message": message, "parameters": parameters} for message, parameters in faults]
            return json_response({"message": "One or more input exceptions have occurred.", "errors": errors}, status=400)
        others = self.tables["contact"].having("email", [row["email"].lower()])
        if any(each["id"] != id and each["website_id"] == row["website_id"] for each in others):
            return _refused(400, _TAKEN)
        return None

    # ---- rendering ----

    def _customer(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1].name if each.company else None
        row: Row = {
            "id": each.id, "group_id": 1, "created_at": _time(each.created), "updated_at": _time(each.updated), "created_in": "Default Store View",
            "email": _email(each), "firstname": each.given, "lastname": each.family, "store_id": 1, "website_id": 1, "addresses": [],
            "disable_auto_group_change": 0, "extension_attributes": {"is_subscribed": each.number % 3 == 0},
            "custom_attributes": [
                {"attribute_code": "loyalty_tier", "value": ("11", "12", "13")[each.number % 3]},
                {"attribute_code": "interests", "value": ("21", "21,23", "22,23")[each.number % 3]},
                {"attribute_code": "visits", "value": str(each.number)}, {"attribute_code": "gift_wrap", "value": str(each.number % 2)},
            ],
        }  # fmt: skip
        if each.phone:
            address: Row = {
                "id": each.id, "customer_id": each.id, "region": {"region_code": None, "region": None, "region_id": 0}, "region_id": 0,
                "country_id": each.country, "street": ["1 Main Street"], "telephone": each.phone, "postcode": "10001", "city": "Springfield",
                "firstname": each.given, "lastname": each.family, "default_shipping": True, "default_billing": True,
            }  # fmt: skip
            row |= {"default_billing": str(each.id), "default_shipping": str(each.id)}
            row["addresses"] = [address | ({"company": company} if company else {})]
        return row

    def _order(self, each: Order) -> Row:
        state, status = _HELD if each.state == 0 and each.number % 5 == 0 else _STATES[each.state]
        total, net = each.cents / 100, round(each.cents / 100 / _TAX, 2)
        paid = 0 if state in {"pending_payment", "canceled"} else total
        refunded = total if state == "closed" else round(total / 2, 2) if status == "partly_refunded" else 0
        return {
            "entity_id": each.id, "increment_id": f"{each.number:09d}", "state": state, "status": status, "created_at": _time(each.created),
            "updated_at": _time(each.updated), "store_id": 1, "customer_id": each.contact, "customer_email": each.email or f"c{each.contact}@guest.example",
            "customer_is_guest": 0, "customer_group_id": 1, "base_currency_code": "USD", "order_currency_code": each.currency, "base_grand_total": total,
            "grand_total": total, "subtotal": net, "subtotal_incl_tax": total, "tax_amount": round(total - net, 2), "discount_amount": 0,
            "shipping_amount": 0, "shipping_incl_tax": 0, "total_paid": paid, "total_refunded": refunded, "total_due": round(total - paid, 2),
            "total_qty_ordered": sum(quantity for _, quantity in each.items), "weight": 1, "items": [row for nth in range(len(each.items)) for row in _lines(each, nth)],
            "payment": {"account_status": None, "additional_information": ["Check / Money order"], "cc_last4": None, "method": "checkmo"},
            "status_histories": [], "extension_attributes": {"shipping_assignments": []},
        }  # fmt: skip


def _orders(id: str) -> dict[str, Column[Any]]:
    return {
        "entity_id": Column(lambda each: each.id, lambda row: row[id]),
        "created_at": Column(lambda each: each.created, lambda row: millis(row["created_at"])),
        "updated_at": Column(lambda each: each.updated, lambda row: millis(row["updated_at"])),
    }


def _lines(order: Order, nth: int) -> list[Row]:
    """One row an item; a configurable product has one with the price and, below it, one of its variant without."""
    which, quantity = order.items[nth]
    sku, name, cents = PRODUCTS[which]
    price, gross = round(cents / 100 / _TAX, 4), cents / 100
    line: Row = {
        "item_id": order.id * 10 + nth * 2, "order_id": order.id, "sku": sku, "name": name, "product_id": which + 1, "product_type": "simple",
        "qty_ordered": quantity, "qty_shipped": 0, "qty_refunded": 0, "qty_canceled": 0, "price": price, "price_incl_tax": gross,
        "row_total": round(price * quantity, 4), "row_total_incl_tax": round(gross * quantity, 4), "tax_amount": 0, "discount_amount": 0,
    }  # fmt: skip
    if sku != "S-4":
        return [line]
    below = {
        **line, "item_id": line["item_id"] + 1, "parent_item_id": line["item_id"], "price": 0, "price_incl_tax": 0, "row_total": 0, "row_total_incl_tax": 0,
        "parent_item": line,
    }  # fmt: skip
    return [{**line, "product_type": "configurable"}, below]


def _email(each: Profile) -> str:
    return each.email or f"c{each.id}@guest.example"  # the vendor has no customer without one


def _time(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _attribute(
    code: str, label: str, input: str, backend: str, options: Mapping[str, str] | None = None, *, user_defined: bool
) -> Row:
    choices = [{"label": " ", "value": ""}] if input == "select" else []
    choices += [{"label": text, "value": value} for value, text in (options or {}).items()]
    return {
        "attribute_code": code, "frontend_input": input, "input_filter": "", "store_label": label, "validation_rules": [], "multiline_count": 0,
        "visible": True, "required": code in {"email", "firstname", "lastname"}, "data_model": "", "options": choices, "frontend_class": "",
        "user_defined": user_defined, "sort_order": 0, "frontend_label": label, "note": "", "system": not user_defined, "backend_type": backend,
    }  # fmt: skip


def _resource(endpoint: Endpoint) -> str:
    if "/orders" in endpoint.path:
        return "Magento_Sales::actions_view"
    if "/store/" in endpoint.path:
        return "Magento_Backend::store"
    return "Magento_Customer::customer" if endpoint.method == "GET" else "Magento_Customer::manage"


async def _json(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        return None


def _customer_in(body: Any) -> Row | Response:
    said = body.get("customer") if isinstance(body, dict) else None
    if not isinstance(said, dict):
        return _refused(400, _REQUIRED, fieldName="customer")
    if unknown := sorted(said.keys() - PROPERTIES):
        return _refused(400, 'Property "%1" does not have accessor method in class "CustomerInterface".', **{"1": unknown[0]})
    if any(not isinstance(said.get(name), str | None) for name in ("email", "firstname", "lastname")):
        return _refused(
            400,
            'The "%1" value\'s type is invalid. The "%2" type was expected. Verify and try again.',
            **{"1": "customer", "2": "string"},
        )
    return said


def _own(said: Row) -> Row:
    """What a caller may set; attributes are merged by `_saved`."""
    return {name: value for name, value in said.items() if name not in _KEPT and name != "custom_attributes"}


def _trimmed(request: Request, body: Any) -> Response:
    fields = request.query_params.get("fields")
    return json_response(body if fields is None else projected(body, fields))


def _refused(status: int, message: str, **parameters: Any) -> Response:
    """Answer an error: values of `%1` come as a list, those of `%name` as an object."""
    body: Row = {"message": message}
    if parameters:
        body["parameters"] = list(parameters.values()) if "1" in parameters else parameters
    return json_response(body, status=status)


def _internal() -> Response:
    return _refused(500, "Internal Error. Details are available in Magento log file. Report ID: webapi-66a1f0c3b2d4e")
