"""BigCommerce's webhooks and feeds. Contract: tests/adapters/test_changes.py; here is what is unusual."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.bigcommerce import BigCommerce
from adapters.changes import Change, Delivery, Heard, Watch
from adapters.writing import Write
from model.errors import ProtocolError, RejectedError, SignatureError
from sandbox.bigcommerce import CLIENT_SECRET, STORE
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system
from tests.specifications import digest

SECRET = "client-secret-string"
SENT = datetime.fromtimestamp(1674087231, tz=UTC)
TIMES = ("date_created", "date_modified")
ORDER = {
    "store_id": "11111", "producer": "stores/abcde", "scope": "store/order/statusUpdated", "hash": "3f9ea420af83450d7ef9f78b08c8af25b2213637", "created_at": 1688588419,
    "data": {"type": "order", "id": 173331, "status": {"previous_status_id": 0, "new_status_id": 11}},
}  # fmt: skip


@pytest.fixture
def shop() -> Iterator[System]:
    with system("bigcommerce") as running:
        yield running


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def signed(body: bytes, *, secret: str = SECRET, sent: datetime = SENT, **headers: str) -> Delivery:
    stamp = str(int(sent.timestamp()))
    mac = hmac.digest(secret.encode(), f"msg_2KWPBgLlAfxdpx2AI54pPJ85f4W.{stamp}.".encode() + body, hashlib.sha256)
    told = {
        "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "webhook-timestamp": stamp, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    return Delivery(method="POST", url="https://c360.example/webhooks/shop", headers=told, body=body, at=SENT)


def said(**body: Any) -> Heard:
    return BigCommerce.events(signed(orjson.dumps({**ORDER, **body})), [SECRET])


# ---- proof ----


def test_the_public_vector_is_proved_with_the_client_secrets_bytes() -> None:
    body = b'{"type":"contact.updated","timestamp":"2023-01-19T00:13:51Z","data":{"id":"sf:003xx"}}'
    delivery = signed(body, webhook_signature="v1,+CsySyBN9Xt8l0OQq8jfcDlPvZGkFKrfz9QZWK2mu/c=")

    with pytest.raises(ProtocolError):  # proved, and no event of the vendor's
        BigCommerce.events(delivery, [SECRET])
    with pytest.raises(SignatureError):
        BigCommerce.events(replace(delivery, body=body[:-1]), [SECRET])


def test_the_vendors_own_library_and_ours_agree() -> None:
    from standardwebhooks.webhooks import Webhook

    body = orjson.dumps(ORDER)
    theirs = Webhook(base64.b64encode(SECRET.encode()).decode()).sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", SENT, body.decode())

    assert BigCommerce.events(signed(body, webhook_signature=theirs), [SECRET]).hints


@pytest.mark.parametrize("signature", ["", "v1,", "v1a,AAAA", "v2,+CsySyBN9Xt8l0OQq8jfcDlPvZGkFKrfz9QZWK2mu/c="])
def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    with pytest.raises(SignatureError):
        BigCommerce.events(signed(orjson.dumps(ORDER), webhook_signature=signature), [SECRET])


@pytest.mark.parametrize(("secret", "known"), [("another", [SECRET]), ("", [""]), (SECRET, [])])
def test_another_secret_and_none_prove_nothing(secret: str, known: list[str]) -> None:
    with pytest.raises(SignatureError):
        BigCommerce.events(signed(orjson.dumps(ORDER), secret=secret), known)


def test_one_of_several_signatures_and_either_of_two_secrets_will_do() -> None:
    good = signed(orjson.dumps(ORDER))
    several = {**good.headers, "webhook-signature": f"v1,AAAA {good.headers['webhook-signature']}"}

    assert BigCommerce.events(replace(good, headers=several), ["new", SECRET]).hints


@pytest.mark.parametrize("late", [timedelta(minutes=6), -timedelta(minutes=6)])
def test_a_signature_of_another_time_is_refused(late: timedelta) -> None:
    with pytest.raises(SignatureError):
        BigCommerce.events(signed(orjson.dumps(ORDER), sent=SENT - late), [SECRET])


@pytest.mark.parametrize("stamp", ["", "soon", "²", "9" * 30])
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    body = orjson.dumps(ORDER)
    mac = hmac.digest(SECRET.encode(), f"m.{stamp}.".encode() + body, hashlib.sha256)
    told = {"webhook-id": "m", "webhook-timestamp": stamp, "webhook-signature": f"v1,{base64.b64encode(mac).decode()}"}

    with pytest.raises(SignatureError):
        BigCommerce.events(Delivery(method="POST", url="https://c360.example/", headers=told, body=body, at=SENT), [SECRET])


# ---- what is said ----


def test_the_documented_order_is_a_hint_of_its_store() -> None:
    heard = said()

    assert heard.account == "abcde"
    assert [hint.change for hint in heard.hints] == [
        Change(kind="order", native_id="173331", at=datetime.fromtimestamp(1688588419, tz=UTC))
    ]


@pytest.mark.parametrize(
    ("scope", "data", "told"),
    [
        ("store/customer/created", {"type": "customer", "id": 32}, ("contact", "32", "CHANGED")),
        ("store/customer/deleted", {"type": "customer", "id": 32}, ("contact", "32", "DELETED")),
        ("store/customer/address/updated", {"type": "customer", "id": 60, "address": {"customer_id": 32}}, ("contact", "32", "CHANGED")),
        ("store/order/archived", {"type": "order", "id": 250}, ("order", "250", "DELETED")),
        ("store/order/refund/created", {"type": "order", "id": 250, "refund": {"refund_id": 3}}, ("order", "250", "CHANGED")),
        ("store/order/transaction/created", {"type": "transaction", "order_id": 250, "transaction_id": "176342342"}, ("order", "250", "CHANGED")),
        ("store/order/metafield/created", {"metafield_id": 14, "resource_id": "270"}, None),
        ("store/product/updated", {"type": "product", "id": 205}, None),
    ],
)  # fmt: skip
def test_scopes_name_their_records(scope: str, data: Any, told: tuple[str, str, str] | None) -> None:
    found = [(each.change.kind, each.change.native_id, each.change.op) for each in said(scope=scope, data=data).hints]

    assert found == ([told] if told else [])


@pytest.mark.parametrize(
    "body",
    [
        {"data": None},
        {"data": {"type": "order"}},
        {"data": {"id": "x"}},
        {"producer": None},
        {"scope": 7},
        {"scope": "store/customer/address/created", "data": {"id": 1, "address": "x"}},
    ],
)
def test_what_is_proved_and_not_understood_is_no_hint(body: Any) -> None:
    with pytest.raises(ProtocolError):
        said(**body)


def test_a_time_that_is_none_is_left_out() -> None:
    assert [said(created_at=odd).hints[0].change.at for odd in (10**15, -1, "soon", None)] == [None] * 4


def test_the_same_event_has_one_id_and_two_edits_of_a_record_have_two() -> None:
    first, again, later = said(), said(), said(created_at=ORDER["created_at"] + 1)  # type: ignore[operator]

    assert first.hints[0].id == again.hints[0].id != later.hints[0].id


# ---- hooks ----


def watch(shop: System, url: str, secret: str = "ours") -> list[Watch]:
    return shop.run(lambda source, api: source.adapter.watch(api, url, secret))


def active(shop: System) -> dict[str, bool]:
    return {each["scope"]: each["active"] for each in shop.dialect.subscriptions()}


def test_watching_makes_each_hook_once_and_unwatching_ends_them(shop: System, hears: Receiver) -> None:
    first, again = watch(shop, hears.url), watch(shop, hears.url)

    assert first == again
    assert len(first) == len(active(shop)) == 7
    watch(shop, "https://another.example/hook")
    assert shop.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 7
    assert {each["url"] for each in shop.dialect.subscriptions()} == {"https://another.example/hook"}
    assert shop.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 0


def test_a_hook_that_is_made_twice_since_its_answer_was_lost_is_no_failure(shop: System, hears: Receiver) -> None:
    shop.broken("truncate", path="POST *", times=1)

    assert len(watch(shop, hears.url)) == len(shop.dialect.subscriptions()) == 7


def test_what_the_store_refuses_is_an_error(shop: System) -> None:
    with pytest.raises(RejectedError):
        watch(shop, "https://c360.example:8443/hook")  # custom ports are not served


def test_watching_costs_one_call_when_all_is_well(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)

    async def work(source: Any, api: Noted) -> int:
        await source.adapter.watch(api, hears.url, "ours")
        return len(api.sent)

    assert shop.run(work) == 1


def test_a_hook_is_switched_off_after_two_days_of_failures_and_watching_switches_it_on(shop: System, hears: Receiver) -> None:
    first = watch(shop, hears.url)
    hears.status = 500
    shop.dialect.change("contact", customer(shop), {"first_name": "Grace"})

    until = time.monotonic() + 15
    while shop.dialect.outbox.busy() or not shop.dialect.outbox.log:
        assert time.monotonic() < until, "deliveries are still under way"
        shop.sandbox.clock.advance(3600)
        time.sleep(0.025)

    [told] = shop.dialect.outbox.log
    assert (told.state, len(told.attempts)) == ("given_up", 12)
    assert [scope for scope, on in active(shop).items() if not on] == ["store/customer/updated"]
    assert watch(shop, hears.url) == first
    assert all(active(shop).values())


def test_hooks_that_had_nothing_to_tell_for_ninety_days_are_switched_on_again(shop: System, hears: Receiver) -> None:
    first = watch(shop, hears.url)
    shop.sandbox.clock.advance(91 * 86_400)
    assert not any(active(shop).values())

    assert watch(shop, hears.url) == first

    assert all(active(shop).values())
    shop.dialect.change("contact", customer(shop), {"first_name": "Grace"})
    assert hears.wait(lambda came: len(came) == 1)


def test_a_new_secret_reaches_the_hooks_that_are_there_and_none_leaves_as_it_is(shop: System, hears: Receiver) -> None:
    first = watch(shop, hears.url, "old")
    assert watch(shop, hears.url, "new") == first
    shop.dialect.change("contact", customer(shop), {"first_name": "Grace"})

    [came] = hears.wait(lambda came: len(came) == 1)

    bare = replace(came, headers={name: value for name, value in came.headers.items() if not name.startswith("webhook-")})
    assert BigCommerce.events(bare, ["new"]).hints
    with pytest.raises(SignatureError):
        BigCommerce.events(bare, ["old"])
    assert "new" not in came.headers.values()


def test_what_is_sent_to_hooks_is_in_the_published_description(shop: System, hears: Receiver) -> None:
    paths = digest("bigcommerce", "webhooks-v3.digest.json")["paths"]

    async def work(source: Any, api: Noted) -> list[Any]:
        await source.adapter.watch(api, hears.url, "one")
        await source.adapter.watch(api, hears.url, "two")
        await source.adapter.unwatch(api, hears.url)
        return [request for request, _ in api.sent]

    seen = set()
    for request in shop.run(work):
        place = "/hooks" if request.path == "/v3/hooks" else "/hooks/{webhook_id}"
        facts = paths[place][request.method.lower()]
        seen.add((place, request.method))
        assert {name for name, _ in request.params} <= {each["name"] for each in facts["params"]}
        if request.json is not None:
            assert request.json.keys() <= facts["body"]["schema"]["props"].keys()
    assert seen == {("/hooks", "GET"), ("/hooks", "POST"), ("/hooks/{webhook_id}", "PUT"), ("/hooks/{webhook_id}", "DELETE")}


# ---- deliveries ----


def customer(shop: System) -> str:
    return next(str(row["id"]) for row in shop.dialect.tables["contact"])


def order(shop: System) -> Any:
    return next(row for row in shop.dialect.tables["order"] if not row["is_deleted"])


def test_an_edit_by_a_user_and_one_by_the_api_arrive_proved_both_ways(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    id = customer(shop)

    httpx.patch(f"{shop.address}/_control/records/bigcommerce/contact/{id}", json={"first_name": "Grace"})
    hears.wait(lambda came: len(came) == 1)
    shop.write("contact", Write(verb="update", native_id=id, row={"last_name": "Hopper"}))
    came = hears.wait(lambda came: len(came) == 2)

    for delivery in came:
        told = BigCommerce.events(delivery, ["ours"])  # the store's own account: by our header
        sent = datetime.fromtimestamp(int(delivery.headers["webhook-timestamp"]), tz=UTC)
        plain = {name: value for name, value in delivery.headers.items() if name != "x-customer360-token"}
        assert BigCommerce.events(replace(delivery, headers=plain, at=sent), [CLIENT_SECRET]) == told  # an app: by its signature
        assert told.account == STORE
        assert [(hint.change.kind, hint.change.native_id, hint.change.op) for hint in told.hints] == [("contact", id, "CHANGED")]
    first, second = (orjson.loads(each.body) for each in came)
    assert first["hash"] == second["hash"]  # as bad as the documents allow
    assert len({BigCommerce.events(each, ["ours"]).hints[0].id for each in came}) == 2


def test_the_account_of_a_delivery_is_the_one_that_check_names(shop: System) -> None:
    assert shop.run(lambda source, api: source.adapter.check(api)).account == STORE


def test_created_and_deleted_customers_and_archived_orders_are_told(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    [made] = shop.write("contact", Write(verb="create", row={"first_name": "A", "last_name": "New", "email": "new@shop.example"}))
    hears.wait(lambda came: len(came) == 1)
    shop.write("contact", Write(verb="delete", native_id=made.native_id, row={}))
    hears.wait(lambda came: len(came) == 2)
    gone = str(order(shop)["id"])
    shop.dialect.delete("order", gone)

    came = hears.wait(lambda came: len(came) == 3)

    told = [BigCommerce.events(each, ["ours"]).hints[0].change for each in came]
    assert [(each.kind, each.native_id, each.op) for each in told] == [
        ("contact", made.native_id, "CHANGED"), ("contact", made.native_id, "DELETED"), ("order", gone, "DELETED"),
    ]  # fmt: skip


def test_attributes_written_by_the_api_and_edits_of_nothing_fire_nothing(shop: System, hears: Receiver) -> None:
    watch(shop, hears.url)
    row = next(iter(shop.dialect.tables["contact"]))
    id = str(row["id"])

    shop.write(
        "contact", Write(verb="update", native_id=id, row={"attributes": [{"attribute_id": 1, "attribute_value": "bronze"}]})
    )
    shop.dialect.change("contact", id, {"first_name": row["first_name"]})
    shop.dialect.change("contact", id, {"first_name": "Grace"})

    assert len(hears.wait(lambda came: len(came) >= 1)) == 1
    assert len(shop.dialect.outbox.log) == 1


def test_one_edit_of_an_order_may_fire_several_scopes(shop: System) -> None:
    root = f"{shop.address}/bigcommerce/stores/{STORE}/v3/hooks"
    said = {"X-Auth-Token": "bigcommerce-demo-token"}
    for scope in ("store/order/updated", "store/order/statusUpdated"):
        assert httpx.post(root, json={"scope": scope, "destination": "http://127.0.0.1:9/"}, headers=said).status_code == 200
    found = order(shop)

    shop.dialect.change("order", str(found["id"]), {"status_id": (found["status_id"] + 1) % 15})

    until = time.monotonic() + 5
    while len(shop.dialect.outbox.log) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)


# ---- feed ----


def test_the_feed_tells_makes_and_edits_late_ones_too_and_leaves_deletions_to_others(shop: System) -> None:
    follower = Follower("contact", TIMES)
    rows = sorted(shop.dialect.tables["contact"], key=lambda row: row["date_modified"])
    edited, late, gone = (str(row["id"]) for row in rows[:3])

    shop.run(lambda source, api: follower.passed(source.adapter, api))
    shop.dialect.change("contact", edited, {"first_name": "Grace"})
    first = shop.run(lambda source, api: follower.passed(source.adapter, api))
    shop.broken("late_commit", seconds=150, times=1)
    httpx.patch(f"{shop.address}/_control/records/bigcommerce/contact/{late}", json={"first_name": "Late"})
    shop.dialect.delete("contact", gone)
    second = shop.run(lambda source, api: follower.passed(source.adapter, api))

    assert edited in ids(first)
    assert late not in ids(first)
    assert late in ids(second)
    assert gone not in ids(second)


def test_ties_over_a_pages_end_are_all_told(shop: System) -> None:
    follower = Follower("contact", TIMES)
    shop.run(lambda source, api: follower.passed(source.adapter, api))
    moment = f"{shop.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    row = next(iter(shop.dialect.tables["contact"]))
    for number in range(600):
        made = {
            **row,
            "id": 2_100_000_000 + number,
            "email": f"n{number}@shop.example",
            "date_created": moment,
            "date_modified": moment,
        }
        shop.dialect.tables["contact"].put(str(made["id"]), made)

    told = shop.run(lambda source, api: follower.passed(source.adapter, api))

    assert {str(2_100_000_000 + number) for number in range(600)} <= ids(told)


def test_items_are_fetched_for_an_order_that_changed_and_not_again(shop: System) -> None:
    follower = Follower("order", (*TIMES, "products.items.sku"))
    few = [str(row["id"]) for row in list(shop.dialect.tables["order"])[:3]]

    async def passed(source: Any, api: Noted) -> tuple[list[Change], int]:
        return await follower.passed(source.adapter, api), len(api.sent)

    shop.run(passed)
    shop.run(passed)  # what the overlap meets for the first time
    for id in few:
        shop.dialect.change("order", id, {"staff_notes": "moved"})
    first, cost = shop.run(passed)
    again, quiet = shop.run(passed)
    moved = shop.dialect.tables["order"].get(few[0])
    assert moved is not None
    shop.dialect.tables["order"].put(few[0], {**moved, "staff_notes": "again, within the same second"})
    third, _ = shop.run(passed)

    assert ids(first) == set(few)
    assert cost == 1 + len(few)
    assert all(each.row and each.row["products"]["items"] for each in first)
    assert again == []
    assert quiet == 1
    assert ids(third) == {few[0]}


def test_a_pass_of_a_hundredth_costs_a_small_part_of_a_listing(shop: System) -> None:
    follower = Follower("contact", TIMES)
    shop.run(lambda source, api: follower.passed(source.adapter, api))
    for row in list(shop.dialect.tables["contact"])[:5]:
        shop.dialect.change("contact", str(row["id"]), {"notes": "moved"})

    async def work(source: Any, api: Noted) -> int:
        await follower.passed(source.adapter, api)
        return len(api.sent)

    assert shop.run(work) == 1  # of 20,000 at 250 a page: 1 of 80
