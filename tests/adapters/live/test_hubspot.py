"""How HubSpot tells of changes: signed webhooks of an app, search by time, the list of archived records."""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from hubspot.utils.signature import Signature

from adapters.base import Write
from adapters.changes import Change, Changes, Delivery, Hint, instant
from adapters.hubspot import HubSpot
from model.errors import CursorExpiredError, ProtocolError, SignatureError
from model.records import Kind
from sandbox.faults import Fault
from sandbox.hubspot import CLIENT_SECRET
from sandbox.hubspot import HubSpot as Portal
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FIELDS = ("properties.email", "properties.firstname", "properties.dealname")
COMMON = {
    "eventId": 100,
    "subscriptionId": 111111,
    "portalId": 62515,
    "appId": 54321,
    "occurredAt": 1770110127000,
    "attemptNumber": 0,
}


@pytest.fixture
def portal() -> Iterator[System]:
    with system("hubspot") as running:
        yield running


@pytest.fixture
def ours() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


def dialect(portal: System) -> Portal:
    assert isinstance(portal.dialect, Portal)
    return portal.dialect


def delivery(
    body: Any, *, url: str = "https://live.example/webhooks/hubspot", secret: str = SECRET, at: datetime = NOW
) -> Delivery:
    raw, stamp = body if isinstance(body, bytes) else orjson.dumps(body), str(int(at.timestamp() * 1000))
    text = f"POST{url}".encode() + raw + stamp.encode()
    signature = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode()
    headers = {"x-hubspot-signature-v3": signature, "x-hubspot-request-timestamp": stamp}
    return Delivery(method="POST", url=url, headers=headers, body=raw, at=NOW)


def told(*events: dict[str, Any]) -> list[Change]:
    return [hint.change for hint in HubSpot.events(delivery([{**COMMON, **each} for each in events]), [SECRET]).hints]


def contact(portal: System, nth: int = 0) -> str:
    return [str(each.id) for each in portal.sandbox.world.profiles["hubspot"] if not each.deleted][nth]


def follow(portal: System, cursor: str | None, kind: Kind = "contact", *, now: datetime = NOW) -> tuple[list[Change], str]:
    """Return what one whole pass tells, after search has caught up."""
    found: list[Change] = []
    portal.sandbox.clock.advance(6)
    while True:
        at = cursor

        async def once(source: Any, api: Any, at: str | None = at) -> Changes:
            changes: Changes = await source.adapter.changes(api, kind, at, FIELDS, now=now)
            return changes

        page = portal.run(once)
        found, cursor = found + page.changes, page.cursor
        if not page.more:
            return found, cursor


def ops(changes: list[Change], *ids: str) -> dict[str, str]:
    """Return id → op; of several, the one that is no mere change."""
    found: dict[str, str] = {}
    for each in changes:
        if each.native_id in ids and found.get(each.native_id, "CHANGED") == "CHANGED":
            found[each.native_id] = each.op
    return found


# ---- proof ----


def test_the_vendors_own_signature_is_accepted() -> None:
    # The vector of the official Python client's tests; its body is no JSON.
    headers = {
        "x-hubspot-signature-v3": "HPW73RUtKmcYoEDADG0s6MmGFWUzWJKAW07r8RDgcQw=", "x-hubspot-request-timestamp": "15000000",
    }  # fmt: skip
    given = Delivery(
        method="POST", url="https://www.example.com/webhook_uri", headers=headers, body=b"{'example_field':'example_value'}",
        at=instant(15_000_000),
    )  # fmt: skip

    with pytest.raises(ProtocolError):
        HubSpot.events(given, [SECRET])

    with pytest.raises(SignatureError):
        HubSpot.events(replace(given, body=given.body + b" "), [SECRET])


