"""Each system fails in each way: the other three answer in time, and the fourth is named with its state."""

import time

import pytest

from tests.world import SYSTEMS, World

QUERY = """query { customer(by: {email: "ada.king@northwind.example"}) {
  name contacts { ref { system } } deals(first: 5) { nodes { id } sources { source { id } state } }
  orders(first: 5) { nodes { id } } tickets(first: 5) { nodes { id } } sources { source { id } state code retryAt } } }"""
STATES = {
    "reset": {"DOWN", "CIRCUIT_OPEN"}, "hang": {"TIMEOUT"}, "throttle": {"RATE_LIMITED"}, "exhaust": {"RATE_LIMITED"}, "html": {"DOWN", "CIRCUIT_OPEN"},
    "bad_json": {"DOWN"}, "truncate": {"DOWN", "CIRCUIT_OPEN"}, "status": {"DOWN", "CIRCUIT_OPEN"},
}  # fmt: skip


@pytest.mark.parametrize("fault", list(STATES))
@pytest.mark.parametrize("system", SYSTEMS)
def test_one_sick_system_costs_only_its_own_part(fresh: World, system: str, fault: str) -> None:
    fresh.fault(system, fault, seconds=60)
    began = time.monotonic()

    customer = fresh.data(QUERY)["customer"]

    took = time.monotonic() - began
    states = {each["source"]["id"]: each for each in customer["sources"]}
    assert took < 3.5  # the world's deadline is 3 s
    assert {each["ref"]["system"] for each in customer["contacts"]} == set(SYSTEMS) - {system}
    assert states[system]["state"] in STATES[fault]
    assert states[system]["code"]
    assert all(states[other]["state"] in {"OK", "CACHED"} for other in SYSTEMS if other != system)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_throttled_system_is_not_called_before_it_said(fresh: World, system: str) -> None:
    fresh.fault(system, "throttle", seconds=60)
    first = {each["source"]["id"]: each for each in fresh.data(QUERY)["customer"]["sources"]}[system]
    fresh.heal()
    fresh.forget_calls()

    second = {each["source"]["id"]: each for each in fresh.data(QUERY)["customer"]["sources"]}[system]

    assert first["retryAt"] is not None
    assert second["state"] == "RATE_LIMITED"
    assert sum(fresh.calls()[system].values()) == 0


def test_what_was_read_before_is_answered_stale_while_its_system_is_down(fresh: World) -> None:
    fresh.data(QUERY)
    for system in SYSTEMS:
        fresh.fault(system, "status", status=503)

    stale = fresh.data(QUERY.replace('northwind.example"})', 'northwind.example"}, read: {maxAge: "PT0S"})'))

    assert {each["ref"]["system"] for each in stale["customer"]["contacts"]} == set(SYSTEMS)
    assert {each["state"] for each in stale["customer"]["sources"]} == {"STALE"}


def test_nobody_found_while_a_source_failed_is_an_error_not_an_absence(fresh: World) -> None:
    fresh.fault("zendesk", "status", status=503)

    body = fresh.ask('{ customer(by: {email: "nobody@nowhere.example"}) { id } }')

    assert body["data"] == {"customer": None}
    extensions = body["errors"][0]["extensions"]
    assert (extensions["source"], extensions["system"], extensions["code"]) == ("zendesk", "zendesk", "UPSTREAM")


def test_require_all_fails_instead_of_answering_in_part(fresh: World) -> None:
    fresh.fault("shopify", "status", status=503)

    body = fresh.ask('{ customer(by: {email: "ada.king@northwind.example"}, read: {requireAll: true}) { id } }')

    assert body["data"] == {"customer": None}
    assert body["errors"][0]["extensions"]["source"] == "shopify"


def test_revoked_access_tokens_are_renewed_without_anyone_noticing(fresh: World) -> None:
    fresh.data(QUERY)
    for dialect in fresh.sandbox.dialects.values():
        assert dialect.tokens is not None
        dialect.tokens.revoke_access()

    customer = fresh.data(QUERY.replace('northwind.example"})', 'northwind.example"}, read: {policy: LIVE})'))["customer"]

    assert {each["state"] for each in customer["sources"]} == {"OK"}


def test_what_was_read_before_is_answered_stale_while_its_system_hangs(fresh: World) -> None:
    fresh.data(QUERY)
    fresh.fault("zendesk", "hang", seconds=60)

    stale = fresh.data(QUERY.replace('northwind.example"})', 'northwind.example"}, read: {maxAge: "PT0S"})'))["customer"]

    assert {each["ref"]["system"] for each in stale["contacts"]} == set(SYSTEMS)
    assert {each["source"]["id"]: each["state"] for each in stale["sources"]}["zendesk"] == "STALE"
