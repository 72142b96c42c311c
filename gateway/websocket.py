"""GraphQL over WebSocket: the protocol graphql-transport-ws (github.com/enisdenjo/graphql-ws, PROTOCOL.md).

What is wrong with a document is told to its operation; the socket is closed only for what breaks the protocol itself.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import orjson
from graphql import OperationType
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from gateway.callers import Caller, until_unknown
from gateway.channel import Channel, Errors, Line
from gateway.errors import refusal
from gateway.execution import Engine, NotExecutedError, cancelled, parsed, understood
from gateway.hub import Hub
from model.errors import CallerUnknownError, InvalidRequestError
from telemetry.logging import request_id

log = logging.getLogger(__name__)

PROTOCOL: Final = "graphql-transport-ws"
INIT_WAIT = 5.0  # seconds in which a client says who it is
_MAX_ID = 128
_CREDENTIALS = ("authorization", "x-api-key")


class _Closing(Exception):
    """The protocol was broken, or the caller may not stay."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class WebSocketEndpoint:
    """The ASGI app behind one path.

    Args:
        recognise: returns whose the credentials in these headers are, or raises CallerUnknownError.
        most: operations that one socket may run at a time.
        queue: results that may wait for one of them.
        max_body: bytes of one message.
    """

    def __init__(
        self, engine: Engine, hub: Hub, *, recognise: Callable[[Mapping[str, str]], Awaitable[Caller]], most: int, queue: int, max_body: int
    ) -> None:  # fmt: skip
        self.engine, self.hub, self.recognise = engine, hub, recognise
        self.most, self.queue, self.max_body = most, queue, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if PROTOCOL not in scope.get("subprotocols", ()):
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"})
            return
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        token = request_id.set(secrets.token_hex(8))
        try:
            await _Connection(self, scope, receive, send).run()
        finally:
            request_id.reset(token)


