"""What waits to be sent to one client: bounded per subscription, in order, sent by one task.

A subscriber that does not take its events in time is not waited for and not starved in silence: what waits is still sent, then an
error that says where to resume, and there its subscription ends.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from telemetry.logging import request_id

STALLED = 60.0  # seconds in which a client takes nothing at all; then it is gone
Errors = Sequence[dict[str, Any]]


class Form(Protocol):
    """How a transport writes."""

    def next(self, body: str, cursor: str | None) -> str:
        """Return one result."""
        ...

    def failed(self, errors: Errors) -> str:
        """Return the end by errors."""
        ...

    def done(self) -> str:
        """Return the end."""
        ...


class Channel:
    """One connection's way out.

    Args:
        idle: (seconds, frame) what is sent when nothing else was for so long.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], *, idle: tuple[float, str] | None = None) -> None:
        self._send, self._idle = send, idle
        self._waiting: deque[tuple[str, Line | None]] = deque()
        self._came = asyncio.Event()
        self._closed = False

    def put(self, frame: str, line: "Line | None" = None) -> None:
        self._waiting.append((frame, line))
        self._came.set()

    def close(self) -> None:
        """End after what waits."""
        self._closed = True
        self._came.set()

    async def run(self) -> None:
        """Send until closed.

        Raises:
            TimeoutError: the client takes nothing.
        """
        while True:
            while self._waiting:
                frame, line = self._waiting.popleft()
                if line is not None and line.muted:
                    continue
                async with asyncio.timeout(STALLED):
                    await self._send(frame)
                if line is not None:
                    line.sent()
            if self._closed:
                return
            self._came.clear()
            if self._idle is None:
                await self._came.wait()
                continue
            try:
                async with asyncio.timeout(self._idle[0]):
                    await self._came.wait()
            except TimeoutError:
                self.put(self._idle[1])


class Line:
    """One subscription's share of a channel.

    Args:
        most: results that may wait.
        ended: called once when it ends by itself.
    """

    def __init__(self, channel: Channel, form: Form, *, most: int, ended: Callable[[], None]) -> None:
        self._channel, self._form, self._most, self._ended = channel, form, most, ended
        self._waiting = 0
        self._room = asyncio.Event()
        self._last: str | None = None
        self.open, self.muted = True, False

    def give(self, body: str, cursor: str | None) -> None:
        """Take one more result, or cut the subscriber off."""
        if not self.open:
            return
        if self._waiting >= self._most:
            self.fail([slow(self._last)])
            return
        self._waiting += 1
        self._last = cursor
        self._channel.put(self._form.next(body, cursor), self)

    async def room(self) -> None:
        """Wait until `give` would not cut off."""
        while self.open and self._waiting >= self._most:
            self._room.clear()
            await self._room.wait()

    def fail(self, errors: Errors) -> None:
        if self.open:
            self._channel.put(self._form.failed(errors))
            self._end()

    def done(self) -> None:
        if self.open:
            self._channel.put(self._form.done())
            self._end()

    def drop(self) -> None:
        """Say nothing more, not even what waits: nobody listens."""
        self.muted = self.muted or self.open
        self._stop()

    def sent(self) -> None:
        self._waiting -= 1
        self._room.set()

    def _end(self) -> None:
        self._stop()
        self._ended()

    def _stop(self) -> None:
        self.open = False
        self._room.set()


def slow(cursor: str | None) -> dict[str, Any]:
    """Return the error of a subscriber that is cut off."""
    extensions = {"code": "SLOW_SUBSCRIBER", "resumeFrom": cursor, "requestId": request_id.get()}
    return {"message": "events came faster than they were taken; subscribe again with `since`", "extensions": extensions}
