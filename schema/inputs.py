"""What callers pass in, and how it becomes plain values for the resolvers."""

from datetime import timedelta
from enum import Enum

import strawberry
from strawberry import ID

from model.errors import InvalidRequestError
from model.records import Ref
from resolvers.context import Context, Slice, Terms
from schema.scalars import Duration, System

MAX_DEADLINE = 60.0  # seconds


@strawberry.enum
class ReadPolicy(Enum):
    CACHE_FIRST = "CACHE_FIRST"
    LIVE = "LIVE"
    CACHE_ONLY = "CACHE_ONLY"


@strawberry.enum
class Direction(Enum):
    ASC = "ASC"
    DESC = "DESC"


@strawberry.enum
class CustomerSort(Enum):
    UPDATED_AT = "updated"
    CREATED_AT = "created"


@strawberry.enum
class DealSort(Enum):
    UPDATED_AT = "updated"
    CREATED_AT = "created"


@strawberry.enum
class TimelineKind(Enum):
    DEAL = "deal"
    ORDER = "order"
    TICKET = "ticket"
    MARKETING = "marketing_event"


@strawberry.input(description="The caller's terms: how old an answer may be, how long it may take, whom to ask.")
class ReadOptions:
    policy: ReadPolicy = ReadPolicy.CACHE_FIRST
    max_age: Duration | None = None
    deadline: Duration | None = Duration(timedelta(seconds=5))
    sources: list[ID] | None = None
    systems: list[System] | None = None
    require_all: bool = False


@strawberry.input
class CustomerOrder:
    by: CustomerSort
    direction: Direction = Direction.DESC


@strawberry.input
class DealOrder:
    by: DealSort
    direction: Direction = Direction.DESC


@strawberry.input
class RecordRefInput:
    source_id: ID
    object: str
    record_id: ID


@strawberry.input(one_of=True)
class CustomerLookup:
    id: ID | None = strawberry.UNSET
    email: str | None = strawberry.UNSET
    phone: str | None = strawberry.UNSET
    ref: RecordRefInput | None = strawberry.UNSET


def terms_of(read: ReadOptions | None) -> Terms:
    """Raises InvalidRequestError for a deadline or age that makes no sense."""
    if read is None:
        return Terms()
    deadline = read.deadline.total_seconds() if read.deadline is not None else None
    if deadline is not None and not 0 < deadline <= MAX_DEADLINE:
        raise InvalidRequestError(f"`deadline` must be more than 0 and at most {MAX_DEADLINE:.0f} seconds")
    return Terms(
        policy=read.policy.value,
        max_age=read.max_age.total_seconds() if read.max_age is not None else None,
        deadline=deadline,
        sources=tuple(sorted(read.sources)) if read.sources is not None else None,
        systems=tuple(sorted(read.systems)) if read.systems is not None else None,
        require_all=read.require_all,
    )


def slice_of(
    first: int, after: str | None, read: ReadOptions | None, order_by: list[CustomerOrder] | list[DealOrder] | None = None
) -> Slice:
    """Raises InvalidRequestError for more than one order: positions in a merged list are by one field and the id."""
    if order_by is not None and len(order_by) > 1:
        raise InvalidRequestError("`orderBy` takes one order; ties are broken by source and id")
    if not order_by:
        return Slice(first=first, after=after, terms=terms_of(read))
    return Slice(
        first=first,
        after=after,
        order=order_by[0].by.value,
        descending=order_by[0].direction is Direction.DESC,
        terms=terms_of(read),
    )


def ref_of(given: RecordRefInput, context: Context) -> Ref:
    """Return what a reference names; `object` may be our kind ("contact") or the system's own word ("Contact", "users").

    Raises:
        InvalidRequestError: there is no such source, or it has no such object.
    """
    source = context.source(given.source_id)
    if source is None:
        raise InvalidRequestError(f"there is no source {given.source_id!r}")
    for kind, facts in source.adapter.kinds.items():
        if given.object.lower() in {kind, facts.object.lower()}:
            return Ref(source.id, kind, given.record_id)
    raise InvalidRequestError(f"source {given.source_id!r} has no object {given.object!r}")