@pytest.mark.parametrize(
    "forged",
    [
        lambda good: replace(good, body=good.body.replace(b"512", b"513")),
        lambda good: replace(good, body=good.body[:-1]),
        lambda good: replace(good, url=good.url + "?a=b"),
        lambda good: replace(good, method="PUT"),
        lambda good: replace(good, headers={}),
        lambda good: replace(
            good, headers={**good.headers, "x-hubspot-signature-v3": good.headers["x-hubspot-signature-v3"][:-4]}
        ),
        lambda good: replace(good, headers={**good.headers, "x-hubspot-signature-v3": "é"}),
        lambda good: replace(good, headers={**good.headers, "x-hubspot-request-timestamp": "1"}),
        lambda good: replace(good, headers={**good.headers, "x-hubspot-request-timestamp": "²"}),
        lambda good: replace(good, at=NOW + timedelta(seconds=301)),
        lambda good: replace(good, at=NOW - timedelta(seconds=301)),
    ],
    ids=["body", "cut", "query", "method", "unsigned", "short", "odd", "time", "digits", "old", "early"],
)
def test_what_is_forged_cut_or_stale_is_refused(forged: Any) -> None:
    good = delivery([{**COMMON, "subscriptionType": "contact.creation", "objectId": 512}])
    assert HubSpot.events(good, [SECRET]).hints

    with pytest.raises(SignatureError):
        HubSpot.events(forged(good), [SECRET])


def test_any_of_two_secrets_proves_and_none_proves_nothing() -> None:
    given = delivery([])

    assert HubSpot.events(given, ["new", SECRET]).account is None
    for secrets in ([], ["new"], [""]):
        with pytest.raises(SignatureError):
            HubSpot.events(given, secrets)


def test_an_address_is_signed_with_some_of_its_escapes_undone() -> None:
    signed = delivery([], url="https://live.example/hook?to=a:b/c,d&e=%20")
    came = replace(signed, url="https://live.example/hook?to=a%3Ab%2fc%2Cd&e=%20")

    assert list(HubSpot.events(came, [SECRET]).hints) == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>", b"{}", b"[1]", b'[{"subscriptionType": "contact.creation"}]',
        [{**COMMON, "subscriptionType": "contact.creation"}],
        [{**COMMON, "subscriptionType": "contact.creation", "objectId": "../1"}],
        [{**COMMON, "subscriptionType": "contact.merge", "primaryObjectId": 1, "mergedObjectIds": None}],
        [{**COMMON, "portalId": 1}, {**COMMON, "portalId": 2}],
    ],
)  # fmt: skip
def test_what_is_proved_and_not_understood_is_told_apart(body: Any) -> None:
    with pytest.raises(ProtocolError):
        HubSpot.events(delivery(body), [SECRET])


# ---- what events say ----


def test_the_documents_examples_are_read() -> None:
    at = instant(1770110127000)

    assert told(
        {"subscriptionType": "contact.propertyChange", "objectId": 512, "propertyName": "email", "propertyValue": "x"}
    ) == [Change(kind="contact", native_id="512", at=at)]
    assert told({
        "subscriptionType": "contact.associationChange", "associationType": "CONTACT_TO_COMPANY", "fromObjectId": 512, "toObjectId": 9001,
        "associationRemoved": False, "isPrimaryAssociation": True,
    }) == [Change(kind="contact", native_id="512", at=at), Change(kind="account", native_id="9001", at=at)]  # fmt: skip
    assert told({
        "subscriptionType": "contact.merge", "objectId": 512, "primaryObjectId": 512, "mergedObjectIds": [77], "newObjectId": 600,
    }) == [
        Change(kind="contact", native_id="512", op="MERGED", at=at, into="600"),
        Change(kind="contact", native_id="77", op="MERGED", at=at, into="600"),
        Change(kind="contact", native_id="600", at=at),
    ]  # fmt: skip
    assert told(
        {"subscriptionType": "company.deletion", "objectId": 1}, {"subscriptionType": "deal.restore", "objectId": 2},
        {"subscriptionType": "contact.privacyDeletion", "objectId": 3}, {"subscriptionType": "object.creation", "objectTypeId": "0-5", "objectId": 4},
    ) == [
        Change(kind="account", native_id="1", op="DELETED", at=at), Change(kind="deal", native_id="2", at=at),
        Change(kind="contact", native_id="3", op="ERASED", at=at), Change(kind="ticket", native_id="4", at=at),
    ]  # fmt: skip


def test_events_of_what_we_do_not_keep_are_passed_over() -> None:
    assert told(
        {"subscriptionType": "product.creation", "objectId": 1}, {"subscriptionType": "conversation.newMessage", "objectId": 2},
        {"subscriptionType": "object.creation", "objectTypeId": "2-77", "objectId": 3}, {"subscriptionType": "contact.sneezed", "objectId": 4}, {},
    ) == []  # fmt: skip


