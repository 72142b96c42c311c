"""`/graphql`, to the letter of the GraphQL-over-HTTP draft."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.callers import Caller
from gateway.errors import refusal
from gateway.execution import Asked, Engine, NotExecutedError, cancelled, parsed, understood
from gateway.hub import Hub
from gateway.streaming import MULTIPART, SSE, Following, form_of, once
from model.errors import CallerUnknownError, InvalidRequestError
from telemetry.metrics import Metrics

log = logging.getLogger(__name__)

JSON: Final = "application/json"
GRAPHQL: Final = "application/graphql-response+json"
_PLAIN: Final = frozenset({JSON, GRAPHQL})
_SAFE: Final = frozenset({"GET", "HEAD"})


class _Refused(Exception):
    """The request is not executed."""

    def __init__(self, status: int, message: str, *, code: str = "VALIDATION", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


class GraphQLEndpoint:
    """The endpoint over one engine.

    Args:
        identify: returns who asks, or raises CallerUnknownError.
        queue: results that may wait for one subscriber.
    """

    def __init__(
        self, engine: Engine, hub: Hub, *, identify: Callable[[Request], Awaitable[Caller]], max_body: int, queue: int, metrics: Metrics
    ) -> None:  # fmt: skip
        self._engine, self._hub, self._identify = engine, hub, identify
        self._max_body, self._queue, self._metrics = max_body, queue, metrics
        self._following: set[Following] = set()

    def stop(self) -> None:
        """Break off what is being followed, so that its clients come back elsewhere: the process is to stop."""
        for each in self._following:
            each.stop()

    async def __call__(self, request: Request) -> Response:
        began = time.perf_counter()
        outcome = "error"
        try:
            with self._metrics.in_flight.track_inprogress():
                response, outcome = await self._answered(request)
            return response
        except ClientDisconnect:
            outcome = "gone"
            return Response(status_code=499)
        except Exception:
            log.exception("unexpected error")
            return _response(refusal("INTERNAL", "Internal error. Tell us the request id."), 500, JSON)
        finally:
            took = time.perf_counter() - began
            self._metrics.requests.labels(outcome).inc()
            self._metrics.duration.observe(took)
            log.info(
                "request answered",
                extra={"http.request.method": request.method, "outcome": outcome, "duration_s": round(took, 4)},
            )

    async def _answered(self, request: Request) -> tuple[Response, str]:
        media = JSON
        try:
            offers = _negotiated(request.headers.get("accept"))
            media = next((each for each in offers if each in _PLAIN), JSON)  # of refusals
            caller = await self._identify(request)
            asked = await self._asked(request)
            operation = self._engine.operation(asked)
            if request.method in _SAFE and operation is OperationType.MUTATION:
                raise _Refused(405, "only queries and subscriptions are answered to GET", headers={"allow": "POST"})
            if operation is OperationType.SUBSCRIPTION:
                return await self._followed(request, caller, asked, offers), "followed"
        except _Refused as error:
            return _response(refusal(error.code, error.message), error.status, media, error.headers), "refused"
        except CallerUnknownError as error:
            headers = {"www-authenticate": 'Bearer realm="customer360"'}
            return _response(refusal(error.code, error.message), 401, media, headers), "unauthenticated"
        except InvalidRequestError as error:
            return _response(refusal(error.code, error.message), 400, media), "refused"
        except NotExecutedError as error:
            return _response(error.body, 400, media), "refused"
        result = await self._executed(request, caller, asked)
        if result is None:
            raise ClientDisconnect
        executed, body = result
        outcome = "partial" if "errors" in body else "ok"
        # A client that takes parts takes JSON for what comes in one; one that asks for events first means it.
        chosen = offers[0] if offers[0] != MULTIPART else next((each for each in offers if each in _PLAIN), MULTIPART)
        if chosen not in _PLAIN and not executed:
            return _response(body, 400, media), outcome
        if chosen not in _PLAIN:
            return once(form_of(chosen), body), outcome
        return _response(body, 200 if executed or chosen == JSON else 400, chosen), outcome

    async def _followed(self, request: Request, caller: Caller, asked: Asked, offers: Sequence[str]) -> Response:
        media = next((each for each in offers if each not in _PLAIN), None)
        if media is None:
            raise _Refused(
                406,
                f'a subscription is answered over WebSocket, or as {SSE}, or as {MULTIPART};subscriptionSpec="1.0": accept one of these',
            )
        following = Following(form_of(media), queue=self._queue, among=self._following, recognise=lambda: self._identify(request))
        resume_from = request.headers.get("last-event-id") or None if media == SSE else None
        following.seat = await self._hub.join(following.line, asked, caller, request, resume_from=resume_from)
        return following

    async def _asked(self, request: Request) -> Asked:
        if request.method in _SAFE:
            query = request.query_params
            said: Any = {name: query[name] for name in ("query", "operationName") if name in query}
            for name in ("variables", "extensions"):
                if query.get(name):
                    said[name] = _parsed(query[name], f"`{name}`")
        else:
            said = await self._posted(request)
        if not isinstance(said, dict):
            raise _Refused(400, "the body must be a JSON object; batches are not supported")
        return understood(said)

    async def _posted(self, request: Request) -> Any:
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        if kind.strip().lower() != JSON:
            raise _Refused(415, f"the content type must be {JSON}")
        charset = next(
            (part.partition("=")[2].strip(' "').lower() for part in parameters.split(";") if "charset" in part.lower()), "utf-8"
        )
        if charset not in {"utf-8", "utf8"}:
            raise _Refused(415, "the charset must be utf-8")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refused(415, "compressed requests are not supported")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            raise _Refused(413, f"the body must have at most {self._max_body} bytes")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise _Refused(413, f"the body must have at most {self._max_body} bytes")
        return _parsed(bytes(body), "the body")

    async def _executed(self, request: Request, caller: Caller, asked: Asked) -> tuple[bool, dict[str, Any]] | None:
        """Return (executed, body), or None when the client has hung up; its work is then cancelled."""
        work = asyncio.ensure_future(self._engine.run(asked, caller, request))
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            await cancelled(work, gone)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _negotiated(accept: str | None) -> list[str]:
    """Return the media types that may be answered, best first: by quality, then order; a named type beats a wildcard.

    Streams must be named, so that nobody gets one by accident; of multipart only Apollo's subscription protocol is meant.
    """
    if not accept:
        return [JSON]
    named: dict[str, tuple[float, int]] = {}
    for at, part in enumerate(accept.split(",")):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        said = dict(each.replace('"', "").partition("=")[::2] for each in parameters)
        if kind == MULTIPART and said.get("subscriptionspec") not in {"1.0", "1"}:
            continue
        try:
            named[kind] = (float(said.get("q", "1")), -at)
        except ValueError:
            named[kind] = (0.0, -at)
    wild = max((named[kind] for kind in ("application/*", "*/*") if kind in named), default=None)
    if JSON not in named and wild is not None:
        named[JSON] = wild
    usable = sorted(
        ((named[kind], kind) for kind in (JSON, GRAPHQL, SSE, MULTIPART) if kind in named and named[kind][0] > 0), reverse=True
    )
    if not usable:
        raise _Refused(
            406, f'answers are {GRAPHQL} or {JSON}; those to subscriptions {SSE} or {MULTIPART};subscriptionSpec="1.0"'
        )
    return [kind for _, kind in usable]


def _parsed(body: bytes | str, what: str) -> Any:
    try:
        return parsed(body)
    except ValueError as error:
        raise _Refused(400, f"{what} {error}") from None


def _response(body: dict[str, Any], status: int, media: str, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body, default=str), status_code=status, headers=headers, media_type=f"{media}; charset=utf-8")
