"""The vendor's quota as a resource that is scheduled: windows of tokens, taken in fair order by lane.

One budget per vendor account, shared by everything that calls it. A caller waits for its tokens up to its deadline;
background lanes never touch the reserve that is kept for people. What the vendor tells corrects the count; where it
throttles without a word on how long, the pace is halved and comes back by and by (AIMD).
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from adapters.base import Learned, Window
from model.clock import Clock
from model.errors import ExhaustedError, SourceError, ThrottledError
from sources.reading import LANES, Lane

RECOVERY = 600.0  # seconds in which a halved pace comes back from nothing to full
RESERVE = 0.1  # share of every window that only the interactive lane may take
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How a window stands, for operators."""

    window: str
    limit: float
    remaining: float
    resets_in: float


class Budget(Protocol):
    async def acquire(self, cost: Mapping[str, float], *, lane: Lane, deadline: float) -> None:
        """Take tokens, waiting in fair order.

        Args:
            cost: named windows' extra cost; `every_call` windows take 1 besides.
            deadline: on the monotonic clock.

        Raises:
            ThrottledError: they cannot be had before the deadline; `retry_after` is in seconds.
            ExhaustedError: the quota is used up for longer than waiting makes sense.
        """

    def release(self) -> None:
        """Give back the place in the parallel windows: the call has ended."""

    async def learn(self, learned: Iterable[Learned]) -> None:
        """Correct the count by what the vendor said."""

    async def hold(self, error: SourceError) -> None:
        """Nobody calls before the vendor's `retry_after` has passed."""

    async def levels(self) -> list[Level]: ...


@dataclass(slots=True)
class _Tokens:
    """One window's state; times are monotonic seconds."""

    window: Window
    limit: float
    level: float
    at: float
    per_second: float
    resets_at: float
    pace: float = 1.0  # lowered when the vendor throttles without saying for how long
    taken: deque[float] = field(default_factory=deque)  # when each token of a rolling window was taken

    def refill(self, now: float) -> None:
        self.pace = min(1.0, self.pace + (now - self.at) / RECOVERY)
        if self.window.kind == "fixed":
            if now >= self.resets_at:
                self.level, self.resets_at = self.limit, now + self.window.period
        elif self.window.kind == "bucket":
            self.level = min(self.limit, self.level + (now - self.at) * self.per_second * self.pace)
        elif self.window.kind == "rolling":
            while self.taken and self.taken[0] <= now - self.window.period:
                self.taken.popleft()
            self.level = self.limit - len(self.taken)
        self.at = now

    def take(self, amount: float) -> None:
        amount = min(amount, self.limit)
        self.level -= amount
        if self.window.kind == "rolling":
            self.taken.extend([self.at] * math.ceil(amount))

    def wait(self, cost: float, floor: float) -> float:
        """Return the seconds until `cost` can be taken above `floor`, 0 when it can now."""
        missing = cost + floor - self.level
        if missing <= _SLACK:
            return 0.0
        if self.window.kind == "bucket":
            return missing / (self.per_second * self.pace)
        if self.window.kind == "fixed":
            return max(self.resets_at - self.at, 0.001)
        if self.window.kind == "rolling":
            return self.taken[min(math.ceil(missing), len(self.taken)) - 1] + self.window.period - self.at
        return float("inf")  # a parallel place comes free when somebody is done, not with time


@dataclass(order=True, slots=True)
class _Waiter:
    lane: int
    turn: int
    cost: Mapping[str, float] = field(compare=False)
    granted: "asyncio.Future[None]" = field(compare=False)


