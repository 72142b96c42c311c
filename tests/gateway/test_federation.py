"""The graph as a Federation 2 subgraph."""

from pathlib import Path

import pytest

from schema.graph import sdl
from tests.tools import node
from tests.world import World, world

ROOT = Path(__file__).parents[2]
NEIGHBOUR = """
extend schema @link(url: "https://specs.apollo.dev/federation/v2.7", import: ["@key"])
type Query { loyalty(email: String!): Customer }
type Customer @key(fields: "primaryEmail") { primaryEmail: String points: Int! }
type Deal @key(fields: "id") { id: ID! commission: Float }
"""


@pytest.fixture(scope="module")
def served():  # type: ignore[no-untyped-def]
    with world(people=40) as running:
        yield running


def test_the_committed_sdl_is_what_the_code_says() -> None:
    assert (ROOT / "schema/schema.graphql").read_text() == sdl(), "run `make sdl` and look at the difference"


def test_it_composes_with_a_subgraph_that_extends_customer(tmp_path: Path) -> None:
    (tmp_path / "neighbour.graphql").write_text(NEIGHBOUR)

    result = node("compose.mjs", ROOT / "schema/schema.graphql", tmp_path / "neighbour.graphql")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "Customer" in result.stdout.split()


ENTITIES = "query($of: [_Any!]!) { _entities(representations: $of) { __typename ... on Customer { id name } ... on Contact { id } ... on Deal { id } } }"


def test_entities_answer_in_the_order_asked_by_every_key(served: World) -> None:
    page = served.data(
        "{ customers(first: 3) { nodes { id primaryEmail } } deals(first: 1) { nodes { id ref { sourceId object recordId } } } }"
    )
    people, deal = page["customers"]["nodes"], page["deals"]["nodes"][0]

    found = served.data(
        ENTITIES,
        {"of": [
            {"__typename": "Deal", "ref": deal["ref"]},
            {"__typename": "Customer", "id": people[1]["id"]},
            {"__typename": "Customer", "primaryEmail": "ada.king@northwind.example"},
            {"__typename": "Customer", "id": people[0]["id"]},
        ]},
    )["_entities"]  # fmt: skip

    assert found[0] == {"__typename": "Deal", "id": deal["id"]}
    assert [found[1]["id"], found[3]["id"]] == [people[1]["id"], people[0]["id"]]
    assert found[2]["name"] == "Ada King"


def test_an_unknown_entity_fails_alone(served: World) -> None:
    body = served.ask(
        ENTITIES,
        {"of": [
            {"__typename": "Spaceship", "id": "1"},
            {"__typename": "Customer", "primaryEmail": "ada.king@northwind.example"},
            {"__typename": "Customer", "id": "customer:unknown"},
            {"__typename": "Deal", "id": 7},
        ]},
    )  # fmt: skip

    assert [each and each["__typename"] for each in body["data"]["_entities"]] == [None, "Customer", None, None]
    assert {tuple(error["path"]) for error in body["errors"]} == {("_entities", 0), ("_entities", 3)}


def test_too_many_entities_are_refused(served: World) -> None:
    body = served.ask(ENTITIES, {"of": [{"__typename": "Deal", "id": "x"}] * 501})

    assert body["errors"][0]["extensions"]["code"] == "VALIDATION"


def test_the_email_key_can_be_switched_off() -> None:
    with world(people=2, email_key=False) as running:
        body = running.ask(ENTITIES, {"of": [{"__typename": "Customer", "primaryEmail": "ada.king@northwind.example"}]})

    assert body["data"]["_entities"] == [None]
