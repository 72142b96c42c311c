"""All pages of `customers` joined are the sorted union of everybody, once each, whatever fails on the way."""

import os
import sqlite3
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sources.transport import ATTEMPTS
from tests.world import World, world

QUERY = """query($first: Int!, $after: String) { customers(first: $first, after: $after) {
  nodes { id createdAt refs { system object recordId } } pageInfo { hasNextPage endCursor } sources { source { id } state message exhausted } } }"""


def everybody(running: World) -> set[tuple[str, str]]:
    """Return (system, native id) of every live contact and lead, from the sandbox's own truth."""
    people = running.control.get("/_control/people?limit=1000000").json()["people"]
    return {
        (system, record["id"])
        for person in people
        for system, records in person["systems"].items()
        for record in records
        if not record["deleted"]
    }


def joined(running: World, first: int) -> tuple[list[dict[str, Any]], bool, list[str]]:
    """Return all customers in the order given, whether any page had a failure, and the messages of sources."""
    found: list[dict[str, Any]] = []
    failed, messages, after, more = False, [], None, True
    for _ in range(2000):
        page = running.data(QUERY, {"first": first, "after": after})["customers"]
        found += page["nodes"]
        failed = failed or any(each["state"] not in {"OK", "CACHED"} for each in page["sources"])
        messages += [each["message"] for each in page["sources"] if each["message"]]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]
        if not more:
            return found, failed, messages
    raise AssertionError("the list never ended")


def check_whole(running: World, found: list[dict[str, Any]]) -> None:
    """Check that everybody was given out, once.

    Who belongs to whom is read from the identity index: the records shown of a customer leave out those of a source that
    could not be asked, the customer itself must not be missing.
    """
    with sqlite3.connect(running.folder / "c360.db") as database:
        owners = {
            (source, id): customer
            for source, id, customer in database.execute("select source, native_id, customer from identity_records")
        }
        survivors = dict(database.execute("select id, survivor from customers").fetchall())
    given = [survivors[each["id"]] for each in found]
    assert len(given) == len(set(given)), "a customer came twice"
    unseen = everybody(running) - owners.keys()
    assert not unseen, f"never read: {sorted(unseen)[:5]}"
    lost = {record for record in everybody(running) if owners[record] not in given}
    assert not lost, f"lost: {sorted(lost)[:5]}"


def test_joined_pages_are_the_sorted_union() -> None:
    with world(people=300, deadline=20.0) as running:
        found, failed, messages = joined(running, 37)

        check_whole(running, found)
        records = [(ref["system"], ref["recordId"]) for each in found for ref in each["refs"]]
        assert not failed
        assert sorted(records) == sorted(everybody(running))
        assert [each["createdAt"] for each in found] == sorted(each["createdAt"] for each in found)
        assert messages == []


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(1, 10_000), first=st.integers(5, 100))
def test_any_world_and_page_size_joins_whole(seed: int, first: int) -> None:
    with world(people=80, seed=seed, deadline=20.0) as running:
        found, _, _ = joined(running, first)

        check_whole(running, found)
        assert [each["createdAt"] for each in found] == sorted(each["createdAt"] for each in found)


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(1, 10_000), first=st.integers(5, 60))
def test_a_quarter_of_all_calls_failing_loses_and_doubles_nobody(seed: int, first: int) -> None:
    with world(people=80, seed=seed, deadline=20.0) as running:
        running.fault("*", "status", status=503, rate=0.25)

        found, failed, _ = joined(running, first)
        running.heal()

        check_whole(running, found)
        if not failed:
            assert [each["createdAt"] for each in found] == sorted(each["createdAt"] for each in found)


def test_rows_of_a_source_that_was_down_come_late_and_are_told() -> None:
    with world(people=80, deadline=10.0) as running:
        running.fault("salesforce", "status", status=503)
        first = running.data(QUERY, {"first": 30})["customers"]
        running.heal()

        found, after, messages = list(first["nodes"]), first["pageInfo"]["endCursor"], []
        for _ in range(200):
            page = running.data(QUERY, {"first": 30, "after": after})["customers"]
            found += page["nodes"]
            if not page["nodes"]:
                time.sleep(0.5)  # as a client does that was told `retryAt`
            messages += [each["message"] for each in page["sources"] if each["message"]]
            after = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break

        assert next(each for each in first["sources"] if each["source"]["id"] == "salesforce")["state"] == "DOWN"
        assert any("come late" in message for message in messages)
        assert len({each["id"] for each in found}) == len(found)


def test_a_list_that_fails_on_the_first_page_only_joins_whole() -> None:
    with world(people=300, deadline=20.0) as running:
        running.fault("hubspot", "status", path="*contacts/search", times=ATTEMPTS)  # the list's first page, and nothing after

        found, failed, _ = joined(running, 100)

        assert failed
        check_whole(running, found)


@pytest.mark.soak
def test_a_big_world_joins_whole_while_calls_fail() -> None:
    with world(people=300 if os.environ.get("C360_SOAK") == "small" else 1500, deadline=20.0) as running:
        running.fault("*", "status", status=503, rate=0.25)

        found, _, _ = joined(running, 100)
        running.heal()

        check_whole(running, found)
