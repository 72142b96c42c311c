"""How Sugar tells of changes: web logic hooks with a code in their address, and filters that show deleted rows."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Delivery, Hint
from adapters.sugarcrm import SugarCRM
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.faults import Fault
from sandbox.sugarcrm import SugarCRM as Instance
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "code & of=ours"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = ("last_name", "name", "amount", "date_modified")
ID = "f16760a4-3a52-f77d-1522-5703ca28925f"
# The form of the sheet; `data` holds the record.
BODY: dict[str, Any] = {
    "isUpdate": True, "dataChanges": {"status": {"field_name": "status", "data_type": "enum", "before": "New", "after": "Assigned"}},
    "bean": "Contact", "data": {"id": ID, "name": "Ada", "date_modified": "2016-04-05T10:23:28-04:00", "email": []}, "event": "after_save",
}  # fmt: skip
AT = datetime(2016, 4, 5, 14, 23, 28, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[System]:
    with system("sugarcrm") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(instance: System) -> Instance:
    assert isinstance(instance.dialect, Instance)
    return instance.dialect


def delivery(body: Any, *, code: str | None = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    query = {} if code is None else {"code": code}
    return Delivery(method="POST", url="https://live.example/sugar", headers={}, body=raw, at=NOW, query=query)


def hints(**body: Any) -> list[Hint]:
    return list(SugarCRM.events(delivery({**BODY, **body}), [SECRET]).hints)


def told(**body: Any) -> list[Change]:
    return [hint.change for hint in hints(**body)]


def some(instance: System, kind: Kind, many: int) -> list[str]:
    return [row["id"] for row in instance.dialect.tables[kind] if not row["deleted"]][:many]


def passed(instance: System, follower: Follower) -> list[Change]:
    return instance.run(lambda source, api: follower.passed(source.adapter, api))


def watch(instance: System, url: str, secret: str = SECRET) -> list[str]:
    return [each.native_id for each in instance.run(lambda source, api: source.adapter.watch(api, url, secret))]


def heard(ours: Receiver) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in SugarCRM.events(each, [SECRET]).hints]


def wait(instance: System, ours: Receiver, *wanted: tuple[str, str]) -> list[Hint]:
    """Let cron run; return all hints once each wanted (op, id) was told."""
    instance.sandbox.clock.advance(60)
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))
    return heard(ours)


# ---- proof, and what is said ----


@pytest.mark.parametrize("code", [None, "", "other", SECRET[:-1], SECRET + " ", "é"])
def test_what_does_not_carry_the_code_is_refused(code: str | None) -> None:
    for secrets in ([SECRET], ["", SECRET], [], [""]):
        with pytest.raises(SignatureError):
            SugarCRM.events(delivery(BODY, code=code), secrets)


def test_any_of_two_codes_proves() -> None:
    assert SugarCRM.events(delivery(BODY), ["new", SECRET]).account is None
    assert len(SugarCRM.events(delivery(BODY), ["new", SECRET]).hints) == 1


def test_the_documents_form_is_read() -> None:
    assert told() == [Change(kind="contact", native_id=ID, at=AT)]
    assert told(bean="Opportunity", isUpdate=False) == [Change(kind="deal", native_id=ID, at=AT)]
    assert told(bean="Lead", event="after_delete") == [Change(kind="lead", native_id=ID, op="DELETED", at=AT)]
    assert told(bean="Account", event="after_relationship_add") == [Change(kind="account", native_id=ID, at=AT)]
    assert told(data={"id": "seed_max_id", "date_modified": "2016-04-05 14:23:28"}) == [
        Change(kind="contact", native_id="seed_max_id")
    ]


def test_events_of_what_we_do_not_keep_are_passed_over() -> None:
    for body in ({"bean": "Meeting"}, {"event": "after_login"}, {"bean": None}, {"event": None}):
        assert told(**body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"[]", {**BODY, "data": None}, {**BODY, "data": {}}, {**BODY, "data": {"id": 7}}, {**BODY, "data": {"id": "../../Users"}},
        {**BODY, "data": {"id": "x" * 37}}, {**BODY, "data": {"id": ""}},
    ],
)  # fmt: skip
def test_what_is_proved_and_not_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        SugarCRM.events(delivery(body), [SECRET])


def test_a_save_that_is_sent_again_keeps_its_id_and_ties_count_each_by_itself() -> None:
    later = replace(delivery(BODY), at=NOW + timedelta(minutes=1))
    tie = delivery({**BODY, "event": "after_relationship_add"})

    assert hints()[0].id == SugarCRM.events(later, [SECRET]).hints[0].id
    assert hints()[0].id != hints(dataChanges={})[0].id
    again = SugarCRM.events(replace(tie, at=NOW + timedelta(minutes=1)), [SECRET])
    assert SugarCRM.events(tie, [SECRET]).hints[0].id != again.hints[0].id


# ---- deliveries of the sandbox ----


@pytest.mark.parametrize("by", ["watch", "hand"])
def test_changes_by_hand_and_by_calls_arrive_as_hints(instance: System, ours: Receiver, by: str) -> None:
    edited, gone, loser, winner, tied = some(instance, "contact", 5)
    [deal] = some(instance, "deal", 1)
    if by == "watch":
        assert len(watch(instance, ours.url)) == 16
    else:
        dialect(instance).hook(ours.url, SECRET)

    url = f"{instance.address}/_control/records/sugarcrm/contact/{edited}"
    httpx.patch(url, json={"title": "Chief"}).raise_for_status()
    [made] = instance.write("lead", Write(verb="create", row={"last_name": "New"}))
    instance.write("contact", Write(verb="delete", native_id=gone))
    instance.write("deal", Write(verb="update", native_id=deal, row={"name": "Big"}, links={"contact": [tied]}))
    assert dialect(instance).merge("contact", loser, winner)
    found = wait(
        instance, ours, ("CHANGED", edited), ("CHANGED", str(made.native_id)), ("DELETED", gone), ("CHANGED", deal), ("CHANGED", tied),
        ("DELETED", loser), ("CHANGED", winner),
    )  # fmt: skip

    assert {hint.change.kind for hint in found} >= {"contact", "lead", "deal"}


def test_hooks_wait_for_cron_and_say_what_a_save_changed(instance: System, ours: Receiver) -> None:
    watch(instance, ours.url)
    [someone] = some(instance, "contact", 1)
    before = (instance.row("contact", someone) or {})["title"]
    instance.sandbox.clock.advance(60 - instance.sandbox.clock.time() % 60)

    dialect(instance).change("contact", someone, {"title": before})
    dialect(instance).change("contact", someone, {"title": "Chief"})
    instance.sandbox.clock.advance(30)
    assert ours.deliveries == []
    wait(instance, ours, ("CHANGED", someone))

    [body] = [orjson.loads(each.body) for each in ours.deliveries]
    assert {name: (each["before"], each["after"]) for name, each in body["dataChanges"].items()} == {"title": (before, "Chief")}


def test_hooks_are_kept_renewed_and_ended(instance: System, ours: Receiver) -> None:
    first = watch(instance, ours.url)
    other = watch(instance, ours.url + "?other=1")

    assert watch(instance, ours.url) == first
    renewed = watch(instance, ours.url, "another")
    dialect(instance).hooks._hooks[renewed[0]]["request_method"] = "GET"  # an administrator's mistake
    again = watch(instance, ours.url, "another")

    assert len(set(first)) == 16
    assert set(first).isdisjoint(renewed)
    assert [one == two for one, two in zip(renewed, again, strict=True)] == [False, *[True] * 15]
    assert instance.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 16
    assert {each["id"] for each in dialect(instance).subscriptions()} == set(other)


def test_one_look_at_good_hooks_costs_one_call(instance: System, ours: Receiver) -> None:
    watch(instance, ours.url)
    watch(instance, ours.url)

    assert {path: count for path, count in instance.dialect.calls.items() if "WebLogicHooks" in path or "bulk" in path} == {
        "POST /rest/{version}/WebLogicHooks/filter": 1
    }


# ---- the feed ----


@pytest.mark.parametrize("kind", ["contact", "lead", "account", "deal"])
def test_the_feed_tells_edits_deletes_and_merges_as_deletes(instance: System, kind: Kind) -> None:
    follower = Follower(kind, FIELDS)
    edited, gone, loser, winner = some(instance, kind, 4)
    passed(instance, follower)

    dialect(instance).change(kind, edited, {"description": "New"})
    dialect(instance).delete(kind, gone)
    assert dialect(instance).merge(kind, loser, winner)
    changes = passed(instance, follower)

    ops = {each.native_id: each.op for each in changes}
    assert [ops[id] for id in (edited, gone, loser, winner)] == ["CHANGED", "DELETED", "DELETED", "CHANGED"]
    assert all((each.row is not None) is (each.op == "CHANGED") for each in changes)


@pytest.mark.parametrize("removed", [False, True])
def test_many_records_of_one_second_are_all_told_in_few_calls(instance: System, removed: bool) -> None:
    follower = Follower("contact", FIELDS)
    table, now = instance.dialect.tables["contact"], instance.sandbox.clock.now().replace(microsecond=0).isoformat()
    row = next(iter(table))
    tied = [f"tied-{number}" for number in range(1000)]

    passed(instance, follower)
    for id in tied:
        table.put(id, {**row, "id": id, "date_modified": now, "deleted": removed})
    changes = passed(instance, follower)

    assert ids(changes) >= set(tied)
    assert {each.op for each in changes if each.native_id in set(tied)} == {"DELETED" if removed else "CHANGED"}
    assert instance.dialect.calls["POST /rest/{version}/{module}/filter"] <= 8


def test_a_feed_that_begins_among_many_of_one_second_takes_few_calls(instance: System) -> None:
    table, now = instance.dialect.tables["contact"], instance.sandbox.clock.now().replace(microsecond=0).isoformat()
    row = next(iter(table))
    for number in range(600):
        table.put(f"tied-{number}", {**row, "id": f"tied-{number}", "date_modified": now})

    assert passed(instance, Follower("contact", FIELDS)) == []
    assert instance.dialect.calls["POST /rest/{version}/{module}/filter"] <= 5


@pytest.mark.parametrize("removed", [False, True])
def test_a_change_that_is_committed_late_is_told(instance: System, removed: bool) -> None:
    follower = Follower("contact", FIELDS)
    early, late = some(instance, "contact", 2)
    passed(instance, follower)
    dialect(instance).change("contact", early, {"title": "Early"})
    passed(instance, follower)

    instance.sandbox.faults.add(Fault(system="sugarcrm", fault="late_commit", seconds=90.0, times=1))
    address = f"{instance.address}/_control/records/sugarcrm/contact/{late}"
    (httpx.delete(address) if removed else httpx.patch(address, json={"title": "Late"})).raise_for_status()
    changes = passed(instance, follower)

    assert (late, "DELETED" if removed else "CHANGED") in {(each.native_id, each.op) for each in changes}


def test_our_clock_may_be_off_by_weeks(instance: System) -> None:
    edited, gone = some(instance, "contact", 2)
    follower = Follower("contact", FIELDS, now=NOW + timedelta(days=30))
    passed(instance, follower)
    follower.now = NOW - timedelta(days=30)

    dialect(instance).change("contact", edited, {"title": "Chief"})
    dialect(instance).delete("contact", gone)
    changes = passed(instance, follower)

    assert {each.native_id: each.op for each in changes}.items() >= {edited: "CHANGED", gone: "DELETED"}.items()


@pytest.mark.parametrize(
    ("pause", "expired"), [(timedelta(hours=20), False), (timedelta(days=4), False), (timedelta(days=7), True)]
)
def test_a_cursor_is_no_good_once_a_first_of_the_month_was_slept_through(
    instance: System, pause: timedelta, expired: bool
) -> None:
    follower = Follower("contact", FIELDS, now=NOW)
    passed(instance, follower)
    follower.now = NOW + pause

    if expired:
        with pytest.raises(CursorExpiredError):
            passed(instance, follower)
    else:
        passed(instance, follower)


@pytest.mark.parametrize("kind", ["contact", "lead", "account", "deal"])
def test_a_pass_costs_a_few_calls(kind: Kind) -> None:
    with system("sugarcrm", people=1000) as instance:
        follower = Follower(kind, FIELDS)
        passed(instance, follower)
        changed = some(instance, kind, 100)
        for id in changed:
            instance.dialect.change(kind, id, {"description": "New"})

        changes = passed(instance, follower)

        assert ids(changes) >= set(changed)
        # 20,000 records are listed in 100 calls, so 200 of them may cost 20.
        assert instance.dialect.calls["POST /rest/{version}/{module}/filter"] <= 3
