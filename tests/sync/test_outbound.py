"""Webhooks to our users: what is sent, again and no more, and what they can rely on."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from model.clock import SystemClock
from model.errors import ConfigurationError, DestinationError, ExpiredEventError, InvalidRequestError, NotFoundError
from model.events import Event
from model.records import Ref
from store.events import EventRows
from sync.endpoints import check_patterns, wanted
from sync.envelope import body_of, headers
from sync.log import EventLog
from tests.clocks import ManualClock
from tests.specifications import specification
from tests.sync.hooks import NOW, Delivering, Hooks, delivering, hooks

STEADY = {"jitter": "none"}


class Now(ManualClock):
    """A clock that a test moves, from the real time on: the receivers' library compares with it."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def hook() -> Iterator[Hooks]:
    with hooks() as made:
        yield made


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
async def parts(tmp_path: Path, clock: Now) -> AsyncIterator[Delivering]:
    async with delivering(f"sqlite:///{tmp_path / 'c360.db'}", clock) as opened:
        yield opened


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


# ---- again, and no more ----


async def test_a_failed_send_is_repeated_on_the_policys_schedule_under_the_same_id(
    parts: Delivering, hook: Hooks, clock: Now
) -> None:
    id, secret = await parts.endpoints.add("default", hook.url, ["*"], STEADY | {"maxAttempts": 8})
    await parts.happened()
    hook.answers += [(500, {})] * 7
    waited: list[int] = []

    await parts.send(id)
    while len(hook.got) < 8:
        before, seconds = len(hook.got), 0
        while len(hook.got) == before:
            clock.advance(1)
            seconds += 1
            await parts.send(id)
        waited.append(seconds)

    assert waited == [1, 2, 4, 8, 16, 32, 32]
    assert set(hook.ids) == {"event:1"}
    assert len({got.body for got in hook.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in hook.got}) == 8
    Webhook(secret).verify(hook.got[-1].body, dict(hook.got[-1].headers))
    [delivered] = await parts.endpoints.deliveries("default", id)
    assert delivered.row.state == "DONE"
    assert [each.backoff for each in delivered.attempts] == [1, 2, 4, 8, 16, 32, 32, None]
    assert [(each.status, each.code) for each in delivered.attempts] == [(500, "UPSTREAM")] * 7 + [(204, None)]
    assert {each.bytes for each in delivered.attempts} == {len(hook.got[0].body)}
    assert len({each.at for each in delivered.attempts}) == 8


async def test_a_send_that_fails_does_not_hold_up_later_events(parts: Delivering, hook: Hooks, clock: Now) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], STEADY)
    await parts.happened(3)
    hook.answers += [(500, {})]

    await parts.send(id)
    clock.advance(1)
    await parts.send(id)

    assert hook.ids == ["event:1", "event:2", "event:3", "event:1"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retry_after_wins_and_holds_the_whole_endpoint(parts: Delivering, hook: Hooks, clock: Now, status: int) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], STEADY)
    await parts.happened(2)
    hook.answers += [(status, {"retry-after": "120"})]

    await parts.send(id)
    clock.advance(119)
    await parts.send(id)
    early = list(hook.ids)
    clock.advance(1)
    await parts.send(id)

    assert early == ["event:1"]
    assert sorted(hook.ids) == ["event:1", "event:1", "event:2"]


@pytest.mark.parametrize("dated", [True, False])
async def test_retry_after_may_be_a_date(parts: Delivering, hook: Hooks, clock: Now, *, dated: bool) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], STEADY)
    await parts.happened()
    ours = clock.now() + timedelta(days=3 if dated else 0)  # a receiver's clock may be off: then its own `Date` counts
    now = {"date": format_datetime(ours, usegmt=True)} if dated else {}
    hook.answers += [(503, {"retry-after": format_datetime(ours + timedelta(seconds=90), usegmt=True), **now})]

    await parts.send(id)

    [delivered] = await parts.endpoints.deliveries("default", id)
    assert delivered.attempts[0].backoff == 90


async def test_retry_after_is_bounded_and_not_obeyed_of_other_answers(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], STEADY | {"retryAfter": 60})
    await parts.happened(2)
    hook.answers += [(500, {"retry-after": "5000"}), (429, {"retry-after": "5000"})]

    await parts.send(id)

    delivered = await parts.endpoints.deliveries("default", id)
    assert [each.attempts[0].backoff for each in delivered] == [60, 1]
    assert [each.attempts[0].code for each in delivered] == ["RATE_LIMITED", "UPSTREAM"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_never_followed(parts: Delivering, hook: Hooks, status: int) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"])
    await parts.happened()
    hook.answers += [(status, {"location": "/elsewhere"})]

    await parts.send(id)

    [delivered] = await parts.endpoints.deliveries("default", id)
    assert [got.path for got in hook.got] == ["/hook"]
    assert (delivered.row.state, delivered.attempts[0].status) == ("PENDING", status)


async def test_gone_disables_the_endpoint_and_saving_it_goes_on_where_it_stopped(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"])
    await parts.happened(3)
    hook.answers += [(204, {}), (410, {})]

    await parts.send(id)
    await parts.happened(2)
    await parts.send(id)
    disabled, before = await parts.endpoints.one("default", id), list(hook.ids)
    await parts.endpoints.change("default", id, hook.url, ["*"])
    await parts.send(id)

    assert (disabled.row.state, before) == ("DISABLED", ["event:1", "event:2"])
    assert "410" in (disabled.row.reason or "")
    assert sorted(hook.ids) == ["event:1", "event:2", "event:2", "event:3", "event:4", "event:5"]
    assert (await parts.endpoints.one("default", id)).row.state == "ACTIVE"


async def test_no_answer_in_time_is_a_failed_send(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"timeout": 0.2})
    await parts.happened()
    hook.before = lambda _: time.sleep(0.6)

    await parts.send(id)

    [delivered] = await parts.endpoints.deliveries("default", id)
    assert [(each.status, each.code) for each in delivered.attempts] == [(None, "TIMEOUT")]


async def test_nobody_listening_is_a_failed_send(parts: Delivering) -> None:
    id, _ = await parts.endpoints.add("default", "http://127.0.0.1:9/hook", ["*"])
    await parts.happened()

    await parts.send(id)

    [delivered] = await parts.endpoints.deliveries("default", id)
    assert [(each.status, each.code) for each in delivered.attempts] == [(None, "NETWORK")]


async def test_what_failed_too_often_is_parked_flagged_and_replayed(parts: Delivering, hook: Hooks, clock: Now) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 3})
    await parts.happened(2)
    hook.answers += [(500, {})] * 6

    for _ in range(4):
        await parts.send(id)
        clock.advance(32)
    failing, sent = await parts.endpoints.one("default", id), len(hook.got)
    clock.advance(10_000)
    await parts.send(id)
    after = len(hook.got)
    count = await parts.endpoints.replay_parked("default", id)
    await parts.send(id)

    assert (failing.row.state, failing.tally.parked, failing.tally.waiting, sent, after) == ("FAILING", 2, 0, 6, 6)
    assert (failing.tally.sends, failing.tally.failed) == (6, 6)
    assert "3 times in vain" in (failing.row.reason or "")
    assert count == 2
    assert sorted(hook.ids[6:]) == ["event:1", "event:2"]
    healed = await parts.endpoints.one("default", id)
    assert (healed.row.state, healed.row.reason, healed.tally.parked) == ("ACTIVE", None, 0)


