"""Dataverse's change tracking and webhooks: delta links that begin with everything, a key in place of a signature."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Response
from adapters.changes import Change, Delivery, Heard, Watch
from adapters.dynamics import Dynamics
from adapters.writing import Write
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row
from sandbox.dynamics import ORGANIZATION
from sandbox.dynamics import Dynamics as Environment
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system

SECRET = "our-own-key"
ID, LOSER = "6d81597f-0f9f-e711-8122-000d3aa2331c", "49b0be2e-d01c-ed11-b83e-000d3a572421"
# After the vendor's example of an update; names of types are shortened.
CONTEXT = {
    "MessageName": "Update", "PrimaryEntityName": "contact", "PrimaryEntityId": ID, "Stage": 40, "Mode": 1, "Depth": 1, "OrganizationName": "OrgName",
    "OperationCreatedOn": "/Date(1506409448000-0700)/", "InitiatingUserId": "75c2dd85-0f9f-e711-8122-000d3aa2331c", "CorrelationId": "b374239d-4233-41a9-8b17-a86cb4f737b5",
    "InputParameters": [{"key": "Target", "value": {
        "__type": "Entity:http://schemas.microsoft.com/xrm/2011/Contracts", "LogicalName": "contact", "Id": ID,
        "Attributes": [{"key": "firstname", "value": "James"}, {"key": "modifiedon", "value": "/Date(1506384247000)/"}],
    }}],
    "PostEntityImages": [], "PreEntityImages": [],
}  # fmt: skip


@pytest.fixture
def crm() -> Iterator[System]:
    with system("dynamics") as running:
        yield running


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def dialect(crm: System) -> Environment:
    assert isinstance(crm.dialect, Environment)
    return crm.dialect


def key(kind: Kind) -> str:
    return str(Dynamics.kinds[kind].mapping["native_id"])


def live(crm: System, kind: Kind = "contact") -> list[str]:
    return sorted(row[key(kind)] for row in crm.dialect.tables[kind] if not row.get("merged"))


def delivery(body: Any, code: str | None = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    query = {"code": code} if code is not None else {}
    return Delivery(
        method="POST", url="https://c360.example/webhooks/crm", headers={}, body=raw, at=datetime.now(UTC), query=query
    )


def said(**changed: Any) -> Heard:
    return Dynamics.events(delivery({**CONTEXT, **changed}), [SECRET])


def watched(crm: System, url: str, secret: str = SECRET) -> list[Watch]:
    return crm.run(lambda source, api: source.adapter.watch(api, url, secret))


def passed(crm: System, follower: Follower) -> list[Change]:
    return crm.run(lambda source, api: follower.passed(source.adapter, api))


def began(crm: System, kind: Kind = "contact", *fields: str) -> Follower:
    follower = Follower(kind, fields or ("firstname", "lastname"))
    passed(crm, follower)
    return follower


def ops(changes: list[Change], *wanted: str) -> dict[str, tuple[str, str | None]]:
    return {each.native_id: (each.op, each.into) for each in changes if each.native_id in wanted}


def calls(crm: System) -> int:
    return sum(count for path, count in crm.dialect.calls.items() if "token" not in path and "EntityDefinitions" not in path)


# ---- proof ----


def test_the_vendors_example_is_proved_by_the_key_and_tells_its_record() -> None:
    [hint] = said().hints

    assert hint.change == Change(kind="contact", native_id=ID, at=datetime.fromtimestamp(1506384247, UTC))
    assert said().account is None
    assert said(OrganizationId=ORGANIZATION.upper()).account == ORGANIZATION


@pytest.mark.parametrize("code", [None, "", "another-key", SECRET[:-1], SECRET + "x"])
def test_another_key_a_cut_one_and_none_prove_nothing(code: str | None) -> None:
    for secrets in ([SECRET], [], [""]):
        with pytest.raises(SignatureError):
            Dynamics.events(delivery(CONTEXT, code), secrets)


def test_either_of_two_keys_will_do_while_they_change() -> None:
    assert Dynamics.events(delivery(CONTEXT), ["new", SECRET]).hints


@pytest.mark.parametrize("body", [b"", b"<html>", [], {**CONTEXT, "PrimaryEntityId": None}, {**CONTEXT, "PrimaryEntityId": "7"}])
def test_what_is_proved_and_makes_no_sense_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Dynamics.events(delivery(body), [SECRET])


@pytest.mark.parametrize("other", [{"MessageName": "Associate"}, {"PrimaryEntityName": "incident"}, {"MessageName": None}])
def test_other_messages_and_tables_tell_nothing(other: dict[str, Any]) -> None:
    assert not said(**other).hints


def test_a_delivery_that_is_repeated_has_the_same_id_and_another_operation_has_another() -> None:
    [first], [again], [other] = said().hints, said().hints, said(CorrelationId="another").hints

    assert first.id == again.id
    assert first.id != other.id


def test_a_body_that_was_too_large_still_tells_its_record() -> None:
    [hint] = said(InputParameters=None).hints

    assert hint.change == Change(kind="contact", native_id=ID, at=datetime.fromtimestamp(1506409448, UTC))


def test_a_merge_names_who_went_and_who_stays_and_only_the_latter_without_parameters() -> None:
    given = [{"key": "Target", "value": {"Id": ID}}, {"key": "SubordinateId", "value": LOSER.upper()}]
    [merged], [short] = (
        said(MessageName="Merge", InputParameters=given).hints,
        said(MessageName="Merge", InputParameters=None).hints,
    )

    assert (merged.change.op, merged.change.native_id, merged.change.into) == ("MERGED", LOSER, ID)
    assert (short.change.op, short.change.native_id) == ("CHANGED", ID)


@pytest.mark.parametrize("moment", [None, 7, "/Date(x)/", "/Date(99999999999999999)/", "/Date(999999999999999)/", "soon"])
def test_a_time_that_is_none_is_left_out(moment: Any) -> None:
    [hint] = said(InputParameters=None, OperationCreatedOn=moment).hints

    assert hint.change.at is None


# ---- webhooks ----


def test_what_happens_by_hand_and_by_the_api_arrives_and_says_what_happened(crm: System, hears: Receiver) -> None:
    edited, gone, loser, winner = live(crm)[:4]
    watched(crm, hears.url)

    dialect(crm).change("contact", edited, {"firstname": "Grete"})
    [made] = crm.write("contact", Write(verb="create", row={"lastname": "Neu"}))
    crm.write("contact", Write(verb="delete", native_id=gone))
    assert dialect(crm).merge("contact", loser, winner)
    known = {edited, made.native_id, gone, loser}
    hears.wait(
        lambda all: len(known & {hint.change.native_id for each in all for hint in Dynamics.events(each, [SECRET]).hints}) == 4
    )

    heard = [Dynamics.events(each, [SECRET]) for each in hears.deliveries]
    told = ops([hint.change for each in heard for hint in each.hints], *map(str, known))
    assert told == {
        edited: ("CHANGED", None),
        made.native_id: ("CHANGED", None),
        gone: ("DELETED", None),
        loser: ("MERGED", winner),
    }
    assert {each.account for each in heard} == {crm.run(lambda source, api: source.adapter.check(api)).account}
    [update] = [each for each in map(orjson.loads, (each.body for each in hears.deliveries)) if each["PrimaryEntityId"] == edited]
    assert {each["key"] for each in update["InputParameters"][0]["value"]["Attributes"]} == {
        "firstname",
        "fullname",
        "modifiedon",
    }


@pytest.mark.parametrize("kind", ["lead", "account", "deal"])
def test_every_kind_is_watched(crm: System, hears: Receiver, kind: Kind) -> None:
    watched(crm, hears.url)
    id = live(crm, kind)[0]

    dialect(crm).change(kind, id, {"description": "Anything else"})
    [told] = hears.wait(bool)

    [hint] = Dynamics.events(told, [SECRET]).hints
    assert (hint.change.kind, hint.change.native_id) == (kind, id)


def test_watching_again_keeps_what_is_there_with_four_calls(crm: System) -> None:
    first = watched(crm, "https://c360.example/webhooks/crm")
    again = watched(crm, "https://c360.example/webhooks/crm")

    assert again == first
    assert len(first) == 1 + 4 * 3 + 3  # the endpoint; made, edited, deleted of four tables, merged of three
    assert calls(crm) == 4
    assert len({each["id"] for each in crm.dialect.subscriptions()}) == 15


def test_a_step_that_was_deleted_or_switched_off_comes_back(crm: System) -> None:
    watched(crm, "https://c360.example/webhooks/crm")
    steps = dialect(crm).store.tables["sdkmessageprocessingstep"]
    off, gone = [row["sdkmessageprocessingstepid"] for row in steps][:2]
    steps.put(off, {**(steps.get(off) or {}), "statecode": 1, "statuscode": 2})
    steps.remove(gone)

    watches = watched(crm, "https://c360.example/webhooks/crm")

    assert len(watches) == 16
    assert all(each["active"] for each in crm.dialect.subscriptions())


def test_a_new_key_is_taken_over_by_the_endpoint_that_is_there(crm: System, hears: Receiver) -> None:
    watched(crm, hears.url, "old")
    watched(crm, hears.url, "new")
    dialect(crm).change("contact", live(crm)[0], {"firstname": "Grete"})
    [told] = hears.wait(bool)

    assert Dynamics.events(told, ["new"]).hints
    with pytest.raises(SignatureError):
        Dynamics.events(told, ["old"])


def test_the_key_cannot_be_read_back(crm: System) -> None:
    watched(crm, "https://c360.example/webhooks/crm")
    tokens = crm.dialect.tokens
    assert tokens is not None
    headers = {"authorization": f"Bearer {tokens.issue('test')}"}
    with httpx.Client(base_url=f"{crm.address}/dynamics/api/data/v9.2/", headers=headers) as http:
        listed, asked = http.get("serviceendpoints"), http.get("serviceendpoints?$select=authvalue")

    assert "our-own-key" not in listed.text
    assert asked.status_code == 400


def test_ending_ends_only_the_webhook_of_that_address(crm: System) -> None:
    watched(crm, "https://c360.example/webhooks/one")
    watched(crm, "https://c360.example/webhooks/two")

    ended = crm.run(lambda source, api: source.adapter.unwatch(api, "https://c360.example/webhooks/one"))
    again = crm.run(lambda source, api: source.adapter.unwatch(api, "https://c360.example/webhooks/one"))

    assert (ended, again) == (1, 0)
    assert {each["url"] for each in crm.dialect.subscriptions()} == {"https://c360.example/webhooks/two"}


def test_what_an_administrator_registers_by_hand_is_heard_as_well(crm: System, hears: Receiver) -> None:
    dialect(crm).hook(hears.url, SECRET)
    dialect(crm).delete("contact", live(crm)[0])

    assert Dynamics.events(hears.wait(bool)[0], [SECRET]).hints


def test_an_edit_that_changes_nothing_is_not_sent_and_a_change_set_that_fails_neither(crm: System, hears: Receiver) -> None:
    watched(crm, hears.url)
    first, second = live(crm)[:2]
    row = crm.row("contact", first)
    assert row is not None
    dialect(crm).change("contact", first, {"firstname": row["firstname"]})
    with dialect(crm).store.transaction() as roll_back:
        dialect(crm).change("contact", first, {"firstname": "Undone"})
        roll_back()
    dialect(crm).change("contact", second, {"firstname": "Grete"})
    hears.wait(bool)

    assert [orjson.loads(each.body)["PrimaryEntityId"] for each in hears.deliveries] == [second]


def test_a_body_above_256_kb_comes_without_parameters(crm: System, hears: Receiver) -> None:
    watched(crm, hears.url)
    id = live(crm)[0]

    dialect(crm).change("contact", id, {"description": "x" * 300_000})
    [told] = hears.wait(bool)

    assert told.headers["x-ms-dynamics-msg-size-exceeded"] == "true"
    assert "InputParameters" not in orjson.loads(told.body)
    assert Dynamics.events(told, [SECRET]).hints[0].change.native_id == id


@pytest.mark.parametrize(("status", "times"), [(503, 2), (500, 1)])
def test_only_gateways_that_fail_are_tried_once_more(crm: System, hears: Receiver, status: int, times: int) -> None:
    watched(crm, hears.url)
    hears.status = status
    dialect(crm).change("contact", live(crm)[0], {"firstname": "Grete"})
    until = time.monotonic() + 5
    while dialect(crm).outbox.busy() or not hears.deliveries:
        assert time.monotonic() < until
        crm.sandbox.clock.advance(10)
        time.sleep(0.05)

    assert len(hears.deliveries) == times
    assert len({hint.id for each in hears.deliveries for hint in Dynamics.events(each, [SECRET]).hints}) == 1


# ---- the feed ----


def test_a_feed_begins_with_everything_page_by_page(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.dynamics_live.PAGE", 7)
    follower = Follower("contact", ("firstname",))
    told = passed(crm, follower)

    assert ids(told) == {row["contactid"] for row in crm.dialect.tables["contact"]}
    assert follower.pages == -(-len(crm.dialect.tables["contact"]) // 7)
    assert all(each.op == "MERGED" and each.into for each in told if (crm.row("contact", each.native_id) or {})["merged"])
    assert passed(crm, follower) == []


def test_a_pass_tells_made_edited_deleted_and_merged_records_with_one_call(crm: System) -> None:
    follower = began(crm)
    edited, gone, loser, winner = live(crm)[:4]

    dialect(crm).change("contact", edited, {"firstname": "Grete"})
    made, brief = crm.write(
        "contact", Write(verb="create", row={"lastname": "Neu"}), Write(verb="create", row={"lastname": "Brief"})
    )
    dialect(crm).delete("contact", gone)
    dialect(crm).delete("contact", str(brief.native_id))
    assert dialect(crm).merge("contact", loser, winner)
    told = passed(crm, follower)

    assert calls(crm) == 1
    wanted = (edited, str(made.native_id), gone, str(brief.native_id), loser, winner)
    assert ops(told, *wanted) == {
        edited: ("CHANGED", None), made.native_id: ("CHANGED", None), gone: ("DELETED", None), brief.native_id: ("DELETED", None), loser: ("MERGED", winner),
        winner: ("CHANGED", None),
    }  # fmt: skip
    [row] = [each.row for each in told if each.native_id == edited]
    assert row is not None
    assert row["firstname"] == "Grete"
    assert ops(passed(crm, follower), *wanted) == {}


@pytest.mark.parametrize("kind", ["contact", "account", "lead", "deal"])
def test_a_tracked_row_is_what_reading_by_id_gives(crm: System, kind: Kind) -> None:
    async def work(source: Any, api: Noted) -> tuple[list[Change], list[Row | None], tuple[str, ...]]:
        meta = await api.described(kind)
        mapped = [path for rule in Dynamics.kinds[kind].mapping.values() for path in _paths(rule)]
        fields = tuple(dict.fromkeys([*mapped, *(each.path for each in meta.fields.values() if each.custom)]))
        told = await Follower(kind, fields).passed(source.adapter, api)
        living = [each for each in told if each.op == "CHANGED"]
        read = await source.adapter.read(api, kind, [each.native_id for each in living], fields)
        return living, read, fields

    told, read, fields = crm.run(work)

    assert told
    assert all(each.row is not None for each in told)
    for each, row in zip(told, read, strict=True):
        assert [_at(each.row, path) for path in fields] == [_at(row, path) for path in fields]


def _paths(rule: Any) -> list[str]:
    if isinstance(rule, str):
        return [rule]
    if "money" in rule:
        return [rule["money"]["amount"], rule["money"]["currency"]]
    return [rule["path"]] if "path" in rule else list(rule["paths"])


def _at(row: Row | None, path: str) -> Any:
    head, _, rest = path.partition(".")
    value = (row or {}).get(head)
    if path.startswith("@odata."):
        return (row or {})["@odata"][path.removeprefix("@odata.")]
    return value if not rest else (value or {}).get(rest)


def test_what_only_an_expanded_lookup_tells_is_left_to_be_read(crm: System) -> None:
    follower = began(crm, "contact", "firstname", "parentcustomerid_account.name")
    dialect(crm).change("contact", live(crm)[0], {"firstname": "Grete"})

    [told] = passed(crm, follower)

    assert (told.op, told.row) == ("CHANGED", None)


def test_a_label_or_a_table_that_is_not_told_leaves_the_record_to_be_read(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.dynamics_reading._wanted", lambda *_: False)
    labels, lookups = (
        Follower("account", ("@formatted.industrycode",)),
        Follower("contact", ("parentcustomerid_account.accountid",)),
    )

    assert {each.row for each in passed(crm, labels)} == {None}
    assert any(each.row is None for each in passed(crm, lookups))


def test_other_columns_begin_a_listing_anew_and_lose_no_deletion(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = began(crm)
    gone, edited = live(crm)[:2]
    dialect(crm).delete("contact", gone)
    dialect(crm).change("contact", edited, {"jobtitle": "Chief"})
    monkeypatch.setattr("adapters.dynamics_live.PAGE", 20)
    follower.fields = ("firstname", "jobtitle")

    told = passed(crm, follower)
    dialect(crm).change("contact", edited, {"jobtitle": "Other"})
    [after] = passed(crm, follower)

    assert ops(told, gone) == {gone: ("DELETED", None)}
    assert ids(told) >= set(live(crm))
    assert after.row is not None
    assert after.row["jobtitle"] == "Other"


def test_what_changes_while_everything_is_listed_is_not_lost(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.dynamics_live.PAGE", 7)
    every = [row["contactid"] for row in crm.dialect.tables["contact"]]
    edited, gone = live(crm)[:2]

    async def work(source: Any, api: Noted) -> list[Change]:
        first = await source.adapter.changes(api, "contact", None, ("firstname",), now=datetime.now(UTC))
        dialect(crm).change("contact", edited, {"firstname": "Grete"})
        dialect(crm).delete("contact", gone)
        rest = Follower("contact", ("firstname",), cursor=first.cursor)
        told = [*first.changes, *await rest.passed(source.adapter, api)]
        return told + await rest.passed(source.adapter, api)

    told = crm.run(work)

    assert ids(told) == set(every)
    assert [each.op for each in told if each.native_id == gone][-1] == "DELETED"
    assert [each.row["firstname"] for each in told if each.native_id == edited and each.row][-1] == "Grete"


def test_more_changes_than_a_page_of_one_moment_are_all_told(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = began(crm)
    monkeypatch.setattr("adapters.dynamics_live.PAGE", 4)
    edited = live(crm)[:9]
    for id in edited:
        dialect(crm).change("contact", id, {"firstname": "Grete"})

    assert ids(passed(crm, follower)) == set(edited)
    assert follower.pages == 3


def test_a_change_that_is_committed_late_is_told(crm: System) -> None:
    follower = began(crm)
    with crm.sandbox.clock.behind(3600):
        dialect(crm).change("contact", live(crm)[0], {"firstname": "Late"})

    assert ids(passed(crm, follower)) == {live(crm)[0]}


def test_a_link_is_good_for_seven_days(crm: System) -> None:
    follower = began(crm)
    crm.sandbox.clock.advance(6 * 86_400)
    passed(crm, follower)
    crm.sandbox.clock.advance(7 * 86_400 + 60)

    with pytest.raises(CursorExpiredError) as expired:
        passed(crm, follower)
    follower.cursor = None

    assert expired.value.upstream_code == "0x80044352"
    assert ids(passed(crm, follower)) >= set(live(crm))


def test_a_table_that_is_not_tracked_is_no_link_that_was_forgotten(crm: System) -> None:
    crm.broken("status", path="*/contacts", status=400)

    with pytest.raises(Exception) as refused:
        began(crm)

    assert not isinstance(refused.value, CursorExpiredError)


class Said:
    """An api that always says the same."""

    def __init__(self, **body: Any) -> None:
        self.body = body

    async def send(self, _: Any) -> Response:
        return Response(status=200, headers={}, body=orjson.dumps({"value": [], **self.body}))


def test_links_that_lead_nowhere_are_refused(crm: System) -> None:
    page = "https://org.crm.dynamics.com/api/data/v9.2/contacts?$skiptoken=1"

    async def work(source: Any, api: Noted, **body: Any) -> Any:
        cursor = None
        for _ in range(2):
            cursor = (await source.adapter.changes(Said(**body), "contact", cursor, ("firstname",), now=datetime.now(UTC))).cursor

    for body in ({}, {"@odata.nextLink": page}):
        with pytest.raises(ProtocolError):
            crm.run(lambda source, api, body=body: work(source, api, **body))  # type: ignore[misc]


def test_tracking_takes_no_filter_order_or_expand(crm: System) -> None:
    tokens = crm.dialect.tokens
    assert tokens is not None
    headers = {"authorization": f"Bearer {tokens.issue('test')}", "prefer": "odata.track-changes"}
    with httpx.Client(base_url=f"{crm.address}/dynamics/api/data/v9.2/", headers=headers) as http:
        for query in (
            "$filter=firstname eq 'a'",
            "$orderby=createdon",
            "$top=1",
            "$expand=parentcustomerid_account($select=name)",
        ):
            assert "isn't supported when Change Tracking is enabled" in http.get(f"contacts?{query}").json()["error"]["message"]


def test_following_costs_a_fifth_of_listing_everything_at_most(crm: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of records that fill six pages one in a hundred changes before each pass."""
    size = -(-len(live(crm)) // 6)
    monkeypatch.setattr(Dynamics, "kinds", {**Dynamics.kinds, "contact": replace(Dynamics.kinds["contact"], page=size)})
    monkeypatch.setattr("adapters.dynamics_live.PAGE", size)
    follower = Follower("contact", ("firstname", "parentcustomerid_account.accountid"))
    passed(crm, follower)
    listing, following = calls(crm), 0
    for turn in range(6):
        dialect(crm).change("contact", live(crm)[turn], {"firstname": "Grete"})
        assert len(passed(crm, follower)) == 1
        following += calls(crm)

    assert following <= 6 * 0.2 * listing


def test_an_endpoint_that_has_steps_cannot_be_deleted_in_the_sandbox(crm: System) -> None:
    [endpoint, *_] = watched(crm, "https://c360.example/webhooks/crm")

    async def work(source: Any, api: Noted) -> None:
        from adapters.dynamics_live import Registration

        await Registration(api, "/api/data/v9.2")._sent("DELETE", f"serviceendpoints({endpoint.native_id})", None)

    with pytest.raises(RejectedError):
        crm.run(work)