def test_an_event_that_is_sent_again_keeps_its_id_and_every_other_has_its_own() -> None:
    event = {**COMMON, "subscriptionType": "contact.propertyChange", "objectId": 512, "propertyName": "email"}
    others = [
        {**event, name: value} for name, value in (("eventId", 1), ("objectId", 1), ("propertyName", "phone"), ("occurredAt", 1))
    ]

    first = HubSpot.events(delivery([event, *others]), [SECRET])
    again = HubSpot.events(delivery([{**event, "attemptNumber": 3}]), [SECRET])

    assert again.account == "62515"
    assert len({hint.id for hint in first.hints}) == 5
    assert again.hints[0].id == first.hints[0].id


# ---- deliveries of the sandbox ----


def heard(ours: Receiver, secret: str = CLIENT_SECRET) -> list[Hint]:
    return [hint for each in ours.deliveries for hint in HubSpot.events(each, [secret]).hints]


def wait(ours: Receiver, *wanted: tuple[str, str]) -> list[Hint]:
    """Return all hints once each wanted (op, id) was told."""
    ours.wait(lambda _: {(hint.change.op, hint.change.native_id) for hint in heard(ours)} >= set(wanted))
    return heard(ours)


def test_changes_by_hand_and_by_calls_arrive_as_hints(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url, CLIENT_SECRET)
    edited, gone, loser, winner = (contact(portal, nth) for nth in range(4))

    httpx.patch(f"{portal.address}/_control/records/hubspot/contact/{edited}", json={"firstname": "Grete"}).raise_for_status()
    [made] = portal.write("contact", Write(verb="create", row={"properties": {"email": "new@hooks.example"}}))
    portal.write("contact", Write(verb="delete", native_id=gone))
    assert dialect(portal).merge("contact", loser, winner)
    hints = wait(
        ours, ("CHANGED", edited), ("CHANGED", str(made.native_id)), ("DELETED", gone), ("MERGED", loser), ("CHANGED", winner)
    )

    assert ("DELETED", loser) not in {(hint.change.op, hint.change.native_id) for hint in hints}
    assert {hint.change.into for hint in hints if hint.change.op == "MERGED"} == {winner}
    assert {HubSpot.events(each, [CLIENT_SECRET]).account for each in ours.deliveries} == {"62515"}
    assert portal.run(lambda source, api: source.adapter.check(api)).account == "62515"


def test_the_vendors_own_client_accepts_what_the_sandbox_signs(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url + "?to=a%3Ab", CLIENT_SECRET)

    dialect(portal).change("contact", contact(portal), {"firstname": "Grete"})
    [came] = ours.wait(lambda came: len(came) == 1)

    url = ours.url + "?to=a:b"
    stamp, body = came.headers["x-hubspot-request-timestamp"], came.body.decode()
    assert Signature.is_valid(came.headers["x-hubspot-signature-v3"], CLIENT_SECRET, body, url, "POST", "v3", stamp)
    assert Signature.is_valid(came.headers["x-hubspot-signature"], CLIENT_SECRET, body, signature_version="v1")
    assert [each["propertyName"] for each in orjson.loads(came.body)] == ["firstname"]
    assert HubSpot.events(came, [CLIENT_SECRET]).hints


def test_ties_restores_and_privacy_requests_are_told(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url, CLIENT_SECRET)
    person, back, forgotten = (contact(portal, nth) for nth in range(3))
    [deal] = portal.write("deal", Write(verb="create", row={"properties": {"dealname": "D", "dealstage": "qualifiedtobuy"}}))

    portal.write("deal", Write(verb="update", native_id=deal.native_id, row={}, links={"contact": [person]}))
    dialect(portal).delete("contact", back)
    dialect(portal).restore("contact", back)
    headers = {"authorization": "Bearer pat-na1-demo"}
    url = f"{portal.address}/hubspot/crm/v3/objects/contacts/gdpr-delete"
    assert httpx.post(url, json={"objectId": forgotten}, headers=headers).status_code == 204
    wait(ours, ("CHANGED", person), ("CHANGED", str(deal.native_id)), ("DELETED", back), ("CHANGED", back), ("ERASED", forgotten))

    types = [event["subscriptionType"] for each in ours.deliveries for event in orjson.loads(each.body)]
    assert {"contact.associationChange", "deal.associationChange", "contact.restore", "contact.privacyDeletion"} <= set(types)


