"""How Pipedrive tells of changes: webhooks that a password proves, lists by time, the list of deleted deals."""

import base64
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
from adapters.pipedrive import Pipedrive
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.pipedrive import COMPANY
from sandbox.pipedrive import Pipedrive as Company
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "the-password-of-the-hook"
NOW = datetime(2026, 2, 3, 9, 15, 30, tzinfo=UTC)
AT = datetime(2026, 2, 3, 9, 15, 27, 250_000, tzinfo=UTC)
# The example of "Guide for Webhooks v2".
META: dict[str, Any] = {
    "action": "change", "entity": "deal", "entity_id": "42", "id": "95a98e42-b9ba-479e-90ea-ba80ea57bfe9", "company_id": "123456", "user_id": "1",
    "timestamp": "2026-02-03T09:15:27.250Z", "correlation_id": "a87c8a1c", "is_bulk_edit": False, "version": "2.0", "webhook_id": "1100", "attempt": 1,
}  # fmt: skip
EVENT: dict[str, Any] = {"meta": META, "data": {"id": 42, "title": "Big deal", "status": "open"}, "previous": {"stage_id": 2}}


@pytest.fixture
def company() -> Iterator[System]:
    with system("pipedrive") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(company: System) -> Company:
    assert isinstance(company.dialect, Company)
    return company.dialect


def delivery(body: Any) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    pair = base64.b64encode(f"customer360:{SECRET}".encode()).decode()
    return Delivery(
        method="POST", url="https://live.example/webhooks/crm", headers={"authorization": f"Basic {pair}"}, body=raw, at=NOW
    )


def told(body: dict[str, Any] | None = None, **meta: Any) -> list[Change]:
    given = {**EVENT, **(body or {}), "meta": {**META, **meta}}
    return [hint.change for hint in Pipedrive.events(delivery(given), [SECRET]).hints]


def some(company: System, kind: Kind, nth: int = 0) -> str:
    return [str(row["id"]) for row in company.dialect.tables[kind] if not row["is_deleted"]][nth]


def follower(kind: Kind = "contact") -> Follower:
    return Follower(kind=kind, fields=("name", "title", "emails"))


def passed(company: System, follower: Follower) -> list[Change]:
    return company.run(lambda source, api: follower.passed(source.adapter, api))


def ops(changes: list[Change], *ids: str) -> dict[str, str]:
    """Return id → op; of several, the one that is no mere change."""
    found: dict[str, str] = {}
    for each in changes:
        if each.native_id in ids and found.get(each.native_id, "CHANGED") == "CHANGED":
            found[each.native_id] = each.op
    return found


# ---- proof ----


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic Y3VzdG9tZXIzNjA6", "Bearer the-password-of-the-hook", "the-password-of-the-hook", "é"]
)
def test_what_does_not_bear_the_password_is_refused(header: str) -> None:
    good = delivery(EVENT)
    assert Pipedrive.events(good, ["new", SECRET]).hints

    with pytest.raises(SignatureError):
        Pipedrive.events(replace(good, headers={"authorization": header}), ["new", SECRET])
    with pytest.raises(SignatureError):
        Pipedrive.events(replace(good, headers={}), [SECRET])


@pytest.mark.parametrize("secrets", [[], [""], ["new"]])
def test_no_secret_proves_nothing(secrets: list[str]) -> None:
    with pytest.raises(SignatureError):
        Pipedrive.events(delivery(EVENT), secrets)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", delivery(EVENT).body[:-1], [], {}, {**EVENT, "meta": {**META, "id": None}}, {**EVENT, "meta": {**META, "entity_id": "../1"}},
        {**EVENT, "meta": {**META, "company_id": None}}, {**EVENT, "meta": {**META, "timestamp": "soon"}},
        {**EVENT, "meta": {**META, "merged_to_id": "x", "action": "delete"}},
    ],
)  # fmt: skip
def test_what_is_proved_and_not_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Pipedrive.events(delivery(body), [SECRET])


# ---- what events say ----


