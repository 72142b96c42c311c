"""How Freshdesk tells of changes: lists since a time, lists of deleted records, and calls of an administrator's rules."""

import base64
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters import freshdesk_live
from adapters.base import Write
from adapters.changes import Change, Delivery
from adapters.freshdesk import Freshdesk
from model.errors import ProtocolError, SignatureError, UnsupportedError
from model.records import Kind
from sandbox.freshdesk import Freshdesk as Account
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "our-own-secret"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS: dict[Kind, tuple[str, ...]] = {
    "contact": ("id", "created_at", "updated_at", "name", "email", "other_emails"),
    "ticket": ("id", "created_at", "updated_at", "subject"),
}
EDITS: dict[Kind, dict[str, str]] = {"contact": {"job_title": "Head"}, "ticket": {"subject": "Again"}}


@pytest.fixture
def account() -> Iterator[System]:
    with system("freshdesk") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(account: System) -> Account:
    assert isinstance(account.dialect, Account)
    return account.dialect


def live(account: System, kind: Kind = "contact") -> list[str]:
    return sorted(str(row["id"]) for row in account.dialect.tables[kind] if not row.get("deleted"))


def passed(account: System, follower: Follower) -> tuple[list[Change], int]:
    """Make a pass; return what it told, and its calls."""

    async def work(source: Any, api: Any) -> tuple[list[Change], int]:
        return await follower.passed(source.adapter, api), len(api.sent)

    return account.run(work)


def delivery(body: Any, secret: str | None = SECRET, *, at: datetime = NOW) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"x-webhook-secret": secret} if secret is not None else {}
    return Delivery(method="POST", url="https://live.example/webhooks/1", headers=headers, body=raw, at=at)


# ---- the feed ----


@pytest.mark.parametrize("kind", ["contact", "ticket"])
def test_a_pass_tells_edits_and_deletes_with_two_lists(account: System, kind: Kind) -> None:
    edited, gone = live(account, kind)[:2]
    follower = Follower(kind, FIELDS[kind])
    passed(account, follower)
    passed(account, follower)

    dialect(account).change(kind, edited, EDITS[kind])
    assert dialect(account).delete(kind, gone)
    changes, calls = passed(account, follower)

    ops = {each.native_id: (each.op, each.row is None) for each in changes}
    assert (ops[edited], ops[gone]) == (("CHANGED", False), ("DELETED", True))
    assert calls == 2


