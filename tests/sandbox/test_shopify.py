"""Shopify's dialect answers as its sheet says: points, search syntax, global ids, tokens."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, build_schema

from sandbox.app import Sandbox, server
from sandbox.shopify_cost import SCHEMA
from tests.specifications import specification
from tests.world import served

TOKEN = {"X-Shopify-Access-Token": "shpat_demo"}
APP = {"client_id": "shopify-demo-app", "client_secret": "shopify-demo-secret"}
GRAPHQL, OAUTH = "/shopify/admin/api/2026-07/graphql.json", "/shopify/admin/oauth/access_token"


class Shop:
    def __init__(self, sandbox: Sandbox, http: httpx.Client) -> None:
        self.sandbox, self.http = sandbox, http
        self.profiles = [each for each in sandbox.world.profiles["shopify"] if not each.deleted]

    def ask(self, query: str, token: str = "shpat_demo", **variables: Any) -> Any:
        headers = {"X-Shopify-Access-Token": token}
        return self.http.post(GRAPHQL, json={"query": query, "variables": variables}, headers=headers).json()

    def found(self, kind: str, search: str, first: int = 250) -> list[str]:
        """Return the numbers of what a search finds, 250 at most."""
        query = f"query($q: String, $first: Int!) {{ {kind}(first: $first, query: $q) {{ nodes {{ legacyResourceId }} }} }}"
        return [each["legacyResourceId"] for each in self.ask(query, q=search, first=first)["data"][kind]["nodes"]]

    def token(self, **said: str) -> httpx.Response:
        return self.http.post(OAUTH, data={**APP, **said})


@pytest.fixture
def shop() -> Iterator[Shop]:
    sandbox = Sandbox(people=60, systems=["shopify"])
    with served(server(sandbox)) as address, httpx.Client(base_url=address, timeout=30) as http:
        yield Shop(sandbox, http)


# ---- tokens ----


def test_a_call_without_a_token_is_refused_with_a_text(shop: Shop) -> None:
    answer = shop.http.post(GRAPHQL, json={"query": "{ shop { name } }"})

    assert answer.status_code == 401
    assert isinstance(answer.json()["errors"], str)


def test_an_offline_token_dies_after_an_hour_and_its_refresh_token_rotates(shop: Shop) -> None:
    first = shop.token(grant_type="refresh_token", refresh_token="shprt_demo").json()
    shop.sandbox.clock.advance(3601)

    refused = shop.http.post(
        GRAPHQL, json={"query": "{ shop { name } }"}, headers={"X-Shopify-Access-Token": first["access_token"]}
    )
    second = shop.token(grant_type="refresh_token", refresh_token=first["refresh_token"]).json()

    assert (first["expires_in"], refused.status_code) == (3600, 401)
    assert second["refresh_token"] not in {first["refresh_token"], "shprt_demo"}


def test_a_used_refresh_token_lives_until_its_replacement_is_used(shop: Shop) -> None:
    shop.token(grant_type="refresh_token", refresh_token="shprt_demo")

    again = shop.token(grant_type="refresh_token", refresh_token="shprt_demo")
    shop.token(grant_type="refresh_token", refresh_token=again.json()["refresh_token"])
    dead = shop.token(grant_type="refresh_token", refresh_token="shprt_demo")

    assert again.status_code == 200
    assert (dead.status_code, dead.json()["error"]) == (400, "invalid_grant")


def test_client_credentials_last_a_day_and_bring_no_refresh_token(shop: Shop) -> None:
    token = shop.token(grant_type="client_credentials").json()

    shop.sandbox.clock.advance(2 * 3600)
    alive = shop.ask("{ shop { name } }", token["access_token"])
    shop.sandbox.clock.advance(23 * 3600)
    dead = shop.ask("{ shop { name } }", token["access_token"])

    assert "refresh_token" not in token
    assert alive["data"]["shop"]["name"]
    assert "data" not in dead


def test_a_wrong_secret_and_an_unreadable_body_are_refused(shop: Shop) -> None:
    wrong = shop.token(grant_type="client_credentials", client_secret="no")
    unreadable = shop.http.post(OAUTH, content=b"{", headers={"content-type": "application/json"})

    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_client")
    assert unreadable.status_code == 400


# ---- points ----


@pytest.mark.parametrize(
    ("query", "points"),
    [
        ("{ shop { name } }", 1),
        ("{ customers(first: 10) { nodes { id } } }", 10),
        ("{ customers(first: 10) { edges { cursor node { id defaultEmailAddress { emailAddress } } } } }", 20),
        ("{ orders(first: 2) { nodes { lineItems(first: 5) { nodes { id } } } pageInfo { hasNextPage } } }", 12),
        ('{ nodes(ids: ["gid://shopify/Order/1", "gid://shopify/Order/2"]) { ... on Order { customer { id } } } }', 4),
        ('{ node(id: "gid://shopify/Order/1") { ... on Order { customer { id } } ... on Customer { id } } }', 2),
        ("{ __schema { queryType { name } } }", 0),
    ],
)
def test_the_requested_cost_follows_the_published_rule(shop: Shop, query: str, points: int) -> None:
    assert shop.ask(query)["extensions"]["cost"]["requestedQueryCost"] == points


def test_what_was_requested_and_not_used_is_given_back(shop: Shop) -> None:
    shop.sandbox.clock.advance(60)

    cost = shop.ask('{ customers(first: 250, query: "email:nobody@nowhere.example") { nodes { id } } }')["extensions"]["cost"]

    assert (cost["requestedQueryCost"], cost["actualQueryCost"]) == (250, 1)
    status = cost["throttleStatus"]
    assert (status["maximumAvailable"], status["restoreRate"]) == (4000.0, 200.0)
    assert status["currentlyAvailable"] in {3999, 4000}  # a point comes back every five milliseconds


def test_a_query_above_a_thousand_points_is_refused_before_it_runs(shop: Shop) -> None:
    body = shop.ask(
        "{ orders(first: 250) { nodes { customer { defaultEmailAddress { emailAddress } } lineItems(first: 5) { nodes { id } } } } }"
    )

    assert "data" not in body
    assert body["errors"][0]["extensions"] == {"code": "MAX_COST_EXCEEDED", "cost": 2000, "maxCost": 1000}


def test_an_empty_bucket_answers_200_throttled_and_says_when_it_can_pay(shop: Shop) -> None:
    query = "{ orders(first: 250) { nodes { currentTotalPriceSet { shopMoney { amount } } } } }"
    throttled = next(body for body in (shop.ask(query) for _ in range(50)) if "errors" in body)
    cost = throttled["extensions"]["cost"]
    wait = (cost["requestedQueryCost"] - cost["throttleStatus"]["currentlyAvailable"]) / cost["throttleStatus"]["restoreRate"]

    shop.sandbox.clock.advance(wait + 0.01)
    paid = shop.ask(query)

    assert throttled["errors"][0]["extensions"]["code"] == "THROTTLED"
    assert "data" not in throttled
    assert cost["actualQueryCost"] is None
    assert paid["data"]["orders"]["nodes"]


# ---- refusals ----


def test_an_unknown_field_is_refused_in_shopifys_words(shop: Shop) -> None:
    [error] = shop.ask("{ customers(first: 1) { nodes { colour } } }")["errors"]

    assert error["message"] == "Field 'colour' doesn't exist on type 'Customer'"
    assert error["extensions"] == {"code": "undefinedField", "typeName": "Customer", "fieldName": "colour"}


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ customers(first: 1", {}),
        ("query A { shop { name } } query B { shop { id } }", {}),
        ("query($n: Int!) { customers(first: $n) { nodes { id } } }", {"n": "many"}),
        ("query($n: Int!) { customers(first: $n) { nodes { id } } }", {}),
        ("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", {"ids": ["gid://shopify/Order/1", "12"]}),
        ('{ nodes(ids: ["12"]) { id } }', {}),
        ("{ customers(first: 251) { nodes { id } } }", {}),
        ("{ customers(first: -5) { nodes { id } } }", {}),
        ("{ customers { nodes { id } } }", {}),
        ('{ customers(first: 1, after: "nonsense") { nodes { id } } }', {}),
        ('{ customers(first: 1, query: "((") { nodes { id } } }', {}),
    ],
)
def test_a_bad_query_gets_errors_in_a_200(shop: Shop, query: str, variables: dict[str, Any]) -> None:
    answer = shop.http.post(GRAPHQL, json={"query": query, "variables": variables}, headers=TOKEN)

    assert answer.status_code == 200
    assert answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"query": 5}', b'{"query": "{ shop { name } }", "variables": []}  x'])
def test_a_body_that_is_no_query_is_a_400(shop: Shop, body: bytes) -> None:
    assert shop.http.post(GRAPHQL, content=body, headers=TOKEN).status_code == 400


def test_more_than_250_ids_are_refused(shop: Shop) -> None:
    body = shop.ask("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=[f"gid://shopify/Order/{n}" for n in range(251)])

    assert "greater than the maximum allowed of 250" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    ("asked", "answered"), [("2026-07", "2026-07"), ("2024-01", "2026-01"), ("unstable", "unstable"), ("v9", None)]
)
def test_the_header_names_the_version_that_answered(shop: Shop, asked: str, answered: str | None) -> None:
    answer = shop.http.post(f"/shopify/admin/api/{asked}/graphql.json", json={"query": "{ shop { name } }"}, headers=TOKEN)

    assert answer.headers.get("x-shopify-api-version") == answered
    assert answer.status_code == (200 if answered else 404)


# ---- lookups ----


def test_nodes_keep_their_order_with_null_for_what_is_gone(shop: Shop) -> None:
    alive = shop.profiles[3]
    gone = next(each for each in shop.sandbox.world.profiles["shopify"] if each.deleted)
    ids = [f"gid://shopify/Customer/{gone.id}", f"gid://shopify/Customer/{alive.id}", "gid://shopify/Product/1"]

    nodes = shop.ask("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=ids)["data"]["nodes"]

    assert nodes == [None, {"id": f"gid://shopify/Customer/{alive.id}"}, None]


def test_a_customer_is_identified_by_address_number_or_id(shop: Shop) -> None:
    ada = shop.profiles[0]
    query = "query($by: CustomerIdentifierInput!) { customerByIdentifier(identifier: $by) { legacyResourceId } }"
    phone = shop.sandbox.world.people[0].phone

    for by in ({"emailAddress": str(ada.email).upper()}, {"phoneNumber": phone}, {"id": f"gid://shopify/Customer/{ada.id}"}):
        assert shop.ask(query, by=by)["data"]["customerByIdentifier"] == {"legacyResourceId": str(ada.id)}
    assert shop.ask(query, by={"emailAddress": "nobody@nowhere.example"})["data"]["customerByIdentifier"] is None


def test_an_order_has_both_currencies(shop: Shop) -> None:
    query = "{ orders(first: 250) { nodes { currentTotalPriceSet { shopMoney { amount currencyCode } presentmentMoney { currencyCode } } } } }"

    prices = [each["currentTotalPriceSet"] for each in shop.ask(query)["data"]["orders"]["nodes"]]

    assert {each["shopMoney"]["currencyCode"] for each in prices} == {"USD"}
    assert {each["presentmentMoney"]["currencyCode"] for each in prices} == {"USD", "EUR", "GBP"}
    assert all(isinstance(each["shopMoney"]["amount"], str) for each in prices)


# ---- search ----


def test_terms_side_by_side_are_anded_and_or_and_not_work(shop: Shop) -> None:
    a, b = shop.profiles[0], shop.profiles[1]

    assert shop.found("customers", f"id:{a.id} first_name:'{a.given}'") == [str(a.id)]
    assert shop.found("customers", f"id:{a.id} first_name:nobody") == []
    assert set(shop.found("customers", f"id:{a.id} OR id:{b.id}")) == {str(a.id), str(b.id)}
    assert shop.found("customers", f"(id:{a.id} OR id:{b.id}) AND NOT id:{a.id}") == [str(b.id)]
    assert shop.found("customers", f"(id:{a.id} OR id:{b.id}) -id:{b.id}") == [str(a.id)]


def test_comparators_work_on_numbers_and_times(shop: Shop) -> None:
    by_id = sorted(each.id for each in shop.profiles)
    middle = by_id[len(by_id) // 2]

    assert shop.found("customers", f"id:>{middle}") == [str(each) for each in by_id if each > middle]
    assert shop.found("customers", f"id:<={middle}") == [str(each) for each in by_id if each <= middle]
    assert shop.found("customers", "updated_at:>='2100-01-01T00:00:00Z'") == []
    assert len(shop.found("customers", "updated_at:<2100-01-01")) == len(by_id)


def test_quotes_backslashes_and_prefixes_are_read(shop: Shop) -> None:
    ada = shop.profiles[0]
    shop.sandbox.dialects["shopify"].change("contact", str(ada.id), {"lastName": "O'Connor: a (b)"})

    assert shop.found("customers", r"last_name:'O\'Connor: a (b)'") == [str(ada.id)]
    assert shop.found("customers", 'last_name:"O\'Connor: a (b)"') == [str(ada.id)]
    assert shop.found("customers", r"last_name:O\'Conn*") == [str(ada.id)]


def test_orders_are_found_by_state(shop: Shop) -> None:
    orders = shop.sandbox.world.orders["shopify"]

    assert set(shop.found("orders", "status:closed")) == {str(each.id) for each in orders if each.state == 2}
    assert set(shop.found("orders", "status:cancelled")) == {str(each.id) for each in orders if each.state == 3}
    assert len(shop.found("orders", "status:open")) == sum(each.state not in {2, 3} for each in orders)
    assert shop.found("orders", "test:true") == []


@pytest.mark.parametrize(("search", "code"), [("colour:red", "invalid_field"), ("updated_at:>banana", "invalid_value")])
def test_a_term_that_is_not_understood_is_warned_of_and_ignored(shop: Shop, search: str, code: str) -> None:
    body = shop.ask("query($q: String) { customers(first: 250, query: $q) { nodes { id } } }", q=search)

    assert body["extensions"]["search"][0]["warnings"][0]["code"] == code
    assert len(body["data"]["customers"]["nodes"]) == len(shop.profiles)


@pytest.mark.parametrize("sort", ["ID", "CREATED_AT", "UPDATED_AT"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("search", ["", "id:>0", "updated_at:>'2000-01-01' customer_date:<2100-01-01"])
def test_pages_hold_every_customer_once_and_in_order(shop: Shop, sort: str, reverse: bool, search: str) -> None:
    query = (
        "query($after: String, $sort: CustomerSortKeys!, $reverse: Boolean!, $q: String) {"
        " customers(first: 7, after: $after, sortKey: $sort, reverse: $reverse, query: $q) {"
        " nodes { legacyResourceId createdAt updatedAt } pageInfo { hasNextPage endCursor } } }"
    )
    found: list[Any] = []
    after = None
    while True:
        page = shop.ask(query, after=after, sort=sort, reverse=reverse, q=search)["data"]["customers"]
        found += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break

    field = {"ID": "legacyResourceId", "CREATED_AT": "createdAt", "UPDATED_AT": "updatedAt"}[sort]
    values = [int(each[field]) if sort == "ID" else each[field] for each in found]
    assert values == sorted(values, reverse=reverse)
    assert sorted(int(each["legacyResourceId"]) for each in found) == sorted(each.id for each in shop.profiles)


# ---- changes by hand ----


def test_a_change_moves_the_modified_time_and_the_indexes(shop: Shop) -> None:
    ada = shop.profiles[0]

    answer = shop.http.patch(
        f"/_control/records/shopify/contact/{ada.id}", json={"defaultEmailAddress": {"emailAddress": "new@ada.example"}}
    )

    assert answer.json()["updatedAt"] > "2026-07-01"
    assert shop.found("customers", "email:new@ada.example") == [str(ada.id)]
    assert shop.found("customers", f"email:'{ada.email}'") == []


def test_a_deleted_customer_leaves_the_orders_without_one(shop: Shop) -> None:
    order = shop.sandbox.world.orders["shopify"][0]

    shop.http.delete(f"/_control/records/shopify/contact/{order.contact}")

    body = shop.ask("query($id: ID!) { order(id: $id) { customer { id } } }", id=f"gid://shopify/Order/{order.id}")
    assert body["data"]["order"] == {"customer": None}


# ---- mutations ----


CREATE = 'mutation($in: CustomerInput!) { customerCreate(input: $in) { customer { id legacyResourceId displayName createdAt updatedAt state metafield(key: "points") { type value } } userErrors { field message } } }'
UPDATE = "mutation($in: CustomerInput!) { customerUpdate(input: $in) { customer { id updatedAt displayName } userErrors { field message } } }"
SET = "mutation($in: CustomerSetInput!, $by: CustomerSetIdentifiers) { customerSet(input: $in, identifier: $by) { customer { id firstName } userErrors { field message code } } }"
DELETE = "mutation($in: CustomerDeleteInput!) { customerDelete(input: $in) { deletedCustomerId shop { id } userErrors { field message } } }"


def test_a_customer_who_is_made_is_found_everywhere_and_can_be_deleted_once(shop: Shop) -> None:
    said = {
        "email": "New@People.example",
        "firstName": "New",
        "phone": "(212) 555-0188",
        "metafields": [{"namespace": "custom", "key": "points", "value": "3"}],
    }

    made = shop.ask(CREATE, **{"in": said})["data"]["customerCreate"]["customer"]
    found = shop.found("customers", "email:new@people.example phone:+12125550188")
    gone = [shop.ask(DELETE, **{"in": {"id": made["id"]}})["data"]["customerDelete"] for _ in range(2)]

    assert (made["displayName"], made["state"], made["metafield"]) == (
        "New",
        "DISABLED",
        {"type": "number_integer", "value": "3"},
    )
    assert found == [made["legacyResourceId"]]
    assert gone[0] == {"deletedCustomerId": made["id"], "shop": {"id": "gid://shopify/Shop/1"}, "userErrors": []}
    assert gone[1]["userErrors"] == [{"field": ["id"], "message": "Customer can't be found"}]
    assert shop.found("customers", "email:new@people.example") == []


def test_an_update_moves_the_modified_time_and_an_unknown_customer_is_told(shop: Shop) -> None:
    made = shop.ask(CREATE, **{"in": {"firstName": "New"}})["data"]["customerCreate"]["customer"]
    shop.sandbox.clock.advance(5)

    updated = shop.ask(UPDATE, **{"in": {"id": made["id"], "lastName": "Person"}})["data"]["customerUpdate"]
    unknown = shop.ask(UPDATE, **{"in": {"id": "gid://shopify/Customer/1", "lastName": "Person"}})["data"]["customerUpdate"]

    assert updated["customer"]["displayName"] == "New Person"
    assert updated["customer"]["updatedAt"] > made["updatedAt"]
    assert unknown == {"customer": None, "userErrors": [{"field": ["id"], "message": "Customer does not exist"}]}


@pytest.mark.parametrize(
    ("said", "field", "message"),
    [
        ({}, None, "A name, phone number, or email address must be present"),
        ({"email": "no address"}, ["email"], "Email is invalid"),
        ({"firstName": "A", "phone": "12"}, ["phone"], "Phone is invalid"),
        ({"firstName": "A", "metafields": [{"namespace": "custom", "key": "points", "value": "many"}]}, ["metafields", "0", "value"], "Value must be an integer."),
        ({"firstName": "A", "metafields": [{"namespace": "other", "key": "x", "value": "1"}]}, ["metafields", "0", "type"], "Type can't be blank"),
    ],
)  # fmt: skip
def test_what_a_store_objects_to_is_told_by_field_in_a_200(shop: Shop, said: dict[str, Any], field: Any, message: str) -> None:
    before = len(shop.sandbox.dialects["shopify"].tables["contact"])

    told = shop.ask(CREATE, **{"in": said})["data"]["customerCreate"]

    assert told == {"customer": None, "userErrors": [{"field": field, "message": message}]}
    assert len(shop.sandbox.dialects["shopify"].tables["contact"]) == before


def test_customer_set_goes_by_a_key_and_tells_codes(shop: Shop) -> None:
    a, b = [each for each in shop.profiles if each.email and each.phone][:2]

    def problem(said: dict[str, Any], by: dict[str, str] | None) -> str:
        return str(shop.ask(SET, by=by, **{"in": said})["data"]["customerSet"]["userErrors"][0]["code"])

    same = shop.ask(SET, by={"email": str(a.email)}, **{"in": {"email": a.email, "firstName": "Set"}})["data"]["customerSet"]

    assert same == {"customer": {"id": f"gid://shopify/Customer/{a.id}", "firstName": "Set"}, "userErrors": []}
    assert problem({"email": a.email, "phone": b.phone}, {"email": str(a.email)}) == "TAKEN"
    assert problem({"email": b.email}, {"email": str(a.email)}) == "INPUT_MISMATCH"
    assert problem({"firstName": "A"}, {"email": str(a.email)}) == "MISSING_FIELD_REQUIRED"
    assert problem({"firstName": "A"}, {"id": "gid://shopify/Customer/1"}) == "NOT_FOUND"
    assert problem({"id": f"gid://shopify/Customer/{a.id}"}, {"id": f"gid://shopify/Customer/{a.id}"}) == "ID_NOT_ALLOWED"
    assert problem({"email": a.email}, None) == "TAKEN"


def test_a_customer_with_orders_cannot_be_deleted(shop: Shop) -> None:
    order = shop.sandbox.world.orders["shopify"][0]

    told = shop.ask(DELETE, **{"in": {"id": f"gid://shopify/Customer/{order.contact}"}})["data"]["customerDelete"]

    assert told["deletedCustomerId"] is None
    assert "orders" in told["userErrors"][0]["message"]


def test_mutations_run_in_order_and_cost_ten_points_each(shop: Shop) -> None:
    one = 'customerCreate(input: {firstName: "A", email: "twice@people.example"}) { customer { id } userErrors { message } }'

    body = shop.ask(f"mutation {{ a: {one} b: {one} }}")

    assert body["data"]["a"]["userErrors"] == []
    assert body["data"]["b"]["userErrors"] == [{"message": "Email has already been taken"}]
    assert body["extensions"]["cost"]["requestedQueryCost"] == body["extensions"]["cost"]["actualQueryCost"] == 20


def test_an_id_that_is_none_spoils_only_its_own_mutation(shop: Shop) -> None:
    body = shop.ask(
        'mutation { a: customerUpdate(input: {id: "12"}) { customer { id } } b: customerCreate(input: {firstName: "B"}) { customer { id } } }'
    )

    assert body["data"]["a"] is None
    assert body["data"]["b"]["customer"]
    assert body["errors"][0]["path"] == ["a"]


# ---- the schema ----


LEFT_OUT = {  # of the published subset, not of the vendor's schema
    "LegacyInteroperability", "QueryRoot.metafieldDefinitions", "Mutation.customerDelete", "Mutation.metafieldsDelete", "CustomerDeleteInput",
    "CustomerDeletePayload", "MetafieldIdentifierInput", "MetafieldIdentifier", "MetafieldsDeletePayload",
}  # fmt: skip


def test_the_schema_is_part_of_the_published_one() -> None:
    published = build_schema(specification("shopify", "admin-2026-07.subset.graphql").read_text())

    for name, mine in SCHEMA.type_map.items():
        if name.startswith(("__", "MetafieldDefinition")) or name in LEFT_OUT:
            continue
        theirs = published.type_map[name]
        if isinstance(mine, GraphQLObjectType | GraphQLInterfaceType):
            assert isinstance(theirs, type(mine)), name
            for field, definition in mine.fields.items():
                if f"{name}.{field}" in LEFT_OUT:
                    continue
                assert str(definition.type) == str(theirs.fields[field].type), f"{name}.{field}"
                known = {argument: str(each.type) for argument, each in theirs.fields[field].args.items()}
                assert {argument: str(each.type) for argument, each in definition.args.items()}.items() <= known.items()
        elif isinstance(mine, GraphQLInputObjectType):
            assert isinstance(theirs, GraphQLInputObjectType)
            said = {field: str(each.type) for field, each in theirs.fields.items()}
            assert {field: str(each.type) for field, each in mine.fields.items()}.items() <= said.items(), name
        elif isinstance(mine, GraphQLEnumType):
            assert isinstance(theirs, GraphQLEnumType)
            assert mine.values.keys() <= theirs.values.keys(), name
