"""How Zendesk tells of changes: signed webhooks of events, incremental exports by cursor and by time."""

import base64
import hmac
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Delivery, Hint
from adapters.zendesk import Zendesk
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.zendesk import Zendesk as Desk
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "dGhpc19zZWNyZXQ"
NOW = datetime(2024, 4, 17, 17, 18, 12, tzinfo=UTC)
STAMP = "2024-04-17T17:18:10Z"
# The example of "Webhook event types".
EVENT: dict[str, Any] = {
    "type": "zen:event-type:user.active_changed", "account_id": 12514403, "id": "2b24ef10-19d4-4740-93cf-8f98ec4776c0",
    "time": "2024-04-17T17:18:10Z", "zendesk_event_version": "2022-06-20", "subject": "zen:user:6596848315901",
    "detail": {"id": "6596848315901", "organization_id": "0", "role": "end-user", "updated_at": "2024-04-17T17:18:10Z"},
    "event": {"current": False, "previous": True},
}  # fmt: skip


@pytest.fixture
def desk() -> Iterator[System]:
    with system("zendesk") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(desk: System) -> Desk:
    assert isinstance(desk.dialect, Desk)
    return desk.dialect


def delivery(body: Any, *, stamp: str = STAMP) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    signed = base64.b64encode(hmac.new(SECRET.encode(), stamp.encode() + raw, "sha256").digest()).decode()
    headers = {"x-zendesk-webhook-signature": signed, "x-zendesk-webhook-signature-timestamp": stamp}
    return Delivery(method="POST", url="https://live.example/webhooks/desk", headers=headers, body=raw, at=NOW)


def told(**facts: Any) -> list[Change]:
    return [hint.change for hint in Zendesk.events(delivery({**EVENT, **facts}), [SECRET]).hints]


def contact(desk: System, nth: int = 0) -> str:
    return [each["id"] for person in desk.sandbox.world.people for each in desk.dialect.truth(person) if not each["deleted"]][nth]


def passed(desk: System, follower: Follower, *, settle: float = 65.0) -> list[Change]:
    """Return what a pass tells once the exports' last minute is over."""
    desk.sandbox.clock.advance(settle)
    return desk.run(lambda source, api: follower.passed(source.adapter, api))


def follower(kind: Kind = "contact") -> Follower:
    return Follower(kind=kind, fields=("name", "email"))


def ops(changes: list[Change]) -> dict[str, str]:
    return {each.native_id: each.op for each in changes}


# ---- proof ----


def test_the_published_vector_is_accepted() -> None:
    body = '{"id":1,"name":"café"}'.encode()
    headers = {
        "x-zendesk-webhook-signature": "9nmfnXTAtSqJ4foKvLgJNwt1RHfiJcpP2uY4khRhYV4=", "x-zendesk-webhook-signature-timestamp": STAMP,
    }  # fmt: skip
    given = Delivery(method="POST", url="https://live.example/", headers=headers, body=body, at=NOW)

    with pytest.raises(ProtocolError):  # it is proved, and no event
        Zendesk.events(given, [SECRET])
    with pytest.raises(SignatureError):
        Zendesk.events(replace(given, body=body + b" "), [SECRET])


@pytest.mark.parametrize(
    "forged",
    [
        lambda good: replace(good, body=good.body.replace(b"6596", b"6597")),
        lambda good: replace(good, body=good.body[:-1]),
        lambda good: replace(good, headers={}),
        lambda good: replace(good, headers={**good.headers, "x-zendesk-webhook-signature": "é"}),
        lambda good: replace(good, headers={**good.headers, "x-zendesk-webhook-signature-timestamp": "2024-04-17T17:18:11Z"}),
        lambda good: replace(good, at=NOW + timedelta(seconds=400)),
        lambda good: replace(good, at=NOW - timedelta(seconds=400)),
        lambda good: delivery(good.body, stamp="yesterday"),
        lambda good: delivery(good.body, stamp="2024-04-17T17:18:10"),
    ],
    ids=["body", "cut", "unsigned", "odd", "time", "old", "early", "no time", "no zone"],
)
def test_what_is_forged_cut_or_stale_is_refused(forged: Any) -> None:
    good = delivery(EVENT)
    assert Zendesk.events(good, ["new", SECRET]).hints

    with pytest.raises(SignatureError):
        Zendesk.events(forged(good), ["new", SECRET])


@pytest.mark.parametrize("secrets", [[], [""], ["new"]])
def test_no_secret_proves_nothing(secrets: list[str]) -> None:
    with pytest.raises(SignatureError):
        Zendesk.events(delivery(EVENT), secrets)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", {}, {**EVENT, "id": None}, {**EVENT, "detail": {"id": "../1"}}, {**EVENT, "time": "soon"}, {"ticket_id": "x"}]
)  # fmt: skip
def test_what_is_proved_and_not_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Zendesk.events(delivery(body), [SECRET])


