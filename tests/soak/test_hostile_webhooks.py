"""Any body at all, at every system's address, proved or not: nothing makes the server fail."""

import os
import random
import string
import sys
from collections import Counter
from typing import Any

import orjson
import pytest

from adapters.registry import ADAPTERS
from tests.world import world

SMALL = os.environ.get("C360_SOAK") == "small"
BODIES = 600 if SMALL else 20_000
SYSTEMS = sorted(name for name, each in ADAPTERS.items() if each.push is not None)
WORDS = (
    "id", "ids", "object", "objectId", "subscriptionType", "portalId", "occurredAt", "eventId", "type", "data", "detail", "subject", "time",
    "account_id", "meta", "entity", "entity_id", "action", "timestamp", "company_id", "module", "operation", "token", "server_time", "scope",
    "producer", "hash", "created_at", "updated_at", "customer", "bean", "event", "MessageName", "PrimaryEntityName", "PrimaryEntityId",
    "OperationCreatedOn", "InputParameters", "changedAt", "run", "mergedObjectIds", "newObjectId", "previous", "fired_at", "channel_id",
    "ticket_id", "freshdesk_webhook", "contact.propertyChange", "zen:event-type:user.created", "zen:user:1", "Contacts", "update", "delete",
    "contact", "person", "change", "store/customer/updated", "stores/abcde", "Contact", "after_save", "subscribe", "upemail", "/Date(1)/",
)  # fmt: skip
HEADERS = ("x-shopify-topic", "x-shopify-shop-domain", "x-shopify-webhook-id", "x-shopify-triggered-at", "x-hubspot-request-timestamp",
           "x-zendesk-webhook-signature-timestamp", "webhook-timestamp", "webhook-id", "x-mailchimp-signature", "content-type",
           "x-ms-dynamics-organization", "authorization")  # fmt: skip
VALUES = ("customers/update", "shop.example", "1", "2026-11-25T00:00:00Z", "9" * 400, "-1", "application/json", "\x7f", "t=1,v1=00",
          "Basic Og==", "application/x-www-form-urlencoded", "nan")  # fmt: skip


@pytest.mark.soak
def test_no_body_makes_the_server_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    for name, module in list(sys.modules.items()):
        if name.startswith("adapters."):  # what is proved goes further in: half of what is sent here shall
            for check in ("matches", "recent"):
                if hasattr(module, check) and name != "adapters.changes":
                    monkeypatch.setattr(module, check, lambda *_, **__: rng.random() < 0.9)
    said: Counter[int] = Counter()
    with world(people=5, systems=SYSTEMS) as made:
        for _ in range(BODIES):
            system = rng.choice(SYSTEMS)
            headers = {rng.choice(HEADERS): rng.choice(VALUES) for _ in range(rng.randrange(6))}
            query = {rng.choice(("code", "token", "secret", "\x00")): rng.choice(VALUES)} if rng.random() < 0.5 else {}
            method = "GET" if rng.random() < 0.05 else "POST"
            answer = made.http.request(method, f"/webhooks/{system}", content=body(rng), headers=headers, params=query)
            assert answer.status_code < 500, (system, answer.status_code)
            said[answer.status_code] += 1
        assert made.http.get("/health/ready").status_code == 200
    assert said[200] > BODIES / 20, "some of them went all the way in"
    assert said[401] + said[404] > 0


def body(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(300))
    if kind < 0.2:
        return ("&".join(f"{rng.choice(('type', 'data[id]', 'data[email]', 'fired_at', 'data[list_id]'))}={rng.choice(WORDS)}"
                         for _ in range(rng.randrange(8)))).encode()  # fmt: skip
    whole = orjson.dumps(value(rng, 0))
    return whole[: rng.randrange(len(whole) + 1)] if kind < 0.35 else whole


def value(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(9 if depth < 5 else 6)
    match kind:
        case 0:
            return rng.choice((0, 1, -1, 2**53, 1770110127000, -(10**18), 1e300))
        case 1 | 2:
            return rng.choice(WORDS)
        case 3:
            return rng.choice((None, True, False, "", "\u0000", "💥", "a" * 3000))
        case 4:
            return "".join(rng.choice(string.printable) for _ in range(rng.randrange(30)))
        case 5:
            return rng.choice(
                ("2026-11-25T00:00:00Z", "1", "0036000000QKv5T", "zen:user:12", "6d81597f-0f9f-e711-8122-000d3aa2331c")
            )
        case 6:
            return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(12))}
