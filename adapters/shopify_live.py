"""What Shopify tells by itself: webhooks, proved and read, and the subscriptions to them.

Facts from shopify.dev: "Verify webhook deliveries", "Webhooks delivery structure", the sample payloads of the topics, "Privacy law
compliance", and the published 2026-07 schema. Signed is the body alone: the topic, the shop, the id and the time of a delivery stand
in headers that are not, so a delivery is taken for a hint. What asks to erase somebody is taken from the body alone.
"""

import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from adapters.changes import Change, ChangeOp, Delivery, Heard, Hint, Push, Watch, digest_of, matches, recent
from mapping.convert import instant
from mapping.paths import pick
from model.errors import ProtocolError, RejectedError, SignatureError
from model.records import Kind

Ask = Callable[[str, str, Mapping[str, Any], int], Awaitable[Any]]  # operation, query, variables, points → `data`

PUSH = Push(kinds=frozenset({"contact", "order"}), merges=True, secret="app", accounts=True)
# Eight retries go over four hours; a backlog at Shopify may add to that. The time is not signed: it keeps out what is plainly stale.
_AGE = 24 * 3600.0
_MUTATION, _PAGE = 10, 50
_TOPICS: Mapping[str, tuple[Kind, ChangeOp]] = {
    "customers/create": ("contact", "CHANGED"), "customers/update": ("contact", "CHANGED"), "customers/delete": ("contact", "DELETED"),
    "orders/create": ("order", "CHANGED"), "orders/updated": ("order", "CHANGED"), "orders/delete": ("order", "DELETED"),
    # Told besides orders/updated, to whoever subscribes by other means.
    "orders/cancelled": ("order", "CHANGED"), "orders/paid": ("order", "CHANGED"), "orders/fulfilled": ("order", "CHANGED"),
    "orders/partially_fulfilled": ("order", "CHANGED"),
}  # fmt: skip
_FOR_PEOPLE = frozenset({"customers/data_request", "shop/redact"})
# What is subscribed to → the fields wanted, [] all: the rest is read from the shop, so no more personal data travels than needed.
# With `updated_at` no two bodies are alike: Shopify may hold back one that is as the last one was.
_WATCHED: Mapping[str, Sequence[str]] = {
    "CUSTOMERS_CREATE": ["id", "updated_at"], "CUSTOMERS_UPDATE": ["id", "updated_at"], "CUSTOMERS_DELETE": [], "CUSTOMERS_MERGE": [],
    "ORDERS_CREATE": ["id", "updated_at"], "ORDERS_UPDATED": ["id", "updated_at"], "ORDERS_DELETE": [],
}  # fmt: skip


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery by the app's client secret, and read it. See `Adapter.events`.

    The compliance topics: of `customers/redact` comes ERASED for the customer, and their orders are told as changed, since the shop
    keeps them without the person. `customers/data_request` and `shop/redact` ask for what people must do: they are refused as not
    understood, so that they are kept and seen, and Shopify is answered all the same.
    """
    _prove(delivery, secrets)
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("a webhook holds no JSON") from error
    topic = delivery.headers.get("x-shopify-topic", "")
    shop = delivery.headers.get("x-shopify-shop-domain")
    if not isinstance(body, dict) or not shop:
        raise ProtocolError("a webhook names no shop, or holds no object")
    changes = list(_changes(topic, body, _triggered(delivery)))
    event = delivery.headers.get("x-shopify-webhook-id") or digest_of(topic, delivery.body)
    if len(changes) == 1:
        return Heard(account=_account(topic, body, shop), hints=[Hint(id=event, change=changes[0])])
    hints = [Hint(id=f"{event}/{each.kind}/{each.native_id}", change=each) for each in changes]
    return Heard(account=_account(topic, body, shop), hints=hints)


def _prove(delivery: Delivery, secrets: Sequence[str]) -> None:
    wanted = [base64.b64encode(hmac.digest(each.encode(), delivery.body, hashlib.sha256)).decode() for each in secrets if each]
    if not matches(delivery.headers.get("x-shopify-hmac-sha256", ""), *wanted):
        raise SignatureError("a webhook is not signed with the app's client secret")
    triggered = _triggered(delivery)
    if triggered is not None and not recent(triggered, delivery.at, within=_AGE):
        raise SignatureError("a webhook is too old")


def _triggered(delivery: Delivery) -> datetime | None:
    return _time(delivery.headers.get("x-shopify-triggered-at"))


def _account(topic: str, body: Mapping[str, Any], shop: str) -> str:
    """Return whose delivery it is: of what asks to forget a person, the body says it, which is signed."""
    said = body.get("shop_domain") if topic == "customers/redact" else shop
    if not isinstance(said, str) or not said:
        raise ProtocolError("a compliance webhook names no shop")
    return said.lower()


def _changes(topic: str, body: Mapping[str, Any], triggered: datetime | None) -> Iterator[Change]:
    if topic in _TOPICS:
        kind, op = _TOPICS[topic]
        at = _time(body.get("updated_at")) if op == "CHANGED" else None
        yield Change(kind=kind, native_id=_number(body.get("id")), op=op, at=at or triggered)
    elif topic == "customers/merge":
        kept, gone = (_number(body.get(f"admin_graphql_api_customer_{which}_id")) for which in ("kept", "deleted"))
        if body.get("status") == "completed":
            yield Change(kind="contact", native_id=gone, op="MERGED", at=triggered, into=kept)
        else:  # it failed, or is still going on: whatever became of them is read
            yield Change(kind="contact", native_id=gone, at=triggered)
        yield Change(kind="contact", native_id=kept, at=triggered)
    elif topic in _FOR_PEOPLE:
        raise ProtocolError(f"{topic} is for people to answer")
    elif topic == "customers/redact":
        orders = body.get("orders_to_redact")
        if not isinstance(orders, list):  # the topic is not signed: this may be another one's body
            raise ProtocolError("what asks to forget somebody is no such thing")
        # A person of whom the shop knows an address only has no id: that is for people to look at, and not to be lost.
        yield Change(kind="contact", native_id=_number(pick(body, "customer.id")), op="ERASED", at=triggered)
        for order in orders:
            yield Change(kind="order", native_id=_number(order), at=triggered)


def _number(said: object) -> str:
    """Return the number of a record, which bodies tell as such or within a global id."""
    text = str(said).rsplit("/", 1)[-1] if isinstance(said, int | str) and not isinstance(said, bool) else ""
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError("a webhook names no record")
    return text


def _time(said: object) -> datetime | None:
    try:
        return instant(said) if isinstance(said, str) else None
    except (ValueError, OverflowError) as error:
        raise ProtocolError("a webhook has a time that is none") from error


# ---- subscriptions ----


async def watched(ask: Ask, url: str) -> list[Watch]:
    """Subscribe to what is missing: 1 call when all is there, else 2."""
    found = await _subscriptions(ask, url)
    missing = [topic for topic in _WATCHED if topic not in found]
    if missing:
        heads = ", ".join(f"$in_{at}: WebhookSubscriptionInput!" for at in range(len(missing)))
        fields = " ".join(
            f"made_{at}: webhookSubscriptionCreate(topic: {topic}, webhookSubscription: $in_{at}) {{ webhookSubscription {{ id }} }}"
            for at, topic in enumerate(missing)
        )
        variables = {
            f"in_{at}": {"uri": url, "format": "JSON"} | ({"includeFields": list(some)} if (some := _WATCHED[topic]) else {})
            for at, topic in enumerate(missing)
        }
        data = await ask("watch", f"mutation({heads}) {{ {fields} }}", variables, _MUTATION * len(missing))
        made = {topic: pick(data, f"made_{at}.webhookSubscription.id") for at, topic in enumerate(missing)}
        if not all(made.values()):  # another process may have been faster, or a call was sent twice: an objection, and no harm
            made = await _subscriptions(ask, url)
        found |= {topic: id for topic, id in made.items() if id}
        if refused := [topic for topic in _WATCHED if topic not in found]:
            raise RejectedError(f"no subscription came about to {', '.join(refused)}")
    return [Watch(native_id=found[topic]) for topic in _WATCHED]


async def unwatched(ask: Ask, url: str) -> int:
    """End the subscriptions: 2 calls when there are any."""
    ids = list((await _subscriptions(ask, url)).values())
    if ids:
        heads = ", ".join(f"$id_{at}: ID!" for at in range(len(ids)))
        fields = " ".join(
            f"gone_{at}: webhookSubscriptionDelete(id: $id_{at}) {{ deletedWebhookSubscriptionId }}" for at in range(len(ids))
        )
        await ask(
            "unwatch", f"mutation({heads}) {{ {fields} }}", {f"id_{at}": id for at, id in enumerate(ids)}, _MUTATION * len(ids)
        )
    return len(ids)


async def _subscriptions(ask: Ask, url: str) -> dict[str, str]:
    """Return the app's subscriptions to an address: topic → id. Eight failures in a row delete one without a word."""
    query = (
        f"query($after: String) {{ webhookSubscriptions(first: {_PAGE}, after: $after) {{"
        " nodes { id topic uri } pageInfo { hasNextPage endCursor } } }"
    )
    found: dict[str, str] = {}
    after: str | None = None
    while True:
        page = (await ask("watch.list", query, {"after": after}, _PAGE))["webhookSubscriptions"]
        found |= {each["topic"]: each["id"] for each in page["nodes"] if each["uri"] == url}
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]
