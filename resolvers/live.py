"""What can be followed: changes as the log holds them, and how sources do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from model.errors import InvalidRequestError, SourceError
from model.events import Event
from model.records import RECORDS
from resolvers import lookup, people
from resolvers.context import Context, Fields, Terms
from resolvers.fanout import Fanout
from resolvers.people import Customer
from sources.source import Source
from sync.interest import Interest

MAX_IDS = 500
_LOG: Final = "events"  # a cursor of the log is none of a list
_KEPT: Final = Terms(policy="CACHE_ONLY")
_QUEUE = 10_000  # events that may wait for those who ask the same, where many are applied at once
_LOOK = 1.0  # seconds between two looks at the states of sources


def cursor_of(event: Event, context: Context) -> str:
    """Return where one goes on after this event."""
    return context.signer.seal(event.seq, workspace=event.workspace, query=_LOG)


async def events(
    context: Context, kinds: Sequence[str] | None, systems: Sequence[str] | None, since: str | None, *, echoes: bool
) -> AsyncIterator[Event]:
    """Return the events of these kinds of records in these systems, after `since`, else from now on.

    Raises:
        InvalidRequestError: there is no such kind, or the cursor is not ours.
        ExpiredEventError: what came after it is not kept any more.
    """
    if unknown := sorted(set(kinds or ()) - set(RECORDS)):
        raise InvalidRequestError(f"`objects`: there is no {unknown[0][:40]!r}; there are: {', '.join(sorted(RECORDS))}")
    wants = Interest(kinds=_chosen("objects", kinds), systems=_chosen("systems", systems), echoes=echoes)
    return context.events.follow(since=await _place(since, context), wants=wants, queue=_QUEUE)


async def customer_events(context: Context, ids: Sequence[str] | None, since: str | None) -> AsyncIterator[Event]:
    """Return the events of records that belong to a customer, of these alone where ids are given. Raises as `events` does.

    An id that was merged into another names that one, and what happened under either is told.
    """
    chosen = _chosen("ids", ids)
    if chosen is not None and len(chosen) > MAX_IDS:
        raise InvalidRequestError(f"`ids` takes at most {MAX_IDS}, not {len(chosen)}")
    place = await _place(since, context)
    if chosen is None:
        return context.events.follow(since=place, wants=Interest(known=True), queue=_QUEUE)
    return context.followed.follow(chosen, since=place, queue=_QUEUE)


async def customer_of(event: Event, context: Context, fields: Fields) -> Customer | None:
    """Return whose record changed, as far as it is at hand without asking any system; None where it is not."""
    if event.customer is None:
        return None
    try:
        found = await lookup.customer_by_id(event.customer, _KEPT, context, fields)
        return found or await _found_by_keys(event.customer, context, fields)
    except SourceError:
        return None


async def _found_by_keys(id: str, context: Context, fields: Fields) -> Customer | None:
    """Return a customer whose records were found before, and not read by their ids."""
    members = (await context.index.members(context.workspace, [id])).get(id)
    if members is None:
        return None
    emails, phones = await context.index.keys(context.workspace, [member.ref for member in members.refs])
    fanout = Fanout(context, _KEPT)
    found = [*await people.by_keys(fanout, "email", emails, fields), *await people.by_keys(fanout, "phone", phones, fields)]
    gathered = await people.gather(fanout, found, fields)
    return gathered.customers.get(members.id)


async def source_states(context: Context, ids: Sequence[str] | None) -> AsyncIterator[Source]:
    """Yield each source as it is now, and again whenever its state or the reason for it changes."""
    chosen = _chosen("ids", ids)
    if unknown := (chosen or frozenset()) - {each.id for each in context.now()}:
        raise InvalidRequestError(f"`ids`: {len(unknown)} of these sources are not there")
    return _states(context, chosen)


async def _states(context: Context, chosen: frozenset[str] | None) -> AsyncIterator[Source]:
    told: dict[str, tuple[str, str | None]] = {}
    while True:
        for source in context.now():
            state = (source.state, source.reason)
            if (chosen is None or source.id in chosen) and told.get(source.id) != state:
                told[source.id] = state
                yield source
        await asyncio.sleep(_LOOK)


def _chosen(name: str, values: Sequence[str] | None) -> frozenset[str] | None:
    if values is not None and not values:
        raise InvalidRequestError(f"`{name}` is empty: nothing would ever come; leave it out for all")
    return frozenset(values) if values is not None else None


async def _place(since: str | None, context: Context) -> int | None:
    """Return the number that a cursor holds. What the caller's protocol says is newer than the argument it repeats."""
    cursor = context.resume_from or since
    if cursor is None:
        return None
    try:
        seq = context.signer.open(cursor, int, workspace=context.workspace, query=_LOG)
    except InvalidRequestError:
        raise InvalidRequestError("`since` is no cursor of these events: pass one exactly as it was given") from None
    await context.events.check(seq)
    return seq