# ---- what events say ----


def test_the_documents_examples_are_read() -> None:
    at = datetime(2024, 4, 17, 17, 18, 10, tzinfo=UTC)
    ticket = {"subject": "zen:ticket:35436", "detail": {"id": "35436", "status": "OPEN"}, "event": {}}

    assert told() == [Change(kind="contact", native_id="6596848315901", op="DELETED", at=at)]
    assert told(event={"current": True, "previous": False})[0].op == "CHANGED"
    assert told(**ticket, type="zen:event-type:ticket.created") == [Change(kind="ticket", native_id="35436", at=at)]
    assert told(**ticket, type="zen:event-type:ticket.soft_deleted")[0].op == "DELETED"
    assert told(**ticket, type="zen:event-type:ticket.undeleted")[0].op == "CHANGED"
    assert told(type="zen:event-type:organization.deleted", detail={"id": "6"}) == [
        Change(kind="account", native_id="6", op="DELETED", at=at)
    ]
    assert {each.native_id for each in told(type="zen:event-type:user.merged", event={"user": {"id": "7"}})} == {
        "6596848315901",
        "7",
    }


def test_types_that_are_spelled_with_a_slash_are_read_too() -> None:
    assert told(type="zen:event-type/user.identity_changed") == told(type="zen:event-type:user.identity_changed") != []


def test_events_of_what_we_do_not_keep_are_passed_over() -> None:
    assert told(type="zen:event-type:article.published") == []
    assert told(detail={"id": "1", "role": "agent"}) == []


def test_an_event_that_is_sent_again_keeps_its_id_and_a_trigger_names_its_ticket() -> None:
    first, again = (Zendesk.events(delivery(EVENT, stamp=stamp), [SECRET]) for stamp in (STAMP, "2024-04-17T17:18:12Z"))
    other = Zendesk.events(delivery({**EVENT, "id": "another"}), [SECRET])
    triggered = Zendesk.events(delivery({"ticket_id": "35436"}), [SECRET])

    assert first.hints[0].id == again.hints[0].id != other.hints[0].id
    assert [hint.change for hint in triggered.hints] == [Change(kind="ticket", native_id="35436")]


# ---- subscriptions, and deliveries of the sandbox ----


def watched(desk: System, url: str) -> list[str]:
    found = desk.run(lambda source, api: source.adapter.watch(api, url, ""))
    return [str(each.secret) for each in found]


def heard(ours: Receiver, secrets: list[str]) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in Zendesk.events(each, secrets).hints]


def wait(ours: Receiver, secrets: list[str], *wanted: tuple[str, str]) -> list[Hint]:
    """Return all hints once each wanted (op, id) was told."""
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours, secrets)} >= set(wanted))
    return heard(ours, secrets)


def test_changes_by_hand_and_by_calls_arrive_as_hints(desk: System, ours: Receiver) -> None:
    secrets = watched(desk, ours.url)
    edited, loser, winner = (contact(desk, nth) for nth in range(3))
    firm = next(str(row["id"]) for row in desk.dialect.tables["account"])

    httpx.patch(f"{desk.address}/_control/records/zendesk/contact/{edited}", json={"name": "Grete"}).raise_for_status()
    desk.dialect.change("account", firm, {"name": "Renamed"})
    [made] = desk.write("contact", Write(verb="create", row={"name": "New", "email": "new@hooks.example"}))
    [ticket] = desk.write("ticket", Write(verb="create", row={"subject": "Broken"}, links={"contact": str(made.native_id)}))
    desk.write("ticket", Write(verb="delete", native_id=ticket.native_id))
    assert dialect(desk).merge("contact", loser, winner)
    hints = wait(
        ours, secrets, ("CHANGED", edited), ("CHANGED", firm), ("CHANGED", str(made.native_id)), ("CHANGED", str(ticket.native_id)),
        ("DELETED", str(ticket.native_id)), ("DELETED", loser), ("CHANGED", winner),
    )  # fmt: skip

    assert {hint.change.kind for hint in hints} == {"contact", "account", "ticket"}
    assert len({hint.id for hint in hints}) == len(hints)


def test_an_edit_that_has_no_event_is_not_told(desk: System, ours: Receiver) -> None:
    secrets = watched(desk, ours.url)
    quiet, loud = contact(desk), contact(desk, 1)

    desk.dialect.change("contact", quiet, {"locale": "de"})
    desk.dialect.change("contact", loud, {"name": "Grete"})
    hints = wait(ours, secrets, ("CHANGED", loud))

    assert {hint.change.native_id for hint in hints} == {loud}


