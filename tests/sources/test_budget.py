"""The vendor's quota as a scheduled resource: the same promises in one process and over Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from fakeredis import FakeAsyncRedis

from adapters.base import Learned, Window
from cache.redis import connect
from model.clock import SystemClock
from model.errors import ExhaustedError, ThrottledError, UnavailableError
from sources.budget import Budget, LocalBudget
from sources.shared_budget import SharedBudget

Make = Callable[..., Budget]


@pytest.fixture(params=["local", "fake redis", "real redis"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    if request.param == "local":
        yield lambda *windows: LocalBudget(windows, clock=SystemClock())
        return
    redis = FakeAsyncRedis() if request.param == "fake redis" else connect(request.getfixturevalue("redis_url"))
    await redis.flushdb()
    yield lambda *windows: SharedBudget(windows, redis=redis, account="a", clock=SystemClock(), rng=random.Random(1))
    await redis.aclose()


def soon(seconds: float = 0.5) -> float:
    return SystemClock().monotonic() + seconds


async def test_calls_within_the_window_go_at_once(make: Make) -> None:
    budget = make(Window(name="all", limit=5, period=10))

    for _ in range(5):
        await budget.acquire({}, lane="interactive", deadline=soon())

    assert (await budget.levels())[0].remaining < 1


async def test_a_call_that_cannot_be_had_before_its_deadline_is_refused_with_the_wait(make: Make) -> None:
    budget = make(Window(name="all", limit=1, period=10))
    await budget.acquire({}, lane="interactive", deadline=soon())

    with pytest.raises(ThrottledError) as refused:
        await budget.acquire({}, lane="interactive", deadline=soon())

    assert refused.value.retry_after == pytest.approx(10, abs=1)


@pytest.mark.parametrize("told", [Learned(window="day", limit=50, remaining=49), Learned(window="day", remaining=49)])
async def test_a_larger_plan_than_the_facts_know_is_used_at_once(make: Make, told: Learned) -> None:
    budget = make(Window(name="day", limit=5, period=86_400, kind="fixed"))
    await budget.acquire({}, lane="interactive", deadline=soon())

    await budget.learn([told])
    for _ in range(40):
        await budget.acquire({}, lane="interactive", deadline=soon())

    assert (await budget.levels())[0].remaining == 9


async def test_a_call_waits_for_tokens_that_come_back_in_time(make: Make) -> None:
    budget = make(Window(name="all", limit=1, period=0.1))
    await budget.acquire({}, lane="interactive", deadline=soon())
    began = SystemClock().monotonic()

    await budget.acquire({}, lane="interactive", deadline=soon(2))

    assert SystemClock().monotonic() - began >= 0.08


async def test_background_lanes_leave_the_reserve_to_people(make: Make) -> None:
    budget = make(Window(name="all", limit=10, period=1000))
    for _ in range(9):
        await budget.acquire({}, lane="sync", deadline=soon())

    with pytest.raises(ThrottledError):
        await budget.acquire({}, lane="sync", deadline=soon())

    await budget.acquire({}, lane="interactive", deadline=soon())


async def test_named_windows_are_taken_from_only_by_calls_that_name_them(make: Make) -> None:
    budget = make(Window(name="all", limit=100, period=100), Window(name="search", limit=1, period=100, every_call=False))
    await budget.acquire({"search": 1}, lane="interactive", deadline=soon())

    await budget.acquire({}, lane="interactive", deadline=soon())

    with pytest.raises(ThrottledError):
        await budget.acquire({"search": 1}, lane="interactive", deadline=soon())


async def test_what_the_vendor_says_corrects_the_count(make: Make) -> None:
    budget = make(Window(name="all", limit=100, period=100))
    await budget.acquire({}, lane="interactive", deadline=soon())

    await budget.learn([Learned(window="all", limit=50, remaining=0)])

    with pytest.raises(ThrottledError):
        await budget.acquire({}, lane="interactive", deadline=soon(0.2))


async def test_retry_after_holds_everyone(make: Make) -> None:
    budget = make(Window(name="all", limit=100, period=1))

    await budget.hold(ThrottledError("slow down", retry_after=30))

    with pytest.raises(ThrottledError) as refused:
        await budget.acquire({}, lane="interactive", deadline=soon())
    assert refused.value.retry_after == pytest.approx(30, abs=1)


async def test_a_used_up_quota_is_told_apart_from_a_pause(make: Make) -> None:
    budget = make(Window(name="all", limit=100, period=1))

    await budget.hold(ExhaustedError("the day is over", retry_after=3600))

    with pytest.raises(ExhaustedError):
        await budget.acquire({}, lane="interactive", deadline=soon())


async def test_a_place_in_flight_is_given_back_when_the_call_ends(make: Make) -> None:
    budget = make(Window(name="parallel", limit=1, kind="parallel"))
    await budget.acquire({}, lane="interactive", deadline=soon())
    waiting = asyncio.create_task(budget.acquire({}, lane="interactive", deadline=soon(2)))
    await asyncio.sleep(0)
    assert not waiting.done()

    budget.release()

    await waiting


async def test_a_place_in_flight_is_not_lost_to_a_pause_of_unknown_length(make: Make) -> None:
    budget = make(Window(name="parallel", limit=2, kind="parallel"))
    await budget.acquire({}, lane="interactive", deadline=soon())
    budget.release()

    await budget.hold(ThrottledError("too many at once"))

    for _ in range(2):
        await budget.acquire({}, lane="interactive", deadline=soon(3))


async def test_a_cancelled_waiter_takes_nothing(make: Make) -> None:
    budget = make(Window(name="all", limit=1, period=0.2))
    await budget.acquire({}, lane="interactive", deadline=soon())
    waiting = asyncio.create_task(budget.acquire({}, lane="interactive", deadline=soon(2)))
    await asyncio.sleep(0.01)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    await budget.acquire({}, lane="interactive", deadline=soon(1))


async def test_people_go_before_background_work_that_waited_longer() -> None:
    budget = LocalBudget([Window(name="all", limit=1, period=0.05)], clock=SystemClock())
    await budget.acquire({}, lane="interactive", deadline=soon())
    order: list[str] = []

    async def call(lane: str) -> None:
        await budget.acquire({}, lane=lane, deadline=soon(5))  # type: ignore[arg-type]
        order.append(lane)

    async with asyncio.TaskGroup() as group:
        group.create_task(call("sync"))
        group.create_task(call("write"))
        group.create_task(call("interactive"))

    assert order == ["interactive", "write", "sync"]


async def test_a_throttle_without_a_word_on_how_long_halves_the_pace() -> None:
    budget = LocalBudget([Window(name="all", limit=10, period=1)], clock=SystemClock())

    await budget.hold(UnavailableError("slow down"))

    level = (await budget.levels())[0]
    assert level.remaining == pytest.approx(0, abs=0.5)


async def test_redis_in_trouble_leaves_a_share_of_the_budget_and_is_counted() -> None:
    failures: list[int] = []
    nobody = connect("redis://127.0.0.1:1")
    budget = SharedBudget(
        [Window(name="all", limit=8, period=1000)], redis=nobody, account="a", clock=SystemClock(), rng=random.Random(1),
        failed=lambda: failures.append(1),
    )  # fmt: skip

    for _ in range(2):
        await budget.acquire({}, lane="interactive", deadline=soon(2))

    with pytest.raises(ThrottledError):
        await budget.acquire({}, lane="interactive", deadline=soon(2))
    assert len(failures) >= 3
    await nobody.aclose()


async def test_a_rolling_window_never_lets_more_through_in_any_period(make: Make) -> None:
    budget = make(Window(name="search", limit=3, period=0.4, kind="rolling", every_call=False))
    went: list[float] = []

    async def one() -> None:
        await budget.acquire({"search": 1}, lane="interactive", deadline=soon(5))
        went.append(SystemClock().monotonic())

    await asyncio.gather(*(one() for _ in range(8)))

    assert all(later - earlier >= 0.39 for earlier, later in zip(went, went[3:], strict=False))
    assert went[-1] - went[0] < 2


async def test_a_rolling_window_that_the_caller_does_not_name_costs_nothing(make: Make) -> None:
    budget = make(Window(name="search", limit=1, period=60, kind="rolling", every_call=False))

    for _ in range(5):
        await budget.acquire({}, lane="interactive", deadline=soon())

    assert [level.remaining for level in await budget.levels()] == [1]
