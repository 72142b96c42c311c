"""What Shopify's customers and orders can be searched by: how each field is compared, and what of a search is passed over."""

from collections.abc import Callable, Mapping
from typing import Any

from model.keys import normal_phone
from sandbox import shopify_query as search
from sandbox.shopify_pages import PAGE
from sandbox.table import Row


def _called(value: Any) -> Any:
    return value(None) if callable(value) else value


def _last_orders(row: Row) -> list[str]:
    return [order["createdAt"] for order in row["orders"](None, first=PAGE)["nodes"]]


_Taken = tuple[search.Shape, Callable[[Row], Any]]
_SEARCHABLE: Mapping[str, Mapping[str, _Taken]] = {
    "customers": {
        "": ("text", lambda row: [row["displayName"], row["firstName"], row["lastName"], email_of(row)]),
        "id": ("number", lambda row: row["legacyResourceId"]), "email": ("text", lambda row: email_of(row)),
        "first_name": ("text", lambda row: row["firstName"]), "last_name": ("text", lambda row: row["lastName"]),
        "phone": ("text", lambda row: (row["defaultPhoneNumber"] or {}).get("phoneNumber")),
        "country": ("text", lambda row: (row["defaultAddress"] or {}).get("country")), "state": ("text", lambda row: row["state"]),
        "tag": ("text", lambda row: row["tags"]), "tag_not": ("text", lambda row: row["tags"]),
        "accepts_marketing": ("flag", lambda row: (row["defaultEmailAddress"] or {}).get("marketingState") == "SUBSCRIBED"),
        "orders_count": ("number", lambda row: _called(row["numberOfOrders"])), "total_spent": ("number", lambda row: _called(row["amountSpent"])["amount"]),
        "customer_date": ("time", lambda row: row["createdAt"]), "updated_at": ("time", lambda row: row["updatedAt"]), "order_date": ("time", _last_orders),
    },
    "orders": {
        "": ("text", lambda row: [row["name"], row["email"]]),
        "id": ("number", lambda row: row["legacyResourceId"]), "name": ("text", lambda row: row["name"]), "email": ("text", lambda row: email_of(row)),
        "customer_id": ("number", lambda row: row["customerId"]), "sku": ("text", lambda row: [line["sku"] for line in row["lineItems"](None, first=PAGE)["nodes"]]),
        "financial_status": ("text", lambda row: row["displayFinancialStatus"]), "fulfillment_status": ("text", lambda row: row["displayFulfillmentStatus"]),
        "status": ("text", lambda row: _order_states(row)), "test": ("flag", lambda row: row["test"]), "tag": ("text", lambda row: row["tags"]), "tag_not": ("text", lambda row: row["tags"]),
        "current_total_price": ("number", lambda row: row["currentTotalPriceSet"]["shopMoney"]["amount"]),
        "created_at": ("time", lambda row: row["createdAt"]), "updated_at": ("time", lambda row: row["updatedAt"]), "processed_at": ("time", lambda row: row["processedAt"]),
        # The store has none of these, so nothing is found by them.
        **{name: ("text", lambda row: None) for name in ("cart_token", "channel", "discount_code", "location_id", "po_number", "source_identifier")},
    },
}  # fmt: skip


def _order_states(row: Row) -> list[str]:
    states = ["closed"] if row["closed"] else ["not_closed"]
    return [*states, "cancelled"] if row["cancelledAt"] else states if row["closed"] else [*states, "open"]


def tests_of(kind: str, expression: search.Expression) -> tuple[dict[search.Term, Callable[[Row], bool]], list[Row]]:
    """Return the test of each term that is understood, and a warning for each that is not."""
    tests: dict[search.Term, Callable[[Row], bool]] = {}
    warnings: list[Row] = []
    for term in dict.fromkeys(search.terms(expression)):
        taken = _SEARCHABLE[kind].get(term.field)
        if taken is None:
            warnings.append({"field": term.field, "message": "Invalid search field for this query.", "code": "invalid_field"})
            continue
        shape, value = taken
        try:
            holds = search.compared(_spelled(term), shape)
        except ValueError:
            warnings.append({"field": term.field, "message": f"Input `{term.value}` is not valid.", "code": "invalid_value"})
            continue
        negated = term.field.endswith("_not")
        tests[term] = lambda row, holds=holds, value=value, negated=negated: holds(value(row)) is not negated  # type: ignore[misc]
    return tests, warnings


def fits(expression: search.Expression, tests: Mapping[search.Term, Callable[[Row], bool]], row: Row) -> bool:
    return search.holds(expression, lambda term: term not in tests or tests[term](row))


def _spelled(term: search.Term) -> search.Term:
    """Return the term as the store keeps its value: phones in E.164; free words match the start of a word."""
    if term.field == "phone" and term.value != "*":
        return search.Term(term.field, term.operator, phone_of(term.value) or term.value)
    if term.field == "" and not term.value.endswith("*"):
        return search.Term(term.field, term.operator, f"{term.value}*")
    return term


def email_of(row: Row) -> str | None:
    found = (row.get("defaultEmailAddress") or {}).get("emailAddress") or row.get("email")
    return found.lower() if isinstance(found, str) else None


def phone_of(phone: str | None) -> str | None:
    return normal_phone(phone, "US") if phone else None
