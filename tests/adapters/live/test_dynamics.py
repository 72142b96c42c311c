"""Dataverse's webhooks and change tracking. Contract: tests/adapters/test_changes.py; here is what is unusual."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Delivery, Heard, Hint, Watch
from adapters.dynamics import Dynamics
from adapters.dynamics_hooks import STEPS
from model.errors import CursorExpiredError, NetworkError, ProtocolError, RejectedError, SignatureError
from model.records import Kind
from sandbox.dynamics import Dynamics as Sandbox
from sandbox.dynamics_tables import SETS
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system

SECRET = "ours&more=/+"
NOW = datetime(2026, 2, 3, 12, tzinfo=UTC)
ID, OTHER = "6d81597f-0f9f-e711-8122-000d3aa2331c", "75c2dd85-0f9f-e711-8122-000d3aa2331c"
FIELDS: dict[Kind, tuple[str, ...]] = {
    "contact": ("jobtitle", "parentcustomerid_account.accountid", "@odata.etag"),
    "account": ("name", "@formatted.industrycode"),
    "lead": ("jobtitle", "@formatted.statuscode"),
    "deal": ("name", "transactioncurrencyid.isocurrencycode", "customerid_account.accountid"),
}
# The sheet's example, shortened.
UPDATE = rb"""{"MessageName":"Update","PrimaryEntityName":"contact","PrimaryEntityId":"6d81597f-0f9f-e711-8122-000d3aa2331c","Stage":40,"Mode":1,"Depth":1,
"OrganizationName":"OrgName","OperationCreatedOn":"\/Date(1506409448000-0700)\/","CorrelationId":"b374239d-4233-41a9-8b17-a86cb4f737b5",
"InputParameters":[{"key":"Target","value":{"__type":"Entity:http:\/\/schemas.microsoft.com\/xrm\/2011\/Contracts","LogicalName":"contact",
"Id":"6d81597f-0f9f-e711-8122-000d3aa2331c","Attributes":[{"key":"firstname","value":"James"},{"key":"modifiedon","value":"\/Date(1506384247000)\/"}]}}],
"PostEntityImages":[],"PreEntityImages":[]}"""


@pytest.fixture
def org() -> Iterator[System]:
    with system("dynamics") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def dialect(org: System) -> Sandbox:
    assert isinstance(org.dialect, Sandbox)
    return org.dialect


def live(org: System, kind: Kind = "contact") -> list[str]:
    schema = SETS[org.dialect.objects[kind]]
    return [row[schema.id] for row in org.dialect.tables[kind] if not row.get("merged")]


def delivery(body: Any, code: str | None = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    query = {"code": code} if code is not None else {}
    return Delivery(method="POST", url="https://live.example/webhooks/1", headers={}, body=raw, at=NOW, query=query)


def said(**more: Any) -> Heard:
    return Dynamics.events(delivery({**orjson.loads(UPDATE), **more}), [SECRET])


# ---- proof, and what is said ----


def test_the_documented_update_is_a_hint() -> None:
    [hint] = Dynamics.events(delivery(UPDATE), [SECRET]).hints

    at = datetime(2017, 9, 26, 7, 4, 8, tzinfo=UTC)
    assert hint.change == Change(kind="contact", native_id=ID, at=at)


@pytest.mark.parametrize("code", [None, "", "another", SECRET[:-1]])
def test_another_key_is_refused(code: str | None) -> None:
    with pytest.raises(SignatureError):
        Dynamics.events(delivery(UPDATE, code), [SECRET])


def test_no_secret_proves_nothing_and_either_of_two_will_do() -> None:
    for known in ([], [""]):
        with pytest.raises(SignatureError):
            Dynamics.events(delivery(UPDATE, ""), known)
    assert Dynamics.events(delivery(UPDATE), ["new", SECRET]).hints


@pytest.mark.parametrize("body", [b"", UPDATE[:-1], b"[]", b"{}"])
def test_what_is_proved_and_cut_off_is_no_hint(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Dynamics.events(delivery(body), [SECRET])


def test_a_record_without_its_id_is_no_hint_and_other_tables_are_none() -> None:
    with pytest.raises(ProtocolError):
        said(PrimaryEntityId="x", InputParameters=[])
    assert said(PrimaryEntityName="task").hints == ()


def test_deletes_and_merges_name_what_is_gone() -> None:
    target = {"key": "Target", "value": {"Id": ID, "LogicalName": "contact"}}
    merge = said(MessageName="Merge", InputParameters=[target, {"key": "SubordinateId", "value": OTHER.upper()}]).hints
    marks = [{"key": "merged", "value": True}, {"key": "masterid", "value": {"Id": OTHER, "LogicalName": "contact"}}]
    update = said(InputParameters=[{"key": "Target", "value": {"Id": ID, "Attributes": marks}}]).hints

    assert [each.change.op for each in said(MessageName="Delete").hints] == ["DELETED"]
    assert [(each.change.native_id, each.change.op, each.change.into) for each in merge] == [
        (OTHER, "MERGED", ID), (ID, "CHANGED", None),
    ]  # fmt: skip
    assert [(each.change.native_id, each.change.op, each.change.into) for each in update] == [(ID, "MERGED", OTHER)]


def test_a_body_that_was_too_long_still_names_its_record() -> None:
    body = {name: value for name, value in orjson.loads(UPDATE).items() if name not in {"InputParameters", "PostEntityImages"}}

    [hint] = Dynamics.events(delivery(body), [SECRET]).hints

    assert hint.change.native_id == ID


def test_what_is_told_twice_has_one_id_and_two_operations_have_two() -> None:
    [first], [again], [later] = said().hints, said().hints, said(OperationCreatedOn="/Date(1506409448001)/").hints

    assert first.id == again.id != later.id


@pytest.mark.parametrize("odd", [None, 7, "soon", "/Date(x)/", "/Date(999999999999999999)/"])
def test_a_time_that_is_none_is_left_out(odd: Any) -> None:
    assert [each.change.at for each in said(OperationCreatedOn=odd).hints] == [None]


# ---- endpoints and steps ----


def watch(org: System, url: str, secret: str = SECRET) -> list[Watch]:
    return org.run(lambda source, api: source.adapter.watch(api, url, secret))


def test_watching_makes_one_endpoint_and_its_steps_and_costs_two_calls_when_all_is_well(org: System, ours: Receiver) -> None:
    first = watch(org, ours.url)

    async def work(source: Any, api: Noted) -> tuple[list[Watch], int]:
        return await source.adapter.watch(api, ours.url, SECRET), len(api.sent)

    assert org.run(work) == (first, 2)
    assert {(each["message"], each["table"]) for each in org.dialect.subscriptions()} == set(STEPS)
    assert len({each.native_id for each in first}) == len(org.dialect.subscriptions()) == len(STEPS) == 15
    assert len(dialect(org).store.tables["serviceendpoint"]) == 1


def test_steps_that_were_disabled_or_deleted_are_there_again(org: System, ours: Receiver) -> None:
    first = watch(org, ours.url)
    steps = dialect(org).store.tables["sdkmessageprocessingstep"]
    off, gone = first[0].native_id, first[1].native_id
    steps.put(off, {**(steps.get(off) or {}), "statecode": 1, "statuscode": 2})
    steps.remove(gone)

    again = watch(org, ours.url)

    assert {each.native_id for each in again} - {each.native_id for each in first} == {again[1].native_id}
    assert len(again) == 15
    assert all(each["active"] for each in org.dialect.subscriptions())


def test_a_new_secret_reaches_the_endpoint_that_is_there(org: System, ours: Receiver) -> None:
    first = watch(org, ours.url, "old")
    assert watch(org, ours.url, "new") == first

    dialect(org).change("contact", live(org)[0], {"jobtitle": "Chief"})
    [came] = ours.wait(lambda came: len(came) == 1)

    assert Dynamics.events(came, ["new"]).hints
    with pytest.raises(SignatureError):
        Dynamics.events(came, ["old"])


def test_a_second_endpoint_of_one_address_is_removed(org: System, ours: Receiver) -> None:
    org.dialect.hook(ours.url, "by hand")
    org.dialect.hook(ours.url, "by hand, again")

    watch(org, ours.url)
    dialect(org).change("contact", live(org)[0], {"jobtitle": "Chief"})
    [came] = ours.wait(lambda came: len(came) == 1)

    assert Dynamics.events(came, [SECRET]).hints
    assert len(dialect(org).store.tables["serviceendpoint"]) == 1
    assert len(org.dialect.subscriptions()) == 15


def test_answers_that_are_lost_leave_one_endpoint_in_the_end(org: System, ours: Receiver) -> None:
    for path in ("POST */serviceendpoints", "POST */sdkmessageprocessingsteps"):
        org.broken("truncate", path=path, times=1)
        with pytest.raises(NetworkError):
            watch(org, ours.url)

    assert len(watch(org, ours.url)) == len(org.dialect.subscriptions()) == 15
    assert len(dialect(org).store.tables["serviceendpoint"]) == 1


def test_unwatching_ends_what_is_sent_to_that_address_only(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    watch(org, "https://another.example/hook")

    assert org.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 15
    assert org.run(lambda source, api: source.adapter.unwatch(api, ours.url)) == 0
    assert {each["url"] for each in org.dialect.subscriptions()} == {"https://another.example/hook"}
    assert len(dialect(org).store.tables["serviceendpoint"]) == 1


# ---- deliveries of the sandbox ----


def heard(ours: Receiver) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in Dynamics.events(each, [SECRET]).hints]


def wait(ours: Receiver, *wanted: tuple[str, str]) -> list[Hint]:
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))
    return heard(ours)


def test_changes_by_hand_and_by_calls_arrive_as_hints(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    edited, gone, loser, winner = live(org)[:4]

    httpx.patch(f"{org.address}/_control/records/dynamics/contact/{edited}", json={"jobtitle": "Chief"}).raise_for_status()
    [made] = org.write("contact", Write(verb="create", row={"lastname": "New", "emailaddress1": "new@hooks.example"}))
    org.write("contact", Write(verb="delete", native_id=gone))
    assert dialect(org).merge("contact", loser, winner)
    lead = live(org, "lead")[0]
    dialect(org).delete("lead", lead)
    new = str(made.native_id)
    hints = wait(
        ours, ("CHANGED", edited), ("CHANGED", new), ("DELETED", gone), ("MERGED", loser), ("CHANGED", winner), ("DELETED", lead)
    )

    assert {hint.change.into for hint in hints if hint.change.op == "MERGED"} == {winner}
    assert {hint.change.kind for hint in hints if hint.change.native_id == lead} == {"lead"}
    assert {each.headers["x-ms-dynamics-request-name"] for each in ours.deliveries} >= {"Create", "Update", "Delete", "Merge"}


def test_a_hook_by_hand_is_sent_the_changed_columns_only_and_nothing_for_an_edit_of_nothing(org: System, ours: Receiver) -> None:
    org.dialect.hook(ours.url, SECRET)
    one, other = live(org)[:2]
    row = org.row("contact", one) or {}

    dialect(org).change("contact", one, {"jobtitle": row["jobtitle"]})
    dialect(org).change("contact", other, {"jobtitle": "Chief"})
    [came] = ours.wait(lambda came: len(came) == 1)

    body = orjson.loads(came.body)
    assert body["PrimaryEntityId"] == other
    assert {each["key"] for each in body["InputParameters"][0]["value"]["Attributes"]} >= {"jobtitle"}
    assert b"/Date(" in came.body.replace(b"\\/", b"/")
    assert len(Dynamics.events(came, [SECRET]).hints) == 1


def test_what_is_too_long_is_cut_and_says_so(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    one = live(org)[0]

    dialect(org).change("contact", one, {"description": "x" * 300_000})
    [came] = ours.wait(lambda came: len(came) == 1)

    assert came.headers["x-ms-dynamics-msg-size-exceeded"] == "true"
    assert "InputParameters" not in orjson.loads(came.body)
    assert [hint.change.native_id for hint in Dynamics.events(came, [SECRET]).hints] == [one]


def test_what_a_change_set_takes_back_is_not_told(org: System, ours: Receiver) -> None:
    watch(org, ours.url)
    deal = next(id for id in live(org, "deal") if (org.row("deal", id) or {})["statecode"] != 0)
    [closed] = org.write("deal", Write(verb="update", native_id=deal, row={"name": "Renamed", "statuscode": 3}))
    assert closed.state != "APPLIED"  # it is closed already, so the new name is taken back with it
    dialect(org).change("contact", live(org)[0], {"jobtitle": "Chief"})

    came = ours.wait(lambda came: len(came) >= 1)

    assert [hint.change.kind for each in came for hint in Dynamics.events(each, [SECRET]).hints] == ["contact"]


# ---- the feed ----


def follow(org: System, follower: Follower) -> list[Change]:
    return org.run(lambda source, api: follower.passed(source.adapter, api))


@pytest.mark.parametrize("kind", ["contact", "account", "lead", "deal"])
def test_the_feed_begins_with_all_and_goes_on_with_what_changed(org: System, kind: Kind) -> None:
    follower = Follower(kind, FIELDS[kind])
    edited, gone = live(org, kind)[:2]
    everything = follow(org, follower)
    assert ids(everything) >= set(live(org, kind))
    assert follow(org, follower) == []

    dialect(org).change(kind, edited, {"description": "moved"})
    dialect(org).delete(kind, gone)
    told = {each.native_id: each for each in follow(org, follower)}

    assert (told[edited].op, told[gone].op) == ("CHANGED", "DELETED")
    assert told[gone].row is None


@pytest.mark.parametrize("kind", ["contact", "account", "lead", "deal"])
def test_the_rows_that_it_brings_are_those_of_a_read(org: System, kind: Kind) -> None:
    fields = (*FIELDS[kind], "createdon", "modifiedon")
    brought = {each.native_id: each.row for each in follow(org, Follower(kind, fields)) if each.row is not None}
    some = live(org, kind)[:40]

    read = org.run(lambda source, api: source.adapter.read(api, kind, some, fields))

    for id, row in zip(some, read, strict=True):
        mine, theirs = brought[id], row
        assert mine is not None
        assert theirs is not None
        for path in fields:
            head, _, column = path.lstrip("@").partition(".")
            head = f"@{head}" if path.startswith("@") else head
            if column:
                assert ((mine.get(head) or {}).get(column)) == ((theirs.get(head) or {}).get(column)), path
            else:
                assert mine[head] == theirs[head], path


def test_what_a_lookup_does_not_tell_is_left_to_a_read(org: System) -> None:
    follower = Follower("contact", ("jobtitle", "parentcustomerid_account.name"))

    told = follow(org, follower)

    assert told
    assert all(each.row is None for each in told)


def test_a_merged_record_is_told_with_its_master(org: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    loser, winner = live(org)[:2]
    follow(org, follower)

    dialect(org).merge("contact", loser, winner)
    told = {each.native_id: (each.op, each.into) for each in follow(org, follower)}

    assert told == {loser: ("MERGED", winner), winner: ("CHANGED", None)}


def test_pages_are_followed_whatever_is_changed_meanwhile(org: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.dynamics_live.PAGE", 7)
    follower = Follower("contact", FIELDS["contact"])
    every = live(org)
    seen: set[str] = set()

    async def work(source: Any, api: Noted) -> None:
        while True:
            told = await source.adapter.changes(api, "contact", follower.cursor, follower.fields, now=NOW)
            seen.update(each.native_id for each in told.changes)
            follower.cursor = told.cursor
            if not told.more:
                return
            dialect(org).change("contact", every[len(seen) % len(every)], {"jobtitle": "Moved"})
            if len(seen) > 200:
                raise AssertionError("it does not end")

    org.run(work)
    dialect(org).delete("contact", every[0])

    assert seen >= set(every)
    assert every[0] in ids(follow(org, follower))


def test_ties_and_late_commits_are_told_for_no_time_counts(org: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    early, late, gone = live(org)[:3]
    follow(org, follower)
    dialect(org).change("contact", early, {"jobtitle": "Early"})
    first = follow(org, follower)

    for path in ("PATCH /contact", "DELETE /contact"):
        org.broken("late_commit", path=path, seconds=4000, times=1)
    httpx.patch(f"{org.address}/_control/records/dynamics/contact/{late}", json={"jobtitle": "Late"}).raise_for_status()
    httpx.delete(f"{org.address}/_control/records/dynamics/contact/{gone}").raise_for_status()
    second = follow(org, follower)

    assert ids(first) == {early}
    assert {each.native_id: each.op for each in second} == {late: "CHANGED", gone: "DELETED"}


def test_our_clock_may_be_off_by_days(org: System) -> None:
    follower = Follower("contact", FIELDS["contact"], now=NOW + timedelta(days=300))
    follow(org, follower)
    dialect(org).change("contact", live(org)[0], {"jobtitle": "Chief"})
    follower.now = NOW - timedelta(days=300)

    assert ids(follow(org, follower)) == {live(org)[0]}


def test_a_link_of_more_than_a_week_is_no_good_any_more(org: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    follow(org, follower)
    org.sandbox.clock.advance(6 * 86_400)
    follow(org, follower)
    org.sandbox.clock.advance(7 * 86_400)

    with pytest.raises(CursorExpiredError):
        follow(org, follower)


def test_a_link_of_a_column_that_is_gone_is_begun_anew(org: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    follow(org, follower)
    assert follower.cursor is not None
    follower.cursor = follower.cursor.replace("$select=", "$select=new_gone,")

    with pytest.raises(CursorExpiredError):
        follow(org, follower)


def test_a_first_listing_that_is_refused_is_no_link_that_is_forgotten(org: System) -> None:
    with pytest.raises(RejectedError):
        follow(org, Follower("contact", ("new_gone",)))


def test_what_belonged_to_a_merged_record_belongs_to_its_master(org: System) -> None:
    deals = org.dialect.tables["deal"]
    loser = next(id for id in live(org) if deals.having("_parentcontactid_value", [id]))
    winner = next(id for id in live(org) if id != loser)
    theirs = {row["opportunityid"] for row in deals.having("_parentcontactid_value", [loser])}
    follower = Follower("deal", FIELDS["deal"])
    follow(org, follower)

    dialect(org).merge("contact", loser, winner)

    assert theirs <= ids(follow(org, follower))
    assert not deals.having("_parentcontactid_value", [loser])
    assert theirs <= {row["opportunityid"] for row in deals.having("_parentcontactid_value", [winner])}


def test_tracking_takes_no_filter(org: System) -> None:
    async def work(source: Any, api: Noted) -> None:
        from adapters.base import Request

        params = [("$filter", "statecode eq 0")]
        await api.send(
            Request(operation="x", path="/api/data/v9.2/contacts", params=params, headers={"Prefer": "odata.track-changes"})
        )

    with pytest.raises(RejectedError):
        org.run(work)


def test_a_pass_of_a_hundredth_is_one_call(org: System) -> None:
    follower = Follower("deal", FIELDS["deal"])
    follow(org, follower)
    for id in live(org, "deal")[:10]:
        dialect(org).change("deal", id, {"description": "moved"})

    async def work(source: Any, api: Noted) -> tuple[int, int]:
        return len([each for each in await follower.passed(source.adapter, api) if each.row]), len(api.sent)

    assert org.run(work) == (10, 1)
