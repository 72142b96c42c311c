"""What is unusual about BigCommerce: two API versions with two spellings of everything."""

from collections.abc import Iterator

import httpx
import pytest

from adapters.base import Config, Request, Response
from adapters.bigcommerce import BigCommerce
from sandbox.app import Sandbox, server
from sandbox.bigcommerce import _CUSTOMER_FILTERS, _ORDER_FILTERS
from tests.adapters.refusals.answers import answer
from tests.specifications import digest
from tests.world import World, served, world

STORE = "/bigcommerce/stores/c360demo"
HEADERS = {"x-auth-token": "bigcommerce-demo-token", "accept": "application/json"}


@pytest.fixture(scope="module")
def shop() -> Iterator[World]:
    with world(people=60, systems=["bigcommerce", "hubspot"]) as running:
        yield running


def test_orders_come_with_items_status_and_exact_money(shop: World) -> None:
    query = "{ orders(first: 50) { nodes { number status rawStatus total { amount currency } placedAt items { sku title quantity price { amount currency } } customer { id } } sources { source { id } state } } }"

    orders = shop.data(query)["orders"]["nodes"]

    placed = [each["placedAt"] for each in orders]
    assert placed == sorted(placed)
    assert {"COMPLETED", "PENDING_PAYMENT"} <= {each["status"] for each in orders}
    for each in orders:
        lines = sum(float(item["price"]["amount"]) * item["quantity"] for item in each["items"])
        assert float(each["total"]["amount"]) == pytest.approx(lines)
        assert {item["price"]["currency"] for item in each["items"]} == {each["total"]["currency"]}
        assert each["customer"]


def test_items_are_asked_for_only_when_they_are_wanted() -> None:
    with world(people=20, systems=["bigcommerce"]) as running:
        running.data("{ orders(first: 20) { nodes { number } } }")

        assert not any("products" in path for path in running.calls()["bigcommerce"])


async def test_an_order_of_more_items_than_a_page_holds_comes_whole() -> None:
    class Shop:
        async def send(self, request: Request) -> Response:
            if request.path == "/v2/orders/7":
                return answer(200, {"id": 7, "is_deleted": False, "currency_code": "USD", "products": {"url": "…"}})
            said = dict(request.params)
            start, size = (int(said["page"]) - 1) * int(said["limit"]), int(said["limit"])
            items = [{"id": number} for number in range(500)[start : start + size]]
            return answer(200, items) if items else answer(204)

    adapter = BigCommerce(Config(source="b", base_url="https://vendor.example"))

    [order] = await adapter.read(Shop(), "order", ["7"], ["products.items"])  # type: ignore[arg-type]

    assert order is not None
    assert [each["id"] for each in order["products"]["items"]] == list(range(500))


def test_attributes_are_custom_fields_by_name(shop: World) -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { customFields(keys: ["loyalty_level", "visits"]) { key type text number } } }'

    fields = {each["key"]: each for each in shop.data(query)["customer"]["customFields"]}

    assert fields["loyalty_level"]["text"] in {"gold", "silver"}
    assert (fields["visits"]["type"], fields["visits"]["number"]) == ("NUMBER", fields["visits"]["text"])


def test_the_sandbox_speaks_as_the_documents_say() -> None:
    with (
        served(server(Sandbox(people=20, systems=["bigcommerce"]))) as address,
        httpx.Client(base_url=address, headers=HEADERS) as http,
    ):
        nothing = http.get(f"{STORE}/v2/orders?customer_id=1")
        unknown = http.get(f"{STORE}/v3/customers?colour:in=red")
        missing = http.get(f"{STORE}/v2/orders/1")
        xml = http.get(f"{STORE}/v2/store", headers={"accept": "*/*"})
        left = [int(http.get(f"{STORE}/v2/store").headers["x-rate-limit-requests-left"]) for _ in range(2)]
        last = next(answer for _ in range(200) if (answer := http.get(f"{STORE}/v2/store")).status_code == 429)

    assert (nothing.status_code, nothing.content) == (204, b"")
    assert (unknown.status_code, list(unknown.json())) == (422, ["status", "title", "type", "errors"])
    assert (missing.status_code, missing.json()[0]["status"]) == (404, 404)
    assert xml.headers["content-type"].startswith("application/xml")
    assert left[0] - left[1] == 1
    assert int(last.headers["x-rate-limit-time-reset-ms"]) <= 30_000


def test_requests_and_rows_are_part_of_the_published_description() -> None:
    customers = digest("bigcommerce", "customers-v3.digest.json")["paths"]["/customers"]["get"]
    orders = digest("bigcommerce", "orders-v2.digest.json")["paths"]
    sandbox = Sandbox(people=5, systems=["bigcommerce"]).dialects["bigcommerce"]

    # The sandbox refuses every filter that it does not know, so what the adapter sends is among these.
    assert {each["name"] for each in customers["params"]} >= _CUSTOMER_FILTERS
    assert {each["name"] for each in orders["/orders"]["get"]["params"]} >= _ORDER_FILTERS
    row = next(iter(sandbox.tables["contact"]))
    assert row.keys() <= customers["responses"]["200"]["schema"]["props"]["data"]["items"]["props"].keys()
    order = next(iter(sandbox.tables["order"]))
    assert (
        order.keys()
        <= {"custom_status", "cart_id"} | orders["/orders/{order_id}"]["get"]["responses"]["200"]["schema"]["props"].keys()
    )
