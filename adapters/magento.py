"""Magento Open Source and Adobe Commerce, through REST.

Facts from the vendor's documents ("Search using REST endpoints", token-based and OAuth-based authentication, "Input limiting",
"Web API response"), its OpenAPI description of 2.4.8, and its published source: `PUT` of a customer sets what is named and
leaves the rest (Customer/Model/Plugin/UpdateCustomer), `fields=` turns an empty list into null (Webapi/Rest/Response/FieldsFilter),
a nonce is good once (Integration/Model/Oauth/Nonce/Generator). The base address ends with the store: `/rest/default`; customers that
are created belong to its website, and get the shop's welcome mail.

A page past the end repeats the last one, so pages go on by (time, id) or by id, and `total_count` tells the end. A list holds
deleted records no more, and nothing tells of them. Unverified: that an extension's times are UTC too; that `email` is compared
without regard to case (it is, under MySQL's default collation); the ACL names. A token that ended and a right that lacks are
refused in the same words. Bulk endpoints only queue and tell the outcome by and by, so each write is a call of its own.
"""

import asyncio
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Changes,
    Checked,
    Feed,
    FindKey,
    KindFacts,
    Live,
    Login,
    OAuth1,
    OrderField,
    Outcome,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Token,
    Window,
    Write,
    batches,
    undocumented,
)
from adapters.changes import scanned_changes
from adapters.writing import settled_one
from mapping.paths import steps
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

Filter = tuple[str, str, str]  # field, condition, value
Groups = Sequence[Sequence[Filter]]  # all groups hold, of each group one filter

_CUSTOMERS, _ORDERS = 300, 100  # rows a page: the cap where a shop limits input; orders are 10–50 kB before projection
_IDS = 200  # in one filter: keeps the request line below the 8 kB that web servers take
_VALUES = 50
# A checkout or an import bears the time of its beginning and is seen at its commit; two minutes is a long one.
_FEED = Feed(overlap=120.0)
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_COLUMNS: Mapping[OrderField, str] = {"created": "created_at", "updated": "updated_at"}
_PATHS: Mapping[Kind, str] = {"contact": "/V1/customers/search", "order": "/V1/orders"}
_ID: Mapping[Kind, str] = {"contact": "id", "order": "entity_id"}  # in a row; filters and sorts say entity_id of both
_CUSTOM = "custom_attributes"
_TYPES: Mapping[str, FieldType] = {
    "boolean": "BOOLEAN", "date": "DATE", "datetime": "DATETIME", "select": "PICKLIST", "multiselect": "MULTI_PICKLIST", "price": "MONEY",
}  # fmt: skip
_BACKENDS: Mapping[str, FieldType] = {"int": "NUMBER", "decimal": "NUMBER"}
# The vendor has metadata of customers only: these are from its description of an order.
_ORDER_FIELDS: Mapping[str, tuple[str, FieldType]] = {
    "increment_id": ("Order number", "TEXT"), "state": ("State", "PICKLIST"), "status": ("Status", "TEXT"), "created_at": ("Created at", "DATETIME"),
    "updated_at": ("Updated at", "DATETIME"), "grand_total": ("Grand total", "MONEY"), "total_paid": ("Total paid", "MONEY"),
    "total_refunded": ("Total refunded", "MONEY"), "total_due": ("Total due", "MONEY"), "tax_amount": ("Tax", "MONEY"),
    "shipping_amount": ("Shipping", "MONEY"), "discount_amount": ("Discount", "MONEY"), "order_currency_code": ("Currency", "TEXT"),
    "customer_id": ("Customer", "REFERENCE"), "customer_email": ("Customer e-mail", "TEXT"), "customer_is_guest": ("Guest", "BOOLEAN"),
    "total_qty_ordered": ("Quantity", "NUMBER"), "store_id": ("Store", "REFERENCE"),
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "created_at": {"path": "created_at", "convert": "datetime"}, "updated_at": {"path": "updated_at", "convert": "datetime"},
}  # fmt: skip


