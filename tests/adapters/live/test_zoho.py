"""Zoho's notifications and feeds: a token in place of a signature, channels that end, deletions by a list of their own."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from adapters.base import Adapter, Api, Response
from adapters.changes import Change, Delivery, Heard, Watch
from adapters.wire import Request
from adapters.writing import Write
from adapters.zoho import Zoho
from adapters.zoho_live import token_of
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind
from sandbox.faults import Fault
from sandbox.zoho import Zoho as Org
from sandbox.zoho_modules import iso
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "a-secret-that-is-longer-than-the-fifty-characters-of-a-token"
FIELDS = ("First_Name", "Last_Name", "Email")
# Captured from a channel that was asked for values; its token is replaced.
CALL = {
    "server_time": 1750102639787, "affected_values": [{"record_id": "6756839000000575405", "values": {"Company": "Rangoni", "Phone": "555"}}], "query_params": {},
    "module": "Leads", "resource_uri": "https://www.zohoapis.com/crm/v8/Leads", "ids": ["6756839000000575405"],
    "affected_fields": [{"6756839000000575405": ["Company", "Phone"]}], "operation": "update", "channel_id": "1105420521999070702", "token": token_of(SECRET),
}  # fmt: skip


@pytest.fixture
def org() -> Iterator[System]:
    with system("zoho") as running:
        yield running


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def dialect(org: System) -> Org:
    assert isinstance(org.dialect, Org)
    return org.dialect


def live(org: System, kind: Kind = "contact") -> list[str]:
    return sorted(row["id"] for row in org.dialect.tables[kind] if row["$deleted"] is None)


def delivery(body: Any) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Delivery(method="POST", url="https://c360.example/webhooks/org", headers={}, body=raw, at=datetime.now(UTC))


def said(**changed: Any) -> Heard:
    return Zoho.events(delivery({**CALL, **changed}), [SECRET])


def watched(org: System, url: str, secret: str = SECRET) -> list[Watch]:
    return org.run(lambda source, api: source.adapter.watch(api, url, secret))


def passed(org: System, follower: Follower) -> list[Change]:
    return org.run(lambda source, api: follower.passed(source.adapter, api))


def began(org: System, kind: Kind = "contact") -> Follower:
    follower = Follower(kind, FIELDS if kind == "contact" else ("id",))
    assert passed(org, follower) == []
    return follower


def counted(org: System, word: str) -> int:
    return sum(count for path, count in org.dialect.calls.items() if word in path)


# ---- proof ----


def test_a_captured_call_is_proved_by_its_token_and_tells_its_records() -> None:
    heard = said()

    assert len(token_of(SECRET)) <= 50
    assert [each.change for each in heard.hints] == [
        Change(kind="lead", native_id="6756839000000575405", at=datetime.fromtimestamp(1750102639.787, UTC))
    ]
    assert heard.account is None


@pytest.mark.parametrize(
    "body",
    [
        {**CALL, "token": token_of("another")}, {**CALL, "token": token_of(SECRET)[:-1]}, {**CALL, "token": SECRET}, {**CALL, "token": ""}, {**CALL, "token": None},
        {**CALL, "token": [token_of(SECRET)]}, {}, [], b"", orjson.dumps(CALL)[:-9], b"<html>",
    ],
)  # fmt: skip
def test_another_token_a_cut_one_and_none_prove_nothing(body: Any) -> None:
    with pytest.raises(SignatureError):
        Zoho.events(delivery(body), [SECRET])


def test_no_secret_and_an_empty_one_prove_nothing_and_two_do_while_they_change() -> None:
    for secrets in ([], [""]):
        with pytest.raises(SignatureError):
            Zoho.events(delivery({**CALL, "token": token_of("")}), secrets)

    assert Zoho.events(delivery(CALL), ["new", SECRET]).hints


@pytest.mark.parametrize(
    "wrong", [{"ids": None}, {"ids": ["x"]}, {"ids": [7]}, {"ids": ["²"]}, {"server_time": "now"}, {"server_time": 1 << 60}]
)
def test_a_proved_call_that_makes_no_sense_is_told_apart(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        said(**wrong)


def test_modules_that_nobody_reads_tell_nothing() -> None:
    assert not said(module="Price_Books").hints
    assert not said(module=None).hints


def test_a_call_that_is_repeated_has_the_same_ids_and_another_edit_has_others() -> None:
    several = said(ids=["1", "2"])

    assert [each.id for each in several.hints] == [each.id for each in said(ids=["1", "2"]).hints]
    assert len({each.id for each in (*several.hints, *said(ids=["1"], server_time=1750102639788).hints)}) == 3
    assert [each.change.op for each in said(ids=["1", "2"], operation="delete", affected_fields=[]).hints] == [
        "DELETED",
        "DELETED",
    ]


# ---- channels ----


def test_what_happens_by_hand_and_by_the_api_arrives_and_says_what_happened(org: System, hears: Receiver) -> None:
    edited, gone, told_with = live(org)[:3]
    [channel] = watched(org, hears.url)

    dialect(org).change("contact", edited, {"First_Name": "Grete"})
    dialect(org).change("contact", told_with, {"First_Name": "Grete"})
    [made] = org.write("contact", Write(verb="create", row={"Last_Name": "Neu"}))
    org.write("contact", Write(verb="delete", native_id=gone))
    deliveries = hears.wait(lambda all: sum(len(orjson.loads(each.body)["ids"]) for each in all) >= 4)

    hints = [hint.change for each in deliveries for hint in Zoho.events(each, [SECRET]).hints]
    expected = {(edited, "CHANGED"), (told_with, "CHANGED"), (made.native_id, "CHANGED"), (gone, "DELETED")}
    assert {(each.native_id, each.op) for each in hints} == expected
    assert len(deliveries) == 3  # both edits in one call
    assert all(b"Grete" not in each.body for each in deliveries)
    assert org.dialect.subscriptions()[0]["id"] == channel.native_id


@pytest.mark.parametrize("kind", ["lead", "account", "deal"])
def test_every_kind_is_watched(org: System, hears: Receiver, kind: Kind) -> None:
    watched(org, hears.url)
    field = {"lead": "Company", "account": "Industry", "deal": "Next_Step"}[kind]

    dialect(org).change(kind, live(org, kind)[0], {field: "Anything else"})
    [told] = hears.wait(bool)

    [hint] = Zoho.events(told, [SECRET]).hints
    assert (hint.change.kind, hint.change.native_id) == (kind, live(org, kind)[0])


def test_an_edit_that_changes_nothing_and_what_is_not_watched_is_not_sent(org: System, hears: Receiver) -> None:
    watched(org, hears.url)
    first, second = live(org)[:2]
    same = org.row("contact", first)
    assert same is not None

    dialect(org).change("contact", first, {"First_Name": same["First_Name"]})
    dialect(org).change("contact", second, {"First_Name": "Grete"})
    hears.wait(bool)

    assert [orjson.loads(each.body)["ids"] for each in hears.deliveries] == [[second]]


def test_watching_again_keeps_the_one_channel_and_moves_its_end(org: System) -> None:
    [first] = watched(org, "https://c360.example/webhooks/org")
    org.sandbox.clock.advance(600)
    [second] = watched(org, "https://c360.example/webhooks/org")

    assert first.native_id == second.native_id
    assert len(org.dialect.subscriptions()) == 1
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at >= first.expires_at
    assert {path.split()[0]: count for path, count in org.dialect.calls.items() if "watch" in path} == {"GET": 1, "PUT": 1}


def test_a_channel_lives_nearly_a_day_by_the_systems_clock_whatever_ours_says(org: System) -> None:
    org.sandbox.clock.advance(3 * 86_400)
    [ahead] = watched(org, "https://c360.example/webhooks/org")
    lives = ahead.expires_at - org.sandbox.clock.now() if ahead.expires_at else timedelta(0)

    assert timedelta(hours=22) < lives <= timedelta(days=1)


def test_a_channel_that_ended_tells_nothing_and_is_made_again(org: System, hears: Receiver) -> None:
    watched(org, hears.url)
    org.sandbox.clock.advance(86_400)
    dialect(org).change("contact", live(org)[0], {"First_Name": "Unheard"})
    ended = org.dialect.subscriptions()
    watched(org, hears.url)
    dialect(org).change("contact", live(org)[1], {"First_Name": "Grete"})
    hears.wait(bool)

    assert ended == []
    assert [orjson.loads(each.body)["ids"] for each in hears.deliveries] == [[live(org)[1]]]


def test_a_new_secret_is_taken_over_by_the_channel_that_is_there(org: System, hears: Receiver) -> None:
    watched(org, hears.url, "old")
    watched(org, hears.url, "new")
    dialect(org).change("contact", live(org)[0], {"First_Name": "Grete"})
    [told] = hears.wait(bool)

    assert Zoho.events(told, ["new"]).hints
    with pytest.raises(SignatureError):
        Zoho.events(told, ["old"])


def test_ending_ends_only_the_channels_of_that_address(org: System) -> None:
    watched(org, "https://c360.example/webhooks/one")
    watched(org, "https://c360.example/webhooks/two")

    ended = org.run(lambda source, api: source.adapter.unwatch(api, "https://c360.example/webhooks/one"))
    again = org.run(lambda source, api: source.adapter.unwatch(api, "https://c360.example/webhooks/one"))

    assert (ended, again) == (1, 0)
    assert [each["url"] for each in org.dialect.subscriptions()] == ["https://c360.example/webhooks/two"]


def test_a_channel_that_is_refused_under_202_is_no_success(org: System) -> None:
    with pytest.raises(RejectedError) as refused:
        watched(org, "ftp://c360.example/webhooks/org")

    assert refused.value.upstream_code == "INVALID_DATA"


def test_a_call_that_fails_is_not_made_again(org: System, hears: Receiver) -> None:
    watched(org, hears.url)
    hears.status = 503
    dialect(org).change("contact", live(org)[0], {"First_Name": "Grete"})
    hears.wait(bool)
    org.sandbox.clock.advance(7 * 86_400)
    while org.dialect.outbox.busy():
        time.sleep(0.01)

    assert [(each.state, [status for _, status in each.attempts]) for each in org.dialect.outbox.log] == [("given_up", [503])]


# ---- feeds ----


def test_a_pass_tells_made_edited_and_deleted_records(org: System) -> None:
    follower = began(org)
    edited, gone = live(org)[:2]

    dialect(org).change("contact", edited, {"First_Name": "Grete"})
    [made] = org.write("contact", Write(verb="create", row={"Last_Name": "Neu"}))
    dialect(org).delete("contact", gone)
    told = passed(org, follower)

    ops = {each.native_id: each.op for each in told}
    assert {id: ops.get(str(id)) for id in (edited, made.native_id, gone)} == {
        edited: "CHANGED",
        made.native_id: "CHANGED",
        gone: "DELETED",
    }
    [row] = [each.row for each in told if each.native_id == edited]
    assert row is not None
    assert row["First_Name"] == "Grete"


@pytest.mark.parametrize("kind", ["lead", "account", "deal"])
def test_every_other_kind_has_a_feed(org: System, kind: Kind) -> None:
    follower = began(org, kind)
    edited, gone = live(org, kind)[:2]

    dialect(org).change(kind, edited, {"Description": "Anything else"})
    dialect(org).delete(kind, gone)

    assert {(edited, "CHANGED"), (gone, "DELETED")} <= {(each.native_id, each.op) for each in passed(org, follower)}


def test_deletions_are_asked_for_in_every_fourth_pass_and_none_is_lost_in_between(org: System) -> None:
    follower = began(org)
    gone = live(org)[:6]
    told: dict[str, int] = {}
    asked = []
    for turn in range(9):
        if turn < len(gone):
            dialect(org).delete("contact", gone[turn])
        for each in passed(org, follower):
            if each.op == "DELETED":
                told.setdefault(each.native_id, turn)
        asked.append(counted(org, "/deleted"))

    assert asked == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert {id: told.get(id) for id in gone} == dict(zip(gone, (0, 4, 4, 4, 4, 8), strict=True))


def test_more_deletions_than_a_page_are_told_in_one_pass(org: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = began(org)
    gone = live(org)[:7]
    for id in gone:
        dialect(org).delete("contact", id)
    monkeypatch.setattr("adapters.zoho_live._PAGE", 3)

    told = passed(org, follower)

    assert {each.native_id for each in told if each.op == "DELETED"} >= set(gone)
    assert counted(org, "/deleted") >= 3


def test_more_deletions_than_the_list_reaches_are_no_silent_loss(org: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = began(org)
    for id in live(org)[:7]:
        dialect(org).delete("contact", id)
    monkeypatch.setattr("adapters.zoho_live._PAGE", 2)
    monkeypatch.setattr("adapters.zoho_live._REACH", 6)

    with pytest.raises(CursorExpiredError):
        passed(org, follower)


def test_nothing_since_is_told_by_an_empty_answer_and_by_not_modified(org: System) -> None:
    class Quiet:
        async def send(self, request: Request) -> Response:
            assert "/deleted" in request.path
            return Response(status=304, headers={}, body=b"")

    async def work(source: Any, api: Any) -> list[Change]:
        from adapters.zoho_live import _deleted

        return await _deleted(Quiet(), "contact", "/crm/v8/Contacts", datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]

    assert org.run(work) == []
    assert Zoho.classify(object.__new__(Zoho), Response(status=304, headers={}, body=b"")) is None


def test_a_merged_record_counts_as_deleted_and_the_other_as_changed(org: System) -> None:
    follower = began(org)
    loser, winner = live(org)[:2]

    assert dialect(org).merge("contact", loser, winner)
    told = {(each.native_id, each.op) for each in passed(org, follower)}

    assert {(loser, "DELETED"), (winner, "CHANGED")} <= told
    assert not any(org.dialect.tables["deal"].having("Contact_Name", [loser]))


def test_ties_over_the_end_of_a_page_are_all_told(org: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = began(org)
    tied = live(org)[:9]
    moment = iso(org.sandbox.clock.time() * 1000 + 5_000)
    for id in tied:
        row = org.row("contact", id)
        assert row is not None
        org.dialect.tables["contact"].put(id, {**row, "Modified_Time": moment})
    monkeypatch.setattr(Zoho, "kinds", {**Zoho.kinds, "contact": replace(Zoho.kinds["contact"], page=4)})

    told = passed(org, follower)

    assert set(tied) <= ids(told)
    assert follower.pages >= 3


def test_a_change_that_is_committed_minutes_late_is_told(org: System) -> None:
    follower = began(org)
    first, late = live(org)[:2]
    dialect(org).change("contact", first, {"First_Name": "Grete"})
    passed(org, follower)

    with org.sandbox.clock.behind(240):
        dialect(org).change("contact", late, {"First_Name": "Late"})

    assert late in ids(passed(org, follower))


def test_a_clock_of_ours_that_is_off_by_a_year_loses_nothing(org: System) -> None:
    follower = Follower("contact", FIELDS, now=datetime.now(UTC) + timedelta(days=365))
    passed(org, follower)
    edited, gone = live(org)[:2]
    dialect(org).change("contact", edited, {"First_Name": "Grete"})
    dialect(org).delete("contact", gone)

    assert {edited, gone} <= ids(passed(org, follower))


def test_following_costs_a_fifth_of_listing_everything_at_most(org: System) -> None:
    """A listing of 20,000 is ten queries of 2,000 rows; eight passes may be sixteen calls."""
    follower = began(org)
    calls = 0
    for turn in range(8):
        dialect(org).change("contact", live(org)[turn], {"First_Name": "Grete"})
        passed(org, follower)
        calls += counted(org, "/coql") + counted(org, "/deleted")

    assert calls <= 8 * 0.2 * 20_000 / Zoho.kinds["contact"].page


def test_a_broken_answer_keeps_the_cursor_for_another_try(org: System) -> None:
    follower = began(org)
    dialect(org).change("contact", live(org)[0], {"First_Name": "Grete"})
    org.sandbox.faults.add(Fault(system="zoho", fault="status", path="*/deleted", status=500))
    before = follower.cursor

    async def failing(source: Any, api: Api) -> bool:
        adapter: Adapter = source.adapter
        try:
            await adapter.changes(api, "contact", before, FIELDS, now=datetime.now(UTC))
        except Exception:  # noqa: BLE001 - which one is the wire's matter
            return True
        return False

    assert org.run(failing, seconds=3.0)
    org.sandbox.faults.clear()
    assert live(org)[0] in ids(passed(org, follower))
