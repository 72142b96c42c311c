"""Pipedrive's own Node client, unmodified, against the sandbox."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from sandbox.app import Sandbox, server
from sandbox.pipedrive import API_TOKEN, CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN
from tests.tools import node
from tests.world import served

ADA = "ada.king@northwind.example"
Run = tuple[dict[str, Any], Sandbox]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """What the client got, and the sandbox it got it from."""
    sandbox = Sandbox(people=150, systems=("pipedrive",))
    with served(server(sandbox)) as address:
        done = node("pipedrive.mjs", f"{address}/pipedrive", API_TOKEN, CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, ADA)
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout), sandbox


def test_it_lists_everybody_page_by_page(run: Run) -> None:
    got, sandbox = run
    live = [each for each in sandbox.world.profiles["pipedrive"] if not each.deleted]

    listed = list(chain.from_iterable(got["pages"]))

    assert len(got["pages"]) > 1
    assert sorted(listed) == sorted(each.id for each in live)
    created = {each.id: each.created // 1000 for each in live}
    assert [created[id] for id in listed] == sorted(created.values())


def test_it_searches_and_reads_with_labels_and_counts(run: Run) -> None:
    got, _ = run
    tier = next(each["field_code"] for each in got["fields"] if each["field_name"] == "Loyalty tier")

    assert got["found"] == ["Ada King"]
    assert got["several"] == [got["person"]["id"]]
    assert got["person"]["custom_fields"][tier].keys() == {"id", "label"}
    assert got["person"]["open_deals_count"] == sum(
        each["status"] == "open" for each in got["deals"] if each["person_id"] == got["person"]["id"]
    )


def test_it_reads_deals_stages_and_the_user(run: Run) -> None:
    got, _ = run

    changed = [each["update_time"] for each in got["deals"]]
    assert changed == sorted(changed, reverse=True)
    assert got["stages"] == ["Qualified", "Contact Made", "Demo Scheduled", "Proposal Made", "Negotiations Started"]
    assert got["me"]["company_domain"] == "c360-demo"


def test_it_creates_updates_ties_and_deletes(run: Run) -> None:
    got, sandbox = run

    assert (got["updated"]["status"], got["updated"]["lost_reason"]) == ("lost", "Price")
    assert got["updated"]["lost_time"] == got["updated"]["close_time"] is not None
    assert (got["renamed"]["first_name"], got["renamed"]["last_name"]) == ("Grace", "Murray")
    assert got["renamed"]["emails"] == [{"value": "grace@client.example", "primary": True, "label": "work"}]
    assert got["participants"] == [got["renamed"]["id"], got["person"]["id"]]
    assert got["employees"] == ["Grace Murray"]
    assert (got["deleted"], got["wasDeleted"]) == (True, True)
    assert sandbox.dialects["pipedrive"].tables["contact"].get(str(got["renamed"]["id"]))


def test_it_is_told_what_is_wrong(run: Run) -> None:
    got, _ = run

    assert got["missing"]["error"] == "Person not found"
    assert got["invalid"]["code"] == "ERR_SCHEMA_VALIDATION_FAILED"
    assert got["unauthorized"]["errorCode"] == 401
    assert {each["errorCode"] for each in got["throttled"]} == {429}
    assert 0 < len(got["throttled"]) <= 5


def test_it_renews_its_token_and_learns_its_host(run: Run) -> None:
    got, sandbox = run
    tokens = sandbox.dialects["pipedrive"].tokens

    assert (got["byToken"], got["rotated"]) == (3, True)
    assert tokens is not None
    assert not tokens.knows(REFRESH_TOKEN)
