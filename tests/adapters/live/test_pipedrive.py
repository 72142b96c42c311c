"""How Pipedrive tells of changes: webhooks v2 with a password of ours, lists by time, recents and deleted deals."""

import asyncio
import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Request, Response, Write
from adapters.changes import Change, Delivery, Heard, Hint
from adapters.pipedrive import Pipedrive
from adapters.pipedrive_live import _hidden_deals, _recents
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.faults import Fault
from sandbox.pipedrive import API_TOKEN, COMPANY
from sandbox.pipedrive import Pipedrive as Company
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "basic-password"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = ("name", "title", "emails")
# The example of the guide for webhooks v2.
META: dict[str, Any] = {
    "action": "change", "entity": "deal", "entity_id": "42", "id": "95a98e42-b9ba-479e-90ea-ba80ea57bfe9", "company_id": "123456", "user_id": "1",
    "timestamp": "2026-02-03T09:15:27.250Z", "correlation_id": "a87c8a1c", "is_bulk_edit": False, "version": "2.0", "webhook_id": "1100",
    "webhook_owner_id": "1", "change_source": "app", "type": "general", "attempt": 1, "host": "acme.pipedrive.com", "permitted_user_ids": ["1"],
}  # fmt: skip
AT = datetime(2026, 2, 3, 9, 15, 27, 250_000, tzinfo=UTC)


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


def delivery(body: Any, *, user: str = "customer360", secret: str = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    pair = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return Delivery(
        method="POST", url="https://live.example/pipedrive", headers={"authorization": f"Basic {pair}"}, body=raw, at=NOW
    )


def said(**meta: Any) -> Heard:
    return Pipedrive.events(delivery({"meta": {**META, **meta}, "data": {}, "previous": None}), [SECRET])


def told(**meta: Any) -> list[Change]:
    return [hint.change for hint in said(**meta).hints]


def some(company: System, kind: Kind, many: int) -> list[str]:
    return [str(row["id"]) for row in company.dialect.tables[kind] if not row["is_deleted"]][:many]


def passed(company: System, follower: Follower) -> list[Change]:
    return company.run(lambda source, api: follower.passed(source.adapter, api))


def watch(company: System, url: str, secret: str = SECRET) -> list[str]:
    return [each.native_id for each in company.run(lambda source, api: source.adapter.watch(api, url, secret))]


def heard(ours: Receiver) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in Pipedrive.events(each, [SECRET]).hints]


def wait(ours: Receiver, *wanted: tuple[str, str]) -> list[Hint]:
    """Return all hints once each wanted (op, id) was told."""
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))
    return heard(ours)


# ---- proof, and what is said ----


@pytest.mark.parametrize(
    "forged",
    [
        delivery({"meta": META}, secret="other"),
        delivery({"meta": META}, user="admin"),
        replace(delivery({"meta": META}), headers={}),
        replace(delivery({"meta": META}), headers={"authorization": "Basic " + base64.b64encode(b"customer360:").decode()}),
        replace(delivery({"meta": META}), headers={"authorization": SECRET}),
        replace(delivery({"meta": META}), headers={"authorization": "Basic é"}),
    ],
    ids=["password", "user", "none", "empty", "bare", "odd"],
)
def test_what_does_not_carry_the_password_is_refused(forged: Delivery) -> None:
    for secrets in ([SECRET], ["", SECRET], []):
        with pytest.raises(SignatureError):
            Pipedrive.events(forged, secrets)


def test_any_of_two_passwords_proves() -> None:
    assert Pipedrive.events(delivery({"meta": META}), ["new", SECRET]).account == "123456"


def test_the_documents_example_is_read() -> None:
    assert said().account == "123456"
    assert told() == [Change(kind="deal", native_id="42", at=AT)]
    assert told(action="create", entity="person", entity_id=7) == [Change(kind="contact", native_id="7", at=AT)]
    assert told(action="delete", entity="organization") == [Change(kind="account", native_id="42", op="DELETED", at=AT)]


def test_a_merge_is_told_by_both_of_its_events() -> None:
    gone = Change(kind="contact", native_id="8", op="MERGED", at=AT, into="7")

    assert told(action="delete", entity="person", entity_id="8", merged_to_id="7") == [gone]
    assert told(entity="person", entity_id="7", merged_from_id="8") == [Change(kind="contact", native_id="7", at=AT), gone]
    assert len({hint.id for hint in said(entity="person", entity_id="7", merged_from_id="8").hints}) == 2


