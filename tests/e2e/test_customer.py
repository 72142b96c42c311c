"""One customer out of four dialects, as a frontend asks for them."""

import pytest

from gateway.app import EXAMPLES
from tests.world import SYSTEMS, World

EMAIL = "ada.king@northwind.example"


def test_one_answer_holds_records_of_all_four_systems(four: World) -> None:
    customer = four.data(EXAMPLES[0])["customer"]

    assert customer["name"] == "Ada King"
    assert {each["ref"]["system"] for each in customer["contacts"]} == set(SYSTEMS)
    assert {each["ref"]["system"] for each in customer["deals"]["nodes"]} == {"hubspot", "salesforce"}
    assert len(customer["orders"]["nodes"]) == 3
    assert {each["ref"]["system"] for each in customer["tickets"]["nodes"]} == {"hubspot", "zendesk"}
    assert {each["__typename"] for each in customer["timeline"]["nodes"]} == {"Deal", "Order", "Ticket"}
    assert {each["source"]["id"]: each["state"] for each in customer["sources"]} == dict.fromkeys(SYSTEMS, "OK") | {
        each["source"]["id"]: each["state"] for each in customer["sources"] if each["state"] == "CACHED"
    }


def test_every_way_of_asking_finds_the_same_customer(four: World) -> None:
    found = four.data('{ customer(by: {email: "%s"}) { id phones contacts { ref { sourceId object recordId } } } }' % EMAIL)[
        "customer"
    ]
    ref = found["contacts"][0]["ref"]

    by_id = four.data("query($id: ID!) { customer(by: {id: $id}) { id } }", {"id": found["id"]})
    by_phone = four.data(
        "query($phone: String!) { customer(by: {phone: $phone}) { id } }", {"phone": "(212) 555-" + found["phones"][0][-4:]}
    )
    by_ref = four.data("query($ref: RecordRefInput!) { customer(by: {ref: $ref}) { id } }", {"ref": ref})
    by_node = four.data("query($id: ID!) { node(id: $id) { __typename id } }", {"id": found["id"]})

    assert {each["customer"]["id"] for each in (by_id, by_phone, by_ref)} == {found["id"]}
    assert by_node["node"] == {"__typename": "Customer", "id": found["id"]}


def test_nobody_is_null_and_no_error(four: World) -> None:
    assert four.data('{ customer(by: {email: "nobody@nowhere.example"}) { id } }') == {"customer": None}


def test_an_unknown_node_is_null_with_an_error_and_costs_its_neighbours_nothing(four: World) -> None:
    contact = four.data("{ contacts(first: 1) { nodes { id } } }")["contacts"]["nodes"][0]["id"]

    alone = four.ask('{ node(id: "contact:hubspot:1") { id } }')
    several = four.data("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ["contact:hubspot:1", contact, "nonsense"]})

    assert alone["data"] == {"node": None}
    assert alone["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert several["nodes"] == [None, {"id": contact}, None]


def test_records_lead_back_to_their_customer(four: World) -> None:
    query = (
        '{ customer(by: {email: "%s"}) { id deals(first: 1) { nodes { customer { id } contacts { id } account { name } owner { name } } }'
        % EMAIL
    )
    query += " orders(first: 1) { nodes { customer { id } } } tickets(first: 1) { nodes { customer { id } } } } }"

    customer = four.data(query)["customer"]

    for each in ("deals", "orders", "tickets"):
        assert customer[each]["nodes"][0]["customer"]["id"] == customer["id"]
    assert customer["deals"]["nodes"][0]["contacts"]
    assert customer["deals"]["nodes"][0]["owner"]["name"]


def test_custom_fields_come_typed_and_labelled_from_metadata(four: World) -> None:
    query = (
        '{ customer(by: {email: "%s"}) { customFields(keys: ["favorite_color", "loyalty_points", "Loyalty_Tier__c", "plan", "custom.points", "custom.vip-since"]) {'
        % EMAIL
    )
    query += " key type text number options source { system } } } }"

    fields = {each["key"]: each for each in four.data(query)["customer"]["customFields"]}

    assert set(fields) == {"favorite_color", "loyalty_points", "Loyalty_Tier__c", "plan", "custom.points", "custom.vip-since"}
    assert fields["custom.points"]["type"] == "NUMBER"
    assert fields["custom.points"]["number"] is not None
    assert fields["custom.vip-since"]["type"] == "DATE"
    assert fields["favorite_color"]["text"] in {"Blue", "Green", "Red"}
    assert fields["loyalty_points"]["number"] == fields["loyalty_points"]["text"]
    assert fields["plan"]["source"]["system"] == "zendesk"


def test_raw_rows_need_their_scope(four: World) -> None:
    raw = four.data('{ customer(by: {email: "%s"}) { raw(source: "hubspot") } }' % EMAIL)["customer"]["raw"]

    assert raw[0]["properties"]["email"] == EMAIL


def test_timeline_is_newest_first_and_pages_join(four: World) -> None:
    query = 'query($first: Int!, $after: String) { customer(by: {email: "%s"}) { timeline(first: $first, after: $after) {' % EMAIL
    query += " nodes { __typename ... on Node { id } } pageInfo { hasNextPage endCursor } } } }"
    whole = four.data(query, {"first": 50})["customer"]["timeline"]["nodes"]

    joined, after, more = [], None, True
    while more:
        page = four.data(query, {"first": 3, "after": after})["customer"]["timeline"]
        joined += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    assert joined == whole
    assert len({each["id"] for each in whole}) == len(whole) > 8


def test_provenance_names_the_chosen_value_and_its_source(four: World) -> None:
    query = '{ customer(by: {email: "%s"}) { provenance(fields: ["givenName"]) { field rule chosen { value source { system } } conflicts { value } } } }'

    [found] = four.data(query % EMAIL)["customer"]["provenance"]

    assert (found["field"], found["chosen"]["value"], found["conflicts"]) == ("givenName", "Ada", [])


def test_identity_tells_why_records_are_one_customer(four: World) -> None:
    query = '{ customer(by: {email: "%s"}) { identity { method confidence links { method score evidence a { system } b { system } } } } }'

    identity = four.data(query % EMAIL)["customer"]["identity"]

    assert identity["method"] == "EXACT_EMAIL"
    assert identity["links"]


@pytest.mark.parametrize("kind", ["contacts", "accounts", "deals", "orders", "tickets", "leads"])
def test_every_root_list_joins_to_distinct_records_of_every_source_that_has_the_kind(four: World, kind: str) -> None:
    query = (
        "query($after: String) { %s(first: 41, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } sources { source { id } state } } }"
        % kind
    )
    ids, after, more = [], None, True
    while more:
        page = four.data(query, {"after": after})[kind]
        ids += [each["id"] for each in page["nodes"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    assert len(ids) == len(set(ids))
    wanted = {
        "contacts": set(SYSTEMS), "accounts": {"hubspot", "salesforce", "zendesk"}, "deals": {"hubspot", "salesforce"}, "orders": {"shopify"},
        "tickets": {"hubspot", "zendesk"}, "leads": {"salesforce"},
    }  # fmt: skip
    assert {id.split(":")[1] for id in ids} == wanted[kind]
