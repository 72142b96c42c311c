"""Objects that only one account has: listed, filtered, read by id, with typed fields out of cached metadata."""

from collections.abc import Iterator
from typing import Any

import pytest

from adapters.base import Adapter
from adapters.registry import ADAPTERS
from tests.world import World, world

SYSTEMS = sorted(name for name, each in ADAPTERS.items() if each.objects is not Adapter.objects)
OBJECTS = """{ contacts(first: 1) { sources { source { id unreadableFields
  objects { name label custom fields { name label type custom readable writable options } } } } } }"""
PAGE = """query($object: String!, $source: ID!, $first: Int!, $after: String, $where: [CustomFieldFilter!], $keys: [String!]) {
  customRecords(object: $object, source: $source, first: $first, after: $after, where: $where) {
    nodes { id ref { sourceId object recordId } objectType { name custom } fields(keys: $keys) { key type text number dateTime options } }
    pageInfo { hasNextPage endCursor } sources { source { id } state calls } } }"""


@pytest.fixture(scope="module")
def accounts() -> Iterator[World]:
    with world(people=60, systems=SYSTEMS, deadline=20.0) as found:
        yield found


@pytest.fixture(scope="module")
def objects(accounts: World) -> dict[str, list[Any]]:
    """What each source says of its custom objects."""
    sources = accounts.data(OBJECTS)["contacts"]["sources"]
    return {each["source"]["id"]: [one for one in each["source"]["objects"] if one["custom"]] for each in sources}


def listed(there: World, object: str, source: str, *, first: int = 100, after: str | None = None, **variables: Any) -> list[Any]:
    found: list[Any] = []
    more = True
    while more:
        asked = {"object": object, "source": source, "first": first, "after": after, **variables}
        page = there.data(PAGE, asked)["customRecords"]
        found += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_source_tells_its_custom_objects_and_their_typed_fields(objects: dict[str, list[Any]], system: str) -> None:
    fields = [field for each in objects[system] for field in each["fields"]]

    assert objects[system]
    assert len({field["type"] for field in fields}) >= 4
    assert all(field["name"] and field["label"] for field in fields)


@pytest.mark.parametrize("first", [7, 100])
@pytest.mark.parametrize("system", SYSTEMS)
def test_pages_join_to_every_record_once(accounts: World, objects: dict[str, list[Any]], system: str, first: int) -> None:
    name = objects[system][0]["name"]

    found = listed(accounts, name, system, first=first)

    assert len({each["id"] for each in found}) == len(found) > 7
    assert {(each["ref"]["sourceId"], each["ref"]["object"], each["objectType"]["name"]) for each in found} == {
        (system, name, name)
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_only_the_keys_asked_for_come_and_they_are_typed(accounts: World, objects: dict[str, list[Any]], system: str) -> None:
    about = objects[system][0]
    number = next(each["name"] for each in about["fields"] if each["type"] in {"NUMBER", "MONEY"} and each["custom"])

    found = listed(accounts, about["name"], system, keys=[number])

    assert {field["key"] for each in found for field in each["fields"]} == {number}
    assert any(field["number"] is not None for each in found for field in each["fields"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_filter_leaves_exactly_those_that_pass(accounts: World, objects: dict[str, list[Any]], system: str) -> None:
    about = objects[system][0]
    picklist = next(each for each in about["fields"] if each["type"] == "PICKLIST" and each["options"] and each["custom"])
    key = picklist["name"]
    everything = listed(accounts, about["name"], system, keys=[key])
    labels = [each["fields"][0]["text"] for each in everything if each["fields"][0]["text"]]

    found = listed(accounts, about["name"], system, first=5, keys=[key], where=[{"key": key, "string": {"eq": labels[0]}}])

    assert set(labels) <= set(picklist["options"]), "options come as labels"
    assert {each["id"] for each in found} == {each["id"] for each in everything if each["fields"][0]["text"] == labels[0]}
    assert len(found) < len(everything)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_record_is_a_node_and_an_unknown_one_is_none(accounts: World, objects: dict[str, list[Any]], system: str) -> None:
    one = listed(accounts, objects[system][0]["name"], system)[0]
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on CustomRecord { objectType { name } fields { key text } } } }"

    known, unknown = accounts.data(query, {"ids": [one["id"], f"custom:{system}:None_such/1"]})["nodes"]

    assert (known["id"], known["objectType"]["name"]) == (one["id"], one["objectType"]["name"])
    assert {field["key"]: field["text"] for field in one["fields"]}.items() <= {
        field["key"]: field["text"] for field in known["fields"]
    }.items()
    assert unknown is None


def test_metadata_is_asked_for_once(accounts: World, objects: dict[str, list[Any]]) -> None:
    listed(accounts, objects["salesforce"][0]["name"], "salesforce", keys=[])
    accounts.forget_calls()

    listed(accounts, objects["salesforce"][0]["name"], "salesforce", keys=[])

    assert not [call for call in accounts.calls()["salesforce"] if "describe" in call]


@pytest.mark.parametrize(
    ("object", "source", "code"),
    [("None_such__c", "salesforce", "UNSUPPORTED"), ("Thing__c", "nowhere", "NOT_FOUND"), ("", "salesforce", "UNSUPPORTED")],
)
def test_what_is_not_there_is_told_by_code(accounts: World, object: str, source: str, code: str) -> None:
    body = accounts.ask(PAGE, {"object": object, "source": source, "first": 5})

    assert body["errors"][0]["extensions"]["code"] == code


def test_a_source_that_is_down_is_an_error_with_its_code(accounts: World, objects: dict[str, list[Any]]) -> None:
    accounts.fault("salesforce", "status", path="*query*", status=503)
    body = accounts.ask(PAGE, {"object": objects["salesforce"][0]["name"], "source": "salesforce", "first": 5})
    accounts.heal()

    assert body["data"] is None
    assert body["errors"][0]["extensions"]["code"] in {"UPSTREAM", "TIMEOUT"}


def test_fields_that_security_hides_are_named_and_cost_no_answer() -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { contacts { title phone } sources { state source { id unreadableFields } } } }'
    with world(people=20, systems=("salesforce",)) as running:
        running.sandbox.dialects["salesforce"].hidden |= {"Contact.Phone", "Contact.Title"}  # type: ignore[attr-defined]

        customer = running.data(query)["customer"]

    assert customer["sources"] == [
        {"state": "OK", "source": {"id": "salesforce", "unreadableFields": ["Contact.Phone", "Contact.Title"]}}
    ]
    assert {each["title"] for each in customer["contacts"]} == {None}


@pytest.mark.parametrize("system", SYSTEMS)
def test_pages_of_another_size_go_on_at_the_same_record(accounts: World, objects: dict[str, list[Any]], system: str) -> None:
    name = objects[system][0]["name"]
    every = [each["id"] for each in listed(accounts, name, system)]
    query = """query($object: String!, $source: ID!, $first: Int!, $after: String) {
      customRecords(object: $object, source: $source, first: $first, after: $after) { edges { cursor node { id } } } }"""
    edges = accounts.data(query, {"object": name, "source": system, "first": 6})["customRecords"]["edges"]

    rest = listed(accounts, name, system, first=2, after=edges[3]["cursor"])

    assert [each["id"] for each in rest] == every[4:]
