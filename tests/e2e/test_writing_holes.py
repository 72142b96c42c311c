"""Writing where something else goes wrong at the same time: what a caller asked for is kept, or told as not kept."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests.world import World, world

WRITES = """writes { source { id } state changed ref { object recordId } error { code field retryable } }
  userErrors { code field source { id } retryable } replayed"""
CUSTOMER = (
    """mutation($input: CustomerInput!, $options: WriteOptions!) { customerUpsert(input: $input, options: $options) {
  customer { id name emails } %s } }"""
    % WRITES
)
DEAL = (
    """mutation($input: DealInput!, $options: WriteOptions!) { dealUpsert(input: $input, options: $options) {
  deal { id name version } %s } }"""
    % WRITES
)
LEAD = (
    """mutation($input: LeadInput!, $options: WriteOptions!) { leadCapture(input: $input, options: $options) {
  lead { id } %s } }"""
    % WRITES
)
PUSH = (
    """mutation($order: ID!, $targets: [ID!]!, $options: WriteOptions!) { orderPushToCrm(orderId: $order, targets: $targets, options: $options) {
  deal { id } %s } }"""
    % WRITES
)
_NUMBER = count(1)


@pytest.fixture
def crms() -> Iterator[World]:
    with world(people=30, systems=("hubspot", "salesforce", "pipedrive", "bigcommerce"), deadline=20.0) as found:
        yield found


def said(input: Any, **options: Any) -> dict[str, Any]:
    return {"input": input, "options": {"idempotencyKey": f"holes-{next(_NUMBER)}", **options}}


def person(there: World, *targets: str) -> tuple[str, str]:
    """Return the id and the address of someone whom only these sources know."""
    email = f"person{next(_NUMBER)}@brandnew.example"
    input = {"emails": [email], "givenName": "Some", "familyName": "One"}
    made = there.data(CUSTOMER, said(input, targets=targets))["customerUpsert"]
    return made["customer"]["id"], email


@pytest.mark.parametrize("policy", ["SKIP", "FAIL"])
def test_whom_the_caller_wants_left_alone_is_not_overwritten_while_the_search_fails(crms: World, policy: str) -> None:
    _, email = person(crms, "pipedrive")
    crms.fault("hubspot", "status", path="POST*search")

    input = {"emails": [email], "givenName": "Over", "familyName": "Written"}
    down = crms.data(CUSTOMER, said(input, targets=["hubspot"], onDuplicate=policy))["customerUpsert"]

    assert [(each["state"], each["error"] and each["error"]["retryable"]) for each in down["writes"]] == [("REJECTED", True)]


@pytest.mark.parametrize(
    ("input", "options", "code", "field"),
    [
        ({"name": "X", "amount": "NaN"}, {}, "VALIDATION", ["input", "amount"]),
        ({"name": "X", "amount": "Infinity"}, {}, "VALIDATION", ["input", "amount"]),
        ({"name": "X", "amount": "1e400000"}, {}, "VALIDATION", ["input", "amount"]),
        ({"name": "X", "amount": "1e40"}, {}, "VALIDATION", ["input", "amount"]),
        ({"name": "X", "amount": "5", "currency": "not money"}, {}, "VALIDATION", ["input", "currency"]),
        ({"name": "X", "accountId": "nonsense"}, {}, "NOT_FOUND", ["input", "accountId"]),
        ({"name": "X", "accountId": "account:nowhere:1"}, {}, "NOT_FOUND", ["input", "accountId"]),
        ({"name": "X", "ownerId": "nonsense"}, {}, "NOT_FOUND", ["input", "ownerId"]),
        ({"name": "X"}, {"targets": []}, "VALIDATION", ["options", "targets"]),
    ],
)
def test_a_mistake_in_a_deal_is_told_and_nothing_is_written(
    crms: World, input: dict[str, Any], options: dict[str, Any], code: str, field: list[str]
) -> None:
    before = crms.sandbox.dialects["pipedrive"].live("deal")

    answer = crms.data(DEAL, said(input, **{"targets": ["pipedrive"], **options}))["dealUpsert"]

    assert [(each["code"], each["field"]) for each in answer["userErrors"]] == [(code, field)]
    assert crms.sandbox.dialects["pipedrive"].live("deal") == before


def test_a_lead_that_is_gone_is_not_made_anew(crms: World) -> None:
    before = crms.sandbox.dialects["salesforce"].live("lead")
    input = {"id": "lead:salesforce:00Q000000000000AAA", "familyName": "Gone", "company": "Gone Inc"}

    answer = crms.data(LEAD, said(input))["leadCapture"]

    assert [(each["code"], each["field"]) for each in answer["userErrors"]] == [("NOT_FOUND", ["input", "id"])]
    assert crms.sandbox.dialects["salesforce"].live("lead") == before


def test_a_list_of_what_a_record_was_tied_to_is_read_anew(crms: World) -> None:
    id, email = person(crms, "hubspot")
    deal = crms.data(DEAL, said({"name": "Tied later"}, targets=["hubspot"]))["dealUpsert"]["deal"]["id"]
    query = '{ node(id: "%s") { ... on Deal { contacts { email } } } }' % deal
    assert crms.data(query)["node"]["contacts"] == []

    crms.data(DEAL, said({"id": deal, "customerId": id}))

    assert crms.data(query)["node"]["contacts"] == [{"email": email}]


def test_a_custom_field_is_cleared(crms: World) -> None:
    region = '{ node(id: "%s") { ... on Deal { customFields(keys: ["region"]) { text } } } }'
    custom = {"name": "Cleared", "custom": [{"key": "region", "value": "Asia-Pacific"}]}
    deal = crms.data(DEAL, said(custom, targets=["hubspot"]))["dealUpsert"]["deal"]["id"]

    same = crms.data(DEAL, said({"id": deal, **custom}))["dealUpsert"]["writes"][0]["state"]
    cleared = crms.data(DEAL, said({"id": deal, "custom": [{"key": "region", "value": None}]}))["dealUpsert"]["writes"][0]

    assert same == "UNCHANGED"
    assert (cleared["state"], cleared["changed"]) == ("APPLIED", ["region"])
    assert crms.data(region % deal)["node"]["customFields"][0]["text"] in (None, "")


def test_a_source_that_cannot_tell_whether_the_contact_is_there_is_not_one_without(crms: World) -> None:
    id, _ = person(crms, "hubspot", "salesforce")
    crms.fault("hubspot", "status", path="*contacts*")

    answer = crms.data(DEAL, said({"customerId": id, "name": "Who"}, targets=["hubspot"]))["dealUpsert"]

    assert [(each["state"], each["error"]["code"], each["error"]["retryable"]) for each in answer["writes"]] == [
        ("REJECTED", "UPSTREAM", True)
    ]


def test_two_orders_of_one_new_buyer_at_once_make_one_contact_and_one_account(crms: World) -> None:
    dialect, crm = crms.sandbox.dialects["bigcommerce"], crms.sandbox.dialects["pipedrive"]
    _, email = person(crms, "bigcommerce")
    buyer = next(each for each in dialect.tables["contact"] if each.get("email") == email)
    numbers = [str(each["id"]) for each in list(dialect.tables["order"])[:2]]
    for number in numbers:
        dialect.change("order", number, {"customer_id": int(buyer["id"])})
    contacts, accounts = crm.live("contact"), crm.live("account")

    async def both() -> None:
        async with httpx.AsyncClient(base_url=crms.http.base_url, timeout=40) as client:
            bodies = [
                {
                    "query": PUSH,
                    "variables": {
                        "order": f"order:bigcommerce:{number}",
                        "targets": ["pipedrive"],
                        "options": {"idempotencyKey": f"at-once-{number}"},
                    },
                }
                for number in numbers
            ]
            for answer in await asyncio.gather(*(client.post("/graphql", json=body) for body in bodies)):
                assert answer.json()["data"]["orderPushToCrm"]["deal"] is not None

    asyncio.run(both())

    assert (crm.live("contact") - contacts, crm.live("account") - accounts) == (1, 1)


def test_a_version_cannot_be_asked_of_a_push(crms: World) -> None:
    number = str(next(iter(crms.sandbox.dialects["bigcommerce"].tables["order"]))["id"])
    options = {"idempotencyKey": "push-version", "ifVersion": "2020-01-01T00:00:00+00:00"}

    pushed = crms.data(PUSH, {"order": f"order:bigcommerce:{number}", "targets": ["pipedrive"], "options": options})

    assert [(each["code"], each["field"]) for each in pushed["orderPushToCrm"]["userErrors"]] == [
        ("VALIDATION", ["options", "ifVersion"])
    ]
    assert pushed["orderPushToCrm"]["writes"] == []
