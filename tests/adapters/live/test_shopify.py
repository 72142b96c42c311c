"""Shopify's webhooks and feeds. Contract: tests/adapters/test_changes.py; here is what is unusual."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from graphql import build_schema, parse, validate

from adapters.changes import Change, Delivery, Heard, Watch
from adapters.shopify import Shopify
from adapters.writing import Write
from model.errors import ProtocolError, RejectedError, SignatureError
from sandbox.shopify import CLIENT_SECRET, SHOP
from sandbox.shopify import Shopify as Dialect
from sandbox.webhooks import Delivered
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system
from tests.specifications import specification

SECRET = "shpss_test"
AT = datetime(2026, 7, 1, 12, 0, 2, tzinfo=UTC)
ORDER = (
    b'{"id":5940139491234,"admin_graphql_api_id":"gid://shopify/Order/5940139491234","name":"#1001","email":"ada@shop.example",'
    b'"created_at":"2026-07-01T08:00:00-04:00","updated_at":"2026-07-01T08:00:01-04:00","currency":"USD","total_price":"59.99",'
    b'"customer":{"id":544365967,"email":"ada@shop.example"}}'
)
TIMES = ("createdAt", "updatedAt")


@pytest.fixture
def shop() -> Iterator[System]:
    with system("shopify") as running:
        yield running


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def signed(body: bytes, topic: str = "orders/updated", *, secret: str = SECRET, **headers: str) -> Delivery:
    said = {
        "x-shopify-topic": topic, "x-shopify-shop-domain": "acme.myshopify.com", "x-shopify-webhook-id": "b54557e4", "x-shopify-triggered-at": "2026-07-01T12:00:01.23Z",
        "x-shopify-hmac-sha256": base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    return Delivery(method="POST", url="https://c360.example/webhooks/shop", headers=said, body=body, at=AT)


def said(topic: str, body: Any) -> Heard:
    return Shopify.events(signed(orjson.dumps(body), topic), [SECRET])


# ---- proof ----


def test_the_public_vector_is_proved_by_the_raw_body() -> None:
    body = '{"id":1,"name":"café"}'.encode()
    delivery = signed(body, x_shopify_hmac_sha256="4AxlYXE4X7ikMU4tLFXZVc3HoNtNsoTmpCw5HrG4Z5k=")

    heard = Shopify.events(delivery, [SECRET])

    assert [hint.change.native_id for hint in heard.hints] == ["1"]


@pytest.mark.parametrize("body", [b'{"id":2,"name":"caf\xc3\xa9"}', b'{"id": 1,"name":"caf\xc3\xa9"}', b'{"id":1', b""])
def test_another_body_than_the_signed_one_is_refused(body: bytes) -> None:
    delivery = signed(body, x_shopify_hmac_sha256="4AxlYXE4X7ikMU4tLFXZVc3HoNtNsoTmpCw5HrG4Z5k=")

    with pytest.raises(SignatureError):
        Shopify.events(delivery, [SECRET])


@pytest.mark.parametrize(
    ("signature", "secrets"), [("", [SECRET]), ("4AxlYXE4X7ikMU4tLFXZVc3HoNtNsoTmpCw5HrG4Z5", [SECRET]), (None, ["another"]), (None, []), ("", [])]
)  # fmt: skip
def test_a_signature_that_lacks_is_cut_or_is_of_another_secret_is_refused(signature: str | None, secrets: list[str]) -> None:
    delivery = signed(ORDER) if signature is None else signed(ORDER, x_shopify_hmac_sha256=signature)

    with pytest.raises(SignatureError):
        Shopify.events(delivery, secrets)


def test_an_empty_secret_proves_nothing() -> None:
    with pytest.raises(SignatureError):
        Shopify.events(signed(ORDER, secret=""), [""])


def test_the_secret_before_a_rotation_is_good_as_well() -> None:
    heard = Shopify.events(signed(ORDER), ["the-new-one", SECRET])

    assert len(heard.hints) == 1


@pytest.mark.parametrize(
    ("age", "good"), [(timedelta(hours=4, minutes=30), True), (timedelta(days=2), False), (-timedelta(days=2), False)]
)
def test_a_delivery_that_is_long_past_is_refused_and_a_last_retry_is_not(age: timedelta, good: bool) -> None:
    delivery = signed(ORDER, x_shopify_triggered_at=(AT - age).isoformat())

    if good:
        assert Shopify.events(delivery, [SECRET]).hints
    else:
        with pytest.raises(SignatureError):
            Shopify.events(delivery, [SECRET])


# ---- what is said ----


def test_the_documented_order_is_a_hint_under_the_deliverys_id() -> None:
    heard = Shopify.events(signed(ORDER), [SECRET])

    [hint] = heard.hints
    assert (heard.account, hint.id) == ("acme.myshopify.com", "b54557e4")
    assert hint.change == Change(kind="order", native_id="5940139491234", at=datetime(2026, 7, 1, 12, 0, 1, tzinfo=UTC))


def test_deletions_bear_the_time_of_the_delivery() -> None:
    [order], [customer] = said("orders/delete", {"id": 7}).hints, said("customers/delete", {"id": 8}).hints

    told = [
        (each.change.kind, each.change.native_id, each.change.op, each.change.at and each.change.at.year)
        for each in (order, customer)
    ]
    assert told == [("order", "7", "DELETED", 2026), ("contact", "8", "DELETED", 2026)]


def merge(status: str) -> Any:
    names = {
        "admin_graphql_api_customer_kept_id": "gid://shopify/Customer/1",
        "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/2",
    }
    return {**names, "admin_graphql_api_job_id": None, "status": status, "errors": []}


@pytest.mark.parametrize(("status", "op", "into"), [("completed", "MERGED", "1"), ("failed", "CHANGED", None)])
def test_a_merge_counts_when_it_was_completed(status: str, op: str, into: str | None) -> None:
    gone, kept = said("customers/merge", merge(status)).hints

    assert (gone.change.native_id, gone.change.op, gone.change.into) == ("2", op, into)
    assert (kept.change.native_id, kept.change.op) == ("1", "CHANGED")
    assert gone.id != kept.id


def test_a_request_to_forget_somebody_erases_them_and_has_their_orders_read_again() -> None:
    body = {
        "shop_id": 1,
        "shop_domain": "acme.myshopify.com",
        "customer": {"id": 191167, "email": "j@shop.example"},
        "orders_to_redact": [299938, 280263],
    }

    heard = said("customers/redact", body)

    told = [(each.change.kind, each.change.native_id, each.change.op) for each in heard.hints]
    assert told == [("contact", "191167", "ERASED"), ("order", "299938", "CHANGED"), ("order", "280263", "CHANGED")]
    assert heard.account == "acme.myshopify.com"


def test_the_shop_whose_customer_is_to_be_forgotten_is_taken_from_what_is_signed() -> None:
    body = {"shop_domain": "Other.myshopify.com", "customer": {"id": 1}, "orders_to_redact": []}

    assert said("customers/redact", body).account == "other.myshopify.com"


def test_no_order_becomes_a_request_to_forget_its_customer_by_another_topic() -> None:
    with pytest.raises(ProtocolError):
        Shopify.events(signed(ORDER, "customers/redact"), [SECRET])


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("customers/data_request", {"shop_domain": "acme.myshopify.com", "customer": {"id": 1}, "orders_requested": []}),
        ("shop/redact", {"shop_id": 1, "shop_domain": "acme.myshopify.com"}),
        ("customers/redact", {"shop_domain": "acme.myshopify.com", "customer": {"email": "x@shop.example"}, "orders_to_redact": []}),
        ("orders/updated", {"name": "#1"}), ("orders/updated", {"id": True}), ("orders/updated", {"id": 1, "updated_at": "yesterday"}), ("orders/updated", [1]),
        ("orders/updated", {"id": 1, "updated_at": "0001-01-01T00:00:00+14:00"}), ("orders/updated", {"id": "12x"}), ("orders/updated", {"id": -4}),
        ("customers/merge", {"status": "completed"}), ("customers/redact", {"customer": {"id": 1}, "orders_to_redact": 7}),
        ("customers/redact", {"customer": {"id": 1}, "orders_to_redact": []}), ("customers/redact", {"customer": 5, "orders_to_redact": []}),
    ],
)  # fmt: skip
def test_what_people_must_do_and_what_is_not_understood_is_kept_for_them(topic: str, body: Any) -> None:
    with pytest.raises(ProtocolError) as raised:
        said(topic, body)

    assert "shop.example" not in str(raised.value)


def test_topics_that_are_nothing_of_ours_give_no_hints() -> None:
    assert said("app/uninstalled", {"id": 1}).hints == []


# ---- subscriptions ----


def watch(shop: System, url: str) -> list[Watch]:
    return shop.run(lambda source, api: source.adapter.watch(api, url, ""))


def topics(shop: System) -> set[str]:
    return {each["topic"] for each in shop.dialect.subscriptions()}


def test_watching_subscribes_once_and_unwatching_ends_it(shop: System, hears: Receiver) -> None:
    first = watch(shop, hears.url)
    again = watch(shop, hears.url)

    assert first == again
    assert len(first) == len(topics(shop)) == 7
    assert shop.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 7
    assert shop.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 0
    assert shop.dialect.subscriptions() == []


def test_a_subscription_that_another_process_makes_meanwhile_is_no_failure(shop: System, hears: Receiver) -> None:
    async def work(source: Any, api: Noted) -> tuple[list[Watch], list[Watch]]:
        first, second = await asyncio.gather(*(source.adapter.watch(api, hears.url, "") for _ in range(2)))
        return first, second

    first, second = shop.run(work)

    assert first == second
    assert len(shop.dialect.subscriptions()) == 7


def test_a_topic_that_the_shop_refuses_is_named(shop: System) -> None:
    with pytest.raises(RejectedError, match="CUSTOMERS_CREATE"):
        watch(shop, "ftp://c360.example/hook")


def test_subscriptions_to_other_addresses_stay(shop: System, hears: Receiver) -> None:
    watch(shop, "https://another.example/hook")
    watch(shop, hears.url)

    assert shop.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 7
    assert {each["url"] for each in shop.dialect.subscriptions()} == {"https://another.example/hook"}


def test_a_subscription_is_deleted_after_eight_retries_and_watching_makes_it_anew(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    hears.status = 500
    shop.dialect.change("contact", customer(shop), {"firstName": "Grace"})

    [told] = settled(shop, hours=5)

    assert (told.state, len(told.attempts)) == ("given_up", 9)
    assert topics(shop) == {each["topic"] for each in shop.dialect.subscriptions()}
    assert "CUSTOMERS_UPDATE" not in topics(shop)
    assert len(watch(shop, hears.url)) == len(topics(shop)) == 7


def test_what_watching_sends_fits_the_published_schema(shop: System, hears: Receiver) -> None:
    published = build_schema(specification("shopify", "admin-2026-07.subset.graphql").read_text(), assume_valid=True)

    async def work(source: Any, api: Noted) -> list[Any]:
        await source.adapter.watch(api, hears.url, "")
        await source.adapter.unwatch(api, hears.url)
        return api.sent

    sent = shop.run(work)

    assert len(sent) == 4
    for request, _ in sent:
        assert validate(published, parse(request.json["query"])) == []


# ---- deliveries ----


def customer(shop: System, *, orders: bool | None = None) -> str:
    dialect = shop.dialect
    assert isinstance(dialect, Dialect)
    return next(
        row["legacyResourceId"] for row in dialect.tables["contact"]
        if orders is None or bool(dialect.tables["order"].having("customer", [int(row["legacyResourceId"])])) is orders
    )  # fmt: skip


def settled(shop: System, *, hours: float) -> list[Delivered]:
    """Let the sandbox's time pass in steps, so that each retry comes at its own."""
    until = time.monotonic() + 10
    left = hours * 3600
    while shop.dialect.outbox.busy() or not shop.dialect.outbox.log:
        assert time.monotonic() < until, "deliveries are still under way"
        if left > 0:
            shop.sandbox.clock.advance(300)
            left -= 300
        time.sleep(0.03)
    return list(shop.dialect.outbox.log)