def test_events_of_what_we_do_not_keep_are_passed_over() -> None:
    for meta in ({"entity": "activity"}, {"entity": "lead", "entity_id": "adf21080-0e10"}, {"action": "sneeze"}):
        assert told(**meta) == []


def test_an_event_that_is_sent_again_keeps_its_id() -> None:
    [first], [again], [other] = said().hints, said(attempt=3, webhook_id="9").hints, said(id="another").hints

    assert first.id == again.id != other.id


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", b"{}", {"meta": {**META, "entity_id": "../1"}}, {"meta": {**META, "entity_id": None}}, {"meta": {**META, "id": None}},
        {"meta": {**META, "company_id": True}}, {"meta": {**META, "timestamp": "yesterday"}}, {"meta": {**META, "timestamp": "2026-02-03T09:15:27"}},
        {"meta": {**META, "merged_from_id": "²"}}, {"v": 1, "meta": {"v": 1, "action": "updated", "object": "deal", "id": 42, "company_id": 1}},
    ],
)  # fmt: skip
def test_what_is_proved_and_not_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Pipedrive.events(delivery(body), [SECRET])


# ---- deliveries of the sandbox ----


def test_changes_by_hand_and_by_calls_arrive_as_hints(company: System, ours: Receiver) -> None:
    edited, gone, loser, winner = some(company, "contact", 4)
    [deal] = some(company, "deal", 1)
    watch(company, ours.url)

    httpx.patch(f"{company.address}/_control/records/pipedrive/deal/{deal}", json={"title": "T"}).raise_for_status()
    company.write("contact", Write(verb="update", native_id=edited, row={"first_name": "Grete"}))
    [made] = company.write("account", Write(verb="create", row={"name": "New"}))
    company.write("contact", Write(verb="delete", native_id=gone))
    url, headers = f"{company.address}/pipedrive/api/v1/persons/{loser}/merge", {"x-api-token": API_TOKEN}
    httpx.put(url, json={"merge_with_id": int(winner)}, headers=headers).raise_for_status()
    hints = wait(
        ours, ("CHANGED", deal), ("CHANGED", edited), ("CHANGED", str(made.native_id)), ("DELETED", gone), ("MERGED", loser),
        ("CHANGED", winner),
    )  # fmt: skip

    assert ("DELETED", loser) not in {(hint.change.op, hint.change.native_id) for hint in hints}
    assert {hint.change.into for hint in hints if hint.change.op == "MERGED"} == {winner}
    account = company.run(lambda source, api: source.adapter.check(api)).account
    assert {Pipedrive.events(each, [SECRET]).account for each in ours.deliveries} == {account} == {str(COMPANY)}


def test_an_edit_that_changes_nothing_is_not_told_and_others_say_what_was_before(company: System, ours: Receiver) -> None:
    watch(company, ours.url)
    [someone] = some(company, "contact", 1)
    before = (company.row("contact", someone) or {})["name"]

    dialect(company).change("contact", someone, {"name": before})
    dialect(company).change("contact", someone, {"name": "Grete"})
    wait(ours, ("CHANGED", someone))

    [body] = [orjson.loads(each.body) for each in ours.deliveries]
    assert body["previous"] == {"name": before}
    assert body["data"]["name"] == "Grete"
    assert {"type", "id"} in [set(value) for value in body["data"]["custom_fields"].values()]


def test_subscriptions_are_kept_renewed_and_ended(company: System, ours: Receiver) -> None:
    first = watch(company, ours.url)
    other = watch(company, ours.url + "?other")

    assert watch(company, ours.url) == first
    renewed = watch(company, ours.url, "another password")
    httpx.delete(
        f"{company.address}/pipedrive/api/v1/webhooks/{renewed[1]}", headers={"x-api-token": API_TOKEN}
    ).raise_for_status()
    again = watch(company, ours.url, "another password")

    assert len(first) == 3
    assert set(first).isdisjoint(renewed)
    assert [one == two for one, two in zip(renewed, again, strict=True)] == [True, False, True]
    assert company.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 3
    assert [each["id"] for each in dialect(company).subscriptions()] == other


def test_what_is_not_taken_is_sent_again_four_times_in_all(company: System, ours: Receiver) -> None:
    watch(company, ours.url)
    ours.status = 500

    dialect(company).change("contact", *some(company, "contact", 1), {"name": "Grete"})
    for many, pause in enumerate((3, 30, 150), 1):
        attempted(company, many)
        company.sandbox.clock.advance(pause)
    came = ours.wait(lambda came: len(came) == 4)

    assert [orjson.loads(each.body)["meta"]["attempt"] for each in came] == [1, 2, 3, 4]
    assert len({hint.id for hint in heard(ours)}) == 1