def test_the_documents_examples_are_read() -> None:
    assert Pipedrive.events(delivery(EVENT), [SECRET]).account == "123456"
    assert told() == [Change(kind="deal", native_id="42", at=AT)]
    assert told({"previous": None}, action="create", entity="person") == [Change(kind="contact", native_id="42", at=AT)]
    assert told({"data": None}, action="delete", entity="organization") == [
        Change(kind="account", native_id="42", op="DELETED", at=AT)
    ]
    assert told({"data": {"id": 42, "status": "deleted"}})[0].op == "DELETED"
    assert told({"data": None}, action="delete", entity="person", merged_to_id="7") == [
        Change(kind="contact", native_id="42", op="MERGED", at=AT, into="7")
    ]
    assert told(entity="person", entity_id="7", merged_from_id=42) == [
        Change(kind="contact", native_id="42", op="MERGED", at=AT, into="7"), Change(kind="contact", native_id="7", at=AT),
    ]  # fmt: skip


def test_events_of_what_we_do_not_keep_are_passed_over() -> None:
    assert told(entity="activity") == []
    assert told(entity="lead", entity_id="adf21080-0e10-11eb-879b-05d71fb426ec") == []


def test_an_event_that_is_sent_again_keeps_its_id() -> None:
    first, again, other = (
        Pipedrive.events(delivery({**EVENT, "meta": {**META, **more}}), [SECRET]).hints[0].id for more in ({}, {"attempt": 2}, {"id": "x"})
    )  # fmt: skip

    assert first == again != other


# ---- subscriptions, and deliveries of the sandbox ----


def watched(company: System, url: str, secret: str = SECRET) -> list[str]:
    return [each.native_id for each in company.run(lambda source, api: source.adapter.watch(api, url, secret))]


def heard(ours: Receiver) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in Pipedrive.events(each, [SECRET]).hints]


def wait(ours: Receiver, *wanted: tuple[str, str]) -> list[Hint]:
    """Return all hints once each wanted (op, id) was told."""
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))
    return heard(ours)


def test_changes_by_hand_and_by_calls_arrive_as_hints(company: System, ours: Receiver) -> None:
    watched(company, ours.url)
    edited, gone, loser, winner = (some(company, "contact", nth) for nth in range(4))
    firm = some(company, "account")

    httpx.patch(f"{company.address}/_control/records/pipedrive/contact/{edited}", json={"name": "Grete"}).raise_for_status()
    httpx.delete(f"{company.address}/_control/records/pipedrive/contact/{gone}").raise_for_status()
    company.dialect.change("account", firm, {"name": "Renamed"})
    [made] = company.write("deal", Write(verb="create", row={"title": "New"}))
    company.write("deal", Write(verb="delete", native_id=made.native_id))
    assert dialect(company).merge("contact", loser, winner)
    deal = str(made.native_id)
    hints = wait(
        ours, ("CHANGED", edited), ("DELETED", gone), ("CHANGED", firm), ("CHANGED", deal), ("DELETED", deal), ("MERGED", loser), ("CHANGED", winner)
    )  # fmt: skip

    assert ("DELETED", loser) not in {(hint.change.op, hint.change.native_id) for hint in hints}
    assert {hint.change.into for hint in hints if hint.change.op == "MERGED"} == {winner}
    assert {Pipedrive.events(each, [SECRET]).account for each in ours.deliveries} == {str(COMPANY)}
    assert company.run(lambda source, api: source.adapter.check(api)).account == str(COMPANY)
    [first] = [each for each in map(orjson.loads, (each.body for each in ours.deliveries)) if each["meta"]["entity_id"] == edited]
    assert set(first["previous"]) - {"update_time"} == {"name"}


def test_an_edit_that_changes_nothing_is_not_told(company: System, ours: Receiver) -> None:
    watched(company, ours.url)
    quiet, loud = some(company, "contact"), some(company, "contact", 1)

    company.dialect.change("contact", quiet, {"name": (company.row("contact", quiet) or {})["name"]})
    company.dialect.change("contact", loud, {"name": "Grete"})
    hints = wait(ours, ("CHANGED", loud))

    assert {hint.change.native_id for hint in hints} == {loud}


