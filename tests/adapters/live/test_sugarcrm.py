"""How SugarCRM tells of changes: filters that show deleted records, and web logic hooks that cron sends."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Write
from adapters.changes import Change, Delivery
from adapters.sugarcrm import SugarCRM
from model.errors import ProtocolError, SignatureError
from model.records import Kind
from sandbox.sugarcrm import SugarCRM as Instance
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "our-own-secret"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS: dict[Kind, tuple[str, ...]] = {
    "contact": ("id", "date_entered", "date_modified", "first_name"), "lead": ("id", "date_entered", "date_modified", "status"),
    "account": ("id", "date_entered", "date_modified", "name"), "deal": ("id", "date_entered", "date_modified", "amount", "currency_code"),
}  # fmt: skip
EDITS: dict[Kind, dict[str, str]] = {
    "contact": {"first_name": "Grete"}, "lead": {"status": "Dead"}, "account": {"industry": "Energy"}, "deal": {"next_step": "call"},
}  # fmt: skip
# After the documents' example; its inner forms are unverified.
SAVED: dict[str, Any] = {
    "isUpdate": True, "dataChanges": {"status": {"field_name": "status", "data_type": "enum", "before": "New", "after": "Assigned"}},
    "bean": "Contact", "data": {"id": "seed_max_id", "name": "x", "date_modified": "2026-02-03T10:23:28-04:00"}, "event": "after_save",
}  # fmt: skip


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


def live(instance: System, kind: Kind = "contact") -> list[str]:
    return sorted(row["id"] for row in instance.dialect.tables[kind] if not row["deleted"])


def passed(instance: System, follower: Follower) -> tuple[list[Change], int]:
    """Make a pass; return what it told, and its calls."""

    async def work(source: Any, api: Any) -> tuple[list[Change], int]:
        return await follower.passed(source.adapter, api), len(api.sent)

    return instance.run(work)


def watched(instance: System, url: str, secret: str = SECRET) -> tuple[list[str], int]:
    async def work(source: Any, api: Any) -> tuple[list[str], int]:
        return [each.native_id for each in await source.adapter.watch(api, url, secret)], len(api.sent)

    return instance.run(work)


def by_cron(instance: System, ours: Receiver, many: int) -> list[Delivery]:
    """Let cron run until so many came: what was queued just now may have missed a run."""

    def enough(came: list[Delivery]) -> bool:
        return len(came) >= many

    for _ in range(50):
        if enough(ours.deliveries):
            break
        instance.sandbox.clock.advance(61)
        time.sleep(0.1)
    return ours.wait(enough)


def told(came: list[Delivery], secret: str = SECRET) -> set[tuple[str, str, str]]:
    found = [hint.change for each in came for hint in SugarCRM.events(each, [secret]).hints]
    return {(each.kind, each.native_id, each.op) for each in found}


def delivery(body: Any, secret: str | None = SECRET) -> Delivery:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    query = {"secret": secret} if secret is not None else {}
    return Delivery(method="POST", url="https://live.example/webhooks/1", headers={}, body=raw, at=NOW, query=query)


# ---- the feed ----


@pytest.mark.parametrize("kind", ["contact", "lead", "account", "deal"])
def test_one_filter_tells_edits_deletes_and_merges(instance: System, kind: Kind) -> None:
    edited, gone, loser, winner = live(instance, kind)[:4]
    follower = Follower(kind, FIELDS[kind])
    passed(instance, follower)

    dialect(instance).change(kind, edited, EDITS[kind])
    instance.write(kind, Write(verb="delete", native_id=gone))
    assert dialect(instance).merge(kind, loser, winner)
    changes, calls = passed(instance, follower)

    ops = {each.native_id: (each.op, each.row is None) for each in changes}
    assert ops[edited] == ("CHANGED", False)
    assert ops[gone] == ops[loser] == ("DELETED", True)  # nothing names whom it went into
    assert ops[winner] == ("CHANGED", False)
    assert calls == 1


def test_ties_over_several_pages_are_all_told(instance: System, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower("contact", FIELDS["contact"])
    passed(instance, follower)
    table, many = dialect(instance).tables["contact"], live(instance)[:30]
    for id in many:
        table.put(id, {**(table.get(id) or {}), "date_modified": "2099-01-01T05:30:00+05:30"})

    monkeypatch.setattr(SugarCRM, "kinds", {**SugarCRM.kinds, "contact": replace(SugarCRM.kinds["contact"], page=7)})
    changes, _ = passed(instance, follower)

    assert ids(changes) >= set(many)


def test_a_change_that_is_saved_late_is_told(instance: System) -> None:
    early, late, gone = live(instance)[:3]
    follower = Follower("contact", FIELDS["contact"])
    passed(instance, follower)
    dialect(instance).change("contact", early, {"first_name": "Early"})
    passed(instance, follower)

    instance.broken("late_commit", seconds=150, times=2)  # of which 60 and more go by before
    url = f"{instance.address}/_control/records/sugarcrm/contact"
    httpx.patch(f"{url}/{late}", json={"first_name": "Late"}).raise_for_status()
    httpx.delete(f"{url}/{gone}").raise_for_status()
    changes, _ = passed(instance, follower)

    assert {late, gone} <= ids(changes)


@pytest.mark.parametrize("kind", ["contact", "lead", "account", "deal"])
def test_a_pass_costs_a_hundredth_of_a_listing(kind: Kind) -> None:
    with system("sugarcrm", people=1000) as instance:
        follower = Follower(kind, FIELDS[kind])
        passed(instance, follower)
        many = live(instance, kind)[:150]
        for id in many:
            instance.dialect.change(kind, id, EDITS[kind])

        changes, calls = passed(instance, follower)

        assert ids(changes) >= set(many)
        assert calls <= 2  # 15,000 records are listed in 75 calls


# ---- deliveries ----


def test_a_delivery_is_read_by_bean_and_id_alone() -> None:
    [hint] = SugarCRM.events(delivery(SAVED), ["new", SECRET]).hints
    [again] = SugarCRM.events(delivery(SAVED), [SECRET]).hints
    [other] = SugarCRM.events(delivery({**SAVED, "dataChanges": {}}), [SECRET]).hints
    [gone] = SugarCRM.events(delivery({"bean": "Opportunity", "data": {"id": "a-1"}, "event": "after_delete"}), [SECRET]).hints

    assert hint.change == Change(kind="contact", native_id="seed_max_id", at=datetime(2026, 2, 3, 14, 23, 28, tzinfo=UTC))
    assert again == hint
    assert other.id != hint.id
    assert gone.change == Change(kind="deal", native_id="a-1", op="DELETED")


@pytest.mark.parametrize("changed", [{"bean": "Call"}, {"event": "after_login"}, {"event": "after_relationship_add"}])
def test_what_is_nothing_of_ours_gives_no_hints(changed: dict[str, str]) -> None:
    assert list(SugarCRM.events(delivery({**SAVED, **changed}), [SECRET]).hints) == []


@pytest.mark.parametrize("said", [None, "", "our-own", "é"])
def test_a_delivery_without_the_right_secret_is_refused(said: str | None) -> None:
    for secrets in ([SECRET], [], [""]):
        with pytest.raises(SignatureError):
            SugarCRM.events(delivery(SAVED, said), secrets)


@pytest.mark.parametrize(
    "body", [b"<x/>", [], {**SAVED, "data": {}}, {**SAVED, "data": None}, {**SAVED, "data": {"id": "x" * 37}}]
)
def test_a_delivery_that_cannot_be_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        SugarCRM.events(delivery(body), [SECRET])


# ---- hooks ----


def test_hooks_are_made_once_kept_mended_and_ended(instance: System, ours: Receiver) -> None:
    first, calls = watched(instance, ours.url)
    again, calls_again = watched(instance, ours.url)
    hooks = dialect(instance)._hooks
    hooks.delete(first[0])
    doubled = hooks.create({key: value for key, value in hooks.get(first[1]).items() if key != "id"})
    stranger = hooks.create({**hooks.get(first[1]), "url": f"{ours.url}s?x=1"})
    mended, _ = watched(instance, ours.url, "another")
    urls = {hook["url"] for hook in dialect(instance).subscriptions() if hook["id"] in mended}

    async def end(source: Any, api: Any) -> int:
        ended: int = await source.adapter.unwatch(api, ours.url)
        return ended

    ended = instance.run(end)

    assert (len(first), calls, calls_again, again) == (8, 2, 1, first)
    assert len(set(mended) & {*first[1:], doubled["id"]}) == 7
    assert urls == {f"{ours.url}?secret=another"}
    assert ended == 8
    assert [hook["id"] for hook in dialect(instance).subscriptions()] == [stranger["id"]]


def test_whatever_way_a_record_changes_cron_sends_it(instance: System, ours: Receiver) -> None:
    watched(instance, ours.url)
    edited, removed, gone, loser, winner = live(instance)[:5]

    url = f"{instance.address}/_control/records/sugarcrm/contact"
    httpx.patch(f"{url}/{edited}", json={"first_name": "Grete"}).raise_for_status()
    httpx.delete(f"{url}/{removed}").raise_for_status()
    at_once = list(ours.deliveries)
    [made] = instance.write("lead", Write(verb="create", row={"last_name": "Newcomer"}))
    instance.write("contact", Write(verb="delete", native_id=gone))
    assert dialect(instance).merge("contact", loser, winner)
    came = by_cron(instance, ours, 6)

    assert at_once == []
    assert told(came) == {
        ("contact", edited, "CHANGED"), ("contact", removed, "DELETED"), ("lead", made.native_id, "CHANGED"), ("contact", gone, "DELETED"),
        ("contact", loser, "DELETED"), ("contact", winner, "CHANGED"),
    }  # fmt: skip
    [edit] = [orjson.loads(each.body) for each in came if orjson.loads(each.body)["data"]["id"] == edited]
    assert edit["isUpdate"] is True
    assert edit["dataChanges"]["first_name"]["after"] == "Grete"
    assert "date_modified" not in edit["dataChanges"]


def test_a_delivery_that_fails_is_not_repeated_and_the_feed_tells_it(instance: System, ours: Receiver) -> None:
    watched(instance, ours.url)
    follower = Follower("contact", FIELDS["contact"])
    passed(instance, follower)
    [edited, *_] = live(instance)

    ours.status = 500
    dialect(instance).change("contact", edited, {"first_name": "Grete"})
    by_cron(instance, ours, 1)
    instance.sandbox.clock.advance(3600)
    changes, _ = passed(instance, follower)

    assert len(ours.deliveries) == 1
    assert edited in ids(changes)
