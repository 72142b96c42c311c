"""One customer out of every system there is."""

from adapters.registry import ADAPTERS
from sandbox.app import DIALECTS
from tests.world import world


def test_every_adapter_has_a_sandbox() -> None:
    assert ADAPTERS.keys() == DIALECTS.keys()


def test_one_question_is_answered_with_records_of_each() -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { refs { system } orders(first: 20) { nodes { ref { system } } } sources { source { id } state } } }'

    with world(people=60, systems=DIALECTS, deadline=10.0) as running:
        customer = running.data(query)["customer"]

    assert {each["system"] for each in customer["refs"]} == set(DIALECTS)
    assert {each["state"] for each in customer["sources"]} == {"OK"}
    assert {each["ref"]["system"] for each in customer["orders"]["nodes"]} == {
        name for name, adapter in ADAPTERS.items() if ("contact", "order") in adapter.relations
    }