class _Connection:
    """One socket, from `connection_init` to its end."""

    def __init__(self, endpoint: WebSocketEndpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._endpoint, self._receive, self._send = endpoint, receive, send
        self._request = HTTPConnection(scope)
        self._channel = Channel(self._write)
        self._caller: Caller | None = None
        self._headers: Mapping[str, str] = self._request.headers
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._greeted = False
        self._known = asyncio.Event()

    async def run(self) -> None:
        parts = [asyncio.ensure_future(each) for each in (self._listen(), self._channel.run(), self._review())]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        except _Closing as closing:
            await self._send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
        except TimeoutError:
            log.info("subscriber takes nothing")
        except OSError:  # it has hung up
            pass
        except Exception:
            log.exception("unexpected error")
            await self._send({"type": "websocket.close", "code": 4500, "reason": "Internal server error"})
        finally:
            await cancelled(*parts, *self._operations.values())

    async def _write(self, frame: str) -> None:
        await self._send({"type": "websocket.send", "text": frame})

    async def _listen(self) -> None:
        try:
            async with asyncio.timeout(INIT_WAIT) as patience:
                while (message := await self._receive())["type"] != "websocket.disconnect":
                    await self._heard(_message(message, self._endpoint.max_body))
                    if self._caller is not None:
                        patience.reschedule(None)
        except TimeoutError:
            raise _Closing(4408, "Connection initialisation timeout") from None

    async def _heard(self, said: dict[str, Any]) -> None:
        match said.get("type"):
            case "connection_init":
                await self._init(said)
            case "ping":
                payload = said.get("payload")
                self._channel.put('{"type":"pong"}' if payload is None else _text({"type": "pong", "payload": payload}))
            case "pong":
                pass
            case "subscribe":
                self._subscribe(said)
            case "complete":
                if (task := self._operations.pop(_id(said), None)) is not None:
                    task.cancel()
            case _:
                raise _Closing(4400, "Unknown message type")

    async def _init(self, said: dict[str, Any]) -> None:
        if self._greeted:
            raise _Closing(4429, "Too many initialisation requests")
        self._greeted = True
        payload = said.get("payload")
        if payload is not None and not isinstance(payload, dict):
            raise _Closing(4400, "`payload` of connection_init must be an object")
        given = {name.lower(): value for name, value in (payload or {}).items() if isinstance(value, str)}
        if any(name in given for name in _CREDENTIALS):
            self._headers = given
        try:
            self._caller = await self._endpoint.recognise(self._headers)
        except CallerUnknownError:
            raise _Closing(4403, "Forbidden") from None
        self._known.set()
        self._channel.put('{"type":"connection_ack"}')

    async def _review(self) -> None:
        await self._known.wait()
        await until_unknown(lambda: self._endpoint.recognise(self._headers))
        raise _Closing(4403, "Forbidden")

    def _subscribe(self, said: dict[str, Any]) -> None:
        caller = self._caller
        if caller is None:
            raise _Closing(4401, "Unauthorized")
        id = _id(said)
        if id in self._operations:
            raise _Closing(4409, f"Subscriber for {id} already exists"[:120])
        form = _Form(id)
        if len(self._operations) >= self._endpoint.most:
            refused = refusal("COST_EXCEEDED", f"one socket runs at most {self._endpoint.most} operations at a time")
            self._channel.put(form.failed(refused["errors"]))
            return
        self._operations[id] = asyncio.create_task(self._guarded(id, form, self._operate(id, form, caller, said.get("payload"))))

    async def _guarded(self, id: str, form: "_Form", work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except InvalidRequestError as error:
            self._channel.put(form.failed(refusal(error.code, error.message)["errors"]))
        except NotExecutedError as error:
            self._channel.put(form.failed(error.body["errors"]))
        except Exception:
            log.exception("unexpected error")
            self._channel.put(form.failed(refusal("INTERNAL", "Internal error. Tell us the request id.")["errors"]))
        finally:
            if self._operations.get(id) is asyncio.current_task():
                del self._operations[id]

    async def _operate(self, id: str, form: "_Form", caller: Caller, payload: object) -> None:
        if not isinstance(payload, dict):
            raise InvalidRequestError("`payload` must be an object")
        asked = understood(payload)
        if self._endpoint.engine.operation(asked) is OperationType.SUBSCRIPTION:
            ended = asyncio.Event()
            line = Line(self._channel, form, most=self._endpoint.queue, ended=ended.set)
            seat = await self._endpoint.hub.join(line, asked, caller, self._request)
            try:
                await ended.wait()
            finally:
                await seat.leave()
            return
        executed, body = await self._endpoint.engine.run(asked, caller, self._request)
        if not executed:
            raise NotExecutedError(body)
        self._channel.put(form.next(_text(body), None))
        self._channel.put(form.done())


class _Form:
    """Messages of one operation. Results are joined to what stays the same, not encoded anew for each subscriber."""

    def __init__(self, id: str) -> None:
        self._id = _text(id)
        self._next = f'{{"id":{self._id},"type":"next","payload":'

    def next(self, body: str, cursor: str | None) -> str:
        return f"{self._next}{body}}}"

    def failed(self, errors: Errors) -> str:
        return f'{{"id":{self._id},"type":"error","payload":{_text(list(errors))}}}'

    def done(self) -> str:
        return f'{{"id":{self._id},"type":"complete"}}'


def _message(message: Mapping[str, Any], most: int) -> dict[str, Any]:
    text = message.get("text")
    if not isinstance(text, str):
        raise _Closing(4400, "Messages are JSON text")
    if len(text) > most:
        raise _Closing(1009, f"A message has at most {most} bytes")
    try:
        said = parsed(text)
    except ValueError as error:
        raise _Closing(4400, f"The message {error}") from None
    if not isinstance(said, dict):
        raise _Closing(4400, "A message is a JSON object")
    return said


def _id(said: dict[str, Any]) -> str:
    id = said.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= _MAX_ID:
        raise _Closing(4400, f"`id` must be text of 1 to {_MAX_ID} characters")
    return id


def _text(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()
