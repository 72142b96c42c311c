"""Zoho's notifications and feeds. Contract: tests/adapters/test_changes.py; here is what is unusual."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Delivery, Heard, Hint, Watch
from adapters.zoho import Zoho
from adapters.zoho_live import channel_of, token_of, watched
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind
from sandbox.zoho import Zoho as Sandbox
from sandbox.zoho_modules import iso
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system
from tests.specifications import digest

SECRET = "ours"
NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
ROOT = "/crm/v8"
FIELDS = ("Title", "Created_Time", "Modified_Time")
# The captured body of the sheet, with our token and without what it said of a person.
CAPTURED = {
    "server_time": 1750102639787, "affected_values": [], "query_params": {}, "module": "Leads", "resource_uri": "https://www.zohoapis.com/crm/v8/Leads",
    "ids": ["6756839000000575405"], "affected_fields": [{"6756839000000575405": ["Company", "Phone"]}], "operation": "update",
    "channel_id": "1105420521999070702", "token": token_of(SECRET),
}  # fmt: skip


@pytest.fixture
def org() -> Iterator[System]:
    with system("zoho") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def dialect(org: System) -> Sandbox:
    assert isinstance(org.dialect, Sandbox)
    return org.dialect


def live(org: System, kind: Kind = "contact") -> list[str]:
    return [row["id"] for row in org.dialect.tables[kind] if row["$deleted"] is None]


def delivery(body: Any) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Delivery(method="POST", url="https://live.example/webhooks/1", headers={}, body=raw, at=NOW)


def said(**more: Any) -> Heard:
    return Zoho.events(delivery({**CAPTURED, **more}), [SECRET])


# ---- proof, and what is said ----


def test_the_captured_notification_is_a_hint() -> None:
    [hint] = said().hints

    at = datetime(2025, 6, 16, 19, 37, 19, 787000, tzinfo=UTC)
    assert hint.change == Change(kind="lead", native_id="6756839000000575405", at=at)


@pytest.mark.parametrize("token", [None, "", 7, token_of("another"), token_of(SECRET)[:-1], SECRET, [token_of(SECRET)]])
def test_another_token_is_refused(token: Any) -> None:
    with pytest.raises(SignatureError):
        said(token=token)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", orjson.dumps(CAPTURED)[:-1]])
def test_what_holds_no_token_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError):
        Zoho.events(delivery(body), [SECRET])


def test_no_secret_proves_nothing() -> None:
    for known in ([], [""]):
        with pytest.raises(SignatureError):
            Zoho.events(delivery({**CAPTURED, "token": token_of("")}), known)


def test_either_of_two_secrets_will_do_and_the_token_fits_and_tells_none() -> None:
    assert Zoho.events(delivery(CAPTURED), ["new", SECRET]).hints
    assert len(token_of("a long secret" * 20)) == 50
    assert SECRET not in token_of(SECRET)


def test_each_id_is_a_hint_and_modules_of_others_are_none() -> None:
    told = [(each.change.native_id, each.change.op) for each in said(ids=["1", "2", "1"], operation="delete").hints]

    assert told == [("1", "DELETED"), ("2", "DELETED")]
    assert said(module="Tasks").hints == ()


@pytest.mark.parametrize("odd", [{"ids": []}, {"ids": None}, {"ids": [7]}, {"ids": ["x"]}, {"ids": ["²"]}, {"operation": None}])
def test_what_is_proved_and_not_understood_is_no_hint(odd: Any) -> None:
    with pytest.raises(ProtocolError):
        said(**odd)


def test_what_is_told_twice_has_one_id_and_two_edits_have_two() -> None:
    [first], [again], [later] = said().hints, said().hints, said(server_time=1750102639788).hints

    assert first.id == again.id != later.id


@pytest.mark.parametrize("odd", [None, "soon", -1, 1 << 60, True])
def test_without_a_time_two_deliveries_are_two_events(odd: Any) -> None:
    body = delivery({**CAPTURED, "server_time": odd})
    [first], [later] = (Zoho.events(each, [SECRET]).hints for each in (body, replace(body, at=NOW + timedelta(seconds=1))))

    assert first.change.at is None
    assert first.id != later.id


# ---- the channel ----


def watch(org: System, url: str, secret: str = SECRET) -> list[Watch]:
    """Watch as at the time of the sandbox, whose clock runs ahead."""
    return org.run(lambda _, api: watched(api, url, secret, root=ROOT, now=org.sandbox.clock.now()))


def test_watching_makes_one_channel_and_costs_one_call_when_all_is_well(org: System, ours: Receiver) -> None:
    first = watch(org, ours.url)
    again = watch(org, ours.url)

    assert [each.native_id for each in first] == [channel_of(ours.url)]
    assert again == first
    assert sum(count for path, count in org.dialect.calls.items() if "/actions/watch" in path) == 1
    assert [each["active"] for each in org.dialect.subscriptions()] == [True]
    left = (first[0].expires_at or NOW) - org.sandbox.clock.now()
    assert timedelta(hours=23) < left < timedelta(hours=24)


def test_a_channel_is_renewed_at_half_its_life_and_made_anew_when_it_ended(org: System, ours: Receiver) -> None:
    [first] = watch(org, ours.url)
    org.sandbox.clock.advance(13 * 3600)
    [renewed] = watch(org, ours.url)
    org.sandbox.clock.advance(25 * 3600)
    assert [each["active"] for each in org.dialect.subscriptions()] == [False]
    [made] = watch(org, ours.url)

    assert first.native_id == renewed.native_id == made.native_id
    ends = [each.expires_at for each in (first, renewed, made) if each.expires_at is not None]
    assert len(ends) == 3
    assert ends == sorted(set(ends))
    assert [each["active"] for each in org.dialect.subscriptions()] == [True]


def test_an_ended_channel_is_sent_nothing(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    org.sandbox.clock.advance(25 * 3600)

    dialect(org).change("contact", live(org)[0], {"Title": "Late"})
    watch(org, ours.url)
    dialect(org).change("contact", live(org)[1], {"Title": "Told"})
    [came] = ours.wait(lambda came: len(came) == 1)

    assert [hint.change.native_id for hint in Zoho.events(came, [SECRET]).hints] == [live(org)[1]]


def test_a_new_secret_reaches_the_channel_that_is_there(org: System, ours: Receiver) -> None:
    watch(org, ours.url, "old")
    watch(org, ours.url, "new")

    dialect(org).change("contact", live(org)[0], {"Title": "Chief"})
    [came] = ours.wait(lambda came: len(came) == 1)

    assert Zoho.events(came, ["new"]).hints
    with pytest.raises(SignatureError):
        Zoho.events(came, ["old"])
    assert len(org.dialect.subscriptions()) == 1


def test_unwatching_ends_the_channel_of_that_address_only(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    watch(org, "https://another.example/hook")

    assert org.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 1
    assert org.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 0
    assert [each["url"] for each in org.dialect.subscriptions()] == ["https://another.example/hook"]


@pytest.mark.parametrize("path", ["POST *", "DELETE *"])
def test_a_lost_answer_is_no_failure(org: System, ours: Receiver, path: str) -> None:
    org.broken("truncate", path=path, times=1)

    assert len(watch(org, ours.url)) == len(org.dialect.subscriptions()) == 1
    assert org.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 1
    assert org.dialect.subscriptions() == []


@pytest.mark.parametrize("off", [timedelta(hours=3), timedelta(days=-3)])
def test_a_clock_of_ours_that_is_off_gets_nearly_a_day_all_the_same(org: System, ours: Receiver, off: timedelta) -> None:
    [made] = org.run(lambda _, api: watched(api, ours.url, SECRET, root=ROOT, now=org.sandbox.clock.now() + off))

    assert made.expires_at is not None
    assert timedelta(hours=23) < made.expires_at - org.sandbox.clock.now() < timedelta(hours=24)
    assert len(org.dialect.subscriptions()) == 1


def test_a_channel_is_made_again_by_the_adapters_own_clock_when_it_ended(org: System, ours: Receiver) -> None:
    org.run(lambda source, api: source.adapter.watch(api, ours.url, SECRET))
    org.sandbox.clock.advance(86_400)
    org.run(lambda source, api: source.adapter.watch(api, ours.url, SECRET))

    assert [each["active"] for each in org.dialect.subscriptions()] == [True]


def test_what_the_org_refuses_is_an_error(org: System) -> None:
    with pytest.raises(RejectedError, match="INVALID_DATA"):
        org.run(lambda source, api: source.adapter.watch(api, "http://c360.example/hook", SECRET))


def test_what_is_sent_for_channels_is_in_the_published_description(org: System, ours: Receiver) -> None:
    found = digest("zoho", "notifications.shape.json")
    operations = {each["method"]: each for each in found["operations"]}
    known = found["schemas"]["Notification"]["properties"].keys()

    async def work(source: Any, api: Noted) -> list[Any]:
        await source.adapter.watch(api, ours.url, "one")
        await source.adapter.watch(api, ours.url, "two")
        await source.adapter.unwatch(api, ours.url)
        return [request for request, _ in api.sent]

    seen = org.run(work)
    for request in seen:
        assert {name for name, _ in request.params} <= {each["name"] for each in operations[request.method].get("params", [])}
        if request.json is not None:
            assert request.json["watch"][0].keys() <= known
    assert {request.method for request in seen} == {"GET", "POST", "PUT", "DELETE"}


# ---- deliveries of the sandbox ----


def heard(ours: Receiver) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in Zoho.events(each, [SECRET]).hints]


def wait(ours: Receiver, *wanted: tuple[str, str]) -> None:
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))


def test_changes_by_hand_and_by_calls_arrive_as_hints(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    edited, gone, loser, winner = live(org)[:4]

    httpx.patch(f"{org.address}/_control/records/zoho/contact/{edited}", json={"Title": "Chief"}).raise_for_status()
    [made] = org.write("contact", Write(verb="create", row={"Last_Name": "New", "Email": "new@hooks.example"}))
    org.write("contact", Write(verb="delete", native_id=gone))
    dialect(org).change("contact", loser, {"Department": "Sales"})
    assert dialect(org).merge("contact", loser, winner)  # it takes the department
    deal = live(org, "deal")[0]
    [moved] = org.write("deal", Write(verb="update", native_id=deal, row={"Next_Step": "Call"}))
    assert moved.error is None

    new = str(made.native_id)
    wait(
        ours, ("CHANGED", edited), ("CHANGED", new), ("DELETED", gone), ("DELETED", loser), ("CHANGED", winner), ("CHANGED", deal)
    )
    operations = {id: body["operation"] for each in ours.deliveries for body in [orjson.loads(each.body)] for id in body["ids"]}
    assert (operations[edited], operations[new], operations[gone]) == ("update", "insert", "delete")
    assert not any("affected_values" in orjson.loads(each.body) for each in ours.deliveries)  # nothing of a person is sent


def test_an_edit_that_changes_nothing_is_not_told_and_records_of_one_call_come_together(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    one, *few = live(org)[:6]
    row = org.row("contact", one) or {}

    dialect(org).change("contact", one, {"Title": row["Title"]})
    org.write("contact", *(Write(verb="update", native_id=id, row={"Title": "Chief"}) for id in few))
    ours.wait(lambda _: len(heard(ours)) == 5)

    bodies = [orjson.loads(each.body) for each in ours.deliveries]
    assert {id for body in bodies for id in body["ids"]} == set(few)
    assert max(len(body["ids"]) for body in bodies) > 1
    named = {id: names for body in bodies for each in body["affected_fields"] for id, names in each.items()}
    assert named == {id: ["Title"] for id in few}


def test_what_is_not_taken_is_not_sent_again(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    ours.status = 500

    dialect(org).change("contact", live(org)[0], {"Title": "Chief"})
    ours.wait(lambda came: len(came) == 1)
    org.sandbox.clock.advance(80_000)
    dialect(org).change("contact", live(org)[1], {"Title": "Chief"})

    assert len(ours.wait(lambda came: len(came) == 2)) == 2


# ---- the feed ----


def follow(org: System, follower: Follower) -> list[Change]:
    return org.run(lambda source, api: follower.passed(source.adapter, api))


@pytest.mark.parametrize("kind", ["contact", "account", "deal", "lead"])
def test_the_feed_tells_makes_edits_and_deletes(org: System, kind: Kind) -> None:
    follower = Follower(kind, ("Description",))
    edited, gone = live(org, kind)[:2]
    follow(org, follower)

    dialect(org).change(kind, edited, {"Description": "moved"})
    dialect(org).delete(kind, gone)
    told = {each.native_id: each for each in follow(org, follower)}

    assert (told[edited].op, told[gone].op) == ("CHANGED", "DELETED")
    assert told[edited].row is not None
    assert told[edited].row["Description"] == "moved"


def test_deletes_are_asked_for_with_every_second_pass_and_none_is_lost(org: System) -> None:
    follower = Follower("contact", FIELDS)
    one, two = live(org)[:2]
    follow(org, follower)
    follow(org, follower)

    dialect(org).delete("contact", one)
    first = follow(org, follower)
    dialect(org).delete("contact", two)
    second = follow(org, follower)

    assert not ids(first) & {one, two}
    assert {each.native_id: each.op for each in second if each.native_id in {one, two}} == {one: "DELETED", two: "DELETED"}


def test_nothing_deleted_may_be_told_by_a_304(org: System) -> None:
    follower = Follower("contact", FIELDS)
    follow(org, follower)
    org.broken("status", path="GET *deleted", status=304, times=1)

    assert [each for each in follow(org, follower) if each.op == "DELETED"] == []
    assert org.sandbox.faults.listed() == {}


def test_a_merged_record_is_told_as_deleted_and_the_winner_as_changed(org: System) -> None:
    follower = Follower("contact", FIELDS)
    loser, winner = live(org)[:2]
    follow(org, follower)

    dialect(org).merge("contact", loser, winner)
    told = {each.native_id: each.op for each in follow(org, follower)}

    assert (told[loser], told[winner]) == ("DELETED", "CHANGED")


def test_what_belonged_to_a_merged_record_belongs_to_the_other(org: System) -> None:
    deals = org.dialect.tables["deal"]
    loser = next(id for id in live(org) if any(row["$deleted"] is None for row in deals.having("Contact_Name", [id])))
    winner = next(id for id in live(org) if id != loser)
    theirs = [row["id"] for row in deals.having("Contact_Name", [loser]) if row["$deleted"] is None]
    follower = Follower("deal", FIELDS[1:])
    follow(org, follower)

    dialect(org).merge("contact", loser, winner)

    assert set(theirs) <= ids(follow(org, follower))
    for id in theirs:
        deal = deals.get(id) or {}
        assert deal["Contact_Name"]["id"] == winner
        assert winner in deal["$contacts"]
        assert loser not in deal["$contacts"]


def test_more_deletes_than_a_page_holds_are_all_told(org: System) -> None:
    follower = Follower("contact", FIELDS)
    row = org.row("contact", live(org)[0]) or {}
    follow(org, follower)
    stamp = iso(org.sandbox.clock.time() * 1000)
    many = {f"55402310199999{n:05d}" for n in range(450)}
    for id in many:
        made = {**row, "id": id, "Email": None, "Modified_Time": stamp, "$deleted": stamp}
        org.dialect.tables["contact"].put(id, made)

    told = follow(org, follower)

    assert many <= ids([each for each in told if each.op == "DELETED"])


def test_more_deletes_than_the_list_reaches_are_no_silent_loss(org: System) -> None:
    follower = Follower("contact", FIELDS)
    row = org.row("contact", live(org)[0]) or {}
    follow(org, follower)
    stamp = iso(org.sandbox.clock.time() * 1000)
    for n in range(2001):
        id = f"55402310199999{n:05d}"
        org.dialect.tables["contact"].put(id, {**row, "id": id, "Email": None, "Modified_Time": stamp, "$deleted": stamp})

    with pytest.raises(CursorExpiredError):
        follow(org, follower)


def test_ties_over_a_pages_end_are_all_told(org: System) -> None:
    follower = Follower("contact", FIELDS)
    row = org.row("contact", live(org)[0]) or {}
    follow(org, follower)
    stamp = iso(org.sandbox.clock.time() * 1000)
    many = {f"55402310199999{n:05d}" for n in range(2300)}
    for id in many:
        org.dialect.tables["contact"].put(id, {**row, "id": id, "Email": None, "Modified_Time": stamp})

    told = follow(org, follower)

    assert many <= ids(told)
    assert follower.pages == 2


def test_a_change_that_is_committed_late_is_told(org: System) -> None:
    follower = Follower("contact", FIELDS)
    early, late, gone = live(org)[:3]
    follow(org, follower)
    dialect(org).change("contact", early, {"Title": "Early"})
    first = follow(org, follower)
    follow(org, follower)

    for fault in ("PATCH /contact", "DELETE /contact"):
        org.broken("late_commit", path=fault, seconds=200, times=1)  # 80 s before the change that was seen
    httpx.patch(f"{org.address}/_control/records/zoho/contact/{late}", json={"Title": "Late"}).raise_for_status()
    httpx.delete(f"{org.address}/_control/records/zoho/contact/{gone}").raise_for_status()
    told = [*follow(org, follower), *follow(org, follower)]

    assert early in ids(first)
    assert {each.native_id: each.op for each in told if each.native_id in {late, gone}} == {late: "CHANGED", gone: "DELETED"}


def test_our_clock_may_be_off_by_days(org: System) -> None:
    follower = Follower("contact", FIELDS)
    follower.now = org.sandbox.clock.now() + timedelta(days=30)
    edited, gone = live(org)[:2]
    follow(org, follower)

    dialect(org).change("contact", edited, {"Title": "Chief"})
    dialect(org).delete("contact", gone)
    follower.now -= timedelta(days=60)

    assert {edited, gone} <= ids(follow(org, follower))


def test_a_cursor_that_is_older_than_the_recycle_bin_is_no_good_any_more(org: System) -> None:
    follower = Follower("contact", FIELDS)
    follow(org, follower)
    follower.now += timedelta(days=61)

    with pytest.raises(CursorExpiredError):
        follow(org, follower)


@pytest.mark.parametrize("kind", ["contact", "account", "deal", "lead"])
def test_two_passes_of_a_hundredth_cost_three_calls(org: System, kind: Kind) -> None:
    follower = Follower(kind, FIELDS)
    follow(org, follower)
    sent = 0

    async def passed(source: Any, api: Noted) -> int:
        await follower.passed(source.adapter, api)
        return len(api.sent)

    for title in ("A", "B"):
        for id in live(org, kind)[:10]:
            dialect(org).change(kind, id, {"Description": title})
        sent += org.run(passed)

    assert sent == 3  # 20,000 records are listed in 10 calls, so two passes may cost 4