def test_an_edit_that_changes_nothing_is_not_told_and_a_hundred_go_in_one_delivery(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url, CLIENT_SECRET, only=["contact.propertyChange firstname", "contact.creation"])
    someone = contact(portal)
    name = (portal.row("contact", someone) or {})["properties"]["firstname"]

    dialect(portal).change("contact", someone, {"firstname": name})
    dialect(portal).change("contact", someone, {"jobtitle": "Chief"})
    portal.write("contact", *(Write(verb="create", row={"properties": {"email": f"{n}@many.example"}}) for n in range(150)))
    ours.wait(lambda came: sum(len(orjson.loads(each.body)) for each in came) >= 150)

    sizes = [len(orjson.loads(each.body)) for each in ours.deliveries]
    assert (sum(sizes), max(sizes)) == (150, 100)
    assert {each["eventType"] for each in dialect(portal).subscriptions()} == {"contact.propertyChange", "contact.creation"}


def test_what_is_not_taken_is_sent_again_with_a_signature_of_its_own(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url, CLIENT_SECRET)
    ours.status = 500

    dialect(portal).change("contact", contact(portal), {"firstname": "Grete"})
    until = time.monotonic() + 5
    while not [each for each in dialect(portal).outbox.log if each.attempts] and time.monotonic() < until:
        time.sleep(0.01)  # the pause before the next attempt begins when the answer has come
    ours.status = 200
    portal.sandbox.clock.advance(60)
    first, second = ours.wait(lambda came: len(came) == 2)

    one, two = (HubSpot.events(each, [CLIENT_SECRET]) for each in (first, second))
    assert [hint.id for hint in one.hints] == [hint.id for hint in two.hints]
    assert [orjson.loads(each.body)[0]["attemptNumber"] for each in (first, second)] == [0, 1]


def test_a_delivery_by_a_clock_that_is_off_is_refused(portal: System, ours: Receiver) -> None:
    dialect(portal).hook(ours.url, CLIENT_SECRET)
    dialect(portal).skew = -400.0

    dialect(portal).change("contact", contact(portal), {"firstname": "Grete"})
    [came] = ours.wait(lambda came: len(came) == 1)

    with pytest.raises(SignatureError):
        HubSpot.events(came, [CLIENT_SECRET])


# ---- the feed ----


def test_the_feed_tells_edits_deletes_and_merges(portal: System) -> None:
    edited, gone, loser, winner = (contact(portal, nth) for nth in range(4))
    _, cursor = follow(portal, None)

    dialect(portal).change("contact", edited, {"firstname": "Grete"})
    dialect(portal).delete("contact", gone)
    dialect(portal).merge("contact", loser, winner)
    [made] = portal.write("contact", Write(verb="create", row={"properties": {"email": "new@feed.example"}}))
    changes, cursor = follow(portal, cursor)

    new = str(made.native_id)
    expected = {edited: "CHANGED", gone: "DELETED", loser: "MERGED", winner: "CHANGED", new: "CHANGED"}
    assert ops(changes, edited, gone, loser, winner, new) == expected
    [row] = [each.row for each in changes if each.native_id == edited]
    assert row is not None
    assert row["properties"]["firstname"] == "Grete"
    assert {each.into for each in changes if each.native_id == loser} == {winner}


def test_many_records_of_one_moment_are_all_told(portal: System) -> None:
    """More than a page, in an order that search does not state; their ids differ in length."""
    _, cursor = follow(portal, None, "deal")
    store = dialect(portal)._store
    moment = portal.sandbox.clock.time() * 1000 // 1 / 1000
    ids = [str(8 * 10**5 + n) for n in range(250)] + [str(7 * 10**9 + n) for n in range(250)]
    stamp = datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    for id in ids:
        properties = {"dealname": id, "createdate": stamp, "hs_lastmodifieddate": stamp, "hs_object_id": id}
        store.keep("deals", {"id": id, "properties": properties, "createdAt": stamp, "updatedAt": stamp, "archived": False})
    changes, cursor = follow(portal, cursor, "deal")

    assert {each.native_id for each in changes} >= set(ids)


