"""The fields one can subscribe to. Their streams come from `resolvers/live.py`; below them no system is ever called."""

import datetime as dt
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass
from typing import Any

import strawberry
from strawberry import ID, Parent

from model.events import Event
from resolvers import live
from schema.enums import ChangeOp, ChangeOrigin
from schema.fields import Information, resolved, shows
from schema.scalars import EventCursor, System
from schema.selection import needed
from schema.sources import Source
from schema.types import Customer, RecordRef


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record lives, in the shape that RecordRef shows."""

    source: str
    native_id: str
    system: str
    object: str
    url: str | None


def _ref(root: Parent[Event], info: Information) -> Any:
    ref, source = root.ref, info.context.source(root.ref.source)
    if source is None or not source.has(ref.kind):
        return _Place(ref.source, ref.native_id, root.system, ref.kind, None)
    adapter = source.adapter
    url = adapter.web_url(ref.kind, ref.native_id)
    return _Place(ref.source, ref.native_id, root.system, adapter.kinds[ref.kind].object, url)


def _cursor(root: Parent[Event], info: Information) -> str:
    return live.cursor_of(root, info.context)


def _object(root: Parent[Event]) -> str:
    return root.ref.kind


def _customer(root: Parent[Event], info: Information) -> Awaitable[Any]:
    return live.customer_of(root, info.context, needed(info))


def _changed(root: Parent[Event]) -> list[str]:
    return list(root.changed or ())


@strawberry.type(description="One applied change of one record. It names what changed, and holds no value.")
class ChangeEvent:
    is_type_of = shows(Event)

    id: ID
    cursor: EventCursor = resolved(by=_cursor, description="Give it back as `since` to go on after this event.")
    op: ChangeOp
    object: str = resolved(by=_object, description="Our kind of record, such as contact.")
    ref: RecordRef = resolved(by=_ref)
    customer: Customer | None = resolved(
        by=_customer, description="Whose record it is, as far as it is at hand: no system is asked for it."
    )
    changed: list[str] = resolved(
        by=_changed, description="Fields that differ from what was known before; empty where nothing was known."
    )
    at: dt.datetime
    received_at: dt.datetime
    origin: ChangeOrigin


async def _customer_changed(info: Information, ids: list[ID] | None = None, since: EventCursor | None = None) -> Any:
    return await live.customer_events(info.context, ids, since)


async def _events(
    info: Information, objects: list[str] | None = None, systems: list[System] | None = None, since: EventCursor | None = None,
    include_echoes: bool | None = False,
) -> Any:  # fmt: skip
    return await live.events(info.context, objects, systems, since, echoes=bool(include_echoes))


async def _source_health(info: Information, ids: list[ID] | None = None) -> Any:
    return await live.source_states(info.context, ids)


@strawberry.type
class Subscription:
    customer_changed: AsyncGenerator[ChangeEvent, None] = strawberry.subscription(
        resolver=_customer_changed,
        description="Changes of records that belong to a customer. An id that was merged is followed on.",
    )
    events: AsyncGenerator[ChangeEvent, None] = strawberry.subscription(
        resolver=_events, description="Changes of records. What was written through this graph comes with `includeEchoes` only."
    )
    source_health: AsyncGenerator[Source, None] = strawberry.subscription(
        resolver=_source_health, description="Each source as it is now, and again whenever its state changes."
    )
