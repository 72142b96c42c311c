"""ShopifyAPI, unmodified, against the sandbox: GraphQL, reading and writing.

Its session takes protocol, domain and port as settings; what stands before the first dot of the host is the shop's name, so the
loopback address is the shop "127" at the domain "0.0.1".
"""

import json
import urllib.error
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import shopify
from starlette.applications import Starlette

from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.shopify import ADMIN_TOKEN
from tests.world import served


@pytest.fixture(scope="module")
def shop() -> Iterator[Sandbox]:
    sandbox = Sandbox(people=60, systems=("shopify",))
    alone = Starlette(routes=sandbox.dialects["shopify"].routes(sandbox.faults))  # the client knows no path before its own
    with served(server(alone)) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        for name, value in {"protocol": "http", "myshopify_domain": "0.0.1", "port": urlsplit(address).port}.items():
            patch.setattr(shopify.Session, name, value)
        shopify.ShopifyResource.activate_session(shopify.Session("127.0.0.1", "2026-07", ADMIN_TOKEN))
        yield sandbox
        shopify.ShopifyResource.clear_session()


def ask(query: str, **variables: Any) -> Any:
    return json.loads(shopify.GraphQL().execute(query, variables))


def test_it_pages_through_all_customers(shop: Sandbox) -> None:
    query = "query($after: String) { customers(first: 20, after: $after) { edges { cursor node { legacyResourceId } } pageInfo { hasNextPage endCursor } } }"
    found: list[str] = []
    after = None

    while True:
        page = ask(query, after=after)["data"]["customers"]
        found += [each["node"]["legacyResourceId"] for each in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    assert sorted(found) == sorted(str(each.id) for each in shop.world.profiles["shopify"] if not each.deleted)


def test_it_finds_a_customer_and_their_orders(shop: Sandbox) -> None:
    query = (
        "{ customerByIdentifier(identifier: {emailAddress: \"ada.king@northwind.example\"}) { firstName orders(first: 10) {"
        " nodes { name currentTotalPriceSet { shopMoney { amount currencyCode } } } } } }"
    )  # fmt: skip

    found = ask(query)["data"]["customerByIdentifier"]

    assert found["firstName"] == "Ada"
    assert found["orders"]["nodes"][0]["currentTotalPriceSet"]["shopMoney"]["currencyCode"] == "USD"


def test_it_creates_updates_sets_and_deletes_a_customer(shop: Sandbox) -> None:
    created = ask(
        "mutation($input: CustomerInput!) { customerCreate(input: $input) { customer { id email: defaultEmailAddress { emailAddress } } userErrors { field message } } }",
        input={"email": "client@people.example", "firstName": "Client", "metafields": [{"namespace": "custom", "key": "points", "value": "7"}]},
    )["data"]["customerCreate"]  # fmt: skip
    id = created["customer"]["id"]
    updated = ask(
        "mutation($input: CustomerInput!) { customerUpdate(input: $input) { customer { displayName metafield(key: \"points\") { value } } userErrors { message } } }",
        input={"id": id, "lastName": "Library"},
    )["data"]["customerUpdate"]  # fmt: skip
    same = ask(
        "mutation($by: CustomerSetIdentifiers, $input: CustomerSetInput!) { customerSet(identifier: $by, input: $input) { customer { id note } userErrors { code } } }",
        by={"email": "client@people.example"}, input={"email": "client@people.example", "note": "set"},
    )["data"]["customerSet"]  # fmt: skip
    deleted = ask("mutation($id: ID!) { customerDelete(input: {id: $id}) { deletedCustomerId userErrors { message } } }", id=id)
    read = ask("query($id: ID!) { customer(id: $id) { id } }", id=id)

    assert created["userErrors"] == []
    assert updated == {"customer": {"displayName": "Client Library", "metafield": {"value": "7"}}, "userErrors": []}
    assert same == {"customer": {"id": id, "note": "set"}, "userErrors": []}
    assert deleted["data"]["customerDelete"]["deletedCustomerId"] == id
    assert read["data"] == {"customer": None}


def test_it_is_told_of_an_address_that_is_taken(shop: Sandbox) -> None:
    told = ask(
        "mutation($input: CustomerInput!) { customerCreate(input: $input) { customer { id } userErrors { field message } } }",
        input={"email": "ada.king@northwind.example"},
    )["data"]["customerCreate"]

    assert told == {"customer": None, "userErrors": [{"field": ["email"], "message": "Email has already been taken"}]}


def test_it_reads_a_throttled_answer_as_a_200_and_raises_on_a_token_that_is_none(
    shop: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    number = shop.faults.add(Fault(system="shopify", fault="throttle", seconds=2))
    throttled = ask("{ shop { name } }")
    shop.faults.remove(number)

    with shopify.Session.temp("127.0.0.1", "2026-07", "nonsense"), pytest.raises(urllib.error.HTTPError) as raised:
        ask("{ shop { name } }")

    assert throttled["errors"][0]["extensions"]["code"] == "THROTTLED"
    assert raised.value.code == 401
    assert "Invalid API key" in capsys.readouterr().out  # it prints the body


def test_it_calls_the_version_it_was_told(shop: Sandbox) -> None:
    ask("{ shop { name } }")

    assert shopify.ShopifyResource.get_version() == "2026-07"
    assert set(shop.dialects["shopify"].calls) == {"POST /admin/api/{version}/graphql.json"}
