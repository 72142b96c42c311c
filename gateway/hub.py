"""Who follows what: subscriptions that ask the same are executed once per event, and its bytes go to all of them."""

import asyncio
import logging
from collections.abc import Hashable
from contextlib import aclosing
from typing import Any

import orjson

from gateway.callers import Caller
from gateway.channel import Errors, Line, slow
from gateway.errors import refusal
from gateway.execution import Asked, Engine, NotExecutedError, Stream, cancelled
from model.errors import C360Error, InvalidRequestError, SlowSubscriberError
from model.events import Event
from resolvers.live import cursor_of
from telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Hub:
    """All running subscriptions of one process."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics
        self._groups: dict[Hashable, _Group] = {}

    async def join(self, line: Line, asked: Asked, caller: Caller, request: Any, *, resume_from: str | None = None) -> "Seat":
        """Begin to feed a line; the seat must be left in the end.

        Raises:
            NotExecutedError: nothing can be followed so.
        """
        try:
            subscribed = self._engine.subscription(asked, resumed=resume_from is not None)
        except InvalidRequestError as error:
            raise NotExecutedError(refusal(error.code, error.message)) from None
        key = _key(asked, caller) if subscribed.shared else object()
        group = self._groups.get(key)
        if group is None:
            stream = await self._engine.follow(asked, subscribed, caller, request, resume_from=resume_from)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(stream, patient=not subscribed.shared)
                group.task = asyncio.create_task(self._run(key, group))
            else:  # another came first while we looked
                await stream.close()
        group.lines[line] = None
        self._metrics.subscribers.inc()
        seat = Seat(self, key, group, line)
        try:
            await asyncio.sleep(0)  # the group begins to follow in this step, before anyone is told that it does
        except asyncio.CancelledError:
            await seat.leave()
            raise
        return seat

    async def leave(self, key: Hashable, group: "_Group", line: Line) -> None:
        line.drop()
        self._metrics.subscribers.dec()
        group.lines.pop(line, None)
        if not group.lines:
            if self._groups.get(key) is group:
                del self._groups[key]
            await cancelled(group.task)

    async def _run(self, key: Hashable, group: "_Group") -> None:
        cursor: str | None = None
        try:
            async with aclosing(group.stream.events()) as events:
                async for event, context, body in events:
                    cursor = cursor_of(event, context) if isinstance(event, Event) else None
                    for line in tuple(group.lines):
                        if group.patient:
                            await line.room()
                        line.give(body, cursor)
                        if not line.open and not group.patient:
                            group.lines.pop(line, None)
                            self._metrics.cut_off.inc()
                    await asyncio.sleep(0)  # a burst must not fill queues that nobody had a turn to empty
        except Exception as error:  # noqa: BLE001 - whatever it is, subscribers are told
            errors = self._told(error, cursor)
            for line in tuple(group.lines):
                line.fail(errors)
        else:
            for line in tuple(group.lines):
                line.done()
        finally:
            if self._groups.get(key) is group:
                del self._groups[key]

    def _told(self, error: Exception, cursor: str | None) -> Errors:
        if isinstance(error, SlowSubscriberError):
            self._metrics.cut_off.inc()
            return [slow(cursor)]
        if isinstance(error, C360Error):
            return list(refusal(error.code, error.message)["errors"])
        log.error("subscription failed", exc_info=error)
        return list(refusal("INTERNAL", "Internal error. Tell us the request id.")["errors"])


class Seat:
    """One line's place in a group."""

    def __init__(self, hub: Hub, key: Hashable, group: "_Group", line: Line) -> None:
        self._hub, self._key, self._group, self._line = hub, key, group, line
        self._left = False

    async def leave(self) -> None:
        """Stop feeding the line; with the last one the subscription itself ends."""
        if not self._left:
            self._left = True
            await self._hub.leave(self._key, self._group, self._line)


class _Group:
    """
    Attributes:
        patient: its one line is waited for; the queue of the log then is the bound.
        lines: a set that keeps its order.
    """

    def __init__(self, stream: Stream, *, patient: bool) -> None:
        self.stream, self.patient = stream, patient
        self.lines: dict[Line, None] = {}
        self.task: asyncio.Task[None] | None = None


def _key(asked: Asked, caller: Caller) -> Hashable:
    variables = orjson.dumps(asked.variables or {}, option=orjson.OPT_SORT_KEYS)
    return (asked.query, asked.operation, variables, caller.workspace, caller.scopes)