class LocalBudget:
    """One process's budget of one vendor account."""

    def __init__(self, windows: Iterable[Window], *, clock: Clock) -> None:
        self._clock = clock
        now = clock.monotonic()
        self._windows = {
            each.name: _Tokens(each, each.limit, each.limit, now, each.limit / each.period, now + each.period) for each in windows
        }
        self._every = tuple(
            name for name, each in self._windows.items() if each.window.every_call or each.window.kind == "parallel"
        )
        self._parallel = tuple(name for name, each in self._windows.items() if each.window.kind == "parallel")
        self._waiting: list[_Waiter] = []
        self._turn = count()
        self._held: tuple[float, SourceError] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def acquire(self, cost: Mapping[str, float], *, lane: Lane, deadline: float) -> None:
        full = {**dict.fromkeys(self._every, 1.0)}
        for name, amount in cost.items():
            if name in self._windows:
                full[name] = full.get(name, 0.0) + amount
        waiter = _Waiter(LANES.index(lane), next(self._turn), full, asyncio.get_running_loop().create_future())
        if (wait := self._estimate(waiter)) > deadline - self._clock.monotonic():
            raise self._refusal(wait)
        self._waiting.append(waiter)
        self._pump()
        try:
            async with asyncio.timeout(max(deadline - self._clock.monotonic(), 0.0)):
                await waiter.granted
        except TimeoutError:
            raise self._refusal(self._estimate(waiter)) from None
        finally:
            if not waiter.granted.done() or waiter.granted.cancelled():
                self._waiting = [each for each in self._waiting if each is not waiter]
                self._pump()

    def release(self) -> None:
        for name in self._parallel:
            tokens = self._windows[name]
            tokens.level = min(tokens.limit, tokens.level + 1)
        self._pump()

    async def learn(self, learned: Iterable[Learned]) -> None:
        now = self._clock.monotonic()
        for each in learned:
            tokens = self._windows.get(each.window)
            if tokens is None:
                continue
            tokens.refill(now)
            # Who has more left than we thought there was has a larger plan, also where the answer names no limit.
            limit = each.limit or tokens.limit
            if each.limit is None and each.remaining is not None and each.remaining > tokens.limit:
                limit = each.remaining + tokens.limit - tokens.level
            if limit != tokens.limit:
                tokens.level += max(limit - tokens.limit, 0.0)  # what was taken stays taken
                tokens.limit = limit
                if each.per_second is None and tokens.window.kind == "bucket":
                    tokens.per_second = limit / tokens.window.period
            if each.per_second is not None and each.per_second > 0:
                tokens.per_second = each.per_second
            if each.remaining is not None:
                # Answers overtake each other: the lower count is the later one, unless the window was refilled.
                tokens.level = min(tokens.level, tokens.limit)
                tokens.take(max(tokens.level - each.remaining, 0.0))
            if each.reset_after is not None and tokens.window.kind == "fixed":
                tokens.resets_at = now + each.reset_after
        self._pump()

    async def hold(self, error: SourceError) -> None:
        until = self._clock.monotonic() + (error.retry_after if error.retry_after is not None else 1.0)
        if self._held is None or until > self._held[0]:
            self._held = (until, error)
        if error.retry_after is None:
            for name in self._every:
                if name in self._parallel:
                    continue  # its level is what is not in flight: lowered, it would never come back
                tokens = self._windows[name]
                tokens.level = min(tokens.level, 0.0)
                tokens.pace = max(tokens.pace / 2, 0.05)
        self._pump()

    async def levels(self) -> list[Level]:
        now = self._clock.monotonic()
        found = []
        for name, tokens in self._windows.items():
            tokens.refill(now)
            fixed = tokens.window.kind == "fixed"
            wait = tokens.resets_at - now if fixed else (tokens.limit - tokens.level) / tokens.per_second
            found.append(Level(window=name, limit=tokens.limit, remaining=max(tokens.level, 0.0), resets_in=max(wait, 0.0)))
        return found

    def _estimate(self, waiter: _Waiter) -> float:
        """Return the seconds this waiter would wait were it alone; places that others must free count as 0."""
        now = self._clock.monotonic()
        held = max(self._held[0] - now, 0.0) if self._held else 0.0
        waits = (self._wait(name, amount, waiter.lane, now) for name, amount in waiter.cost.items())
        return max(held, *(0.0 if wait == float("inf") else wait for wait in waits), 0.0)

    def _refusal(self, wait: float) -> SourceError:
        now = self._clock.monotonic()
        if self._held is not None and self._held[0] > now:
            after, why = self._held[0] - now, self._held[1]
            if isinstance(why, ExhaustedError):
                return ExhaustedError(why.message, upstream_code=why.upstream_code, retry_after=after)
            return ThrottledError("the system asked us to wait", upstream_code=why.upstream_code, retry_after=after)
        return ThrottledError("our budget for this system is used up for the moment", retry_after=wait)

    def _pump(self) -> None:
        """Grant waiters in order while there are tokens; come back when there will be.

        A waiter whose windows are all free may pass an earlier one that waits for another window, never one that
        waits for the same.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.monotonic()
        if self._held is not None and self._held[0] <= now:
            self._held = None
        held = max(self._held[0] - now, 0.0) if self._held else 0.0
        still: list[_Waiter] = []
        blocked: set[str] = set()
        soonest = float("inf")
        for waiter in sorted(self._waiting):
            if waiter.granted.done():
                continue
            waits = {name: self._wait(name, amount, waiter.lane, now) for name, amount in waiter.cost.items()}
            if held or any(waits.values()) or blocked & waiter.cost.keys():
                blocked |= {name for name, wait in waits.items() if wait} if not held else waiter.cost.keys()
                soonest = min(soonest, max(held, *waits.values()))
                still.append(waiter)
                continue
            for name, amount in waiter.cost.items():
                self._windows[name].take(amount)
            waiter.granted.set_result(None)
        self._waiting = still
        if still and soonest != float("inf"):
            self._timer = asyncio.get_running_loop().call_later(max(soonest, 0.001), self._pump)

    def _wait(self, name: str, amount: float, lane: int, now: float) -> float:
        tokens = self._windows[name]
        tokens.refill(now)
        floor = 0.0 if lane == 0 else tokens.limit * RESERVE
        return tokens.wait(min(amount, tokens.limit - floor), floor)
