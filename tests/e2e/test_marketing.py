"""What marketing tools did reaches the customer, and the timeline."""

from collections.abc import Iterator

import pytest

from tests.world import World, world

EMAIL = "ada.king@northwind.example"
EVENTS = """query($first: Int!, $after: String) { customer(by: {email: "ada.king@northwind.example"}) {
  marketingEvents(first: $first, after: $after) { nodes { id kind rawKind campaign at ref { system } customer { primaryEmail } }
    pageInfo { hasNextPage endCursor } sources { source { id } state } } } }"""


@pytest.fixture(scope="module")
def tools() -> Iterator[World]:
    with world(people=40, systems=("hubspot", "marketo", "mailchimp"), deadline=15.0) as found:
        yield found


def test_events_of_all_tools_come_in_one_list_in_our_words(tools: World) -> None:
    found = tools.data(EVENTS, {"first": 50})["customer"]["marketingEvents"]

    systems = {each["ref"]["system"] for each in found["nodes"]}
    assert systems == {"marketo", "mailchimp"}
    for system in systems:
        kinds = {each["kind"] for each in found["nodes"] if each["ref"]["system"] == system}
        assert {"EMAIL_SENT", "EMAIL_OPENED", "EMAIL_CLICKED"} <= kinds
    assert [each["at"] for each in found["nodes"]] == sorted(each["at"] for each in found["nodes"])
    assert all(each["rawKind"] for each in found["nodes"])
    assert all(each["campaign"] for each in found["nodes"] if each["kind"].startswith("EMAIL_"))
    assert {each["customer"]["primaryEmail"] for each in found["nodes"]} == {EMAIL}
    assert len({each["id"] for each in found["nodes"]}) == len(found["nodes"])


def test_pages_of_events_join_whole(tools: World) -> None:
    whole = tools.data(EVENTS, {"first": 50})["customer"]["marketingEvents"]["nodes"]

    joined, after, more = [], None, True
    while more:
        page = tools.data(EVENTS, {"first": 3, "after": after})["customer"]["marketingEvents"]
        joined += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    assert [each["id"] for each in joined] == [each["id"] for each in whole]


def test_the_timeline_has_them_and_can_be_asked_for_them_alone(tools: World) -> None:
    query = 'query($kinds: [TimelineKind!]) { customer(by: {email: "%s"}) { timeline(first: 50, kinds: $kinds) { nodes {' % EMAIL
    query += " __typename ... on MarketingEvent { at kind } ... on Deal { name } } } } }"

    everything = tools.data(query, {})["customer"]["timeline"]["nodes"]
    alone = tools.data(query, {"kinds": ["MARKETING"]})["customer"]["timeline"]["nodes"]

    assert {each["__typename"] for each in everything} >= {"MarketingEvent", "Deal"}
    assert {each["__typename"] for each in alone} == {"MarketingEvent"}
    assert [each["at"] for each in alone] == sorted((each["at"] for each in alone), reverse=True)


def test_a_tool_that_is_down_is_named_and_answers_what_it_told_before(tools: World) -> None:
    live = EVENTS.replace("first: $first, after: $after", "first: $first, after: $after, read: {policy: LIVE}")
    before = tools.data(live, {"first": 50})["customer"]["marketingEvents"]["nodes"]
    tools.fault("marketo", "status", path="*activities*")

    found = tools.data(live, {"first": 50})["customer"]["marketingEvents"]
    tools.heal()

    assert {each["source"]["id"]: each["state"] for each in found["sources"]}["marketo"] == "STALE"
    assert found["nodes"] == before
