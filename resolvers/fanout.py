"""Ask many sources at once under one deadline; what fails is data, not a lost answer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from model.errors import (
    CircuitOpenError,
    ErrorCode,
    ExhaustedError,
    GrantLostError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnsupportedError,
    UpstreamTimeoutError,
)
from resolvers.context import Context, Terms
from sources.reading import Answer, Reading, ReadPolicy, ReadState
from sources.source import Source

SHARE = 0.6  # of the time left: a source that hangs must leave the others time for the next level
GRACE = 0.1  # seconds beyond its deadline in which a source may still answer with what it has kept
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_STATES: tuple[tuple[type[SourceError], ReadState], ...] = (
    (ThrottledError, "RATE_LIMITED"),
    (ExhaustedError, "RATE_LIMITED"),
    (UpstreamTimeoutError, "TIMEOUT"),
    (CircuitOpenError, "CIRCUIT_OPEN"),
    (TokenExpiredError, "AUTH_EXPIRED"),
    (GrantLostError, "AUTH_EXPIRED"),
    (SourceForbiddenError, "FORBIDDEN"),
    (UnsupportedError, "UNSUPPORTED"),
)
# From best to worst: of several reads of one source the worst is told.
_ORDER: tuple[ReadState, ...] = (
    "SKIPPED", "CACHED", "OK", "UNSUPPORTED", "STALE", "PARTIAL", "FORBIDDEN", "AUTH_EXPIRED", "RATE_LIMITED", "CIRCUIT_OPEN", "TIMEOUT", "DOWN",
)  # fmt: skip
FAILED: frozenset[ReadState] = frozenset({"FORBIDDEN", "AUTH_EXPIRED", "RATE_LIMITED", "CIRCUIT_OPEN", "TIMEOUT", "DOWN"})


@dataclass(slots=True, kw_only=True)
class Status:
    """What one source did for one answer."""

    source: Source
    state: ReadState = "SKIPPED"
    code: ErrorCode | None = None
    message: str | None = None
    calls: int = 0
    latency_ms: int = 0
    fetched_at: datetime | None = None
    retry_at: datetime | None = None
    exhausted: bool = True

    @property
    def failed(self) -> bool:
        return self.state in FAILED

    def worsen(self, state: ReadState) -> None:
        if _ORDER.index(state) > _ORDER.index(self.state):
            self.state = state


class Fanout:
    """The reads of one list, and what became of each source.

    Attributes:
        statuses: by source id, for every source the list was meant to ask.
        policy: the list's own, or the request's where that is stricter.
    """

    def __init__(self, context: Context, terms: Terms) -> None:
        self.context, self.terms = context, terms
        self.sources = context.chosen(terms)
        self.statuses = {source.id: Status(source=source) for source in self.sources}
        self.policy: ReadPolicy = "CACHE_ONLY" if context.cached_only else terms.policy
        self._deadline = context.started + (terms.deadline if terms.deadline is not None else context.deadline)

    async def ask(
        self, calls: Mapping[K, tuple[Source, Callable[[Reading], Awaitable[Answer[T]]]]]
    ) -> tuple[dict[K, T], dict[K, SourceError]]:
        """Run all calls at once; return the answers, and the errors of those that failed."""
        keys = list(calls)
        outcomes = await asyncio.gather(*(self._one(*calls[key]) for key in keys))
        found = dict(zip(keys, outcomes, strict=True))
        answers = {key: outcome.value for key, outcome in found.items() if not isinstance(outcome, SourceError)}
        return answers, {key: outcome for key, outcome in found.items() if isinstance(outcome, SourceError)}

    async def _one(self, source: Source, call: Callable[[Reading], Awaitable[Answer[T]]]) -> Answer[T] | SourceError:
        context = self.context
        status = self.statuses.setdefault(source.id, Status(source=source))
        if (refusal := not_asked(source, context)) is not None:
            return self._failed(status, refusal)
        began = context.clock.monotonic()
        deadline = began + max(self._deadline - began, 0.0) * SHARE
        reading = Reading(deadline=deadline, policy=self.policy, max_age=self.terms.max_age)
        try:
            async with asyncio.timeout(max(deadline - began, 0.0) + GRACE):
                answer = await call(reading)
        except TimeoutError:
            error: SourceError = UpstreamTimeoutError("did not answer in time")
        except SourceError as raised:
            error = raised
        else:
            status.worsen(answer.state)
            if answer.lost:
                status.code, status.message = "MAPPING", f"{answer.lost} rows do not fit the mapping and were left out"
            if answer.fetched_at is not None and (status.fetched_at is None or answer.fetched_at < status.fetched_at):
                status.fetched_at = answer.fetched_at
            self._count(status, reading, began)
            return answer
        self._count(status, reading, began)
        if isinstance(error, UpstreamTimeoutError):
            context.gave_up[source.id] = error
        return self._failed(status, error)

    def _count(self, status: Status, reading: Reading, began: float) -> None:
        status.calls += reading.calls.sent
        status.latency_ms += round((self.context.clock.monotonic() - began) * 1000)

    def _failed(self, status: Status, error: SourceError) -> SourceError:
        state: ReadState = next((state for kind, state in _STATES if isinstance(error, kind)), "DOWN")
        status.worsen(state)
        if status.state == state:
            status.code, status.message = error.code, error.message
            if error.retry_after is not None:
                status.retry_at = self.context.clock.now() + timedelta(seconds=error.retry_after)
        return error

    def late(self, source: Source, rows: int) -> None:
        """Tell that rows of an earlier page come only now."""
        status = self.statuses[source.id]
        status.message = status.message or f"{rows} rows come late: the source had failed on an earlier page"

    def check_all(self) -> None:
        """Raise the first failure when the caller required every source."""
        if self.terms.require_all and (bad := next((each for each in self.statuses.values() if each.failed), None)):
            raise incomplete([bad], "not every source answered, and `requireAll` was asked")

    def failures(self) -> list[Status]:
        return [status for status in self.statuses.values() if status.failed]


class IncompleteError(SourceError):
    """Nothing can be said, because a source failed. Carries which one, for the error's extensions.

    Attributes:
        sources: the ids of all that failed.
    """

    def __init__(self, message: str, status: Status, sources: Sequence[str]) -> None:
        super().__init__(message)
        self.sources = tuple(sources)
        self.code = status.code or "UPSTREAM"  # type: ignore[misc]
        self.source = status.source.id
        self.system = status.source.system
        self.retry_at = status.retry_at


def incomplete(failures: Iterable[Status], message: str) -> IncompleteError:
    """Return the error for a field that becomes null because of these failures."""
    named = list(failures)
    told = ", ".join(f"{each.source.id} {each.state}" for each in named)
    return IncompleteError(f"{message}: {told}", named[0], [each.source.id for each in named])


def not_asked(source: Source, context: Context) -> SourceError | None:
    if source.state == "RECONNECT_REQUIRED":
        return GrantLostError(source.reason or "the source must be connected again")
    if source.state != "CONNECTED":
        return SourceForbiddenError(f"the source is {source.state.lower()}")
    return context.gave_up.get(source.id)
