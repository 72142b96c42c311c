"""Subscriptions over plain HTTP: server-sent events (graphql-sse, distinct connections) and Apollo's multipart protocol."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.callers import Caller, until_unknown
from gateway.channel import Channel, Errors, Form, Line
from gateway.errors import refusal
from gateway.execution import cancelled
from gateway.hub import Seat

log = logging.getLogger(__name__)

SSE: Final = "text/event-stream"
MULTIPART: Final = "multipart/mixed"
SSE_HEARTBEAT = 12.0  # seconds; proxies that close what is silent wait longer than this
MULTIPART_HEARTBEAT = 5.0  # as Apollo's router has it
_BOUNDARY = "graphql"


class EventStream:
    """Server-sent events. Lines end in LF alone; `id` lets a browser go on by `Last-Event-ID`."""

    media = f"{SSE}; charset=utf-8"
    opening = ":\n\n"
    idle = (SSE_HEARTBEAT, ":\n\n")

    def next(self, body: str, cursor: str | None) -> str:
        return f"id: {cursor}\nevent: next\ndata: {body}\n\n" if cursor is not None else f"event: next\ndata: {body}\n\n"

    def failed(self, errors: Errors) -> str:
        return self.next(_text({"errors": list(errors)}), None) + self.done()

    def done(self) -> str:
        return "event: complete\ndata:\n\n"


class Multipart:
    """Apollo's multipart subscription protocol. Each part ends with the delimiter of the next, so that it is complete at once."""

    media = f'{MULTIPART};boundary="{_BOUNDARY}";subscriptionSpec="1.0"'
    opening = f"--{_BOUNDARY}"
    idle = (MULTIPART_HEARTBEAT, f"\r\ncontent-type: application/json\r\n\r\n{{}}\r\n--{_BOUNDARY}")

    def next(self, body: str, cursor: str | None) -> str:
        return self._part(f'{{"payload":{body}}}')

    def failed(self, errors: Errors) -> str:
        return self._part(_text({"payload": None, "errors": list(errors)})) + self.done()

    def done(self) -> str:
        return "--\r\n"

    def _part(self, body: str) -> str:
        return f"\r\ncontent-type: application/json\r\n\r\n{body}\r\n--{_BOUNDARY}"


def form_of(media: str) -> EventStream | Multipart:
    return EventStream() if media == SSE else Multipart()


def once(form: EventStream | Multipart, body: Mapping[str, Any]) -> Response:
    """Return the answer to a query, as one result and the end."""
    text = form.opening + form.next(_text(body), None) + form.done()
    return Response(text, headers={"content-type": form.media})


class Following(Response):
    """An answer that goes on until the subscription ends or the client hangs up.

    Args:
        among: holds it as long as it goes on.
        recognise: returns who asked, or raises CallerUnknownError once the key is not ours any more.
    """

    def __init__(
        self, form: EventStream | Multipart, *, queue: int, among: set["Following"], recognise: Callable[[], Awaitable[Caller]]
    ) -> None:
        self._among, self._recognise = among, recognise
        self._form: Final[EventStream | Multipart] = form
        self._out: list[Send] = []
        self._channel = Channel(self._write, idle=form.idle)
        self.line = Line(self._channel, _form(form), most=queue, ended=self._channel.close)
        self.seat: Seat | None = None
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._out.append(send)
        headers = [(b"content-type", self._form.media.encode()), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        parts: list[asyncio.Future[None]] = []
        self._among.add(self)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._write(self._form.opening)
            parts = [
                asyncio.ensure_future(self._channel.run()),
                asyncio.ensure_future(_hung_up(receive)),
                asyncio.ensure_future(self._revoked()),
            ]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if parts[0] in done and parts[0].exception() is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._among.discard(self)
            await cancelled(*parts)
            if self.seat is not None:
                await self.seat.leave()

    async def _revoked(self) -> None:
        await until_unknown(self._recognise)
        self.line.fail(refusal("UNAUTHENTICATED", "this API key was revoked")["errors"])
        await asyncio.Event().wait()  # until that is sent

    def stop(self) -> None:
        """End without a word, as a lost connection does."""
        self._channel.close()

    async def _write(self, frame: str) -> None:
        await self._out[0]({"type": "http.response.body", "body": frame.encode(), "more_body": True})


def _form(form: EventStream | Multipart) -> Form:
    return form


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _text(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
