"""The log of events as it is followed: from any number that is still kept, or from now on, without gap or double.

Each process has one. It hears of new events from its own intake at once, from other replicas by a Redis stream, and looks into the
database every second, so that a lost message costs a second and never an event.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model.errors import ExpiredEventError, InvalidRequestError, SlowSubscriberError
from model.events import Event
from store.events import EventRows
from sync.interest import Routes

log = logging.getLogger(__name__)

QUEUE = 1000  # events that may wait for one follower
_PAGE = 1000
_LOOK = 1.0  # seconds between two looks into the database
_BLOCK = 250  # milliseconds of one wait for the stream
_KEPT = 10_000  # events that the stream holds
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Event]).decode


class EventLog:
    """One workspace's events.

    Args:
        redis: carries events between replicas; None where there is one process, or no Redis.
        failed: told of each time that Redis did not serve.
    """

    def __init__(
        self, rows: EventRows, workspace: str, *, redis: "Redis | None" = None, failed: Callable[[], None] = lambda: None
    ) -> None:
        self._rows, self._workspace = rows, workspace
        self._redis, self._failed = redis, failed
        self._followers: Routes[_Follower] = Routes()
        self._last = 0
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def last(self) -> int:
        """The number of the youngest event that followers were given."""
        return self._last

    @property
    def followers(self) -> int:
        """How many follow now."""
        return len(self._followers)

    async def start(self) -> None:
        _, self._last = await self._rows.bounds(self._workspace)
        self._tasks = [asyncio.create_task(self._look())]
        if self._redis is not None:
            self._tasks.append(asyncio.create_task(self._listen(self._redis)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for follower in self._followers:
            follower.end()

    async def publish(self, events: Sequence[Event]) -> None:
        """Give events that were just committed to every follower, here and in other replicas."""
        if not events:
            return
        self._offer(events)
        if self._redis is not None:
            try:
                await self._redis.xadd(self._stream, {"events": _encode(list(events))}, maxlen=_KEPT, approximate=True)
            except (RedisError, OSError) as error:
                self._missed(error)

    async def follow(
        self, *, since: int | None = None, wants: Callable[[Event], bool] = lambda _: True, queue: int = QUEUE,
        stop: "Stop | None" = None,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """Yield the events that `wants` takes, in order: those after number `since` and then each new one; from now on without it.

        Ends when the log stops, or `stop` asks, after what waits. An `Interest` as `wants` is looked up by what it says; any other function is asked for every event.

        Raises:
            ExpiredEventError: what came after `since` is not kept any more.
            InvalidRequestError: there is no such number yet.
            SlowSubscriberError: more than `queue` events wait to be taken.
        """
        follower = _Follower(wants, queue)
        self._followers.add(follower, wants)
        if stop is not None:
            stop.tell(follower.end)
        try:
            given = self._last
            if since is not None:
                await self.check(since)
                given = since
                while page := await self._rows.since(self._workspace, given, limit=_PAGE):
                    # What is read here need not wait in the queue: a long history is no slowness.
                    follower.skip(page[-1].seq)
                    for event in page:
                        given = event.seq
                        if wants(event):
                            yield event
                if follower.overflowed:  # while history was read: go on from what was read last
                    raise SlowSubscriberError("events came faster than they were taken", resume_from=given)
            async for event in follower.events(after=given):
                yield event
        finally:
            self._followers.remove(follower)

    async def check(self, since: int) -> None:
        """Raise as `follow` does where nobody can follow from number `since`."""
        first, last = await self._rows.bounds(self._workspace)
        if since < first - 1:
            raise ExpiredEventError("events since then are not kept any more: read what you need anew, and follow from now on")
        if since > max(last, self._last):
            raise InvalidRequestError("`since` is none of this log's events")

    def _offer(self, events: Sequence[Event], *, whole: bool = False) -> None:
        """Give events to followers. `whole`: nothing is missing between them: what the database lacks was erased, or is not kept."""
        fresh = [event for event in events if event.seq > self._last]
        if not fresh:
            return
        if not whole and (fresh[0].seq != self._last + 1 or fresh[-1].seq - fresh[0].seq + 1 != len(fresh)):
            self._wake.set()  # something is missing between: read it
            return
        self._last = fresh[-1].seq
        for event in fresh:
            for follower in self._followers.of(event):
                follower.give(event)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK)
            self._wake.clear()
            try:
                while page := await self._rows.since(self._workspace, self._last, limit=_PAGE):
                    self._offer(page, whole=True)
            except Exception as error:  # noqa: BLE001 - a database in trouble: look again
                log.warning("the log of events cannot be read", extra={"error.type": type(error).__name__})
                await asyncio.sleep(_LOOK)

    async def _listen(self, redis: "Redis") -> None:
        place: bytes | None = None  # of the last message heard
        while True:
            try:
                if place is None:
                    newest: Any = await redis.xrevrange(self._stream, count=1)
                    place = newest[0][0] if newest else b"0-0"
                heard: Any = await redis.xread({self._stream: place}, block=_BLOCK, count=100)
                messages = [message for _, found in heard or () for message in found]
                if messages:
                    place = messages[-1][0]
                for _, fields in messages:
                    self._offer(_decode(fields[b"events"]))
            except (RedisError, OSError, msgspec.DecodeError, KeyError) as error:
                self._missed(error)
                place = None
                await asyncio.sleep(_LOOK)

    @property
    def _stream(self) -> str:
        return f"c360:events:{self._workspace}"

    def _missed(self, error: Exception) -> None:
        self._failed()
        log.warning("event stream unavailable", extra={"error.type": type(error).__name__})


class Stop:
    """Asks one follower to end."""

    def __init__(self) -> None:
        self.asked = False
        self._end: Callable[[], None] = lambda: None

    def tell(self, end: Callable[[], None]) -> None:
        self._end = end
        if self.asked:
            end()

    def ask(self) -> None:
        self.asked = True
        self._end()


class _Follower:
    """A bounded queue between the log and one who follows it."""

    def __init__(self, wants: Callable[[Event], bool], most: int) -> None:
        self._wants, self._most = wants, most
        self._waiting: deque[Event] = deque()
        self._came = asyncio.Event()
        self._ended = False
        self.overflowed = False

    def give(self, event: Event) -> None:
        if self.overflowed or not self._wants(event):
            return
        if len(self._waiting) >= self._most:
            self.overflowed = True
        else:
            self._waiting.append(event)
        self._came.set()

    def skip(self, seq: int) -> None:
        """Forget what waits up to number `seq`: it was read from the database. What overflowed is read there, too."""
        while self._waiting and self._waiting[0].seq <= seq:
            self._waiting.popleft()
        if self.overflowed and not self._waiting:
            self.overflowed = False

    def end(self) -> None:
        self._ended = True
        self._came.set()

    async def events(self, *, after: int) -> AsyncIterator[Event]:
        given = after
        while True:
            while self._waiting:
                event = self._waiting.popleft()
                if event.seq > given:
                    given = event.seq
                    yield event
            if self.overflowed:
                raise SlowSubscriberError("events came faster than they were taken", resume_from=given)
            if self._ended:
                return
            self._came.clear()
            await self._came.wait()
