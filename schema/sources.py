"""Sources, what they did for an answer, and what they say about their own objects."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import strawberry
from strawberry import ID, Parent

from model import records
from model.errors import SourceError
from resolvers import fanout
from schema.enums import ErrorCode, FieldType, ReadState, SourceState, WebhookState
from schema.fields import Information, resolved, shows
from schema.scalars import Duration, System
from sources.source import Source as ConnectedSource
from sync import feeds


def _options(root: Parent[records.FieldMeta]) -> list[str] | None:
    return list(root.options.values()) or None


@strawberry.type
class FieldMeta:
    name: str
    label: str | None
    type: FieldType
    custom: bool
    readable: bool
    writable: bool
    options: list[str] | None = resolved(by=_options)


def _fields(root: Parent[records.ObjectType]) -> Sequence[Any]:
    return list(root.fields.values())


@strawberry.type
class ObjectType:
    name: str
    label: str | None
    custom: bool
    fields: list[FieldMeta] = resolved(by=_fields)


async def _objects(root: Parent[ConnectedSource], info: Information) -> list[Any]:
    """Return what the source says of its own objects; kinds it does not describe, and a source that fails, leave theirs out."""
    reading = info.context.reading()
    found: list[Any] = []
    for kind in root.adapter.kinds:
        try:
            found.append(await root.described(kind, reading))
        except SourceError:
            continue
    try:
        return [*found, *await root.objects(reading)]
    except SourceError:
        return found


async def _unreadable(root: Parent[ConnectedSource], info: Information) -> list[str]:
    return sorted(
        f"{each.name}.{field.name}" for each in await _objects(root, info) for field in each.fields.values() if not field.readable
    )


def _freshness(root: Parent[ConnectedSource]) -> dt.timedelta:
    return dt.timedelta(seconds=feeds.bound(root))


@strawberry.type(description="How far the changes of one kind were asked for.")
class SyncCursor:
    object: str
    mode: str
    pace: Duration
    updated_at: dt.datetime | None
    failure: str | None
    backfilled: bool
    rows: int
    reconciled_at: dt.datetime | None
    drift: int | None


@strawberry.type(description="How a source tells its changes by itself.")
class SourceWebhooks:
    state: WebhookState
    reason: str | None
    address: str | None
    subscriptions: int
    checked_at: dt.datetime | None
    heard_at: dt.datetime | None
    expires_at: dt.datetime | None


async def _cursors(root: Parent[ConnectedSource], info: Information) -> list[Any]:
    info.context.require("operate")
    return await info.context.health.cursors(root)


def _webhooks(root: Parent[ConnectedSource], info: Information) -> Any:
    info.context.require("operate")
    return info.context.health.webhooks(root)


async def _queue_depth(root: Parent[ConnectedSource], info: Information) -> int:
    info.context.require("operate")
    return await info.context.health.waiting(root)


def _source_state(root: Parent[ConnectedSource]) -> str:
    return root.state


@strawberry.type(description="One workspace's authorised account at a system.")
class Source:
    is_type_of = shows(ConnectedSource)

    id: ID
    system: System
    label: str
    state: SourceState = resolved(by=_source_state)
    reason: str | None
    freshness: Duration = resolved(by=_freshness, description="What a cached answer may at most be behind this source.")
    webhooks: SourceWebhooks | None = resolved(
        by=_webhooks, description="Null where the system sends none. Needs the scope operate."
    )
    cursors: list[SyncCursor] = resolved(by=_cursors, description="Needs the scope operate.")
    queue_depth: int = resolved(by=_queue_depth, description="Events that wait to be applied. Needs the scope operate.")
    objects: list[ObjectType] = resolved(
        by=_objects, description="Its objects with their fields, custom ones last; from cached metadata."
    )
    unreadable_fields: list[str] = resolved(
        by=_unreadable, description="Fields that exist and whose values these credentials may not see: there null means unknown."
    )


def _stale_for(root: Parent[fanout.Status], info: Information) -> dt.timedelta | None:
    return info.context.clock.now() - root.fetched_at if root.state == "STALE" and root.fetched_at else None


@strawberry.type(description="What one source did for a list: partial answers are data, never a lost response.")
class SourceStatus:
    source: Source
    state: ReadState
    code: ErrorCode | None
    message: str | None
    calls: int
    latency_ms: int
    fetched_at: dt.datetime | None
    stale_for: Duration | None = resolved(by=_stale_for)
    retry_at: dt.datetime | None
    exhausted: bool
