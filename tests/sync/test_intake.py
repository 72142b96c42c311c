"""From an accepted event to the log: coalesced, ordered by version, told once, parked when nothing helps."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.app import Runtime
from model.events import Event
from store.inbox import Arrived
from tests.world import World, world

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def live() -> Iterator["Live"]:
    with world(people=40, systems=("hubspot", "salesforce")) as made:
        yield Live(made)


class Live:
    """A world whose gateway is told of changes by hand."""

    def __init__(self, made: World) -> None:
        self.world = made
        self.runtime: Runtime = made.runtime
        self.count = 0

    def hear(self, native_id: str, *, op: str = "CHANGED", event: str | None = None, kind: str = "contact", source: str = "hubspot",
             into: str | None = None) -> int:  # fmt: skip
        self.count += 1
        arrived = Arrived(
            workspace="default", source=source, event=event or f"e{self.count}", kind=kind, native_id=native_id, op=op, into=into,  # type: ignore[arg-type]
            origin="WEBHOOK", received_at=datetime.now(UTC),
        )  # fmt: skip
        return int(self.world.run(lambda: self.runtime.intake.accept([arrived])))

    def events(self, enough: Callable[[list[Event]], bool], *, seconds: float = 8.0) -> list[Event]:
        until = time.monotonic() + seconds
        while True:
            found = self.world.run(lambda: self.runtime.event_rows.since("default", 0))
            if enough(found) or time.monotonic() > until:
                return list(found)
            time.sleep(0.02)

    def settled(self) -> dict[str, int]:
        until = time.monotonic() + 8
        while time.monotonic() < until and self.world.run(lambda: self.runtime.inbox.waiting("default")):
            time.sleep(0.02)
        return dict(self.world.run(lambda: self.runtime.inbox.counted("default")))

    def contact(self) -> str:
        hubspot = self.world.sandbox.dialects["hubspot"]
        person = next(each for each in self.world.sandbox.world.people[1:] if hubspot.truth(each))
        return str(next(each["id"] for each in hubspot.truth(person) if not each["deleted"]))

    def change(self, native_id: str, **fields: Any) -> None:
        answer = self.world.control.patch(f"/_control/records/hubspot/contact/{native_id}", json=fields)
        assert answer.status_code == 200, answer.text

    def delete(self, native_id: str) -> None:
        assert self.world.control.delete(f"/_control/records/hubspot/contact/{native_id}").status_code == 204


def test_a_change_becomes_one_event_that_names_the_fields_that_differ(live: Live) -> None:
    ada = live.contact()
    live.hear(ada)
    live.events(lambda found: len(found) == 1)
    live.change(ada, jobtitle="Astronaut")

    live.hear(ada)

    first, second = live.events(lambda found: len(found) == 2)
    assert (first.op, first.changed) == ("UPDATED", None), "what was not known before cannot be compared"
    assert (second.op, second.changed, second.seq) == ("UPDATED", ("title",), 2)
    assert second.customer is not None
    assert second.customer.startswith("customer:")


def test_many_hints_of_one_change_are_one_event_and_every_one_of_them_is_accounted_for(live: Live) -> None:
    ada = live.contact()
    live.change(ada, jobtitle="Pilot")

    for _ in range(5):
        live.hear(ada)
    assert live.hear(ada, event="e1") == 0, "it was accepted before"

    assert live.settled() == {"APPLIED": 1, "SUPERSEDED": 4, "DUPLICATE": 1}
    assert len(live.events(lambda found: bool(found))) == 1


def test_a_deleted_record_is_told_once_and_forgotten_by_the_index(live: Live) -> None:
    ada = live.contact()
    live.hear(ada)
    live.settled()
    live.delete(ada)

    live.hear(ada, op="DELETED")
    live.hear(ada, op="DELETED")
    live.settled()

    assert [each.op for each in live.events(lambda found: len(found) == 2)] == ["UPDATED", "DELETED"]


def test_a_late_hint_of_a_record_that_is_gone_brings_nothing_back(live: Live) -> None:
    ada = live.contact()
    live.delete(ada)
    live.hear(ada, op="DELETED")
    live.hear(ada)

    live.settled()

    assert [each.op for each in live.events(lambda found: bool(found))] == ["DELETED"]


def test_a_query_after_the_event_sees_the_change_though_it_was_cached(live: Live) -> None:
    ada = live.contact()
    question = f'{{ node(id: "contact:hubspot:{ada}") {{ ... on Contact {{ title }} }} }}'
    live.world.data(question)
    live.change(ada, jobtitle="Diver")
    assert live.world.data(question)["node"]["title"] != "Diver", "it is cached"

    live.hear(ada)
    live.settled()

    live.world.forget_calls()
    assert live.world.data(question)["node"]["title"] == "Diver"
    assert not any(live.world.calls()["hubspot"].values()), "it was read when the change was heard of"


def test_a_source_that_is_down_makes_events_wait_and_others_go_on(live: Live) -> None:
    ada = live.contact()
    live.world.fault("hubspot", "status", status=503)
    live.hear(ada)
    salesforce = live.world.sandbox.dialects["salesforce"]
    person = live.world.sandbox.world.people[0]
    other = next(each["id"] for each in salesforce.truth(person) if each["kind"] == "contact" and not each["deleted"])

    live.hear(other, source="salesforce")

    assert [each.ref.source for each in live.events(lambda found: bool(found), seconds=20)] == ["salesforce"]
    live.world.heal()
    assert len(live.events(lambda found: len(found) == 2, seconds=40)) == 2


def test_an_event_of_a_source_that_is_gone_is_parked_and_counted(live: Live) -> None:
    live.hear("1", source="nobody")

    assert live.settled() == {"PARKED": 1, "DUPLICATE": 0}
