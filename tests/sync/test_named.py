"""Events of webhooks that name records otherwise than by their native ids: applied under these, or not at all."""

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.mailchimp_audience import hashed
from sandbox.marketo import Marketo
from tests.sync.test_intake import Live
from tests.world import world


@pytest.fixture
def live() -> Iterator[Live]:
    with world(people=40, systems=("mailchimp",)) as made:
        yield Live(made)


def member(live: Live) -> dict[str, Any]:
    return next(row for row in live.world.sandbox.dialects["mailchimp"].tables["contact"] if row["status"] == "subscribed")


def test_an_event_that_names_an_address_is_of_the_member_who_has_it(live: Live) -> None:
    someone = member(live)

    live.hear(someone["id"], source="mailchimp")
    live.hear(someone["contact_id"], source="mailchimp")

    assert live.settled() == {"APPLIED": 1, "SUPERSEDED": 1, "DUPLICATE": 0}
    [event] = live.events(lambda found: len(found) == 1)
    assert (event.ref.native_id, event.op) == (someone["contact_id"], "UPDATED")


def test_an_archived_member_is_deleted_under_the_native_id(live: Live) -> None:
    someone = member(live)
    live.hear(someone["id"], source="mailchimp")
    live.settled()
    live.world.control.delete(f"/_control/records/mailchimp/contact/{someone['contact_id']}")

    live.hear(someone["id"], op="DELETED", source="mailchimp")

    events = live.events(lambda found: len(found) == 2)
    assert [(each.op, each.ref.native_id) for each in events] == [
        ("UPDATED", someone["contact_id"]),
        ("DELETED", someone["contact_id"]),
    ]


def test_a_name_that_is_nobodys_makes_no_event(live: Live) -> None:
    live.hear(hashed("nobody@somewhere.example"), op="DELETED", source="mailchimp")

    assert live.settled() == {"SUPERSEDED": 1, "DUPLICATE": 0}
    assert live.events(lambda found: bool(found), seconds=0.3) == []


def test_a_system_that_cannot_be_asked_whose_a_name_is_makes_events_wait(live: Live) -> None:
    someone = member(live)
    fault = {"system": "mailchimp", "fault": "status", "status": 500, "path": "*", "times": 12}
    live.world.control.post("/_control/faults", json=fault)

    live.hear(someone["id"], source="mailchimp")

    assert live.events(lambda found: len(found) == 1, seconds=20)[0].ref.native_id == someone["contact_id"]


@pytest.mark.parametrize("signing", [True, False])
def test_a_webhook_goes_all_the_way_signed_or_not(live: Live, signing: bool) -> None:
    vendor: Any = live.world.sandbox.dialects["mailchimp"]
    vendor.hooks.signing = signing
    live.runtime.hooks._public_url = str(live.world.http.base_url)
    [source] = live.runtime.registry.of("default")
    assert live.world.run(lambda: live.runtime.hooks.look_after(source)).state == "WATCHED"
    assert live.world.run(lambda: live.runtime.hooks.look_after(source)).state == "WATCHED", (
        "looked after again, its secret is still known"
    )
    someone = member(live)
    vendor.change("contact", someone["contact_id"], {"merge_fields": {"FNAME": "Zelda"}})
    vendor.delete("contact", someone["contact_id"])

    ops = [(each.op, each.ref.native_id) for each in live.events(lambda found: bool(found) and found[-1].op == "DELETED")]

    assert ops[-1] == ("DELETED", someone["contact_id"])
    assert {id for _, id in ops} == {someone["contact_id"]}
    assert live.world.http.post("/webhooks/mailchimp", content=b"type=profile&data[email]=a@b.example").status_code == 401


def test_a_call_of_a_campaign_goes_all_the_way() -> None:
    with world(people=40, systems=("marketo",)) as made:
        live, vendor = Live(made), made.sandbox.dialects["marketo"]
        assert isinstance(vendor, Marketo)
        live.runtime.hooks._public_url = str(made.http.base_url)
        [source] = live.runtime.registry.of("default")
        assert made.run(lambda: live.runtime.hooks.look_after(source)).state == "MANUAL"
        secret = live.runtime.hooks.secret(source)
        assert secret is not None
        vendor.hook(live.runtime.hooks.address("marketo") or "", secret)
        lead = str(next(iter(vendor.leads))["id"])

        vendor.change("contact", lead, {"title": "Captain"})

        [event] = live.events(lambda found: len(found) == 1)
        assert (event.ref.native_id, event.origin) == (lead, "WEBHOOK")
