"""How one read is to be done, and what became of it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

Lane = Literal["interactive", "webhook", "write", "sync"]
LANES: tuple[Lane, ...] = ("interactive", "webhook", "write", "sync")
ReadPolicy = Literal["CACHE_FIRST", "LIVE", "CACHE_ONLY", "SURE"]  # SURE: live, and never what was kept: a write hangs on it
ReadState = Literal[
    "OK", "CACHED", "STALE", "PARTIAL", "RATE_LIMITED", "TIMEOUT", "AUTH_EXPIRED", "DOWN", "CIRCUIT_OPEN", "UNSUPPORTED",
    "FORBIDDEN", "SKIPPED",
]  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The caller's terms for one read.

    Attributes:
        deadline: on the monotonic clock; whatever has not answered by then counts as failed.
        answer_within: seconds that a call once sent is waited for, deadline or not: for token exchanges, whose answer must
            not be lost.
        max_age: seconds; nothing older is answered while the source works. None takes each kind's default.
        calls: told once for every call that went out.
    """

    deadline: float
    answer_within: float = 0.0
    lane: Lane = "interactive"
    policy: ReadPolicy = "CACHE_FIRST"
    max_age: float | None = None
    calls: "CallCount" = field(default_factory=lambda: CallCount())


class CallCount:
    """Calls sent so far, counted where they leave."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What a source answered.

    Attributes:
        state: OK from the system, CACHED within its age, STALE because the system failed, PARTIAL when rows were left out.
        fetched_at: the oldest contributing fetch; None when nothing contributed.
        lost: rows that did not fit their mapping; misfits: the ids of those that were read by id.
    """

    value: T
    state: ReadState
    fetched_at: datetime | None
    lost: int = 0
    misfits: frozenset[str] = frozenset()
