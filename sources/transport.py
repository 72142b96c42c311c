"""Retry and guard: the two httpx transports between an adapter and the network.

`Retry` sends again what may be sent again; `Guard`, inside it, makes every attempt pass the breaker and pay its budget.
Both see `Call` in the request's extensions, put there by `sources/source.py`.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Final

import httpx

from adapters.base import Adapter
from adapters.wire import Request, Response
from credentials.signing import SIGN
from model.clock import Clock
from model.errors import (
    ExhaustedError,
    NetworkError,
    ProtocolError,
    RetriableError,
    SourceError,
    ThrottledError,
    UnavailableError,
    UpstreamTimeoutError,
)
from sources.breaker import Breaker
from sources.budget import Budget
from sources.reading import Reading

CALL: Final = "c360.call"
FAULT: Final = "c360.fault"
ATTEMPTS = 8  # with every fourth call failing, one call in 65,000 fails for good
FIRST_PAUSE = 0.05  # seconds; doubled, with full jitter
LONGEST_PAUSE = 32.0


@dataclass(frozen=True, slots=True)
class Call:
    request: Request
    reading: Reading


class Retry(httpx.AsyncBaseTransport):
    """Send again after a passing failure, while the deadline allows and the call is safe to repeat.

    `Retry-After` wins over our own backoff; a quota that is used up is never retried.
    """

    def __init__(self, inner: "Guard", *, clock: Clock, rng: random.Random) -> None:
        self._inner, self._clock, self._rng = inner, clock, rng

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call: Call = request.extensions[CALL]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = await self._inner.handle_async_request(request)
                fault = response.extensions.get(FAULT)
                if not isinstance(fault, RetriableError):
                    return response
            except RetriableError as error:
                response, fault = None, error
            pause = self._pause(fault, attempt)
            # What was throttled, or never left, was not carried out: safe to repeat whatever it was.
            refused_unsent = isinstance(fault, ThrottledError) or (isinstance(fault, NetworkError) and fault.unsent)
            late = self._clock.monotonic() + pause >= call.reading.deadline
            if attempt == ATTEMPTS or late or not (call.request.safe or refused_unsent):
                if response is None:
                    raise fault
                return response
            await asyncio.sleep(pause)
            if (sign := request.extensions.get(SIGN)) is not None:
                sign(request)
        raise AssertionError("unreachable")

    def _pause(self, fault: RetriableError, attempt: int) -> float:
        if fault.retry_after is not None:
            return fault.retry_after
        return self._rng.uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))

    async def aclose(self) -> None:
        await self._inner.aclose()


class Guard(httpx.AsyncBaseTransport):
    """Let a call pass the breaker and pay its budget, send it within its deadline, and learn from the answer."""

    def __init__(
        self, inner: httpx.AsyncBaseTransport, *, adapter: Adapter, budget: Budget, breaker: Breaker, clock: Clock
    ) -> None:
        self._inner, self._adapter, self._budget, self._breaker, self._clock = inner, adapter, budget, breaker, clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call: Call = request.extensions[CALL]
        operation = call.request.operation
        self._breaker.enter(operation)
        try:
            await self._budget.acquire(call.request.cost, lane=call.reading.lane, deadline=call.reading.deadline)
        except BaseException:
            self._breaker.abandoned(operation)
            raise
        try:
            call.reading.calls.sent += 1
            response, body = await self._sent(request, self._limit(call.reading))
        except SourceError as error:
            self._breaker.failed(operation)
            if isinstance(error, NetworkError) and (pause := self._adapter.pause_when_cut) is not None:
                await self._budget.hold(ThrottledError("cut the line, as it does when it is called too often", retry_after=pause))
            raise
        except BaseException:
            self._breaker.abandoned(operation)
            raise
        finally:
            self._budget.release()
        answer = Response(status=response.status_code, headers=dict(response.headers), body=body)
        await self._budget.learn(self._adapter.learn(answer))
        fault = self._fault(call.request, answer)
        if isinstance(fault, UnavailableError | ProtocolError):
            self._breaker.failed(operation)
        else:
            self._breaker.succeeded(operation)
        if isinstance(fault, ExhaustedError) or (isinstance(fault, ThrottledError) and fault.shared):
            await self._budget.hold(fault)
        return httpx.Response(
            response.status_code, headers=_decoded(response.headers), content=body, request=request, extensions={FAULT: fault}
        )

    def _limit(self, reading: Reading) -> float:
        return max(reading.deadline - self._clock.monotonic(), reading.answer_within, 0.0)

    async def _sent(self, request: httpx.Request, seconds: float) -> tuple[httpx.Response, bytes]:
        try:
            async with asyncio.timeout(seconds):
                response = await self._inner.handle_async_request(request)
                try:
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    return response, await response.aread()
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise UpstreamTimeoutError("did not answer in time") from error
        except (httpx.TransportError, OSError) as error:
            unsent = isinstance(error, httpx.ConnectError)
            raise NetworkError("could not be reached, or cut the line", unsent=unsent) from error

    def _fault(self, request: Request, answer: Response) -> SourceError | None:
        fault = self._adapter.classify(answer)
        if fault is None and answer.status >= 300 and answer.status not in request.answers:
            return ProtocolError(f"answered {answer.status}, which its documents do not explain", status=answer.status)
        return fault

    async def aclose(self) -> None:
        await self._inner.aclose()


def _decoded(headers: httpx.Headers) -> list[tuple[str, str]]:
    """Headers that still fit a body that is read and unpacked."""
    return [
        (name, value)
        for name, value in headers.items()
        if name not in {"content-encoding", "content-length", "transfer-encoding"}
    ]