def test_a_change_that_is_committed_late_is_told(portal: System) -> None:
    _, cursor = follow(portal, None)
    early, late = contact(portal), contact(portal, 1)
    dialect(portal).change("contact", early, {"firstname": "Early"})
    _, cursor = follow(portal, cursor)

    portal.sandbox.faults.add(Fault(system="hubspot", fault="late_commit", seconds=90.0, times=1))
    # The pass took 66 s, so its time lies before that of the change that was seen.
    httpx.patch(f"{portal.address}/_control/records/hubspot/contact/{late}", json={"firstname": "Late"}).raise_for_status()
    changes, _ = follow(portal, cursor)

    assert late in {each.native_id for each in changes}


def test_who_is_archived_behind_the_walk_is_met_by_the_next_one(portal: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.hubspot_live._ARCHIVED_PAGE", 1)
    monkeypatch.setattr("adapters.hubspot_live._ARCHIVED_CALLS", 2)
    ids = sorted((contact(portal, nth) for nth in range(12)), key=int)
    _, cursor = follow(portal, None)
    seen: set[str] = set()

    def walk(cursor: str, *, until: set[str]) -> str:
        for _ in range(40):
            changes, cursor = follow(portal, cursor)
            seen.update(each.native_id for each in changes if each.op == "DELETED")
            if seen & set(ids) >= until:
                return cursor
        raise AssertionError("not all were told")

    for id in ids[3:9]:
        dialect(portal).delete("contact", id)
    cursor = walk(cursor, until={ids[3]})
    assert ids[8] not in seen
    for id in ids[:3]:
        dialect(portal).delete("contact", id)
    portal.sandbox.clock.advance(300)
    for id in ids[9:]:  # the same walk meets these, which are younger
        dialect(portal).delete("contact", id)

    walk(cursor, until=set(ids))


def test_a_quiet_portal_is_not_told_its_old_deletes_again_and_again(portal: System) -> None:
    gone = contact(portal)
    _, cursor = follow(portal, None)
    dialect(portal).delete("contact", gone)
    first, cursor = follow(portal, cursor)
    portal.sandbox.clock.advance(600)
    dialect(portal).change("contact", contact(portal, 1), {"firstname": "Later"})
    for _ in range(3):
        last, cursor = follow(portal, cursor)

    assert ops(first, gone) == {gone: "DELETED"}
    assert ops(last, gone) == {}


def test_our_clock_may_be_off_by_days(portal: System) -> None:
    _, cursor = follow(portal, None, now=NOW + timedelta(days=30))
    edited, gone = contact(portal), contact(portal, 1)

    dialect(portal).change("contact", edited, {"firstname": "Grete"})
    dialect(portal).delete("contact", gone)
    changes, _ = follow(portal, cursor, now=NOW - timedelta(days=30))

    assert ops(changes, edited, gone) == {edited: "CHANGED", gone: "DELETED"}


def test_a_cursor_of_last_summer_is_no_good_any_more(portal: System) -> None:
    _, cursor = follow(portal, None)

    with pytest.raises(CursorExpiredError):
        follow(portal, cursor, now=NOW + timedelta(days=91))


@pytest.mark.parametrize("kind", ["contact", "account", "deal", "ticket"])
def test_a_pass_costs_a_few_calls(kind: Kind) -> None:
    with system("hubspot", people=1000) as portal:
        _, cursor = follow(portal, None, kind)
        rows = [row["id"] for row in portal.dialect.tables[kind] if not row["archived"]]
        for id in rows[:200]:
            portal.dialect.change(kind, id, {"hubspot_owner_id": "2"})
        portal.dialect.calls.clear()

        changes, _ = follow(portal, cursor, kind)

        calls = sum(count for path, count in portal.dialect.calls.items() if "/crm/v3/objects/" in path)
        assert {each.native_id for each in changes} >= set(rows[:200])
        # 20,000 records are listed in 100 calls, so 200 of them may cost 20.
        assert calls <= 7