def test_a_webhook_is_kept_switched_on_again_and_ended(desk: System, ours: Receiver) -> None:
    first = watched(desk, ours.url)
    again = watched(desk, ours.url)
    [hook] = dialect(desk)._hooks._hooks.values()
    hook["status"] = "inactive"
    third = watched(desk, ours.url)
    [listed] = dialect(desk).subscriptions()

    assert first == again == third
    assert listed["active"] is True
    assert desk.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 1
    assert dialect(desk).subscriptions() == []


def test_two_webhooks_to_one_address_become_one(desk: System, ours: Receiver) -> None:
    watched(desk, ours.url)
    hooks = dialect(desk)._hooks
    [hook] = hooks._hooks.values()
    hooks._kept({**{name: hook[name] for name in hook if name != "id"}})

    secrets = watched(desk, ours.url)

    assert len(secrets) == len(dialect(desk).subscriptions()) == 1


def test_an_account_without_ticket_events_has_a_trigger_for_them(desk: System, ours: Receiver) -> None:
    dialect(desk)._hooks.ticket_events = False
    dialect(desk).hook(ours.url, "")
    secrets = watched(desk, ours.url)
    ticket = next(str(row["id"]) for row in desk.dialect.tables["ticket"])

    desk.dialect.change("ticket", ticket, {"subject": "Other"})
    desk.dialect.change("contact", contact(desk), {"name": "Grete"})
    wait(ours, secrets, ("CHANGED", ticket), ("CHANGED", contact(desk)))

    assert len(secrets) == len(set(secrets)) == 2
    assert watched(desk, ours.url) == secrets
    assert len(dialect(desk).subscriptions()) == 2


def test_a_delivery_that_is_busy_is_sent_again_and_one_that_fails_is_not(desk: System, ours: Receiver) -> None:
    secrets = watched(desk, ours.url)
    ours.status = 503
    desk.dialect.change("contact", contact(desk), {"name": "Grete"})
    ours.wait(lambda came: len(came) == 1)
    until = time.monotonic() + 5
    while len(dialect(desk).outbox.log) < 2 and time.monotonic() < until:
        time.sleep(0.01)  # the pause before the next attempt begins when the answer has come
    ours.status = 500
    desk.sandbox.clock.advance(31)
    ours.wait(lambda came: len(came) == 2)
    ours.status = 200
    desk.sandbox.clock.advance(600)
    desk.dialect.change("contact", contact(desk, 1), {"name": "Hans"})
    came = ours.wait(lambda came: len(came) == 3)

    first, second, last = (Zendesk.events(each, secrets).hints[0] for each in came)
    assert first.id == second.id != last.id


def test_a_delivery_by_a_clock_that_is_off_is_refused(desk: System, ours: Receiver) -> None:
    secrets = watched(desk, ours.url)
    dialect(desk).skew = -400.0

    desk.dialect.change("contact", contact(desk), {"name": "Grete"})
    [came] = ours.wait(lambda came: len(came) == 1)

    with pytest.raises(SignatureError):
        Zendesk.events(came, secrets)


# ---- the exports ----


def test_the_export_tells_edits_deletes_and_merges(desk: System) -> None:
    follow = follower()
    passed(desk, follow)
    edited, gone, loser, winner = (contact(desk, nth) for nth in range(4))

    desk.dialect.change("contact", edited, {"name": "Grete"})
    desk.dialect.delete("contact", gone)
    dialect(desk).merge("contact", loser, winner)
    changes = passed(desk, follow)

    assert ops(changes) == {edited: "CHANGED", gone: "DELETED", loser: "DELETED", winner: "CHANGED"}
    [row] = [each.row for each in changes if each.native_id == edited]
    assert row is not None
    assert row["name"] == "Grete"
    assert passed(desk, follow) == []


def test_tickets_that_move_with_a_merge_are_told_though_their_time_stands_still(desk: System) -> None:
    ticket = next(row for row in desk.dialect.tables["ticket"] if (desk.row("contact", row["requester_id"]) or {}).get("active"))
    loser = str(ticket["requester_id"])
    winner = next(id for nth in range(9) if (id := contact(desk, nth)) != loser)
    follow = follower("ticket")
    passed(desk, follow)

    assert dialect(desk).merge("contact", loser, winner)
    changes = passed(desk, follow)

    assert str(ticket["id"]) in ids(changes)
    assert (desk.row("ticket", str(ticket["id"])) or {})["updated_at"] == ticket["updated_at"]


