"""What is unusual about Freshdesk: nothing can be listed in order, and searches are short."""

from collections.abc import Iterator

import httpx
import pytest

from sandbox.app import Sandbox, server
from tests.world import World, served, world

KEY = ("freshdesk-demo-key", "X")


@pytest.fixture(scope="module")
def desk() -> Iterator[World]:
    with world(people=60, systems=["freshdesk", "zendesk"]) as running:
        yield running


def test_a_list_says_that_it_is_not_served_and_never_pretends(desk: World) -> None:
    tickets = desk.data("{ tickets(first: 10) { nodes { ref { system } } sources { source { id } state code exhausted } } }")[
        "tickets"
    ]

    states = {each["source"]["id"]: each for each in tickets["sources"]}
    assert (states["freshdesk"]["state"], states["freshdesk"]["code"]) == ("UNSUPPORTED", "UNSUPPORTED")
    assert {each["ref"]["system"] for each in tickets["nodes"]} == {"zendesk"}


def test_tickets_of_a_customer_come_however_old_they_are(desk: World) -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { tickets(first: 20) { nodes { ref { system } subject status priority createdAt } } } }'

    tickets = desk.data(query)["customer"]["tickets"]["nodes"]

    ours = [each for each in tickets if each["ref"]["system"] == "freshdesk"]
    assert ours, "the default list shows the last 30 days only"
    assert all(each["status"] and each["subject"] for each in ours)


def test_many_addresses_are_packed_into_searches_of_512_characters(desk: World) -> None:
    desk.forget_calls()

    desk.data("{ customers(first: 40) { nodes { id } } }")

    searches = desk.calls()["freshdesk"]["GET /api/v2/search/contacts"]
    assert searches < 20, "about ten addresses a search"


def test_the_sandbox_speaks_as_is_known() -> None:
    with (
        served(server(Sandbox(people=40, systems=["freshdesk"]))) as address,
        httpx.Client(base_url=f"{address}/freshdesk/api/v2", auth=KEY) as http,
    ):
        month = http.get("tickets", params={"per_page": 100}).json()
        ever = http.get("tickets", params={"per_page": 100, "updated_since": "1970-01-01T00:00:00Z"})
        deep = http.get("tickets", params={"page": 301})
        nobody = http.get("contacts/1")
        email = http.get("contacts", params={"per_page": 100}).json()[0]["email"]
        found = http.get(
            "search/contacts", params={"query": f"\"email:'{email}' OR (email:'none@x.example' AND tag:vip)\""}
        ).json()
        wrong = [
            http.get("search/contacts", params={"query": query})
            for query in ("email:x", '"email:\'x"', '"colour:red"', f'"email:{"x" * 600}"')
        ]

    assert len(month) < len(ever.json())
    assert all(each["created_at"] for each in ever.json())
    assert deep.json()["errors"][0]["message"].startswith("You cannot access tickets beyond the 300th page")
    assert (nobody.status_code, nobody.content) == (404, b"")
    assert [each["email"] for each in found["results"]] == [email]
    assert [(each.status_code, each.json()["errors"][0]["code"]) for each in wrong] == [
        (400, "invalid_value"), (400, "invalid_value"), (400, "invalid_field"), (400, "invalid_value"),
    ]  # fmt: skip


def test_pages_are_linked_until_the_last_one() -> None:
    with (
        served(server(Sandbox(people=120, systems=["freshdesk"]))) as address,
        httpx.Client(base_url=f"{address}/freshdesk/api/v2", auth=KEY) as http,
    ):
        url, seen = "contacts?per_page=7", []
        while url:
            answer = http.get(url)
            seen += [each["id"] for each in answer.json()]
            url = answer.links.get("next", {}).get("url", "")

    assert len(seen) == len(set(seen)) > 30
