"""Endpoints of outbound webhooks, for those who may administer: mistakes as data, secrets once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from model.errors import InvalidRequestError, RequestError
from resolvers.connections import MAX_FIRST
from resolvers.context import Context
from resolvers.effects import UserError
from store.endpoints import DeliveryState
from sync.endpoints import OVERLAP, Delivered, Endpoint, number_of

ADMIN_SCOPE = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a mutation did.

    Attributes:
        endpoint: as it is now; None where it is gone or there is none.
        secret: a new one, told this once.
        affected: deliveries that are sent again.
    """

    endpoint: Endpoint | None = None
    secret: str | None = None
    affected: int = 0
    user_errors: Sequence[UserError] = ()


async def endpoints(context: Context) -> list[Endpoint]:
    context.require(ADMIN_SCOPE)
    return await context.endpoints.all(context.workspace)


async def deliveries(endpoint: Endpoint, first: int, states: Sequence[DeliveryState] | None, context: Context) -> list[Delivered]:
    if not 1 <= first <= MAX_FIRST:
        raise InvalidRequestError(f"`first` is between 1 and {MAX_FIRST}")
    return await context.endpoints.deliveries(context.workspace, endpoint.row.id, states=states, limit=first)


async def save(id: str | None, url: str, events: Sequence[str], retry: Mapping[str, Any] | None, context: Context) -> Outcome:
    """Make an endpoint, or change the one that is named."""

    async def work() -> Outcome:
        if id is not None:
            await context.endpoints.change(context.workspace, id, url, events, retry)
            return await _now(id, context)
        made, secret = await context.endpoints.add(context.workspace, url, events, retry)
        return await _now(made, context, secret=secret)

    return await _told(work, context)


async def rotate(id: str, overlap: timedelta | None, context: Context) -> Outcome:
    async def work() -> Outcome:
        lasts = overlap if overlap is not None else OVERLAP
        secret = await context.endpoints.rotate(context.workspace, id, overlap=lasts)
        return await _now(id, context, secret=secret)

    return await _told(work, context)


async def remove(id: str, context: Context) -> Outcome:
    async def work() -> Outcome:
        await context.endpoints.remove(context.workspace, id)
        return Outcome()

    return await _told(work, context)


async def replay(id: str, parked: bool, since: str | None, event: str | None, context: Context) -> Outcome:
    """Send again what was parked, what happened since a cursor, or one event: exactly one of the three is asked for."""

    async def work() -> Outcome:
        if [parked, since is not None, event is not None].count(True) != 1:
            raise InvalidRequestError("say either `parked: true`, or `since`, or `event`")
        if since is not None:
            affected = await context.endpoints.replay_since(context.workspace, id, number_of(since))
        elif event is not None:
            affected = await context.endpoints.replay_event(context.workspace, id, number_of(event))
        else:
            affected = await context.endpoints.replay_parked(context.workspace, id)
        return await _now(id, context, affected=affected)

    return await _told(work, context)


async def _now(id: str, context: Context, *, secret: str | None = None, affected: int = 0) -> Outcome:
    return Outcome(endpoint=await context.endpoints.one(context.workspace, id), secret=secret, affected=affected)


async def _told(work: Callable[[], Awaitable[Outcome]], context: Context) -> Outcome:
    context.require(ADMIN_SCOPE)
    try:
        return await work()
    except RequestError as error:
        return Outcome(user_errors=[UserError(code=error.code, message=error.message)])
