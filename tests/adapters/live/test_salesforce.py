"""How Salesforce tells of changes: SOQL over the recycle bin, too, and calls of an administrator's flows."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Changes, Delivery
from adapters.salesforce import Salesforce
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.faults import Fault
from sandbox.salesforce import Salesforce as Org
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "our-own-secret"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = ("FirstName", "LastName", "Name")


@pytest.fixture
def org() -> Iterator[System]:
    with system("salesforce") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(org: System) -> Org:
    assert isinstance(org.dialect, Org)
    return org.dialect


def live(org: System, kind: Kind = "contact") -> list[str]:
    return sorted(row["Id"] for row in org.dialect.tables[kind] if not row["IsDeleted"])


def follow(org: System, cursor: str | None, kind: Kind = "contact", *, now: datetime = NOW) -> tuple[list[Change], str]:
    """Return what one whole pass tells."""
    found: list[Change] = []
    while True:
        at = cursor

        async def once(source: Any, api: Any, at: str | None = at) -> Changes:
            changes: Changes = await source.adapter.changes(api, kind, at, FIELDS, now=now)
            return changes

        page = org.run(once)
        found, cursor = found + page.changes, page.cursor
        if not page.more:
            return found, cursor


def ops(changes: list[Change], *ids: str) -> dict[str, tuple[str, str | None]]:
    return {each.native_id: (each.op, each.into) for each in changes if each.native_id in ids}


def delivery(body: Any, secret: str | None = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    headers = {"x-webhook-secret": secret} if secret is not None else {}
    return Delivery(method="POST", url="https://live.example/webhooks/1", headers=headers, body=raw, at=NOW)


# ---- the feed ----


def test_the_feed_tells_edits_deletes_and_merges_with_one_query(org: System) -> None:
    edited, gone, loser, winner = live(org)[:4]
    _, cursor = follow(org, None)

    dialect(org).change("contact", edited, {"FirstName": "Grete"})
    org.write("contact", Write(verb="delete", native_id=gone))
    assert dialect(org).merge("contact", loser, winner)
    changes, _ = follow(org, cursor)

    expected = {edited: ("CHANGED", None), gone: ("DELETED", None), loser: ("MERGED", winner), winner: ("CHANGED", None)}
    assert ops(changes, *expected) == expected
    [row] = [each.row for each in changes if each.native_id == edited]
    assert row is not None
    assert row["FirstName"] == "Grete"
    assert sum(count for path, count in org.dialect.calls.items() if "/queryAll" in path) == 1


@pytest.mark.parametrize("kind", ["account", "lead", "deal"])
def test_every_other_kind_has_a_feed(org: System, kind: Kind) -> None:
    edited, gone, loser, winner = live(org, kind)[:4]
    _, cursor = follow(org, None, kind)

    dialect(org).change(kind, edited, {"Name": "New name"})
    dialect(org).delete(kind, gone)
    merged = dialect(org).merge(kind, loser, winner)
    changes, _ = follow(org, cursor, kind)

    assert ops(changes, edited, gone) == {edited: ("CHANGED", None), gone: ("DELETED", None)}
    assert ops(changes, loser).get(loser) == (("MERGED", winner) if kind != "deal" else None)
    assert merged is (kind != "deal")
    assert Salesforce.kinds[kind].feed.merges is merged  # type: ignore[union-attr]


def test_what_goes_with_a_deleted_account_is_told(org: System) -> None:
    deals = dialect(org).tables["deal"]
    account = next(
        id
        for id in live(org, "account")
        if deals.having("AccountId", [id]) and not any(each["IsWon"] for each in deals.having("AccountId", [id]))
    )
    gone = [each["Id"] for each in deals.having("AccountId", [account]) if not each["IsDeleted"]]
    _, cursor = follow(org, None, "deal")

    org.write("account", Write(verb="delete", native_id=account))
    changes, _ = follow(org, cursor, "deal")

    assert gone
    assert ops(changes, *gone) == dict.fromkeys(gone, ("DELETED", None))


def test_more_rows_of_one_second_than_a_page_are_all_told(org: System, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cursor = follow(org, None)
    ids = live(org)[:30]
    for id in ids:
        dialect(org).change("contact", id, {"FirstName": "Grete"})
        row = dialect(org).tables["contact"].get(id) or {}
        dialect(org).tables["contact"].put(id, {**row, "SystemModstamp": "2099-01-01T00:00:00.000+0000"})
    monkeypatch.setattr(Salesforce, "kinds", {**Salesforce.kinds, "contact": replace(Salesforce.kinds["contact"], page=7)})
    changes, _ = follow(org, cursor)

    assert {each.native_id for each in changes} >= set(ids)


def test_a_change_that_is_committed_minutes_late_is_told(org: System) -> None:
    early, late = live(org)[:2]
    _, cursor = follow(org, None)
    dialect(org).change("contact", early, {"FirstName": "Early"})
    _, cursor = follow(org, cursor)

    org.sandbox.faults.add(Fault(system="salesforce", fault="late_commit", seconds=500.0, times=1))
    url = f"{org.address}/_control/records/salesforce/contact/{late}"
    httpx.patch(url, json={"FirstName": "Late"}).raise_for_status()
    changes, _ = follow(org, cursor)

    assert late in {each.native_id for each in changes}


def test_our_clock_may_be_off_by_days(org: System) -> None:
    edited, gone = live(org)[:2]
    _, cursor = follow(org, None, now=NOW + timedelta(days=10))

    dialect(org).change("contact", edited, {"FirstName": "Grete"})
    dialect(org).delete("contact", gone)
    changes, _ = follow(org, cursor, now=NOW - timedelta(days=10))

    assert ops(changes, edited, gone) == {edited: ("CHANGED", None), gone: ("DELETED", None)}


def test_a_cursor_that_is_older_than_the_recycle_bin_is_no_good(org: System) -> None:
    _, cursor = follow(org, None)

    with pytest.raises(CursorExpiredError):
        follow(org, cursor, now=NOW + timedelta(days=16))


@pytest.mark.parametrize("kind", ["contact", "lead", "account", "deal"])
def test_a_pass_costs_a_call(kind: Kind) -> None:
    with system("salesforce", people=1000) as org:
        _, cursor = follow(org, None, kind)
        ids = live(org, kind)[:200]
        for id in ids:
            org.dialect.change(kind, id, {"Description": "x"})

        changes, _ = follow(org, cursor, kind)

        assert {each.native_id for each in changes} >= set(ids)
        # 20,000 records are listed in 10 calls, so 200 of them may cost 2.
        assert sum(count for path, count in org.dialect.calls.items() if "/queryAll" in path) == 1


# ---- flows ----


def test_a_callout_is_read_by_object_and_id_alone() -> None:
    said = {
        "object": "Opportunity",
        "id": "006000000000001",
        "changedAt": "2026-11-25T11:59:58.000+0000",
        "run": "a",
        "Name": "x",
    }

    [hint] = Salesforce.events(delivery(said), ["new", SECRET]).hints
    [again] = Salesforce.events(delivery({**said, "id": "006000000000001AAA", "Name": "y"}), [SECRET]).hints
    [other] = Salesforce.events(delivery({**said, "run": "b"}), [SECRET]).hints

    assert hint.change == Change(kind="deal", native_id="006000000000001AAA", at=datetime(2026, 11, 25, 11, 59, 58, tzinfo=UTC))
    assert again == hint
    assert other.id != hint.id
    assert list(Salesforce.events(delivery({**said, "object": "Campaign"}), [SECRET]).hints) == []


@pytest.mark.parametrize("given", [delivery({}, None), delivery({}, ""), delivery({}, "our-own"), delivery({}, "é")])
def test_a_callout_without_the_right_secret_is_refused(given: Delivery) -> None:
    for secrets in ([SECRET], [], [""]):
        with pytest.raises(SignatureError):
            Salesforce.events(given, secrets)


@pytest.mark.parametrize(
    "body",
    [
        b"<xml/>", [], {"object": "Contact"}, {"object": "Contact", "id": "003' OR Id != '"}, {"object": "Contact", "id": "003000000000001"},
        {"object": "Contact", "id": "003000000000001", "changedAt": "yesterday"},
        {"object": "Contact", "id": "003000000000001", "changedAt": "2026-11-25T11:59:58"},
    ],
)  # fmt: skip
def test_a_callout_that_is_not_of_the_template_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        Salesforce.events(delivery(body), [SECRET])


def test_edits_by_hand_and_by_calls_run_the_flows(org: System, ours: Receiver) -> None:
    dialect(org).hook(ours.url, SECRET)
    edited, gone = live(org)[:2]

    url = f"{org.address}/_control/records/salesforce/contact/{edited}"
    httpx.patch(url, json={"FirstName": "Grete"}).raise_for_status()
    [made] = org.write("contact", Write(verb="create", row={"LastName": "Newcomer"}))
    org.write("contact", Write(verb="delete", native_id=gone))
    org.write("account", Write(verb="update", native_id=live(org, "account")[0], row={"Industry": "Energy"}))
    came = ours.wait(lambda came: len(came) >= 3)

    hints = [hint for each in came for hint in Salesforce.events(each, [SECRET]).hints]
    told = {(hint.change.kind, hint.change.native_id) for hint in hints}
    assert told == {("contact", edited), ("contact", made.native_id), ("account", live(org, "account")[0])}
    assert {hint.change.op for hint in hints} == {"CHANGED"}
    assert len(dialect(org).subscriptions()) == 4


def test_what_is_taken_back_runs_no_flow(org: System, ours: Receiver) -> None:
    dialect(org).hook(ours.url, SECRET)
    token = dialect(org).tokens
    assert token is not None
    headers = {"authorization": f"Bearer {token.issue('test')}"}
    records = [{"attributes": {"type": "Contact"}, "LastName": "Good"}, {"attributes": {"type": "Contact"}}]
    url = f"{org.address}/salesforce/services/data/v60.0/composite/sobjects"

    answer = httpx.post(url, json={"allOrNone": True, "records": records}, headers=headers)
    httpx.post(url, json={"records": [{"attributes": {"type": "Lead"}, "LastName": "Kept", "Company": "C"}]}, headers=headers)
    came = ours.wait(lambda came: len(came) >= 1)

    assert [each["success"] for each in answer.json()] == [False, False]
    assert [hint.change.kind for each in came for hint in Salesforce.events(each, [SECRET]).hints] == ["lead"]