def attempted(company: System, many: int) -> None:
    """Wait until so many attempts were made: the pause before the next begins when the answer has come."""
    until = time.monotonic() + 5
    while sum(len(each.attempts) for each in dialect(company).outbox.log) < many:
        assert time.monotonic() < until, "no attempt was made"
        time.sleep(0.01)


def test_ten_failures_are_answered_with_a_ban_and_three_days_of_them_with_an_end(company: System, ours: Receiver) -> None:
    watch(company, ours.url)
    ours.status = 500
    people = some(company, "contact", 13)

    for many, id in enumerate(people[:10], 1):
        dialect(company).change("contact", id, {"name": "Grete"})
        attempted(company, many)
    dialect(company).change("contact", people[10], {"name": "unheard"})
    active = [each["active"] for each in dialect(company).subscriptions()]
    ours.status = 200
    company.sandbox.clock.advance(1801)
    dialect(company).change("contact", people[11], {"name": "heard"})
    wait(ours, ("CHANGED", people[11]))

    assert sorted(active) == [False, True, True]
    assert people[10] not in {hint.change.native_id for hint in heard(ours)}


def test_a_subscription_that_fails_for_three_days_is_thrown_away_and_made_again(company: System, ours: Receiver) -> None:
    made = watch(company, ours.url)
    ours.status = 500
    one, two = some(company, "contact", 2)

    dialect(company).change("contact", one, {"name": "Grete"})
    attempted(company, 1)
    company.sandbox.clock.advance(3 * 86_400 + 60)
    dialect(company).change("contact", two, {"name": "Grete"})
    until = time.monotonic() + 5
    while len(dialect(company).subscriptions()) == 3:
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.01)

    again = watch(company, ours.url)
    assert len(again) == 3
    assert len(set(again) & set(made)) == 2


# ---- the feed ----


@pytest.mark.parametrize("kind", ["contact", "account", "deal"])
def test_the_feed_tells_edits_and_deletes(company: System, kind: Kind) -> None:
    follower = Follower(kind, FIELDS)
    edited, gone, loser, winner = some(company, kind, 4)
    passed(company, follower)
    name = "title" if kind == "deal" else "name"

    dialect(company).change(kind, edited, {name: "New"})
    dialect(company).delete(kind, gone)
    dialect(company).merge(kind, loser, winner)
    changes = passed(company, follower)

    ops = {each.native_id: each.op for each in changes}
    assert [ops[id] for id in (edited, gone, loser, winner)] == ["CHANGED", "DELETED", "DELETED", "CHANGED"]
    [row] = [each.row for each in changes if each.native_id == edited]
    assert row is not None
    assert row[name] == "New"


def test_a_deal_that_is_archived_or_edited_afterwards_is_told_and_can_be_read(company: System) -> None:
    follower = Follower("deal", FIELDS)
    [deal] = some(company, "deal", 1)
    passed(company, follower)

    for fields in ({"is_archived": True}, {"title": "Later"}):
        company.sandbox.clock.advance(600)
        dialect(company).change("deal", deal, fields)
        changes = passed(company, follower)
        assert [(each.op, each.row) for each in changes if each.native_id == deal] == [("CHANGED", None)]

    [row] = company.run(lambda source, api: source.adapter.read(api, "deal", [deal], FIELDS))
    assert row["title"] == "Later"
    dialect(company).delete("deal", deal)
    assert {each.op for each in passed(company, follower) if each.native_id == deal} == {"DELETED"}


def test_lists_that_do_not_go_on_are_an_error() -> None:
    class Stuck:
        async def send(self, request: Request) -> Response:
            paging = {"next_cursor": "same", "pagination": {"more_items_in_collection": True}}
            return Response(status=200, headers={}, body=orjson.dumps({"data": [], "additional_data": paging}))

    for kind in ("deal", "contact"):
        with pytest.raises(ProtocolError, match="does not go on"):
            asyncio.run(_hidden_deals(Stuck(), "/deals", NOW) if kind == "deal" else _recents(Stuck(), kind, NOW))  # type: ignore[arg-type]


