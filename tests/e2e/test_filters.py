"""Lists filtered by custom fields: tested on what is read, never silently short."""

from typing import Any

import pytest

from tests.world import World

LIST = """query($first: Int!, $after: String, $where: CustomerFilter, $keys: [String!]) { contacts(first: $first, after: $after, where: $where) {
  nodes { id ref { system } customFields(keys: $keys) { key text number options } }
  pageInfo { hasNextPage endCursor } sources { source { id } state } } }"""


def pages(there: World, conditions: list[dict[str, Any]], *, first: int = 100) -> list[Any]:
    """Return all contacts that pass, joined over the pages."""
    found: list[Any] = []
    after, more = None, True
    keys = [each["key"] for each in conditions] or ["favorite_color", "loyalty_points"]
    while more:
        where = {"custom": conditions} if conditions else None
        page = there.data(LIST, {"first": first, "after": after, "where": where, "keys": keys})["contacts"]
        found += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
    return found


def values(node: Any) -> dict[str, Any]:
    return {each["key"]: each for each in node["customFields"]}


def test_a_text_condition_leaves_those_that_pass_and_only_those(four: World) -> None:
    everyone = pages(four, [])

    blue = pages(four, [{"key": "favorite_color", "string": {"eq": "Blue"}}])

    expected = {each["id"] for each in everyone if values(each).get("favorite_color", {}).get("text") == "Blue"}
    assert {each["id"] for each in blue} == expected
    assert 0 < len(blue) < len(everyone)


def test_conditions_are_joined_by_and_and_numbers_compare_as_numbers(four: World) -> None:
    everyone = pages(four, [])

    found = pages(
        four,
        [
            {"key": "favorite_color", "string": {"in": ["Blue", "Green"]}},
            {"key": "loyalty_points", "number": {"gte": "500", "lt": "900"}},
        ],
    )

    def passes(node: Any) -> bool:
        has = values(node)
        points = has.get("loyalty_points", {}).get("number")
        return (
            has.get("favorite_color", {}).get("text") in {"Blue", "Green"} and points is not None and 500 <= float(points) < 900
        )

    assert {each["id"] for each in found} == {each["id"] for each in everyone if passes(each)}
    assert found


def test_a_field_a_system_does_not_have_is_null(four: World) -> None:
    absent = pages(four, [{"key": "favorite_color", "string": {"isNull": True}}])
    present = pages(four, [{"key": "favorite_color", "string": {"isNull": False}}])

    assert {each["ref"]["system"] for each in present} == {"hubspot"}
    assert {"salesforce", "shopify", "zendesk"} <= {each["ref"]["system"] for each in absent}


def test_a_condition_may_name_one_source(four: World) -> None:
    found = pages(four, [{"key": "favorite_color", "source": "salesforce", "string": {"isNull": True}}])

    assert {each["ref"]["system"] for each in found} == {"salesforce"}


def test_filtered_pages_of_any_size_join_to_the_same_list(four: World) -> None:
    condition = [{"key": "favorite_color", "string": {"startsWith": "b"}}]

    assert [each["id"] for each in pages(four, condition, first=7)] == [each["id"] for each in pages(four, condition)]


def test_deals_are_filtered_too_by_the_label_that_is_shown(four: World) -> None:
    query = 'query($where: DealFilter) { deals(first: 100, where: $where) { nodes { customFields(keys: ["region"]) { text } } } }'

    found = four.data(query, {"where": {"custom": [{"key": "region", "string": {"eq": "Asia-Pacific"}}]}})["deals"]["nodes"]

    assert found
    assert {each["customFields"][0]["text"] for each in found} == {"Asia-Pacific"}


@pytest.mark.parametrize(
    "conditions",
    [[{"key": "favorite_color"}], [{"key": "favorite_color", "string": {}}], [{"key": "k", "string": {"eq": "v"}}] * 11],
)
def test_a_condition_that_tests_nothing_is_a_mistake(four: World, conditions: list[dict[str, Any]]) -> None:
    body = four.ask(LIST, {"first": 5, "where": {"custom": conditions}})

    assert body["errors"][0]["extensions"]["code"] == "VALIDATION"
