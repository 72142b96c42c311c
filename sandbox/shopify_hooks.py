"""Shopify's webhooks: subscriptions of the app through GraphQL, and deliveries as Shopify makes them.

Written from shopify.dev ("Webhooks delivery structure", "Verify webhook deliveries", sample payloads, "Privacy law compliance") and the
published schema. Eight retries go over four hours, then a subscription is deleted; compliance topics, which stand in the app's
settings, stay. When a delivery was triggered is told in real time, since receivers compare it with theirs. No document tells the pauses between retries: these grow, and four hours they are in all. Loopback addresses may be
http here. Format XML, filters, and addresses of queues are not served; `includeFields` names fields of the body's first level.
"""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import orjson

from sandbox.clock import SandboxClock
from sandbox.shopify_pages import lines
from sandbox.table import Row
from sandbox.webhooks import Sending

_VERSION = "2026-07"
_WAITS = (60, 120, 300, 600, 1200, 2400, 3600, 6120)
_SHOP_TIME = timezone(timedelta(hours=-5))  # REST bodies tell times with the shop's offset
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


_BECAME = (  # topic, the field that changed, what to
    ("ORDERS_CANCELLED", "cancelledAt", None), ("ORDERS_PAID", "displayFinancialStatus", "PAID"), ("ORDERS_FULFILLED", "displayFulfillmentStatus", "FULFILLED"),
)  # fmt: skip


class Hooks:
    """
    Args:
        metafields: those that the shop defines: owner, namespace, key, and more.

    Attributes:
        secret: the app's client secret, with which deliveries are signed.
        compliance: where the compliance topics go, None: the app named no address.
    """

    def __init__(
        self,
        clock: SandboxClock,
        post: Callable[[Sending], None],
        *,
        shop: str,
        secret: str,
        metafields: Sequence[tuple[str, ...]],
    ) -> None:
        self._clock, self._post, self._shop, self._metafields = clock, post, shop, metafields
        self.secret = secret
        self.compliance: str | None = None
        self._subscriptions: dict[str, Row] = {}
        self._numbers = count(1_100_000_000)

    # ---- GraphQL ----

    def fields(self) -> Row:
        """Return the fields of the roots of queries and mutations."""
        return {
            "webhookSubscription": lambda _, id: self._subscriptions.get(id),
            "webhookSubscriptions": lambda _, **said: self._listed(**said),
            "webhookSubscriptionCreate": lambda _, topic, webhookSubscription: self._create(topic, webhookSubscription),
            "webhookSubscriptionDelete": lambda _, id: self._delete(id),
        }

    def _listed(
        self, *, first: int | None = None, after: str | None = None, callbackUrl: str | None = None, uri: str | None = None,
        topics: list[str] | None = None, reverse: bool = False, **_: Any,
    ) -> Row:  # fmt: skip
        address = uri or callbackUrl
        rows = [
            row
            for row in self._subscriptions.values()
            if address in {None, row["uri"]} and (topics is None or row["topic"] in topics)
        ]
        return lines(rows, first, after, reverse)

    def _create(self, topic: str, said: Row) -> Row:
        uri = said.get("uri") or said.get("callbackUrl") or ""
        place = ["webhookSubscription", "callbackUrl"]
        if not _reachable(uri):
            return _refused(place, "Address is invalid")
        if said.get("format", "JSON") != "JSON":
            return _refused(["webhookSubscription", "format"], "Format is not served by this sandbox")
        if any((row["topic"], row["uri"]) == (topic, uri) for row in self._subscriptions.values()):
            return _refused(place, "Address for this topic has already been taken")
        number, now = next(self._numbers), _iso(self._clock.now())
        id = f"gid://shopify/WebhookSubscription/{number}"
        row: Row = {
            "__typename": "WebhookSubscription", "id": id, "legacyResourceId": str(number), "topic": topic, "uri": uri, "callbackUrl": uri, "format": "JSON",
            "includeFields": list(said.get("includeFields") or ()), "createdAt": now, "updatedAt": now,
            "apiVersion": {"displayName": _VERSION, "handle": _VERSION, "supported": True},
        }  # fmt: skip
        self._subscriptions[id] = row
        return {"webhookSubscription": row, "userErrors": []}

    def _delete(self, id: str) -> Row:
        gone = self._subscriptions.pop(id, None)
        errors = [] if gone else [{"field": ["id"], "message": "Webhook subscription does not exist"}]
        return {"deletedWebhookSubscriptionId": id if gone else None, "userErrors": errors}

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": row["id"], "url": row["uri"], "active": True, "topic": row["topic"]} for row in self._subscriptions.values()
        ]

    # ---- deliveries ----

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:
        """Tell of a row. An edit after which nothing but `updatedAt` differs is told to nobody."""
        contact = kind == "contact"
        if after is None:
            body: Row = {"id": int(native_id)}
            more = {"admin_graphql_api_id": f"gid://shopify/Customer/{native_id}"} if contact else {}
            self.tell(["CUSTOMERS_DELETE" if contact else "ORDERS_DELETE"], body | more)
        elif before is not None and self._told(before) == self._told(after):
            return
        elif contact:
            self.tell(["CUSTOMERS_UPDATE" if before else "CUSTOMERS_CREATE"], customer_body(after))
        else:
            became = [
                topic
                for topic, field, state in _BECAME
                if before and after[field] != before[field] and after[field] and state in {None, after[field]}
            ]
            self.tell([*became, "ORDERS_UPDATED" if before else "ORDERS_CREATE"], order_body(after))

    def _told(self, row: Row) -> Row:
        """Return what makes an edit one: all but the time of it, with the shop's metafields."""
        plain = {name: value for name, value in row.items() if name != "updatedAt" and not callable(value)}
        owner = row["__typename"].upper()
        asked = [(each[1], each[2]) for each in self._metafields if each[0] == owner]
        return plain | {f"{space}.{key}": row["metafield"](None, key=key, namespace=space) for space, key in asked}

    def tell(self, topics: Iterable[str], body: Row) -> None:
        """Send what one action brought about: one delivery a subscription, all of one event."""
        event = str(uuid.uuid4())
        for topic in topics:
            for row in list(self._subscriptions.values()):
                if row["topic"] == topic:
                    some = row["includeFields"]
                    told = {name: value for name, value in body.items() if name in some} if some else body
                    self._send(row["id"], row["uri"], _spoken(topic), told, event, partial(self._drop, row["id"]))

    def _drop(self, id: str) -> None:
        self._subscriptions.pop(id, None)

    def comply(self, topic: str, customer: Row | None, orders: Sequence[Row]) -> None:
        if self.compliance is None:
            return
        body: Row = {"shop_id": 1, "shop_domain": self._shop}
        if topic != "shop/redact" and customer is not None:
            shown = customer_body(customer)
            body["customer"] = {name: shown[name] for name in ("id", "email", "phone")}
            named = "orders_to_redact" if topic == "customers/redact" else "orders_requested"
            body[named] = [int(each["legacyResourceId"]) for each in orders]
        self._send("compliance", self.compliance, topic, body, str(uuid.uuid4()), lambda: None)

    def _send(self, hook: str, url: str, topic: str, body: Row, event: str, failed: Callable[[], None]) -> None:
        raw, delivery, secret = orjson.dumps(body), str(uuid.uuid4()), self.secret
        headers = {
            "content-type": "application/json", "x-shopify-topic": topic, "x-shopify-shop-domain": self._shop, "x-shopify-api-version": _VERSION,
            "x-shopify-webhook-id": delivery, "x-shopify-event-id": event, "x-shopify-triggered-at": _precise(datetime.now(UTC)),
            "x-shopify-hmac-sha256": base64.b64encode(hmac.digest(secret.encode(), raw, hashlib.sha256)).decode(),
        }  # fmt: skip
        sending = Sending(
            hook=hook,
            url=url,
            key=delivery,
            make=lambda _: (headers, raw),
            waits=_WAITS,
            timeout=5.0,
            failed=failed,
        )
        self._post(sending)