def test_webhooks_are_kept_made_again_and_ended(company: System, ours: Receiver) -> None:
    first = watched(company, ours.url)
    again = watched(company, ours.url)
    assert first == again
    assert len(set(first)) == 3

    dialect(company)._hooks._hooks[int(first[0])].row["is_active"] = 0
    third = watched(company, ours.url)
    assert third[1:] == first[1:]
    assert third[0] != first[0]

    rotated = watched(company, ours.url, "another password")
    assert not set(rotated) & set(third)
    assert len(dialect(company).subscriptions()) == 3
    assert company.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 3
    assert dialect(company).subscriptions() == []


def test_what_is_not_taken_is_sent_again_with_the_same_id(company: System, ours: Receiver) -> None:
    watched(company, ours.url)
    ours.status = 500
    company.dialect.change("contact", some(company, "contact"), {"name": "Grete"})
    for attempts, pause in ((1, 3), (2, 30), (3, 150)):
        ours.wait(lambda came, attempts=attempts: len(came) == attempts)  # type: ignore[misc]
        until = time.monotonic() + 5
        while len(dialect(company).outbox.log[0].attempts) < attempts and time.monotonic() < until:
            time.sleep(0.01)  # the pause before the next attempt begins when the answer has come
        company.sandbox.clock.advance(pause)
    came = ours.wait(lambda came: len(came) == 4)

    assert len({hint.id for each in came for hint in Pipedrive.events(each, [SECRET]).hints}) == 1
    assert [orjson.loads(each.body)["meta"]["attempt"] for each in came] == [1, 2, 3, 4]


def test_ten_failures_shut_a_webhook_out_for_half_an_hour_and_three_days_end_it(company: System, ours: Receiver) -> None:
    watched(company, ours.url)
    ours.status = 500
    for nth in range(10):
        company.dialect.change("contact", some(company, "contact"), {"name": f"Name {nth}"})
        ours.wait(lambda came, nth=nth: len(came) > nth)  # type: ignore[misc]
    until = time.monotonic() + 5
    while all(each["active"] for each in dialect(company).subscriptions()) and time.monotonic() < until:
        time.sleep(0.01)

    company.dialect.change("contact", some(company, "contact"), {"name": "Unheard"})
    company.sandbox.clock.advance(1801)
    company.dialect.change("contact", some(company, "contact"), {"name": "Heard"})
    came = ours.wait(lambda came: any(b"Heard" in each.body for each in came))
    assert not any(b"Unheard" in each.body for each in came if b"Heard" not in each.body)
    assert len(dialect(company).subscriptions()) == 3

    company.sandbox.clock.advance(4 * 86_400)
    assert len(dialect(company).subscriptions()) == 2
    assert len(watched(company, ours.url)) == len(dialect(company).subscriptions()) == 3


# ---- the feed ----


def test_the_feed_tells_edits_and_of_deals_deletes(company: System) -> None:
    persons, deals = follower(), follower("deal")
    passed(company, persons), passed(company, deals)
    edited, deal, gone = some(company, "contact"), some(company, "deal"), some(company, "deal", 1)

    company.dialect.change("contact", edited, {"name": "Grete"})
    company.dialect.change("deal", deal, {"title": "Bigger"})
    company.dialect.delete("deal", gone)
    told = passed(company, persons)

    assert ops(told, edited) == {edited: "CHANGED"}
    assert {each.row["name"] for each in told if each.native_id == edited and each.row} == {"Grete"}
    assert ops(passed(company, deals), deal, gone) == {deal: "CHANGED", gone: "DELETED"}