def test_many_records_of_one_second_are_all_told_in_few_calls(company: System) -> None:
    follower = Follower("contact", FIELDS)
    table, now = company.dialect.tables["contact"], f"{company.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    row = next(iter(table))
    tied = [str(10**9 + number) for number in range(600)] + [str(5_000_000 + number) for number in range(600)]

    passed(company, follower)
    for id in tied:
        table.put(id, {**row, "id": int(id), "update_time": now})
    changes = passed(company, follower)
    calls = dict(company.dialect.calls)

    assert ids(changes) >= set(tied)
    assert calls["GET /api/v2/persons"] <= 4
    assert calls["GET /api/v1/recents"] <= 4


def test_a_feed_that_begins_among_many_of_one_second_takes_few_calls(company: System) -> None:
    table, now = company.dialect.tables["contact"], f"{company.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    row = next(iter(table))
    for number in range(600):
        table.put(str(10**9 + number), {**row, "id": 10**9 + number, "update_time": now})

    assert passed(company, Follower("contact", FIELDS)) == []
    assert company.dialect.calls["GET /api/v2/persons"] <= 3


def test_more_recents_than_a_page_while_people_are_edited_hide_no_delete(company: System) -> None:
    follower = Follower("contact", FIELDS)
    table = company.dialect.tables["contact"]
    row = next(iter(table))
    passed(company, follower)
    for number in range(1200):
        table.put(
            str(10**9 + number), {**row, "id": 10**9 + number, "update_time": f"{company.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"}
        )
    gone = [str(10**9 + number) for number in (3, 499, 500, 501, 1100)]
    for id in gone:
        dialect(company).delete("contact", id)

    changes = passed(company, follower)

    assert {each.native_id for each in changes if each.op == "DELETED"} >= set(gone)


@pytest.mark.parametrize("removed", [False, True])
def test_a_change_that_is_committed_late_is_told(company: System, removed: bool) -> None:
    follower = Follower("contact", FIELDS)
    early, late = some(company, "contact", 2)
    passed(company, follower)
    dialect(company).change("contact", early, {"name": "Early"})
    passed(company, follower)

    company.sandbox.faults.add(Fault(system="pipedrive", fault="late_commit", seconds=90.0, times=1))
    address = f"{company.address}/_control/records/pipedrive/contact/{late}"
    (httpx.delete(address) if removed else httpx.patch(address, json={"name": "Late"})).raise_for_status()
    changes = passed(company, follower)

    assert (late, "DELETED" if removed else "CHANGED") in {(each.native_id, each.op) for each in changes}


def test_our_clock_may_be_off_by_weeks(company: System) -> None:
    edited, gone = some(company, "contact", 2)
    follower = Follower("contact", FIELDS, now=NOW + timedelta(days=30))
    passed(company, follower)
    follower.now = NOW - timedelta(days=30)

    dialect(company).change("contact", edited, {"name": "Grete"})
    dialect(company).delete("contact", gone)
    changes = passed(company, follower)

    assert {each.native_id: each.op for each in changes}.items() >= {edited: "CHANGED", gone: "DELETED"}.items()


def test_a_cursor_of_last_month_is_no_good_any_more(company: System) -> None:
    follower = Follower("contact", FIELDS, now=NOW)
    passed(company, follower)
    follower.now = NOW + timedelta(days=29)

    with pytest.raises(CursorExpiredError):
        passed(company, follower)


def test_a_recent_one_of_which_nothing_is_said_is_looked_at(company: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower("account", FIELDS)
    passed(company, follower)
    [gone] = some(company, "account", 1)
    monkeypatch.setattr("sandbox.pipedrive_recents._v1", lambda *_: None)

    dialect(company).delete("account", gone)
    changes = passed(company, follower)

    assert [(each.op, each.row) for each in changes if each.native_id == gone] == [("CHANGED", None)]


@pytest.mark.parametrize("kind", ["contact", "account", "deal"])
def test_a_pass_costs_a_few_calls(kind: Kind) -> None:
    with system("pipedrive", people=1000) as company:
        follower = Follower(kind, FIELDS)
        passed(company, follower)
        changed = some(company, kind, 200)
        for id in changed:
            company.dialect.change(kind, id, {"owner_id": 2})

        changes = passed(company, follower)

        calls = sum(count for path, count in company.dialect.calls.items() if "oauth" not in path and "Fields" not in path)
        assert ids(changes) >= set(changed)
        # 20,000 records are listed in 40 calls, so 200 of them may cost 8.
        assert calls <= 7