async def test_a_replayed_delivery_has_all_its_attempts_again(parts: Delivering, hook: Hooks, clock: Now) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 2})
    await parts.happened()
    hook.answers += [(500, {})] * 3

    for _ in range(3):
        await parts.send(id)
        clock.advance(32)
    await parts.endpoints.replay_parked("default", id)
    for _ in range(3):
        await parts.send(id)
        clock.advance(32)

    [delivered] = await parts.endpoints.deliveries("default", id)
    assert delivered.row.state == "DONE"
    assert [each.number for each in delivered.attempts] == [1, 2, 3, 4]


async def test_what_arrived_is_sent_again_when_it_is_asked_for(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["contact.*"])
    await parts.happened(2)
    await parts.happened(kind="deal")
    await parts.happened(2)
    await parts.send(id)

    since = await parts.endpoints.replay_since("default", id, 1)
    await parts.send(id)
    one = [await parts.endpoints.replay_event("default", id, seq) for seq in (4, 3)]
    await parts.send(id)

    assert (since, one) == (3, [1, 0])
    assert hook.ids == ["event:1", "event:2", "event:4", "event:5", "event:2", "event:4", "event:5", "event:4"]
    assert hook.got[1].body == hook.got[4].body


async def test_a_replay_of_what_is_not_kept_or_not_there_is_refused(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"])
    await parts.happened(5)
    await EventRows(parts.database).clear("default", before=NOW, most=2)

    with pytest.raises(ExpiredEventError):
        await parts.endpoints.replay_since("default", id, 2)
    with pytest.raises(InvalidRequestError):
        await parts.endpoints.replay_since("default", id, 6)
    with pytest.raises(NotFoundError):
        await parts.endpoints.replay_since("default", "whe_0", 4)


async def test_events_that_were_no_longer_kept_are_counted_and_not_passed_over_in_silence(parts: Delivering, hook: Hooks) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"])
    await parts.happened(5)
    await EventRows(parts.database).clear("default", before=NOW, most=2)

    await parts.send(id)

    assert hook.ids == ["event:4", "event:5"]
    assert (await parts.endpoints.one("default", id)).row.missed == 3


async def test_what_waits_is_sent_though_its_event_is_not_kept_any_more(parts: Delivering, hook: Hooks, clock: Now) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 1})
    await parts.happened()
    hook.answers += [(500, {})]
    await parts.send(id)
    await EventRows(parts.database).clear("default", before=NOW + timedelta(days=1), most=0)

    await parts.endpoints.replay_parked("default", id)
    await parts.send(id)

    assert hook.ids == ["event:1", "event:1"]
    assert hook.got[0].body == hook.got[1].body


# ---- secrets, addresses ----


async def test_both_secrets_sign_while_they_overlap(parts: Delivering, hook: Hooks, clock: Now) -> None:
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


async def test_an_address_is_checked_when_it_is_saved_and_at_each_send(tmp_path: Path, hook: Hooks, clock: Now) -> None:
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


async def test_any_answers_in_any_order_lose_nothing(parts: Delivering, hook: Hooks, clock: Now) -> None:
    rng = random.Random(5)
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 3, "retryAfter": 20})
    said = [(204, {}), (500, {}), (429, {"retry-after": "7"}), (404, {}), (302, {"location": "/x"}), (200, {})]
    hook.answers += [rng.choice(said) for _ in range(90)]

    for _ in range(40):
        await parts.happened(rng.randrange(3))
        await parts.send(id)
        clock.advance(rng.randrange(20))
    hook.answers.clear()
    for _ in range(3):
        clock.advance(40)
        await parts.send(id)
    await parts.endpoints.replay_parked("default", id)
    await parts.send(id)

    _, last = await EventRows(parts.database).bounds("default")
    delivered = await parts.endpoints.deliveries("default", id, limit=1000)
    assert last > 20
    assert {each.row.state for each in delivered} == {"DONE"}
    assert {each.row.seq for each in delivered} == set(range(1, last + 1)) == {int(id[6:]) for id in hook.ids}