class Magento(Adapter):
    name = "magento"
    label = "Magento / Adobe Commerce"
    api_version = "V1"
    evidence = "E2"
    shown_by = "tests/adapters/test_magento_description.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth1": OAuth1(),
        "login": Login(token_path="/V1/integration/admin/token", lifetime=4 * 3600),  # refused to admins with two-factor login
        "token": Token(),  # an integration's, where the shop allows it as a bearer (off since 2.4.4)
    }
    windows = (Window(name="parallel", limit=4, kind="parallel"),)  # nothing is limited by the product; shops are small machines
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="customer", read_batch=_IDS, page=_CUSTOMERS, find=frozenset({"email"}), find_batch=_VALUES, orders=_BOTH,
            mapping={
                **_TIMES, "native_id": {"path": "id", "convert": "id"},
                "email": {"path": "email", "convert": "email"}, "emails": {"paths": ["email"], "convert": "emails"},
                "phone": {"path": "addresses[default_billing=True].telephone", "convert": "phone"},
                "phones": {
                    "paths": ["addresses[default_billing=True].telephone", "addresses[default_shipping=True].telephone"], "convert": "phones",
                },
                "given_name": {"path": "firstname", "convert": "text"}, "family_name": {"path": "lastname", "convert": "text"},
            },
            # No key is unique: an e-mail address is one customer's on each website. A phone number stands in a postal address,
            # which cannot be written without its street and city.
            writes={"email": "email", "given_name": "firstname", "family_name": "lastname"},
            verbs=frozenset({"create", "update", "delete"}), feed=_FEED,
        ),
        "order": KindFacts(
            object="order", read_batch=_ORDERS, page=_ORDERS, orders=_BOTH, feed=_FEED,
            mapping={
                **_TIMES, "native_id": {"path": "entity_id", "convert": "id"}, "number": {"path": "increment_id", "convert": "text"},
                "placed_at": {"path": "created_at", "convert": "datetime"},
                # By state: a status is the merchant's own word.
                "status": {
                    "path": "state", "default": "UNKNOWN",
                    "values": {
                        "new": "PENDING_PAYMENT", "pending_payment": "PENDING_PAYMENT", "processing": "OPEN", "complete": "COMPLETED",
                        "closed": "REFUNDED", "canceled": "CANCELLED", "holded": "ON_HOLD", "payment_review": "ON_HOLD",
                    },
                },
                "raw_status": {"paths": ["status", "state"], "convert": "first", "default": ""},
                "total": {"money": {"amount": "grand_total", "currency": "order_currency_code"}},
                "items": {
                    "over": "items",
                    "each": {
                        "sku": {"path": "sku", "convert": "text"}, "title": {"path": "name", "default": ""},
                        "quantity": {"path": "qty_ordered", "convert": "integer", "default": 0},
                        "price": {"money": {"amount": "price_incl_tax", "currency": "order_currency_code"}},
                    },
                },
                "contact_id": {"path": "customer_id", "convert": "id"},  # absent of a guest's order
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "order")})
    live = Live(
        feed="customers and orders by updated_at, asked for over and over",
        why=(
            "Magento Open Source has no webhooks; those of Adobe Commerce are of another product. Deleted records vanish from the lists"
            " without a trace, and a changed address need not move its customer's updated_at."
        ),
    )

    async def check(self, api: Api) -> Checked:
        stores = (await api.send(Request(operation="check", path="/V1/store/storeConfigs"))).json()
        first = min(stores, key=lambda store: int(store["id"]))
        return Checked(account=str(first["base_url"]))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Customers: their attributes, the shop's own ones as custom fields. Orders: what the vendor publishes of them."""
        if kind == "order":
            stores = (await api.send(Request(operation="order.describe", path="/V1/store/storeConfigs"))).json()
            first = min(stores, key=lambda store: int(store["id"]))
            fields = {
                name: FieldMeta(name=name, path=name, type=type, label=label) for name, (label, type) in _ORDER_FIELDS.items()
            }
            return ObjectType(name="order", id_path="entity_id", fields=fields, currency=first["base_currency_code"])
        found = (await api.send(Request(operation="contact.describe", path="/V1/attributeMetadata/customer"))).json()
        # What is not shown in the shop's own forms, such as the password's hash, is in no row either.
        fields = {each["attribute_code"]: _field(each) for each in found if each.get("user_defined") or each.get("visible")}
        return ObjectType(name="customer", fields=fields)

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 200) searches, of orders ceil(ids / 100)."""
        asked = (
            self._search(api, f"{kind}.read", kind, [[("entity_id", "in", ",".join(some))]], fields, size=len(some))
            for some in batches(ids, self.kinds[kind].read_batch)
        )
        found = {str(row[_ID[kind]]): row for rows, _ in await asyncio.gather(*asked) for row in rows}
        return [found.get(id) for id in ids]

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """One search for 200 customers, and one more for each 100 orders."""
        found: dict[str, list[Row]] = {}
        for some in await asyncio.gather(*(self._orders_of(api, some, fields, first) for some in batches(ids, _IDS))):
            found |= some
        return [Related(rows=found[id][:first], more=len(found[id]) > first) for id in ids]

    async def _orders_of(self, api: Api, ids: Sequence[str], fields: Sequence[str], first: int) -> dict[str, list[Row]]:
        """Return orders by customer, by id; a customer with more than `first` is not asked for any further."""
        found: dict[str, list[Row]] = {id: [] for id in ids}
        wanting, after = list(ids), "0"
        while wanting:
            groups = [[("customer_id", "in", ",".join(wanting))], [("entity_id", "gt", after)]]
            paths = [*fields, "customer_id", "entity_id"]
            rows, total = await self._search(api, "contact.order", "order", groups, paths, size=_ORDERS)
            for row in rows:
                found[str(row["customer_id"])].append(row)
            if len(rows) >= total:
                break
            after = str(rows[-1]["entity_id"])
            wanting = [id for id in wanting if len(found[id]) <= first]
        return found

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 50) searches. An address may be that of one customer on each website."""
        found = await asyncio.gather(*(self._by_email(api, some, fields) for some in batches(values, _VALUES)))
        return list({row["id"]: row for rows in found for row in rows}.values())

    async def _by_email(self, api: Api, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        found: list[Row] = []
        after = "0"
        while True:
            groups = [[("email", "in", ",".join(values))], [("entity_id", "gt", after)]]
            rows, total = await self._search(api, "contact.find", "contact", groups, [*fields, "id"], size=_CUSTOMERS)
            found += rows
            if len(rows) >= total:
                return found
            after = str(rows[-1]["id"])

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One search a page: sorted by (time, id), from a place on."""
        column = _COLUMNS[scan.order]
        groups: list[Sequence[Filter]] = []
        if scan.after is not None:
            at = scan.after.at
            beyond, edge, other = (
                ("lt", _second(at), _next_second(at)) if scan.descending else ("gt", _next_second(at), _second(at))
            )
            # (time, id) beyond the place, said as "all of any": no earlier, and later or a greater id.
            groups.append([(column, f"{beyond}eq", edge)])
            groups.append([(column, beyond, other), ("entity_id", beyond, scan.after.native_id)])
        if scan.updated_since is not None:
            groups.append([("updated_at", "gteq", _next_second(scan.updated_since))])
        if scan.updated_before is not None:
            groups.append([("updated_at", "lt", _next_second(scan.updated_before))])
        size = min(scan.size, self.kinds[kind].page)
        rows, total = await self._search(
            api, f"{kind}.scan", kind, groups, scan.fields, size=size, sort=column, descending=scan.descending
        )
        return Page(rows=rows, end=len(rows) >= total)

    async def _search(
        self, api: Api, operation: str, kind: Kind, groups: Groups, fields: Sequence[str], *, size: int, sort: str | None = None,
        descending: bool = False,
    ) -> tuple[list[Row], int]:  # fmt: skip
        """Return the first rows by `sort` and id, and how many there are in all."""
        way = "DESC" if descending else "ASC"
        params = [*_filters(groups), *_sorts([(column, way) for column in (sort, "entity_id") if column])]
        params += [("searchCriteria[pageSize]", str(size)), ("searchCriteria[currentPage]", "1")]
        params.append(("fields", f"items[{_projection(fields)}],total_count"))
        body = (await api.send(Request(operation=operation, path=_PATHS[kind], params=params))).json()
        if not isinstance(body, dict) or not isinstance(body.get("total_count"), int):
            raise ProtocolError("a search was answered without its count")
        rows: list[Row] = body.get("items") or []
        if body["total_count"] and not rows:
            raise ProtocolError("a search counted rows that it did not send")
        if kind == "order":
            return [_with_lines(row) for row in rows], body["total_count"]
        return await self._with_lists(api, rows, fields), body["total_count"]

    async def _with_lists(self, api: Api, rows: Sequence[Row], fields: Sequence[str]) -> list[Row]:
        """Take apart the values of attributes that hold several options ("21,23")."""
        if not any(path.startswith(_CUSTOM) for path in fields):
            return list(rows)
        known = (await api.described("contact")).fields
        several = {name for name, field in known.items() if field.type == "MULTI_PICKLIST"}

        def taken(each: Row) -> Row:
            value = each.get("value")
            apart = each["attribute_code"] in several and isinstance(value, str)
            return {**each, "value": [part for part in value.split(",") if part]} if apart and value is not None else each

        return [{**row, _CUSTOM: [taken(each) for each in row.get(_CUSTOM) or ()]} for row in rows]

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        """One search for each 300 customers, or 100 orders, that changed."""
        return await scanned_changes(self, api, kind, cursor, fields, now=now)

    # ---- writing ----

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call a customer."""
        if kind != "contact":
            raise UnsupportedError("orders are written by the shop itself")
        return list(await asyncio.gather(*(self._written(api, each) for each in writes)))

    async def _written(self, api: Api, write: Write) -> Outcome:
        outcome = await settled_one(
            write, lambda _: self._deleted(api, write) if write.verb == "delete" else self._saved(api, write)
        )
        named = outcome.error.upstream_code if isinstance(outcome.error, RejectedError) else None
        if named is None:
            return outcome
        return Outcome(state=outcome.state, native_id=write.native_id, error=outcome.error, fields=tuple(named.split(",")))

    async def _saved(self, api: Api, write: Write) -> Outcome:
        customer = {**write.row, **({"id": int(write.native_id)} if write.native_id else {})}
        if _CUSTOM in customer:
            customer[_CUSTOM] = [{**each, "value": _as_text(each["value"])} for each in customer[_CUSTOM]]
        path = f"/V1/customers/{write.native_id}" if write.native_id else "/V1/customers"
        answer = await api.send(
            Request(
                operation=f"contact.{write.verb}", method="PUT" if write.native_id else "POST", path=path, json={"customer": customer},
                safe=write.repeatable,
            )
        )  # fmt: skip
        return Outcome(state="APPLIED", native_id=str(answer.json()["id"]), created=write.verb == "create")

    async def _deleted(self, api: Api, write: Write) -> Outcome:
        path = f"/V1/customers/{write.native_id}"
        try:
            await api.send(Request(operation="contact.delete", method="DELETE", path=path, safe=write.repeatable))
        except RejectedError as error:
            # By the field it names: a path that leads nowhere is a 404 too.
            if error.status == 404 and error.upstream_code == "customerId":
                return Outcome(state="UNCHANGED", native_id=write.native_id)
            raise
        return Outcome(state="APPLIED", native_id=write.native_id)

    # ---- answers ----

    def classify(self, response: Response) -> SourceError | None:
        """Magento has no codes: what stands for one is the names that a refusal's parameters hold."""
        if response.status < 300:
            return None
        body = response.json_or_none()
        facts: dict[str, Any] = {"status": response.status, "upstream_code": ",".join(_named(body)) or None}
        if response.status == 429:
            return ThrottledError("too many calls", retry_after=response.retry_after, **facts)
        if response.status == 401:
            return TokenExpiredError("the credentials are not accepted, or lack a right", **facts)
        if response.status == 403:
            return SourceForbiddenError("not allowed", **facts)
        if response.status >= 500:
            return UnavailableError("not available", retry_after=response.retry_after, **facts)
        if not isinstance(body, dict):
            return undocumented(response)
        # Messages come untranslated, with placeholders for what was sent.
        if response.status == 400 and "same email" in str(body.get("message")):
            return DuplicateError("another customer of the website has this e-mail address", status=400, upstream_code="email")
        return RejectedError(f"refused with {response.status}{''.join(f', {name}' for name in _named(body))}", **facts)

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "customer/index/edit/id", "order": "sales/order/view/order_id"}[kind]
        return f"{self.config.web_url}/{place}/{native_id}" if self.config.web_url else None


