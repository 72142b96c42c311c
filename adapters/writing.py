"""What is written to a system, and what became of it: one write and one outcome per record."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from model.errors import (
    DuplicateError,
    NetworkError,
    ProtocolError,
    RejectedError,
    SourceError,
    StaleVersionError,
    UnavailableError,
    UpstreamTimeoutError,
)
from model.records import Kind, Row

WriteVerb = Literal["create", "update", "upsert", "delete"]
Applied = Literal["APPLIED", "UNCHANGED", "REJECTED", "CONFLICT", "UNKNOWN"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One record to write.

    Attributes:
        native_id: of the record to update or delete; None to create and to upsert.
        row: native values to set, nested as in a row that was read; what is absent stays as it is. An id that ties the
            record to another stands here where `KindFacts.links` names a path for it.
        links: records of the same source that this one shall belong to, by kind, the primary one first: those for which
            `KindFacts.links` names no path. A link is added, never taken away.
        match: the key in `row` that an upsert goes by.
        if_version: write only when the record still has this `Record.version`; None writes whatever it has become.
    """

    verb: WriteVerb
    native_id: str | None = None
    row: Row = field(default_factory=dict)
    links: Mapping[Kind, Sequence[str]] = field(default_factory=dict)
    match: Literal["email", "phone"] | None = None
    if_version: str | None = None

    @property
    def repeatable(self) -> bool:
        """Doing it twice is doing it once, so a call whose outcome is unclear may be sent again."""
        return self.verb != "create" and self.if_version is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one write.

    Attributes:
        state: APPLIED; UNCHANGED (it was so already, or was gone already); REJECTED (refused, nothing was done);
            CONFLICT (another version, or another record with its key); UNKNOWN (sent, and no clear answer came).
        native_id: of the record written; None where there is none, or it is not known.
        created: an upsert made a new record; None where the system does not tell.
        error: why it was not applied; its text repeats nothing that was sent.
        fields: native paths that the system found fault with.
    """

    state: Applied
    native_id: str | None = None
    created: bool | None = None
    error: SourceError | None = None
    fields: Sequence[str] = ()


def failed(error: SourceError) -> Outcome:
    """Return the outcome of a write whose call failed: UNKNOWN where it may have been carried out all the same."""
    if isinstance(error, StaleVersionError | DuplicateError):
        return Outcome(state="CONFLICT", error=error)
    if isinstance(error, NetworkError):
        return Outcome(state="REJECTED" if error.unsent else "UNKNOWN", error=error)
    if isinstance(error, UpstreamTimeoutError | UnavailableError | ProtocolError):
        return Outcome(state="UNKNOWN", error=error)
    return Outcome(state="REJECTED", error=error)


async def settled(writes: Sequence[Write], call: Callable[[Sequence[Write]], Awaitable[Sequence[Outcome]]]) -> list[Outcome]:
    """Return `call(writes)`, or the same failure for each of them: one request's failure is data, since others may be done."""
    try:
        outcomes = list(await call(writes))
    except SourceError as error:
        return [failed(error)] * len(writes)
    assert len(outcomes) == len(writes), "one outcome per write"
    return outcomes


async def settled_one(write: Write, call: Callable[[Write], Awaitable[Outcome]]) -> Outcome:
    """Return `call(write)`, or its failure as the outcome."""
    try:
        return await call(write)
    except SourceError as error:
        return failed(error)


async def one_by_one(writes: Sequence[Write], call: Callable[[Write], Awaitable[Outcome]]) -> list[Outcome]:
    """Return `call(write)` of each, for a system that takes one record a call: under way at once, failing each for itself."""
    return list(await asyncio.gather(*(settled_one(write, call) for write in writes)))


async def bisected(writes: Sequence[Write], call: Callable[[Sequence[Write]], Awaitable[Sequence[Outcome]]]) -> list[Outcome]:
    """Return `call(writes)` for a system that takes all or nothing: a refused batch is halved until the culprits stand alone."""
    try:
        return list(await call(writes))
    except RejectedError as error:
        if len(writes) == 1:
            return [failed(error)]
    except SourceError as error:
        return [failed(error)] * len(writes)
    half = len(writes) // 2
    return [*await bisected(writes[:half], call), *await bisected(writes[half:], call)]