def heard(delivery: Delivery) -> Heard:
    return Shopify.events(delivery, [CLIENT_SECRET])


def test_an_edit_by_a_user_and_one_by_the_api_arrive_proved(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    id = customer(shop)

    httpx.patch(f"{shop.address}/_control/records/shopify/contact/{id}", json={"firstName": "Grace"})
    hears.wait(lambda came: len(came) == 1)
    shop.write("contact", Write(verb="update", native_id=id, row={"lastName": "Hopper"}))
    came = hears.wait(lambda came: len(came) == 2)

    for delivery in came:
        told = heard(delivery)
        assert told.account == SHOP
        assert [(hint.change.kind, hint.change.native_id, hint.change.op) for hint in told.hints] == [("contact", id, "CHANGED")]
        assert set(orjson.loads(delivery.body)) == {"id", "updated_at"}  # no more of a person than is needed
    assert len({heard(delivery).hints[0].id for delivery in came}) == 2


def test_the_account_of_a_delivery_is_the_one_that_check_names(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    shop.dialect.change("contact", customer(shop), {"firstName": "Grace"})

    checked = shop.run(lambda source, api: source.adapter.check(api))

    assert heard(hears.wait(lambda came: len(came) == 1)[0]).account == checked.account


def test_created_deleted_and_merged_customers_are_told(shop: System, hears: Receiver) -> None:
    dialect = shop.dialect
    assert isinstance(dialect, Dialect)
    watch(shop, hears.url)
    [made] = shop.write("contact", Write(verb="create", row={"firstName": "New", "email": "new@shop.example"}))
    hears.wait(lambda came: len(came) == 1)
    dialect.delete("contact", str(made.native_id))
    hears.wait(lambda came: len(came) == 2)
    loser = customer(shop, orders=False)
    winner = next(row["legacyResourceId"] for row in dialect.tables["contact"] if row["legacyResourceId"] != loser)
    assert dialect.merge("contact", loser, winner)

    came = hears.wait(lambda came: any(each.headers["x-shopify-topic"] == "customers/merge" for each in came))

    by_topic = {each.headers["x-shopify-topic"]: [hint.change for hint in heard(each).hints] for each in came}
    assert [(each.native_id, each.op) for each in by_topic["customers/create"]] == [(made.native_id, "CHANGED")]
    assert [(each.native_id, each.op) for each in by_topic["customers/delete"]] == [(made.native_id, "DELETED")]
    assert next((each.native_id, each.op, each.into) for each in by_topic["customers/merge"]) == (loser, "MERGED", winner)
    assert (
        sum(each.headers["x-shopify-topic"] == "customers/delete" for each in came) == 1
    )  # of the one deleted, not of the merged


def test_an_order_that_is_cancelled_is_told_and_an_edit_of_nothing_is_not(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    order = next(row for row in shop.dialect.tables["order"] if row["cancelledAt"] is None)
    id = order["legacyResourceId"]

    shop.dialect.change("order", id, {"note": order["note"]})
    shop.dialect.change("order", id, {"cancelledAt": "2026-07-01T12:00:00Z"})

    [came] = hears.wait(lambda came: len(came) == 1)
    assert [hint.change.native_id for hint in heard(came).hints] == [id]
    assert len(settled(shop, hours=0)) == 1


def test_metafields_that_are_written_are_told_though_nothing_else_moves(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    id = customer(shop)
    key = {"namespace": "custom", "key": "points", "type": "number_integer"}

    for value in ("7", "8", "8"):
        shop.dialect._customers._update({"id": f"gid://shopify/Customer/{id}", "metafields": [{**key, "value": value}]})  # type: ignore[attr-defined]

    hears.wait(lambda came: len(came) == 2)
    assert len(settled(shop, hours=0)) == 2


def test_compliance_topics_go_where_the_app_says(shop: System, hears: Receiver) -> None:
    dialect = shop.dialect
    assert isinstance(dialect, Dialect)
    dialect.hook(hears.url, "rotated")
    id = customer(shop, orders=True)

    dialect.comply("customers/redact", id)

    [came] = hears.wait(lambda came: len(came) == 1)
    first, *orders = Shopify.events(came, ["rotated", CLIENT_SECRET]).hints
    assert (first.change.native_id, first.change.op) == (id, "ERASED")
    assert orders
    assert all(each.change.kind == "order" for each in orders)


# ---- feed ----


def test_the_feed_tells_makes_and_edits_late_ones_too_and_leaves_deletions_to_others(shop: System) -> None:
    follower = Follower("contact", TIMES)
    dialect = shop.dialect
    rows = sorted(dialect.tables["contact"], key=lambda row: row["updatedAt"])
    edited, late, gone = (row["legacyResourceId"] for row in rows[:3])

    assert shop.run(lambda source, api: follower.passed(source.adapter, api)) == []
    dialect.change("contact", edited, {"firstName": "Grace"})
    first = shop.run(lambda source, api: follower.passed(source.adapter, api))
    shop.broken("late_commit", seconds=200, times=1)
    httpx.patch(f"{shop.address}/_control/records/shopify/contact/{late}", json={"firstName": "Late"})
    dialect.delete("contact", gone)
    [made] = shop.write("contact", Write(verb="create", row={"firstName": "New"}))
    second = shop.run(lambda source, api: follower.passed(source.adapter, api))

    assert edited in ids(first)
    assert late not in ids(first)
    assert {late, made.native_id} <= ids(second)
    assert gone not in ids(second)
    assert all(each.row is not None and each.op == "CHANGED" for each in second)


def test_ties_over_a_pages_end_are_all_told(shop: System) -> None:
    follower = Follower("order", TIMES)
    shop.run(lambda source, api: follower.passed(source.adapter, api))
    moment = f"{shop.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    several = list(shop.dialect.tables["order"])[:230]
    for row in several:
        shop.dialect.tables["order"].put(row["legacyResourceId"], {**row, "updatedAt": moment, "note": "moved"})

    told = shop.run(lambda source, api: follower.passed(source.adapter, api))

    assert len(several) > 100
    assert {row["legacyResourceId"] for row in several} <= ids(told)


def test_a_pass_costs_a_small_part_of_a_listing(shop: System) -> None:
    dialect = shop.dialect
    for kind in ("contact", "order"):
        follower = Follower(kind, TIMES)  # type: ignore[arg-type]
        shop.run(lambda source, api, follower=follower: follower.passed(source.adapter, api))  # type: ignore[misc]
        rows = list(dialect.tables[kind])
        for row in rows[: max(len(rows) // 100, 1)]:
            dialect.change(kind, row["legacyResourceId"], {"note": "moved"})

        async def calls(source: Any, api: Noted, follower: Follower = follower) -> int:
            await follower.passed(source.adapter, api)
            return len(api.sent)

        assert shop.run(calls) == 1  # of 20,000 records at 100 a page it is 200 / 100 + 1 of 200
