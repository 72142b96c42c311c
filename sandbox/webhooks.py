"""What the vendors send by themselves: webhooks, tried again by each vendor's rule, spoiled on request, and written down.

Runs in a thread and loop of its own, so that a change made from anywhere is sent, and a slow receiver holds up no vendor.
"""

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from sandbox.clock import SandboxClock
from sandbox.faults import Faults

Made = tuple[Mapping[str, str], bytes]  # headers and body of one attempt
_TICK = 0.02  # seconds between two looks at the sandbox's clock
_KEPT = 50_000


@dataclass(slots=True, kw_only=True)
class Sending:
    """One delivery.

    Attributes:
        hook: the subscription it is for.
        key: what the vendor calls this event, the same in each attempt.
        make: (attempt, from 0) → headers and body, made anew each time since most signatures hold the time.
        waits: seconds before each further attempt; as many as the vendor tries again.
        timeout: seconds the receiver has.
        failed: told how many attempts failed in a row when the vendor gives up; subscriptions are dropped here.
        answered: told the status of each attempt, None where there was no answer.
    """

    hook: str
    url: str
    key: str
    make: Callable[[int], Made]
    method: str = "POST"
    waits: Sequence[float] = ()
    timeout: float = 10.0
    failed: Callable[[], None] = lambda: None
    answered: Callable[[int | None], None] = lambda _: None


@dataclass(slots=True)
class Delivered:
    """How a delivery went. `attempts`: (seconds since 1970, status or None); `state`: pending, delivered, given_up or dropped."""

    hook: str
    url: str
    key: str
    state: str = "pending"
    attempts: list[tuple[float, int | None]] = field(default_factory=list)


class Outbox:
    """Sends one system's webhooks."""

    def __init__(self, system: str, clock: SandboxClock, faults: Faults) -> None:
        self._system, self._clock, self._faults = system, clock, faults
        self._rng = random.Random(system)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gathered: dict[Hashable, list[Any]] = {}
        self._http: httpx.AsyncClient | None = None
        self.log: deque[Delivered] = deque(maxlen=_KEPT)

    def post(self, sending: Sending, *, after: float = 0.0) -> None:
        """Send soon; `after` seconds of the sandbox's clock."""
        self._running().call_soon_threadsafe(self._start, sending, self._clock.time() + after)

    def gather(
        self, batch: Hashable, item: Any, send: Callable[[list[Any]], Sending], *, within: float = 0.03, most: int = 100
    ) -> None:
        """Send items of one batch together: those that come `within` real seconds, at most `most` in one delivery."""
        self._running().call_soon_threadsafe(self._gather, batch, item, send, within, most)

    def busy(self) -> bool:
        """Tell whether anything is still to be sent or tried again."""
        return bool(self._tasks or self._gathered)

    # ---- in the outbox's own loop ----

    def _gather(self, batch: Hashable, item: Any, send: Callable[[list[Any]], Sending], within: float, most: int) -> None:
        items = self._gathered.setdefault(batch, [])
        items.append(item)
        if len(items) == 1:
            asyncio.get_running_loop().call_later(within, self._flush, batch, send)
        elif len(items) >= most:
            self._flush(batch, send)

    def _flush(self, batch: Hashable, send: Callable[[list[Any]], Sending]) -> None:
        if items := self._gathered.pop(batch, None):
            self._start(send(items), self._clock.time())

    def _start(self, sending: Sending, due: float) -> None:
        told = Delivered(sending.hook, sending.url, sending.key)
        self.log.append(told)
        if self._struck("webhook_drop") is not None:
            told.state = "dropped"
            return
        delay = self._struck("webhook_delay")
        reorder = self._struck("webhook_reorder")
        copies = 2 if self._struck("webhook_duplicate") is not None else 1
        for _ in range(copies):
            later = (delay or 0.0) + (self._rng.random() * reorder if reorder else 0.0)
            task = asyncio.get_running_loop().create_task(self._deliver(sending, told, due + later))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _struck(self, fault: str) -> float | None:
        rule = self._faults.strikes(self._system, "WEBHOOK", only=fault)
        return rule.seconds if rule is not None else None

    async def _deliver(self, sending: Sending, told: Delivered, due: float) -> None:
        for attempt, pause in enumerate((*sending.waits, 0.0)):
            await self._until(due)
            status = await self._attempt(sending, attempt)
            told.attempts.append((self._clock.time(), status))
            sending.answered(status)
            if status is not None and 200 <= status < 300:
                told.state = "delivered"
                return
            due = self._clock.time() + pause
        told.state = "given_up" if told.state == "pending" else told.state
        sending.failed()

    async def _attempt(self, sending: Sending, attempt: int) -> int | None:
        if self._http is None:
            self._http = httpx.AsyncClient(follow_redirects=False, verify=False, limits=httpx.Limits(max_connections=20))  # noqa: S501 - a sandbox
        headers, body = sending.make(attempt)
        try:
            answer = await self._http.request(
                sending.method, sending.url, headers=dict(headers), content=body, timeout=sending.timeout
            )
        except httpx.HTTPError:
            return None
        return answer.status_code

    async def _until(self, due: float) -> None:
        while (left := due - self._clock.time()) > 0:  # noqa: ASYNC110 - the clock it waits for is moved by hand
            await asyncio.sleep(min(left, _TICK))

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=f"{self._system}-webhooks", daemon=True).start()
            return self._loop
