"""Deals, leads, and orders that become deals: tied, once, and seen by the next read."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from adapters.registry import ADAPTERS
from tests.world import World, world

ADA = "ada.king@northwind.example"
CRMS = sorted(name for name, each in ADAPTERS.items() if "deal" in each.kinds and each.kinds["deal"].verbs)
LEADS = sorted(name for name, each in ADAPTERS.items() if "lead" in each.kinds and each.kinds["lead"].verbs)
SHOPS = sorted(name for name, each in ADAPTERS.items() if "order" in each.kinds)
WRITES = """writes { source { id } state changed ref { object recordId } error { code message field retryable } }
  userErrors { code message field source { id } retryable } replayed"""
DEAL = (
    """mutation($input: DealInput!, $options: WriteOptions!) { dealUpsert(input: $input, options: $options) {
  deal { id version name amount { amount currency } stage { name category } customer { id } contacts { email } } %s } }"""
    % WRITES
)
LEAD = (
    """mutation($input: LeadInput!, $options: WriteOptions!) { leadCapture(input: $input, options: $options) {
  lead { id company customer { primaryEmail } } %s } }"""
    % WRITES
)
PUSH = (
    """mutation($order: ID!, $targets: [ID!]!, $options: WriteOptions!) { orderPushToCrm(orderId: $order, targets: $targets, options: $options) {
  deal { id name amount { amount currency } stage { category } contacts { email } } %s } }"""
    % WRITES
)
_NUMBER = count(1)


@pytest.fixture(scope="module")
def sales() -> Iterator[World]:
    with world(people=60, systems=(*CRMS, *SHOPS), deadline=20.0) as found:
        yield found


def key() -> str:
    return f"sales-{next(_NUMBER)}"


def ada(there: World) -> str:
    id: str = there.data('{ customer(by: {email: "%s"}) { id } }' % ADA)["customer"]["id"]
    return id


def orders(there: World, shop: str) -> list[Any]:
    query = '{ customer(by: {email: "%s"}) { orders(first: 50, read: {sources: ["%s"]}) { nodes { id number status total { amount currency } } } } }'
    found: list[Any] = there.data(query % (ADA, shop))["customer"]["orders"]["nodes"]
    return found


def deals_of(there: World, email: str, crm: str) -> list[Any]:
    query = '{ customer(by: {email: "%s"}) { deals(first: 50, read: {policy: LIVE, sources: ["%s"]}) { nodes { id name } } } }'
    found: list[Any] = there.data(query % (email, crm))["customer"]["deals"]["nodes"]
    return found


@pytest.mark.parametrize("crm", CRMS)
def test_a_new_deal_belongs_to_the_customers_contact_and_is_seen_at_once(sales: World, crm: str) -> None:
    said = {
        "customerId": ada(sales),
        "name": f"Renewal at {crm}",
        "amount": "1250.50",
        "stage": "OPEN",
        "closeDate": "2027-03-31",
    }

    made = sales.data(DEAL, {"input": said, "options": {"idempotencyKey": key(), "targets": [crm]}})["dealUpsert"]

    assert made["userErrors"] == []
    assert [each["state"] for each in made["writes"]] == ["APPLIED"]
    assert made["deal"]["name"] == said["name"]
    assert float(made["deal"]["amount"]["amount"]) == 1250.5
    assert made["deal"]["stage"]["category"] == "OPEN"
    assert made["deal"]["customer"] == {"id": said["customerId"]}
    assert ADA in {each["email"] for each in made["deal"]["contacts"]}
    assert said["name"] in {each["name"] for each in deals_of(sales, ADA, crm)}


@pytest.mark.parametrize("crm", CRMS)
def test_a_deal_is_won_by_the_name_of_a_category(sales: World, crm: str) -> None:
    made = sales.data(
        DEAL,
        {"input": {"customerId": ada(sales), "name": f"To win at {crm}"}, "options": {"idempotencyKey": key(), "targets": [crm]}},
    )["dealUpsert"]

    won = sales.data(DEAL, {"input": {"id": made["deal"]["id"], "stage": "WON"}, "options": {"idempotencyKey": key()}})[
        "dealUpsert"
    ]
    same = sales.data(DEAL, {"input": {"id": made["deal"]["id"], "stage": "WON"}, "options": {"idempotencyKey": key()}})[
        "dealUpsert"
    ]

    assert [(each["state"], each["changed"]) for each in won["writes"]] == [("APPLIED", ["stage"])]
    assert won["deal"]["stage"]["category"] == "WON"
    assert [each["state"] for each in same["writes"]] == ["UNCHANGED"]


@pytest.mark.parametrize("crm", [name for name in CRMS if ADAPTERS[name].kinds["deal"].if_version])
def test_a_deal_is_not_overwritten_when_somebody_else_was_faster(sales: World, crm: str) -> None:
    made = sales.data(
        DEAL,
        {
            "input": {"customerId": ada(sales), "name": f"Contended at {crm}"},
            "options": {"idempotencyKey": key(), "targets": [crm]},
        },
    )["dealUpsert"]["deal"]
    sales.control.post("/_control/clock", json={"advance_s": 5})

    def rename(name: str) -> Any:
        options = {"idempotencyKey": key(), "ifVersion": made["version"]}
        return sales.data(DEAL, {"input": {"id": made["id"], "name": name}, "options": options})["dealUpsert"]

    first, second = rename("First"), rename("Second")

    assert [each["state"] for each in first["writes"]] == ["APPLIED"]
    assert [(each["state"], each["error"]["code"]) for each in second["writes"]] == [("CONFLICT", "STALE_VERSION")]
    assert second["deal"]["name"] == "First"


def test_a_deal_goes_to_several_systems_in_one_call(sales: World) -> None:
    said = {"customerId": ada(sales), "name": "Everywhere", "amount": "10", "stage": "OPEN"}

    made = sales.data(DEAL, {"input": said, "options": {"idempotencyKey": key(), "targets": CRMS}})["dealUpsert"]

    assert {each["source"]["id"]: each["state"] for each in made["writes"]} == dict.fromkeys(CRMS, "APPLIED")


@pytest.mark.parametrize(
    ("input", "options", "code", "field"),
    [
        ({"customerId": "customer:none", "name": "X"}, {"targets": ["hubspot"]}, "NOT_FOUND", ["input", "customerId"]),
        ({"amount": "5"}, {"targets": ["hubspot"]}, "VALIDATION", ["input", "name"]),
        ({"name": "X"}, {}, "VALIDATION", ["options", "targets"]),
        ({"id": "deal:hubspot:999999999999", "name": "X"}, {}, "NOT_FOUND", None),
        ({"id": "nonsense", "name": "X"}, {}, "NOT_FOUND", ["input", "id"]),
        ({"name": "X", "stage": "Dreaming"}, {"targets": ["hubspot"]}, "VALIDATION", ["input", "stage"]),
        ({"name": "X", "custom": [{"key": "region", "value": "Atlantis"}]}, {"targets": ["hubspot"]}, "VALIDATION", ["input", "region"]),
        ({"name": "X", "custom": [{"key": "none_such", "value": "x"}]}, {"targets": ["hubspot"]}, "VALIDATION", ["input", "none_such"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_field(sales: World, input: Any, options: Any, code: str, field: Any) -> None:
    answer = sales.data(DEAL, {"input": input, "options": {"idempotencyKey": key(), **options}})["dealUpsert"]

    assert (answer["userErrors"][0]["code"], answer["userErrors"][0]["field"]) == (code, field)
    assert answer["deal"] is None


def test_an_option_is_written_by_its_label(sales: World) -> None:
    said = {"name": "Labelled", "customerId": ada(sales), "custom": [{"key": "region", "value": "Asia-Pacific"}]}

    made = sales.data(DEAL, {"input": said, "options": {"idempotencyKey": key(), "targets": ["hubspot"]}})["dealUpsert"]["deal"]
    seen = sales.data('{ node(id: "%s") { ... on Deal { customFields(keys: ["region"]) { text } } } }' % made["id"])["node"]

    assert seen["customFields"] == [{"text": "Asia-Pacific"}]


@pytest.mark.parametrize("crm", LEADS)
def test_a_lead_is_captured_once_and_then_changed(sales: World, crm: str) -> None:
    number = next(_NUMBER)
    email = f"prospect{number}@hopeful.example"
    said = {
        "email": email,
        "phone": f"+1415555{number:04}",
        "givenName": "Hope",
        "familyName": f"Full{number}",
        "company": "Hopeful Inc",
    }

    made = sales.data(LEAD, {"input": said, "options": {"idempotencyKey": key(), "targets": [crm]}})["leadCapture"]
    sales.control.post("/_control/clock", json={"advance_s": 600})
    again = sales.data(
        LEAD, {"input": {**said, "company": "Merged Inc"}, "options": {"idempotencyKey": key(), "targets": [crm]}}
    )["leadCapture"]

    assert [each["state"] for each in made["writes"]] == ["APPLIED"]
    assert made["lead"]["company"] == "Hopeful Inc"
    assert made["lead"]["customer"] == {"primaryEmail": email}
    assert [(each["state"], each["changed"]) for each in again["writes"]] == [("APPLIED", ["company"])]
    assert again["lead"]["id"] == made["lead"]["id"]


def test_a_system_without_leads_says_so(sales: World) -> None:
    answer = sales.data(
        LEAD, {"input": {"email": "x@hopeful.example"}, "options": {"idempotencyKey": key(), "targets": ["pipedrive"]}}
    )["leadCapture"]

    assert [(each["state"], each["error"]["code"]) for each in answer["writes"]] == [("REJECTED", "UNSUPPORTED")]


@pytest.mark.parametrize("shop", SHOPS)
@pytest.mark.parametrize("crm", CRMS)
def test_an_order_becomes_one_deal_however_often_it_is_pushed(sales: World, crm: str, shop: str) -> None:
    order = orders(sales, shop)[0]
    said = {"order": order["id"], "targets": [crm]}
    first_key = key()

    pushed = sales.data(PUSH, {**said, "options": {"idempotencyKey": first_key}})["orderPushToCrm"]
    replayed = sales.data(PUSH, {**said, "options": {"idempotencyKey": first_key}})["orderPushToCrm"]
    again = sales.data(PUSH, {**said, "options": {"idempotencyKey": key()}})["orderPushToCrm"]

    assert pushed["userErrors"] == []
    assert {each["state"] for each in pushed["writes"]} <= {"APPLIED", "UNCHANGED"}
    assert pushed["deal"]["amount"] == order["total"] or float(pushed["deal"]["amount"]["amount"]) == float(
        order["total"]["amount"]
    )
    assert ADA in {each["email"] for each in pushed["deal"]["contacts"]}
    assert (replayed["replayed"], replayed["writes"]) == (True, pushed["writes"])
    assert again["deal"]["id"] == pushed["deal"]["id"]
    assert again["writes"][-1]["state"] == "UNCHANGED"
    assert [each["id"] for each in deals_of(sales, ADA, crm)].count(pushed["deal"]["id"]) == 1


@pytest.mark.parametrize("crm", CRMS)
def test_the_order_of_a_stranger_brings_contact_account_and_deal(sales: World, crm: str) -> None:
    shop = "bigcommerce"
    email = f"buyer{next(_NUMBER)}@newcompany{next(_NUMBER)}.example"
    upsert = """mutation($input: CustomerInput!, $options: WriteOptions!) { customerUpsert(input: $input, options: $options) {
      customer { contacts { ref { recordId } } } writes { state } } }"""
    options = {"idempotencyKey": key(), "targets": [shop]}
    made = sales.data(upsert, {"input": {"emails": [email], "givenName": "Brand", "familyName": "New"}, "options": options})[
        "customerUpsert"
    ]
    contact = int(made["customer"]["contacts"][0]["ref"]["recordId"])
    dialect = sales.sandbox.dialects[shop]
    number = str(next(iter(dialect.tables["order"]))["id"])
    dialect.change("order", number, {"customer_id": contact})

    dry = sales.data(
        PUSH, {"order": f"order:{shop}:{number}", "targets": [crm], "options": {"idempotencyKey": key(), "dryRun": True}}
    )["orderPushToCrm"]
    pushed = sales.data(PUSH, {"order": f"order:{shop}:{number}", "targets": [crm], "options": {"idempotencyKey": key()}})[
        "orderPushToCrm"
    ]

    assert [each["state"] for each in dry["writes"]] == ["SKIPPED"] * 3, "the dry run tells all three"
    assert [each["state"] for each in pushed["writes"]] == ["APPLIED"] * 3
    assert {each["email"] for each in pushed["deal"]["contacts"]} == {email}
    contacts = sales.data('{ customer(by: {email: "%s"}) { contacts { ref { system } account { domain } } } }' % email)[
        "customer"
    ]["contacts"]
    accounts = {each["ref"]["system"]: each["account"] for each in contacts}
    assert accounts[crm]["domain"] == email.partition("@")[2]


def test_a_dry_push_writes_nothing(sales: World) -> None:
    order = orders(sales, "bigcommerce")[1]
    before = {name: sales.sandbox.dialects[name].live("deal") for name in CRMS}

    dry = sales.data(PUSH, {"order": order["id"], "targets": CRMS, "options": {"idempotencyKey": key(), "dryRun": True}})[
        "orderPushToCrm"
    ]

    assert {each["state"] for each in dry["writes"]} <= {"SKIPPED", "UNCHANGED"}
    assert {name: sales.sandbox.dialects[name].live("deal") for name in CRMS} == before


def test_another_key_makes_no_second_deal_of_an_order_whose_first_answer_was_lost(sales: World) -> None:
    order, crm = orders(sales, "bigcommerce")[2], "hubspot"
    before = sales.sandbox.dialects[crm].live("deal")
    sales.fault(crm, "truncate", path="POST */deals/batch/create", times=1)

    lost = sales.data(PUSH, {"order": order["id"], "targets": [crm], "options": {"idempotencyKey": key()}})["orderPushToCrm"]
    sales.control.post("/_control/clock", json={"advance_s": 60})  # the search of that CRM lags
    again = sales.data(PUSH, {"order": order["id"], "targets": [crm], "options": {"idempotencyKey": key()}})["orderPushToCrm"]

    assert {each["state"] for each in lost["writes"]} <= {"APPLIED", "UNCHANGED", "UNKNOWN"}
    assert again["writes"][-1]["state"] == "APPLIED"
    assert sales.sandbox.dialects[crm].live("deal") == before + 1


def known_to(there: World, crm: str) -> set[int]:
    return {each.person for each in there.sandbox.world.profiles[crm] if not each.deleted and each.email}


def test_a_contact_made_for_a_known_customer_is_theirs(sales: World) -> None:
    number = min(known_to(sales, "hubspot") - {each.person for each in sales.sandbox.world.profiles["pipedrive"]})
    email = sales.sandbox.world.people[number].email
    someone = sales.data('{ customer(by: {email: "%s"}) { id primaryEmail } }' % email)["customer"]
    upsert = """mutation($input: CustomerInput!, $options: WriteOptions!) { customerUpsert(input: $input, options: $options) {
      customer { id contacts { ref { system } email } } writes { state changed } userErrors { message } } }"""

    made = sales.data(upsert, {"input": {"id": someone["id"]}, "options": {"idempotencyKey": key(), "targets": ["pipedrive"]}})[
        "customerUpsert"
    ]

    assert [each["state"] for each in made["writes"]] == ["APPLIED"]
    assert made["customer"]["id"] == someone["id"]
    assert someone["primaryEmail"] in {
        each["email"] for each in made["customer"]["contacts"] if each["ref"]["system"] == "pipedrive"
    }


def test_a_deal_whose_call_failed_does_not_pass_for_another_like_it(sales: World) -> None:
    crm = "pipedrive"
    chosen = sorted(known_to(sales, crm))[1:3]
    both = [
        sales.data('{ customer(by: {email: "%s"}) { id } }' % sales.sandbox.world.people[number].email)["customer"]["id"]
        for number in chosen
    ]
    ours, theirs = ({"customerId": id, "name": f"Same words at {crm}", "amount": "99"} for id in both)
    first = sales.data(DEAL, {"input": theirs, "options": {"idempotencyKey": key(), "targets": [crm]}})["dealUpsert"]
    sales.control.post("/_control/clock", json={"advance_s": 60})

    options = {"idempotencyKey": key(), "targets": [crm]}
    sales.fault(crm, "status", path="POST */deals", status=503)
    lost = sales.data(DEAL, {"input": ours, "options": options})["dealUpsert"]
    sales.heal()
    again = sales.data(DEAL, {"input": ours, "options": options})["dealUpsert"]

    assert [each["state"] for each in first["writes"]] == ["APPLIED"]
    assert {each["state"] for each in lost["writes"]} <= {"UNKNOWN", "REJECTED"}
    assert [each["ref"] for each in again["writes"]] != [each["ref"] for each in first["writes"]]