def test_a_contact_that_is_made_and_one_that_is_deleted_by_calls_are_told(account: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    passed(account, follower)
    gone = live(account)[0]

    [made] = account.write("contact", Write(verb="create", row={"name": "New", "email": "new@desk.example"}))
    account.write("contact", Write(verb="delete", native_id=gone))
    changes, _ = passed(account, follower)

    assert {each.native_id: each.op for each in changes if each.native_id in (made.native_id, gone)} == {
        str(made.native_id): "CHANGED",
        gone: "DELETED",
    }


def test_a_merged_contact_shows_as_deleted_and_its_tickets_as_changed(account: System) -> None:
    tickets = dialect(account).tables["ticket"]
    loser = next(id for id in live(account) if tickets.having("requester", [int(id)]))
    winner = next(id for id in live(account) if id != loser)
    moved = {str(each["id"]) for each in tickets.having("requester", [int(loser)])}
    people, cases = Follower("contact", FIELDS["contact"]), Follower("ticket", FIELDS["ticket"])
    passed(account, people)
    passed(account, cases)

    assert dialect(account).merge("contact", loser, winner)
    changes, _ = passed(account, people)
    edits, _ = passed(account, cases)

    assert {each.native_id: each.op for each in changes if each.native_id in (loser, winner)} == {
        loser: "DELETED",
        winner: "CHANGED",
    }
    assert ids(edits) >= moved


def test_deleted_contacts_are_walked_on_and_told_once(account: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshdesk_live, "_PAGE", 3)
    monkeypatch.setattr(freshdesk_live, "_BIN_PAGES", 2)
    follower = Follower("contact", FIELDS["contact"])
    passed(account, follower)
    gone = set(live(account)[:14])
    for id in gone:
        dialect(account).delete("contact", id)

    rounds = [ids([each for each in passed(account, follower)[0] if each.op == "DELETED"]) for _ in range(6)]

    assert [len(each) for each in rounds] == [6, 6, 2, 0, 0, 0]
    assert set().union(*rounds) == gone


def test_what_a_pass_of_several_pages_may_have_skipped_is_told_by_the_next(
    account: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower("contact", FIELDS["contact"])
    monkeypatch.setattr(freshdesk_live, "_PAGE", 5)
    passed(account, follower)
    passed(account, follower)
    account.sandbox.clock.advance(900)
    names = sorted(live(account)[:12], key=lambda id: (account.row("contact", id) or {})["name"])
    for id in names:
        dialect(account).change("contact", id, EDITS["contact"])

    async def work(source: Any, api: Any) -> set[str]:
        first = await source.adapter.changes(api, "contact", follower.cursor, follower.fields, now=NOW)
        dialect(account).delete("contact", names[0])  # what stood on the second page first stands on the first one now
        follower.cursor = first.cursor
        return ids(first.changes) | ids(await follower.passed(source.adapter, api))

    skipped = set(names) - account.run(work)
    again, _ = passed(account, follower)

    assert skipped == {names[5]}
    assert skipped <= ids(again)
    account.sandbox.clock.advance(900)
    dialect(account).change("contact", names[1], EDITS["contact"])
    for _ in range(2):
        passed(account, follower)
    later, calls = passed(account, follower)
    assert (ids(later), calls) == ({names[1]}, 2)  # it does go on


def test_more_tickets_of_one_second_than_a_page_are_all_told(account: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower("ticket", FIELDS["ticket"])
    passed(account, follower)
    table, many = dialect(account).tables["ticket"], live(account, "ticket")[:20]
    for at, id in enumerate(many):
        table.put(id, {**(table.get(id) or {}), "updated_at": f"2099-01-01T00:00:0{at // 16}Z"})

    monkeypatch.setattr(freshdesk_live, "_PAGE", 7)
    changes, calls = passed(account, follower)

    assert ids(changes) >= set(many)
    assert calls <= 6


def test_a_ticket_that_slipped_to_an_earlier_page_of_one_second_is_told_by_the_next_pass(
    account: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower("ticket", FIELDS["ticket"])
    passed(account, follower)
    account.sandbox.clock.advance(900)
    table, many = dialect(account).tables["ticket"], live(account, "ticket")[:20]
    now = f"{account.sandbox.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    for id in many:
        table.put(id, {**(table.get(id) or {}), "updated_at": now})
    monkeypatch.setattr(freshdesk_live, "_PAGE", 7)

    async def work(source: Any, api: Any) -> set[str]:
        told: set[str] = set()
        for _ in range(2):  # the second 'page' is the first one of that second
            said = await source.adapter.changes(api, "ticket", follower.cursor, follower.fields, now=NOW)
            follower.cursor, told = said.cursor, told | ids(said.changes)
        account.sandbox.clock.advance(400)  # edited so much later that the overlap does not reach back
        dialect(account).change("ticket", many[0], EDITS["ticket"])
        return told | ids(await follower.passed(source.adapter, api))

    skipped = set(many) - account.run(work)
    again, _ = passed(account, follower)

    assert len(skipped) == 1
    assert skipped <= ids(again)


def test_tickets_beyond_the_last_page_are_reached_from_a_later_time(account: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower("ticket", FIELDS["ticket"])
    passed(account, follower)
    table, many = dialect(account).tables["ticket"], live(account, "ticket")[:12]
    for at, id in enumerate(many):
        table.put(id, {**(table.get(id) or {}), "updated_at": f"2099-01-01T00:{at:02}:00Z"})
    monkeypatch.setattr(freshdesk_live, "_PAGE", 3)
    monkeypatch.setattr("sandbox.freshdesk._TICKET_PAGES", 2)

    changes, _ = passed(account, follower)
    for id in many:
        table.put(id, {**(table.get(id) or {}), "updated_at": "2100-01-01T00:00:00Z"})
    monkeypatch.setattr(freshdesk_live, "_TICKET_PAGES", 2)

    assert ids(changes) >= set(many)
    with pytest.raises(ProtocolError):  # too many of one second for what the system shows: said, and not skipped
        passed(account, follower)


@pytest.mark.parametrize("kind", ["contact", "ticket"])
def test_a_change_that_comes_late_is_told(account: System, kind: Kind) -> None:
    early, late = live(account, kind)[:2]
    follower = Follower(kind, FIELDS[kind])
    passed(account, follower)
    dialect(account).change(kind, early, EDITS[kind])
    passed(account, follower)

    account.broken("late_commit", seconds=100, times=1)
    httpx.patch(f"{account.address}/_control/records/freshdesk/{kind}/{late}", json=EDITS[kind]).raise_for_status()
    changes, _ = passed(account, follower)

    assert late in ids(changes)


@pytest.mark.parametrize("days", [10, -10])
def test_our_clock_may_be_off_by_days(account: System, days: int) -> None:
    edited = live(account)[0]
    follower = Follower("contact", FIELDS["contact"], now=datetime.now(UTC) + timedelta(days=days))
    passed(account, follower)

    dialect(account).change("contact", edited, EDITS["contact"])
    changes, _ = passed(account, follower)

    assert edited in ids(changes)


def test_companies_have_no_feed(account: System) -> None:
    assert Freshdesk.kinds["account"].feed is None
    with pytest.raises(UnsupportedError):
        passed(account, Follower("account", ("id",)))


@pytest.mark.parametrize("kind", ["contact", "ticket"])
def test_a_pass_costs_a_few_calls(kind: Kind) -> None:
    with system("freshdesk", people=1000) as account:
        follower = Follower(kind, FIELDS[kind])
        passed(account, follower)
        many = live(account, kind)[:150]
        for id in many:
            account.dialect.change(kind, id, EDITS[kind])

        changes, calls = passed(account, follower)

        assert ids(changes) >= set(many)
        assert calls <= 6  # 15,000 records are listed in 150 calls


# ---- rules ----


@pytest.mark.parametrize(
    "body", [{"ticket_id": "43"}, {"ticket_id": 43, "subject": "x"}, {"freshdesk_webhook": {"ticket_id": 43}}]
)
def test_a_call_is_read_by_its_ticket_alone(body: Any) -> None:
    [hint] = Freshdesk.events(delivery(body), ["new", SECRET]).hints
    [other] = Freshdesk.events(delivery(body, at=NOW + timedelta(seconds=1)), [SECRET]).hints

    assert hint.change == Change(kind="ticket", native_id="43")
    assert other.id != hint.id  # another edit looks the same


@pytest.mark.parametrize("said", [None, "", "our-own", "é"])
def test_a_call_without_the_right_secret_is_refused(said: str | None) -> None:
    for secrets in ([SECRET], [], [""]):
        with pytest.raises(SignatureError):
            Freshdesk.events(delivery({"ticket_id": 43}, said), secrets)


@pytest.mark.parametrize("body", [b"<x/>", [], {}, {"ticket_id": "../agents"}, {"ticket_id": None}, {"freshdesk_webhook": "43"}])
def test_a_call_that_is_not_of_the_template_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Freshdesk.events(delivery(body), [SECRET])


def test_edited_tickets_run_the_rules_and_nothing_else_does(account: System, ours: Receiver) -> None:
    dialect(account).hook(ours.url, SECRET)
    edited, same, gone = live(account, "ticket")[:3]

    dialect(account).change("ticket", same, {})
    dialect(account).delete("ticket", gone)
    dialect(account).change("contact", live(account)[0], EDITS["contact"])
    url = f"{account.address}/_control/records/freshdesk/ticket/{edited}"
    httpx.patch(url, json=EDITS["ticket"]).raise_for_status()
    came = ours.wait(lambda came: len(came) >= 1)

    assert [hint.change.native_id for each in came for hint in Freshdesk.events(each, [SECRET]).hints] == [edited]
    assert len(dialect(account).outbox.log) == 1
    assert [each["url"] for each in dialect(account).subscriptions()] == [ours.url]


def test_a_call_that_fails_is_repeated_minutes_later(account: System, ours: Receiver) -> None:
    dialect(account).hook(ours.url, SECRET)
    ours.status = 503

    dialect(account).change("ticket", live(account, "ticket")[0], EDITS["ticket"])
    ours.wait(lambda came: len(came) == 1)
    ours.status = 200
    for _ in range(50):  # what failed just now may not have begun to wait
        if len(ours.deliveries) > 1:
            break
        account.sandbox.clock.advance(301)
        time.sleep(0.1)
    ours.wait(lambda came: len(came) == 2)

    assert {each.body for each in ours.deliveries} == {ours.deliveries[0].body}


def test_calls_beyond_a_thousand_an_hour_wait_for_the_next(account: System, ours: Receiver) -> None:
    dialect(account).hook(ours.url, SECRET)
    rules = dialect(account)._rules

    waits = [rules._put_off() for _ in range(1001)]

    assert set(waits[:1000]) == {0.0}
    assert 0 < waits[1000] <= 3600


def test_deleted_tickets_are_told_once_however_long_nothing_else_happens(account: System) -> None:
    """Each one that is told is looked up by a call of its own."""
    follower = Follower("ticket", FIELDS["ticket"])
    passed(account, follower)
    first, second = live(account, "ticket")[:2]

    def gone() -> set[str]:
        return ids([each for each in passed(account, follower)[0] if each.op == "DELETED"])

    dialect(account).delete("ticket", first)
    told = [gone() for _ in range(3)]
    dialect(account).delete("ticket", second)
    told.append(gone())
    dialect(account).change("ticket", first, {"deleted": False})
    account.sandbox.clock.advance(2)
    passed(account, follower)
    dialect(account).delete("ticket", first)
    told.append(gone())

    assert told == [{first}, set(), set(), {second}, {first}]


@pytest.mark.parametrize(("password", "good"), [(SECRET, True), ("another", False), ("", False)])
def test_the_secret_may_come_as_a_password(password: str, good: bool) -> None:
    """Rules have fields for a user and a password beside headers."""
    basic = base64.b64encode(f"customer360:{password}".encode()).decode()
    made = replace(delivery({"ticket_id": "7"}, None), headers={"authorization": f"Basic {basic}"})

    if good:
        assert [hint.change for hint in Freshdesk.events(made, [SECRET]).hints] == [Change(kind="ticket", native_id="7")]
    else:
        for known in ([SECRET], [""]):
            with pytest.raises(SignatureError):
                Freshdesk.events(made, known)


@pytest.mark.parametrize("authorization", ["", "Basic", "Basic ²", "Basic Og==", "Bearer our-own-secret", "Basic our-own-secret"])
def test_other_ways_of_authorization_prove_nothing(authorization: str) -> None:
    with pytest.raises(SignatureError):
        Freshdesk.events(replace(delivery({"ticket_id": "7"}, None), headers={"authorization": authorization}), [SECRET, ""])
