"""Help desks tell changes all the way to the log: by a secret that the system issued, and by ours that an administrator entered."""

from typing import Any

from tests.sync.test_intake import Live
from tests.world import World, world


def watched(made: World, live: Live) -> str:
    live.runtime.hooks._public_url = str(made.http.base_url)
    [source] = live.runtime.registry.of("default")
    return made.run(lambda: live.runtime.hooks.look_after(source)).state


def users(vendor: Any, role: str) -> list[str]:
    return [str(row["id"]) for row in vendor.tables["contact"] if row["role"] == role and row["active"]]


def test_a_webhook_whose_secret_was_issued_goes_all_the_way_and_agents_are_nobodys_news() -> None:
    with world(people=40, systems=("zendesk",)) as made:
        live, vendor = Live(made), made.sandbox.dialects["zendesk"]
        assert watched(made, live) == watched(made, live) == "WATCHED"
        agent, (edited, gone, promoted) = users(vendor, "agent")[0], users(vendor, "end-user")[:3]

        vendor.change("contact", agent, {"name": "Agent Smith"})
        vendor.change("contact", promoted, {"name": "Zelda"})
        live.events(lambda found: promoted in {each.ref.native_id for each in found})
        vendor.change("contact", promoted, {"role": "agent"})
        vendor.delete("contact", gone)
        vendor.change("contact", edited, {"name": "Grete"})
        wanted = {(edited, "UPDATED"), (gone, "DELETED"), (promoted, "UPDATED"), (promoted, "DELETED")}
        events = live.events(lambda found: {(each.ref.native_id, each.op) for each in found} >= wanted, seconds=15)

        assert {(each.ref.native_id, each.op) for each in events} == wanted
        assert {each.origin for each in events} == {"WEBHOOK"}
        assert made.http.post("/webhooks/zendesk", content=b'{"ticket_id": "1"}').status_code == 401


def test_the_export_makes_no_news_of_agents_and_tells_who_became_one() -> None:
    with world(people=40, systems=("zendesk",)) as made:
        live, vendor = Live(made), made.sandbox.dialects["zendesk"]
        [source] = live.runtime.registry.of("default")
        agent, promoted = users(vendor, "agent")[0], users(vendor, "end-user")[0]

        def passed() -> None:
            made.sandbox.clock.advance(120)
            made.run(lambda: live.runtime.feeds.ask(source, "contact"))

        passed()
        vendor.change("contact", agent, {"name": "Agent Smith"})
        vendor.change("contact", promoted, {"name": "Zelda"})
        passed()
        vendor.change("contact", promoted, {"role": "agent"})
        passed()

        events = live.events(lambda found: bool(found) and found[-1].op == "DELETED")
        assert {each.ref.native_id for each in events} == {promoted}


def test_a_rules_call_goes_all_the_way() -> None:
    with world(people=40, systems=("freshdesk",)) as made:
        live, vendor = Live(made), made.sandbox.dialects["freshdesk"]
        assert watched(made, live) == "MANUAL"
        [source] = live.runtime.registry.of("default")
        vendor.hook(live.runtime.hooks.address("freshdesk") or "", live.runtime.hooks.secret(source) or "")  # type: ignore[attr-defined]
        ticket = str(next(row["id"] for row in vendor.tables["ticket"] if not row.get("deleted")))

        vendor.change("ticket", ticket, {"subject": "Again"})

        [event] = live.events(lambda found: len(found) == 1)
        assert (event.ref.native_id, event.ref.kind, event.origin) == (ticket, "ticket", "WEBHOOK")
        assert made.http.post("/webhooks/freshdesk", content=b'{"ticket_id": "1"}').status_code == 401
