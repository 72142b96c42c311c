"""Webhooks that fail: sent again and no more, parked, replayed, and never lost."""

import random
import time
from datetime import timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks.webhooks import Webhook

from credentials.vault import Vault
from identity.index import IdentityIndex, minter
from model.errors import ExpiredEventError, InvalidRequestError, NotFoundError
from model.records import Ref
from sources.registry import Registry
from store.events import EventRows
from sync.erasure import Erasure
from tests.clocks import ManualClock
from tests.sync.hooks import NOW, Delivering, Hooks

STEADY = {"jitter": "none"}


async def test_a_failed_send_is_repeated_on_the_policys_schedule_under_the_same_id(
    parts: Delivering, hook: Hooks, clock: ManualClock
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


async def test_a_send_that_fails_does_not_hold_up_later_events(parts: Delivering, hook: Hooks, clock: ManualClock) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], STEADY)
    await parts.happened(3)
    hook.answers += [(500, {})]

    await parts.send(id)
    clock.advance(1)
    await parts.send(id)

    assert hook.ids == ["event:1", "event:2", "event:3", "event:1"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retry_after_wins_and_holds_the_whole_endpoint(
    parts: Delivering, hook: Hooks, clock: ManualClock, status: int
) -> None:
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
async def test_retry_after_may_be_a_date(parts: Delivering, hook: Hooks, clock: ManualClock, *, dated: bool) -> None:
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


async def test_what_failed_too_often_is_parked_flagged_and_replayed(parts: Delivering, hook: Hooks, clock: ManualClock) -> None:
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


async def test_a_replayed_delivery_has_all_its_attempts_again(parts: Delivering, hook: Hooks, clock: ManualClock) -> None:
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


@pytest.mark.parametrize("native", ["1", 'a"b%\\é'])
async def test_what_is_parked_about_an_erased_record_is_erased(
    parts: Delivering, hook: Hooks, clock: ManualClock, native: str
) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 1})
    about, other = Ref("crm", "contact", native), Ref("crm", "contact", native + "0")
    for ref in (about, other):
        await parts.happened(ref=ref)
    hook.answers += [(500, {})] * 2
    await parts.send(id)

    index = IdentityIndex(parts.database, clock=clock, mint=minter(clock, random.Random(1)))
    await Erasure(parts.database, index, Vault([b"k" * 32]), Registry()).records("default", [about])

    [left] = await parts.endpoints.deliveries("default", id)
    assert left.row.seq == 2


async def test_what_waits_is_sent_though_its_event_is_not_kept_any_more(
    parts: Delivering, hook: Hooks, clock: ManualClock
) -> None:
    id, _ = await parts.endpoints.add("default", hook.url, ["*"], {"maxAttempts": 1})
    await parts.happened()
    hook.answers += [(500, {})]
    await parts.send(id)
    await EventRows(parts.database).clear("default", before=NOW + timedelta(days=1), most=0)

    await parts.endpoints.replay_parked("default", id)
    await parts.send(id)

    assert hook.ids == ["event:1", "event:1"]
    assert hook.got[0].body == hook.got[1].body


async def test_any_answers_in_any_order_lose_nothing(parts: Delivering, hook: Hooks, clock: ManualClock) -> None:
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
