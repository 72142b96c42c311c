"""Webhooks to our users: what is sent, to whom, signed with what."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from model.clock import SystemClock
from model.errors import ConfigurationError, DestinationError, InvalidRequestError
from model.events import Event
from model.records import Ref
from store.events import EventRows
from sync.endpoints import check_patterns, wanted
from sync.envelope import body_of, headers
from sync.log import EventLog
from tests.clocks import ManualClock
from tests.specifications import specification
from tests.sync.hooks import NOW, Delivering, Hooks, delivering

STEADY = {"jitter": "none"}


# ---- what is sent ----


async def test_a_delivery_is_verified_by_the_reference_library(parts: Delivering, hook: Hooks) -> None:
    id, secret = await parts.endpoints.add("default", hook.url, ["contact.*"])
    await parts.happened(op="CREATED")

    await parts.send(id)

    [got] = hook.got
    said = Webhook(secret).verify(got.body, dict(got.headers))
    assert said["type"] == "com.customer360.contact.created.v1"
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert got.id == said["id"] == "event:1"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(got.body.replace(b"CREATED", b"DELETED"), dict(got.headers))


def test_the_signature_is_that_of_the_published_vector() -> None:
    body = b'{"type":"contact.updated","timestamp":"2023-01-19T00:13:51Z","data":{"id":"sf:003xx"}}'
    secret, at = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", datetime.fromtimestamp(1674087231.9, tz=UTC)

    said = headers("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", body, [secret], now=at)

    assert said["webhook-timestamp"] == "1674087231"
    assert said["webhook-signature"] == "v1,JMhBBz4pndTb2IfkYCz8L660dNj89uwzadMw1RV8hdM="


def event(**facts: Any) -> Event:
    said: dict[str, Any] = {
        "workspace": "w1", "seq": 7, "op": "UPDATED", "ref": Ref("crm-eu", "deal", "a/b 1"), "system": "acme", "customer": "c360_9",
        "changed": ("amount", "custom.tier"), "at": NOW, "received_at": NOW, "origin": "CDC", **facts,
    }  # fmt: skip
    return Event(**said)


def test_a_body_says_what_changed_and_no_value() -> None:
    assert json.loads(body_of(event(op="MERGED", into="2"))) == {
        "specversion": "1.0", "id": "event:7", "source": "/workspaces/w1/sources/crm-eu", "type": "com.customer360.deal.merged.v1",
        "subject": "deal:crm-eu:a/b 1", "time": "2026-11-01T00:00:00Z", "datacontenttype": "application/json",
        "data": {
            "id": "event:7", "customer": "c360_9", "object": "deal", "op": "MERGED", "changed": ["amount", "custom.tier"],
            "ref": {"source": "crm-eu", "system": "acme", "recordId": "a/b 1"}, "at": "2026-11-01T00:00:00Z", "origin": "CDC", "cursor": "7",
            "into": {"source": "crm-eu", "system": "acme", "recordId": "2"},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "facts", [{}, {"op": "DELETED", "customer": None, "changed": None}, {"op": "MERGED", "into": "2"}], ids=str
)
def test_a_body_is_a_cloud_event_by_the_published_schema(facts: dict[str, Any]) -> None:
    schema = json.loads(specification("webhooks", "cloudevents-1.0.schema.json").read_text())
    kinds = {"string": str, "object": dict, "array": list, "number": (int, float), "boolean": bool, "null": type(None)}
    body = json.loads(body_of(event(**facts)))

    assert set(schema["required"]) <= set(body)
    for name, value in body.items():
        rule = schema["definitions"][schema["properties"][name]["$ref"].rsplit("/", 1)[1]]
        types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        assert isinstance(value, tuple(kinds[each] for each in types)), name  # type: ignore[arg-type]
        assert not isinstance(value, str) or len(value) >= rule.get("minLength", 0), name
        if rule.get("format") == "date-time":
            assert datetime.fromisoformat(value).tzinfo is not None
        if rule.get("format") == "uri-reference":
            assert " " not in value


async def test_an_endpoint_gets_what_it_wants_in_order_from_when_it_was_made(parts: Delivering, hook: Hooks) -> None:
    await parts.happened(2)
    id, _ = await parts.endpoints.add("default", hook.url, ["contact.*", "deal.updated"])
    await parts.happened(3)
    await parts.happened(kind="deal", op="CREATED")
    await parts.happened(kind="deal", op="UPDATED")
    await parts.happened(kind="ticket")

    await parts.send(id)

    assert hook.ids == ["event:3", "event:4", "event:5", "event:7"]


@pytest.mark.parametrize(
    ("patterns", "takes"),
    [
        (["*"], True), (["deal.*"], True), (["deal.updated"], True), (["*.updated"], True), (["*.*"], True), (["contact.*", "deal.updated"], True),
        (["deal.deleted"], False), (["contact.*"], False), (["*.merged"], False),
    ],
    ids=str,
)  # fmt: skip
def test_patterns_choose_events(patterns: list[str], *, takes: bool) -> None:
    assert wanted(check_patterns(patterns))(event()) is takes


@pytest.mark.parametrize(
    "wrong", [[], ["deal"], ["deal.updatd"], ["people.*"], ["Deal.*"], ["deal.*.x"], [""], ["*"] * 1 + ["**"]]
)
def test_a_pattern_that_can_match_nothing_is_refused(wrong: list[str]) -> None:
    with pytest.raises(InvalidRequestError):
        check_patterns(wrong)


# ---- secrets, addresses ----


async def test_both_secrets_sign_while_they_overlap(parts: Delivering, hook: Hooks, clock: ManualClock) -> None:
    id, former = await parts.endpoints.add("default", hook.url, ["*"])
    before = (await parts.endpoints.one("default", id)).secret_fingerprint
    secret = await parts.endpoints.rotate("default", id, overlap=timedelta(seconds=60))
    await parts.happened()
    await parts.send(id)
    clock.advance(60)
    await parts.happened()
    await parts.send(id)

    first, second = hook.got
    for known in (former, secret):
        Webhook(known).verify(first.body, dict(first.headers))
    Webhook(secret).verify(second.body, dict(second.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(former).verify(second.body, dict(second.headers))
    assert (await parts.endpoints.one("default", id)).secret_fingerprint != before


async def test_a_secret_is_sealed_and_opens_only_in_its_own_row(parts: Delivering, hook: Hooks) -> None:
    id, secret = await parts.endpoints.add("default", hook.url, ["*"])
    other, _ = await parts.endpoints.add("default", hook.url, ["*"])
    rows = {each.id: each for each in await parts.rows.all("default")}
    await parts.rows.reseal("default", other, rows[id].sealed, was=rows[other].sealed)

    assert secret.startswith("whsec_")
    assert secret.removeprefix("whsec_").encode() not in rows[id].sealed
    with pytest.raises(ConfigurationError):
        await parts.endpoints.rotate("default", other)


async def test_an_address_is_checked_when_it_is_saved_and_at_each_send(tmp_path: Path, hook: Hooks, clock: ManualClock) -> None:
    url = f"sqlite:///{tmp_path / 'c360.db'}"
    async with delivering(url, clock) as generous:
        id, _ = await generous.endpoints.add("default", hook.url, ["*"])
        await generous.happened()
    async with delivering(url, clock, allowed=()) as strict:
        with pytest.raises(DestinationError):
            await strict.endpoints.add("default", hook.url, ["*"])
        with pytest.raises(DestinationError):
            await strict.endpoints.change("default", id, hook.url, ["*"])
        await strict.send(id)
        [delivered] = await strict.endpoints.deliveries("default", id)

    assert hook.got == []
    assert [(each.status, each.code) for each in delivered.attempts] == [(None, "FORBIDDEN")]
    assert delivered.row.state == "PENDING"


# ---- the deliverer at work ----


async def test_an_event_is_delivered_at_once_and_a_failed_send_by_itself(tmp_path: Path, hook: Hooks) -> None:
    url = f"sqlite:///{tmp_path / 'c360.db'}"
    async with delivering(url, SystemClock()) as parts:
        log = EventLog(EventRows(parts.database), "default")
        await log.start()
        parts.outbound._follow = log
        await parts.outbound.start()
        hook.answers += [(500, {})]
        await parts.endpoints.add("default", hook.url, ["*"], {"first": 0.2, "maxAttempts": 5})
        await asyncio.sleep(1.2)  # the deliverer has found the endpoint
        await parts.happened(20)

        await asyncio.to_thread(hook.wait, lambda got: len(got) == 21)
        await parts.outbound.stop()
        await log.stop()

    assert hook.ids.count("event:1") == 2
    assert [id for n, id in enumerate(hook.ids) if id not in hook.ids[:n]] == [f"event:{seq}" for seq in range(1, 21)]


async def test_endpoints_that_come_and_go_are_served_and_forgotten(tmp_path: Path, hook: Hooks) -> None:
    async with delivering(f"sqlite:///{tmp_path / 'c360.db'}", SystemClock()) as parts:
        await parts.outbound.start()
        id, _ = await parts.endpoints.add("default", hook.url, ["*"])
        await parts.happened()
        await asyncio.to_thread(hook.wait, lambda got: len(got) == 1)
        await parts.endpoints.remove("default", id)
        await parts.happened()
        await asyncio.sleep(1.5)

        assert hook.ids == ["event:1"]
        assert parts.outbound._tended == {}


async def test_first_sends_go_side_by_side_where_the_policy_says_so(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"parallel": 8})
    await parts.happened(40)

    await parts.send(id)

    assert sorted(hook.ids) == sorted(f"event:{seq}" for seq in range(1, 41))