@pytest.mark.parametrize("kind", ["contact", "account"])
def test_deleted_and_merged_ones_are_told_four_times_an_hour(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.pipedrive_live.PAGE", 2)
    with system("pipedrive", people=200) as company:
        follow = follower(kind)
        passed(company, follow)
        gone = {some(company, kind, nth) for nth in range(5)}
        loser, winner = some(company, kind, 5), some(company, kind, 6)

        for id in gone:
            company.dialect.delete(kind, id)
        assert dialect(company).merge(kind, loser, winner)
        early = passed(company, follow)
        company.dialect.change(kind, winner, {"name": "Later"})
        company.sandbox.clock.advance(900)
        follow.now += timedelta(seconds=900)
        later = passed(company, follow)
        follow.now += timedelta(seconds=900)
        company.sandbox.clock.advance(900)
        company.dialect.change(kind, winner, {"name": "Later still"})
        passed(company, follow)
        follow.now += timedelta(seconds=900)

        assert {each.op for each in early} == {"CHANGED"}
        assert {each.native_id for each in later if each.op == "DELETED"} == {*gone, loser}
        assert "DELETED" not in {each.op for each in passed(company, follow)}


def test_deals_that_move_with_a_merge_are_told(company: System) -> None:
    row = next(row for row in company.dialect.tables["deal"] if not (row["is_deleted"] or (company.row("contact", row["person_id"]) or {"is_deleted": True})["is_deleted"]))  # fmt: skip
    loser = str(row["person_id"])
    winner = next(id for nth in range(9) if (id := some(company, "contact", nth)) != loser)
    deals, persons = follower("deal"), follower()
    passed(company, deals), passed(company, persons)

    assert dialect(company).merge("contact", loser, winner)

    assert str(row["id"]) in ids(passed(company, deals))
    assert winner in ids(passed(company, persons))


@pytest.mark.parametrize("kind", ["contact", "deal"])
def test_many_records_of_one_second_are_all_told(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.pipedrive_live.PAGE", 5)
    monkeypatch.setattr("adapters.pipedrive.PAGE", 5)
    with system("pipedrive") as company:
        follow = follower(kind)
        passed(company, follow)
        wanted = {some(company, kind, nth) for nth in range(14)}
        gone = {some(company, kind, nth) for nth in range(14, 22)} if kind == "deal" else set()
        moment = company.sandbox.clock.time()
        company.sandbox.clock.time = lambda: moment  # type: ignore[method-assign]
        for id in wanted:
            company.dialect.change(kind, id, {"title" if kind == "deal" else "name": "Same"})
        for id in gone:
            company.dialect.delete(kind, id)
        del company.sandbox.clock.time  # type: ignore[method-assign]

        told = passed(company, follow)

        assert ids(told) >= wanted | gone
        assert {each.native_id for each in told if each.op == "DELETED"} >= gone


def test_a_change_that_is_committed_late_is_told(company: System) -> None:
    follow = follower()
    passed(company, follow)
    company.dialect.change("contact", some(company, "contact"), {"name": "Early"})
    passed(company, follow)
    company.broken("late_commit", seconds=100, times=1)

    late = some(company, "contact", 1)
    # A pass takes 60 s of the sandbox's time, so this lies 40 s before the change that was seen.
    httpx.patch(f"{company.address}/_control/records/pipedrive/contact/{late}", json={"name": "Late"}).raise_for_status()

    assert late in ids(passed(company, follow))


def test_our_clock_may_be_off_and_old_cursors_are_no_good(company: System) -> None:
    follow = follower("deal")
    follow.now = datetime(1999, 1, 1, tzinfo=UTC)
    passed(company, follow)
    gone = some(company, "deal")
    company.dialect.delete("deal", gone)
    assert ops(passed(company, follow), gone) == {gone: "DELETED"}

    follow.now += timedelta(days=31)
    with pytest.raises(CursorExpiredError):
        passed(company, follow)


@pytest.mark.parametrize("kind", ["contact", "account", "deal"])
def test_a_pass_costs_few_calls(kind: Kind) -> None:
    with system("pipedrive", people=1000) as company:
        follow = follower(kind)
        passed(company, follow)
        follow.now += timedelta(seconds=900)
        rows = [str(row["id"]) for row in company.dialect.tables[kind] if not row["is_deleted"]][:200]
        for id in rows:
            company.dialect.change(kind, id, {"title" if kind == "deal" else "name": "Other"})

        told = passed(company, follow)

        assert ids(told) >= set(rows)
        beside = ("Fields", "/stages", "/pipelines", "/oauth")
        lists = sum(count for path, count in company.dialect.calls.items() if not any(each in path for each in beside))
        # 20,000 records are listed in 40 calls, so 200 of them may cost 8.
        assert lists == 2