def _filters(groups: Groups) -> Iterator[tuple[str, str]]:
    for at, group in enumerate(groups):
        for nth, (field, condition, value) in enumerate(group):
            place = f"searchCriteria[filterGroups][{at}][filters][{nth}]"
            yield from ((f"{place}[field]", field), (f"{place}[value]", value), (f"{place}[conditionType]", condition))


def _sorts(sorts: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for at, (field, way) in enumerate(sorts):
        place = f"searchCriteria[sortOrders][{at}]"
        yield from ((f"{place}[field]", field), (f"{place}[direction]", way))


def _projection(paths: Sequence[str]) -> str:
    """a, b.c, d[e=f].g → a,b[c],d[e,g]"""
    tree: dict[str, Any] = {}
    for path in paths:
        if path == "items.order_currency_code":  # told once, and put at each item here
            path = "order_currency_code"
        place = tree
        for name, selector in steps(path):
            place = place.setdefault(name, {})
            if selector is not None:
                place[selector[0]] = {}
    if "items" in tree:
        tree["items"] |= {"parent_item_id": {}, "price": {}}
    return _spelled(tree)


def _spelled(tree: Mapping[str, Any]) -> str:
    return ",".join(f"{name}[{_spelled(below)}]" if below else name for name, below in sorted(tree.items()))


def _with_lines(row: Row) -> Row:
    """Leave out the rows of variants, which stand below the row that has the price, and tell each item's currency."""
    if not row.get("items"):
        return row
    currency = row.get("order_currency_code")
    lines = [each for each in row["items"] if not each.get("parent_item_id")]
    return {**row, "items": [{"price_incl_tax": each.get("price"), **each, "order_currency_code": currency} for each in lines]}


def _field(each: Row) -> FieldMeta:
    code, custom = each["attribute_code"], bool(each.get("user_defined"))
    options = {
        str(option["value"]): option["label"] for option in each.get("options") or () if option.get("value") not in (None, "")
    }
    kind = _TYPES.get(each.get("frontend_input") or "") or _BACKENDS.get(each.get("backend_type") or "", "TEXT")
    return FieldMeta(
        name=code, path=f"{_CUSTOM}[attribute_code={code}].value" if custom else code, type=kind, label=each.get("frontend_label") or code,
        custom=custom, options=options,
    )  # fmt: skip


def _named(body: Any) -> list[str]:
    """Return the fields (or rights) that a refusal names, and nothing else of what it holds."""
    if not isinstance(body, dict):
        return []
    errors = body.get("errors")
    found = []
    for each in (body, *(errors if isinstance(errors, list) else ())):
        parameters = each.get("parameters") if isinstance(each, dict) else None
        if isinstance(parameters, dict):
            found += [str(parameters[name]) for name in ("fieldName", "resources") if name in parameters]
    return [name for name in dict.fromkeys(found) if re.fullmatch(r"[\w:]+", name)]


def _as_text(value: Any) -> str:
    """Values of attributes are text: "1", "21,23", "" to clear."""
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(_as_text(each) for each in value) if isinstance(value, list) else "" if value is None else str(value)


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _next_second(moment: datetime) -> str:
    """The first whole second that is not before: Magento counts no fractions."""
    return _second(datetime.fromtimestamp(math.ceil(moment.timestamp()), tz=UTC))
