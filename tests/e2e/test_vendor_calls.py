"""The vendor calls of a question, counted by the sandbox against the tables of docs/vendor-calls.md."""

import re
from pathlib import Path

from tests.world import world

PAGE = (Path(__file__).parents[2] / "docs/vendor-calls.md").read_text()
PEOPLE = "{ customers(first: 50) { nodes { id } } %s }"
DETAILS = """{ customers(first: 50) { nodes { id
  deals(first: 5) { nodes { id name amount { amount } stage { name } } }
  orders(first: 5) { nodes { id number total { amount } } }
  tickets(first: 5) { nodes { id subject status } } } } }"""


def promised() -> dict[str, dict[str, int]]:
    """Read the table of the 50 customers."""
    section = PAGE.split("## 50 customers")[1].split("\n## ")[0]
    found: dict[str, dict[str, int]] = {}
    for system, call, count in re.findall(r"^\| (\w+) \| (\S+ \S+) \| (\d+) \|$", section, re.MULTILINE):
        found.setdefault(system, {})[call] = int(count)
    return found


def test_fifty_customers_with_deals_orders_and_tickets_cost_what_the_page_promises() -> None:
    with world(people=300, deadline=20.0) as running:
        # The customers, and the metadata that is asked once in a while.
        running.data(PEOPLE % "deals(first: 1) { nodes { stage { name } } }")
        running.forget_calls()

        answer = running.data(DETAILS)["customers"]["nodes"]

        assert running.calls() == promised()
        assert sum(len(each["deals"]["nodes"]) for each in answer) > 50
        assert sum(len(each["orders"]["nodes"]) for each in answer) > 50
        assert sum(len(each["tickets"]["nodes"]) for each in answer) > 50


def test_the_same_question_again_costs_nothing() -> None:
    with world(people=60, deadline=20.0) as running:
        running.data(DETAILS)
        running.forget_calls()

        running.data(DETAILS)

        assert sum(sum(calls.values()) for calls in running.calls().values()) == 0


def test_a_later_question_with_more_fields_gets_them() -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { deals(first: 1) { nodes { name %s } } } }'
    with world(people=5) as running:
        narrow = running.data(query % "")["customer"]["deals"]["nodes"][0]
        wide = running.data(query % "probability closeDate")["customer"]["deals"]["nodes"][0]

    assert wide["name"] == narrow["name"]
    assert wide["closeDate"] is not None
