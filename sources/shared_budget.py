"""The budget of one vendor account, shared by all replicas through Redis.

One small script holds every window of the account on the server's clock: it takes all tokens or none and tells how long
to wait. Within a process callers queue by lane; between processes the reserve keeps the interactive lane ahead. Redis in
trouble: each process goes on with a local twin that holds a share of the budget, so replicas never all run free.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.base import Learned, Window
from model.clock import Clock
from model.errors import ExhaustedError, SourceError, ThrottledError
from sources.budget import RESERVE, Level, LocalBudget
from sources.reading import LANES, Lane

log = logging.getLogger(__name__)

SHARE = 0.25  # of the budget, for one process on its own
_KEPT_MS = 86_400_000

# KEYS[1]: the account's hash, per window "<name>:level|at|limit|rate|reset|taken", and "hold", "hold_code"; `taken` are the
# times at which the tokens of a rolling window were taken.
# ARGV: floor share, then per window: name, cost, default limit, default period, kind. Returns {wait in ms, hold code}.
_TAKE = """
local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000
local floor = tonumber(ARGV[1])
local hold = tonumber(redis.call('HGET', KEYS[1], 'hold') or '0')
if hold > now then return {math.ceil((hold - now) * 1000), redis.call('HGET', KEYS[1], 'hold_code') or ''} end
local wait, states = 0, {}
for i = 2, #ARGV, 5 do
  local name, cost, kind, period = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 4], tonumber(ARGV[i + 3])
  local got = redis.call('HMGET', KEYS[1], name .. ':level', name .. ':at', name .. ':limit', name .. ':rate', name .. ':reset')
  local limit = tonumber(got[3] or ARGV[i + 2])
  local level, at = tonumber(got[1] or limit), tonumber(got[2] or now)
  local rate, reset = tonumber(got[4] or (limit / period)), tonumber(got[5] or (now + period))
  local taken = {}
  if kind == 'rolling' then
    for time in string.gmatch(redis.call('HGET', KEYS[1], name .. ':taken') or '', '[^ ]+') do
      if tonumber(time) > now - period then taken[#taken + 1] = time end
    end
    level = limit - #taken
  elseif kind == 'fixed' then
    if now >= reset then level, reset = limit, now + period end
  else
    level = math.min(limit, level + (now - at) * rate)
  end
  local keep = floor * limit
  local missing = math.min(cost, limit - keep) + keep - level
  if missing > 0.000001 then
    local pause = missing / rate
    if kind == 'fixed' then pause = reset - now end
    if kind == 'rolling' then pause = tonumber(taken[math.min(math.ceil(missing), #taken)]) + period - now end
    wait = math.max(wait, pause)
  end
  states[#states + 1] = {name, level, cost, reset, taken, kind}
end
for _, s in ipairs(states) do
  local level = s[2]; if wait == 0 then level = level - s[3] end
  if wait == 0 and s[6] == 'rolling' then for _ = 1, math.ceil(s[3]) do s[5][#s[5] + 1] = string.format('%.6f', now) end end
  redis.call('HSET', KEYS[1], s[1] .. ':level', level, s[1] .. ':at', now, s[1] .. ':reset', s[4], s[1] .. ':taken', table.concat(s[5], ' '))
end
redis.call('PEXPIRE', KEYS[1], 86400000)
return {math.ceil(wait * 1000), ''}
"""


class SharedBudget:
    """See `sources.budget.Budget`.

    Args:
        account: names the vendor account, such as "acme:62515".
        failed: told about each decision that Redis could not make.
    """

    def __init__(
        self, windows: Iterable[Window], *, redis: "Redis", account: str, clock: Clock, rng: random.Random,
        failed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        every = tuple(windows)
        self._windows = {each.name: each for each in every if each.kind != "parallel"}
        # Places in flight cannot be counted by a store that does not see a process die: each process keeps its own.
        self._places = LocalBudget((each for each in every if each.kind == "parallel"), clock=clock)
        self._alone = LocalBudget((replace(each, limit=max(each.limit * SHARE, 1.0)) for each in every), clock=clock)
        self._redis, self._clock, self._rng, self._failed = redis, clock, rng, failed
        self._key = f"c360:budget:{account}"
        self._script = redis.register_script(_TAKE)
        self._queues: dict[frozenset[str], list[tuple[int, int]]] = {}
        self._turn = count()
        self._moved = asyncio.Event()

    async def acquire(self, cost: Mapping[str, float], *, lane: Lane, deadline: float) -> None:
        full = {name: 1.0 for name, each in self._windows.items() if each.every_call}
        for name, amount in cost.items():
            if name in self._windows:
                full[name] = full.get(name, 0.0) + amount
        await self._places.acquire({}, lane=lane, deadline=deadline)
        try:
            async with self._turned(frozenset(full), lane, deadline):
                await self._take(full, lane, deadline, cost)
        except BaseException:
            self._places.release()
            raise

    def release(self) -> None:
        self._places.release()

    async def learn(self, learned: Iterable[Learned]) -> None:
        values: dict[str, str | float] = {}
        now = await self._time()
        known = tuple(learned)
        for each in known:
            window = self._windows.get(each.window)
            if window is None or now is None:
                continue
            if each.limit is not None and each.limit > 0:
                values[f"{each.window}:limit"] = each.limit
                values[f"{each.window}:rate"] = each.per_second or each.limit / window.period
            if each.remaining is not None:
                values |= {f"{each.window}:level": each.remaining, f"{each.window}:at": now}
            if each.reset_after is not None:
                values[f"{each.window}:reset"] = now + each.reset_after
        await self._alone.learn(known)
        if values:
            await self._tell(values)

    async def hold(self, error: SourceError) -> None:
        await self._alone.hold(error)
        now = await self._time()
        if now is not None:
            until = now + (error.retry_after if error.retry_after is not None else 1.0)
            await self._tell({"hold": until, "hold_code": error.code})

    async def levels(self) -> list[Level]:
        try:
            kept = await self._redis.hgetall(self._key)
        except (RedisError, OSError):
            self._failed()
            return await self._alone.levels()
        said = {_text(name): float(value) for name, value in kept.items() if not _text(name).endswith((":taken", "hold_code"))}
        now = await self._time() or 0.0
        found = []
        for name, window in self._windows.items():
            limit = said.get(f"{name}:limit", window.limit)
            level = said.get(f"{name}:level", limit)
            rate = said.get(f"{name}:rate", limit / window.period)
            if window.kind == "bucket":
                level = min(limit, level + (now - said.get(f"{name}:at", now)) * rate)
            resets = said.get(f"{name}:reset", now) - now if window.kind == "fixed" else (limit - level) / rate
            found.append(Level(window=name, limit=limit, remaining=max(level, 0.0), resets_in=max(resets, 0.0)))
        return found

    async def _take(self, full: Mapping[str, float], lane: Lane, deadline: float, cost: Mapping[str, float]) -> None:
        arguments: list[str | float] = [0.0 if lane == "interactive" else RESERVE]
        for name, amount in full.items():
            window = self._windows[name]
            arguments += [name, amount, window.limit, window.period, window.kind]
        while True:
            try:
                waited, code = await self._script(keys=[self._key], args=arguments)
            except (RedisError, OSError) as error:
                self._failed()
                log.warning("budget kept alone", extra={"error.type": type(error).__name__})
                await self._alone.acquire(cost, lane=lane, deadline=deadline)
                self._alone.release()
                return
            if not waited:
                return
            wait = int(waited) / 1000
            if self._clock.monotonic() + wait > deadline:
                raise _refusal(_text(code), wait)
            await asyncio.sleep(wait + self._rng.uniform(0, 0.005))

    @asynccontextmanager
    async def _turned(self, windows: frozenset[str], lane: Lane, deadline: float) -> AsyncIterator[None]:
        """Wait until no earlier or better lane of this process wants the same windows."""
        queue = self._queues.setdefault(windows, [])
        ticket = (LANES.index(lane), next(self._turn))
        heapq.heappush(queue, ticket)
        try:
            async with asyncio.timeout(max(deadline - self._clock.monotonic(), 0.0)):
                while queue[0] != ticket:
                    self._moved.clear()
                    await self._moved.wait()
            yield
        except TimeoutError:
            raise _refusal("", 1.0) from None
        finally:
            queue.remove(ticket)
            heapq.heapify(queue)
            self._moved.set()

    async def _time(self) -> float | None:
        try:
            seconds, micros = await self._redis.time()
        except (RedisError, OSError):
            self._failed()
            return None
        return float(seconds) + float(micros) / 1e6

    async def _tell(self, values: Mapping[str, str | float]) -> None:
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._key, mapping=dict(values.items()))
                pipe.pexpire(self._key, _KEPT_MS)
                await pipe.execute()
        except (RedisError, OSError):
            self._failed()


def _refusal(code: str, wait: float) -> SourceError:
    if code == ExhaustedError.code:
        return ExhaustedError("the quota of this system is used up", retry_after=wait)
    if code:
        return ThrottledError("the system asked us to wait", retry_after=wait)
    return ThrottledError("our budget for this system is used up for the moment", retry_after=wait)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