def customer_body(row: Row) -> Row:
    """Return a customer as REST spells one; tags and consent are not in it since 2025-01."""
    return {
        "id": int(row["legacyResourceId"]), "admin_graphql_api_id": row["id"], "created_at": _local(row["createdAt"]), "updated_at": _local(row["updatedAt"]),
        "first_name": row["firstName"], "last_name": row["lastName"], "state": row["state"].lower(), "note": row["note"], "verified_email": row["verifiedEmail"],
        "multipass_identifier": None, "tax_exempt": row["taxExempt"], "email": (row["defaultEmailAddress"] or {}).get("emailAddress"),
        "phone": (row["defaultPhoneNumber"] or {}).get("phoneNumber"), "currency": "USD", "addresses": [], "tax_exemptions": [],
    }  # fmt: skip


def order_body(row: Row) -> Row:
    """Return an order as REST spells one, without its lines."""
    total = row["totalPriceSet"]["shopMoney"]
    fulfilled = {"FULFILLED": "fulfilled", "PARTIALLY_FULFILLED": "partial", "RESTOCKED": "restocked"}
    return {
        "id": int(row["legacyResourceId"]), "admin_graphql_api_id": row["id"], "name": row["name"], "number": row["number"], "email": row["email"],
        "created_at": _local(row["createdAt"]), "updated_at": _local(row["updatedAt"]), "currency": total["currencyCode"], "total_price": total["amount"],
        "financial_status": (row["displayFinancialStatus"] or "").lower() or None, "fulfillment_status": fulfilled.get(row["displayFulfillmentStatus"]),
        "cancelled_at": row["cancelledAt"] and _local(row["cancelledAt"]), "customer": {"id": int(row["customerId"]), "email": row["email"]}, "line_items": [],
    }  # fmt: skip


def _reachable(uri: str) -> bool:
    address = urlsplit(uri)
    return bool(address.hostname) and (address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOCAL))


def _refused(field: list[str], message: str) -> Row:
    return {"webhookSubscription": None, "userErrors": [{"field": field, "message": message}]}


def _spoken(topic: str) -> str:
    """ORDERS_UPDATED → orders/updated"""
    resource, _, event = topic.lower().partition("_")
    return f"{resource}/{event}"


def _local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(_SHOP_TIME).isoformat(timespec="seconds")


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _precise(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"