def test_a_deleted_ticket_is_told_and_a_made_one(desk: System) -> None:
    follow = follower("ticket")
    passed(desk, follow)
    [made, gone] = desk.write("ticket", *(
        Write(verb="create", row={"subject": "Broken"}, links={"contact": contact(desk)}) for _ in range(2)
    ))  # fmt: skip
    desk.write("ticket", Write(verb="delete", native_id=gone.native_id))

    assert ops(passed(desk, follow)) == {str(made.native_id): "CHANGED", str(gone.native_id): "DELETED"}


def test_the_last_minute_is_told_by_the_pass_after_it(desk: System) -> None:
    follow = follower()
    passed(desk, follow)
    desk.sandbox.clock.advance(120)

    async def at_once(source: Any, api: Any) -> list[Change]:
        desk.dialect.change("contact", contact(desk), {"name": "Grete"})
        return await follow.passed(source.adapter, api)

    assert desk.run(at_once) == []
    assert ids(passed(desk, follow)) == {contact(desk)}


def test_a_change_that_is_committed_late_is_told(desk: System) -> None:
    follow = follower()
    passed(desk, follow)
    desk.dialect.change("contact", contact(desk), {"name": "Early"})
    passed(desk, follow)
    desk.broken("late_commit", seconds=300, times=1)

    late = contact(desk, 1)
    httpx.patch(f"{desk.address}/_control/records/zendesk/contact/{late}", json={"name": "Late"}).raise_for_status()

    assert late in ids(passed(desk, follow))


@pytest.mark.parametrize("kind", ["contact", "account"])
def test_ties_over_a_page_are_all_told(desk: System, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.zendesk_live._SIZE", 3)
    rows = [
        str(row["id"])
        for row in desk.dialect.tables[kind]
        if row.get("active", True) and row.get("role", "end-user") == "end-user"
    ][:8]
    follow = follower(kind)
    passed(desk, follow)
    moment = desk.sandbox.clock.time()
    desk.sandbox.clock.time = lambda: moment  # type: ignore[method-assign]
    for id in rows:
        desk.dialect.change(kind, id, {"name": "Same"})
    del desk.sandbox.clock.time  # type: ignore[method-assign]

    changes = passed(desk, follow)

    assert ids(changes) == set(rows)
    assert passed(desk, follow) == []


def test_agents_are_no_customers(desk: System) -> None:
    agent = next(str(row["id"]) for row in desk.dialect.tables["contact"] if row["role"] == "agent")
    follow = follower()
    passed(desk, follow)

    desk.dialect.change("contact", agent, {"name": "Agent"})

    [change] = passed(desk, follow)

    assert (change.native_id, change.op, change.row) == (agent, "CHANGED", None)
    assert desk.run(lambda source, api: source.adapter.read(api, "contact", [agent], ())) == [None]


def test_who_became_an_agent_is_no_customer_any_more(desk: System) -> None:
    promoted = contact(desk)
    follow = follower()
    passed(desk, follow)

    desk.dialect.change("contact", promoted, {"role": "agent"})

    assert [(each.native_id, each.row) for each in passed(desk, follow)] == [(promoted, None)]
    assert desk.run(lambda source, api: source.adapter.read(api, "contact", [promoted], ())) == [None]


def test_a_cursor_that_is_refused_counts_as_forgotten_and_our_clock_does_not_matter(desk: System) -> None:
    follow = follower()
    follow.now = datetime(1999, 1, 1, tzinfo=UTC)
    passed(desk, follow)
    desk.dialect.change("contact", contact(desk), {"name": "Grete"})
    assert ids(passed(desk, follow)) == {contact(desk)}

    follow.cursor = orjson.dumps({"start": 1, "after": "no cursor"}).decode()
    with pytest.raises(CursorExpiredError):
        passed(desk, follow)


@pytest.mark.parametrize("kind", ["contact", "account", "ticket"])
def test_a_pass_costs_a_call(kind: Kind) -> None:
    with system("zendesk", people=1000) as desk:
        follow = follower(kind)
        passed(desk, follow)
        rows = [
            str(row["id"]) for row in desk.dialect.tables[kind] if row.get("active", True) and row.get("status") != "deleted"
        ][:50]
        rows = [id for id in rows if (desk.row(kind, id) or {}).get("role", "end-user") == "end-user"]
        for id in rows:
            desk.dialect.change(kind, id, {"subject" if kind == "ticket" else "name": "Other"})

        changes = passed(desk, follow)

        assert ids(changes) >= set(rows)
        assert len(changes) <= len(rows) + 1  # the export by time tells the second that it ended in again
        assert sum(count for path, count in desk.dialect.calls.items() if "/incremental/" in path) == 1
        assert not any("/search" in path for path in desk.dialect.calls)
