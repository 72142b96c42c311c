"""What every level function of one request shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from identity.index import IdentityIndex
from model.clock import Clock
from model.errors import CallerForbiddenError, SourceError
from resolvers.cursors import Signer
from sources.reading import Reading, ReadPolicy
from sources.source import Source
from sources.writer import Writer
from sync.endpoints import Endpoints
from sync.followed import Followed
from sync.health import HealthBook
from sync.log import EventLog

Fields = frozenset[tuple[str, str]]  # (kind, target field): what the selection below needs, see schema/selection.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The caller's terms for a list (`ReadOptions`).

    Attributes:
        deadline: seconds from the start of the request.
        max_age: seconds, None for each kind's default.
        sources, systems: ask only these, None for all.
        require_all: fail instead of answering in part.
    """

    policy: ReadPolicy = "CACHE_FIRST"
    max_age: float | None = None
    deadline: float | None = None
    sources: tuple[str, ...] | None = None
    systems: tuple[str, ...] | None = None
    require_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Arguments of a list.

    Attributes:
        order: None for the default: creation time, upwards.
    """

    first: int
    after: str | None = None
    order: Literal["created", "updated"] = "created"
    descending: bool = False
    terms: Terms = Terms()


@dataclass(slots=True, kw_only=True)
class Context:
    """One request.

    Attributes:
        sources: the workspace's, by rank, as they were when the request began.
        now: returns them as they are.
        started: on the monotonic clock.
        deadline: seconds from then that every answer must keep, unless a list asks for another.
        gave_up: sources that did not answer in time in this request; they are not asked twice.
        cached_only: no system is called, whatever the query says: for what is told to many.
        resume_from: the cursor of the last event that the caller has, where its protocol tells it beside the query.
    """

    workspace: str
    scopes: frozenset[str]
    sources: Sequence[Source]
    index: IdentityIndex
    signer: Signer
    writer: Writer
    events: EventLog
    endpoints: Endpoints
    health: HealthBook
    followed: Followed
    now: Callable[[], Sequence[Source]]
    clock: Clock
    started: float
    deadline: float = 5.0
    region: str = "US"
    request: Any = None
    gave_up: dict[str, SourceError] = field(default_factory=dict)
    loaders: dict[Any, Any] = field(default_factory=dict)
    cached_only: bool = False
    resume_from: str | None = None

    def chosen(self, terms: Terms) -> list[Source]:
        """Return the sources that a list asks, by rank."""
        return [
            each
            for each in self.sources
            if (terms.sources is None or each.id in terms.sources) and (terms.systems is None or each.system in terms.systems)
        ]

    def source(self, id: str) -> Source | None:
        return next((each for each in self.sources if each.id == id), None)

    def reading(self) -> Reading:
        """Return the terms on which metadata is read."""
        return Reading(deadline=self.started + self.deadline, policy="CACHE_ONLY" if self.cached_only else "CACHE_FIRST")

    def require(self, scope: str) -> None:
        """Raise CallerForbiddenError unless the caller has the scope."""
        if scope not in self.scopes:
            raise CallerForbiddenError(f"this needs the scope {scope!r}")
