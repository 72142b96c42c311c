"""Endpoints of outbound webhooks: who is sent what, how it goes, and the mutations of administrators."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import strawberry
from strawberry import ID, Parent
from strawberry.scalars import JSON

from model.errors import InvalidRequestError
from resolvers import endpoints as level
from schema.enums import DeliveryState, EndpointState, ErrorCode
from schema.fields import Information, resolved
from schema.mutation import UserError
from schema.scalars import Duration
from store.endpoints import AttemptRow
from sync.endpoints import Delivered, Endpoint


def _bytes(root: Parent[AttemptRow]) -> int:
    return root.bytes


def _backoff(root: Parent[AttemptRow]) -> dt.timedelta | None:
    return dt.timedelta(seconds=root.backoff) if root.backoff is not None else None


@strawberry.type(description="One send. `code`: null when it arrived. `backoff`: until the next one.")
class Attempt:
    at: dt.datetime
    payload_bytes: int = resolved(by=_bytes)
    status: int | None
    code: ErrorCode | None
    backoff: Duration | None = resolved(by=_backoff)


def _event(root: Parent[Delivered]) -> str:
    return f"event:{root.row.seq}"


def _delivery_state(root: Parent[Delivered]) -> str:
    return root.row.state


def _due(root: Parent[Delivered]) -> dt.datetime | None:
    return root.row.due_at if root.row.state == "PENDING" else None


def _ended(root: Parent[Delivered]) -> dt.datetime | None:
    return root.row.ended_at


@strawberry.type(
    description="One event's way to one endpoint. PARKED: it was sent as often as the retry policy says, in vain; it can be replayed."
)
class WebhookDelivery:
    event: ID = resolved(by=_event, description="The event's id, which is the `webhook-id` of every send.")
    state: DeliveryState = resolved(by=_delivery_state)
    due_at: dt.datetime | None = resolved(by=_due)
    ended_at: dt.datetime | None = resolved(by=_ended)
    attempts: list[Attempt]


def _of_row(name: str, kind: Any) -> Any:
    def resolver(root: Parent[Endpoint]) -> Any:
        return getattr(root.row, name)

    resolver.__annotations__["return"] = kind
    return resolver


def _retry(root: Parent[Endpoint]) -> Any:
    return dict(root.row.policy)


def _failure_rate(root: Parent[Endpoint]) -> float:
    return root.tally.failed / root.tally.sends if root.tally.sends else 0.0


def _waiting(root: Parent[Endpoint]) -> int:
    return root.tally.waiting


def _parked(root: Parent[Endpoint]) -> int:
    return root.tally.parked


def _missed(root: Parent[Endpoint]) -> int:
    return root.row.missed


async def _deliveries(
    root: Parent[Endpoint], info: Information, first: int = 20, states: list[DeliveryState] | None = None
) -> Sequence[Any]:
    chosen: Any = [getattr(each, "value", each) for each in states] if states is not None else None
    return await level.deliveries(root, first, chosen, info.context)


@strawberry.type(
    description="Where events are sent to. FAILING: a delivery was parked since the last that arrived. DISABLED: it answered 410; nothing is sent "
    "until it is saved anew."
)
class WebhookEndpoint:
    id: ID = resolved(by=_of_row("id", str))
    url: str = resolved(by=_of_row("url", str))
    events: list[str] = resolved(by=_of_row("events", list[str]))
    secret_fingerprint: str
    state: EndpointState = resolved(by=_of_row("state", str))
    reason: str | None = resolved(by=_of_row("reason", str | None))
    retry: JSON = resolved(by=_retry, description="The retry policy; times are seconds.")
    created_at: dt.datetime = resolved(by=_of_row("created_at", dt.datetime))
    failure_rate: float = resolved(by=_failure_rate, description="Of the sends of the last 24 hours, 0 to 1.")
    waiting: int = resolved(by=_waiting, description="Deliveries still to be sent.")
    parked: int = resolved(by=_parked)
    missed: int = resolved(by=_missed, description="Events that were no longer kept when it came to them.")
    deliveries: list[WebhookDelivery] = resolved(by=_deliveries, description="The youngest event first.")


@strawberry.type(description="`secret`: a new one, told this once.")
class WebhookEndpointPayload:
    endpoint: WebhookEndpoint | None
    secret: str | None
    user_errors: list[UserError]


@strawberry.type(description="`affected`: deliveries that are sent again.")
class WebhookReplayPayload:
    endpoint: WebhookEndpoint | None
    affected: int
    user_errors: list[UserError]


async def _endpoints(info: Information) -> Any:
    return await level.endpoints(info.context)


async def _save(info: Information, url: str, events: list[str], id: ID | None = None, retry: JSON | None = None) -> Any:
    if retry is not None and not isinstance(retry, dict):
        raise InvalidRequestError("`retry` is an object")
    return await level.save(id, url, events, retry, info.context)


async def _rotate(info: Information, id: ID, overlap: Duration | None = None) -> Any:
    lasts: Any = overlap
    return await level.rotate(id, lasts, info.context)


async def _remove(info: Information, id: ID) -> Any:
    return await level.remove(id, info.context)


async def _replay(info: Information, id: ID, parked: bool = False, since: str | None = None, event: ID | None = None) -> Any:
    return await level.replay(id, parked, since, event, info.context)


@strawberry.type
class EndpointQueries:
    webhook_endpoints: list[WebhookEndpoint] = resolved(
        by=_endpoints, description="Where events are sent to; needs the scope `admin`."
    )


@strawberry.type
class EndpointMutations:
    webhook_endpoint_save: WebhookEndpointPayload = resolved(
        by=_save,
        description='Make an endpoint, or with `id` change one and set it going again. `events`: "*", "contact.*", "deal.updated". '
        "`retry`: what differs from the default policy.",
    )
    webhook_endpoint_rotate: WebhookEndpointPayload = resolved(
        by=_rotate, description="Give it a new secret; the one before signs beside it for `overlap` (PT24H)."
    )
    webhook_endpoint_remove: WebhookEndpointPayload = resolved(
        by=_remove, description="Forget it, and what it was still to be sent."
    )
    webhook_endpoint_replay: WebhookReplayPayload = resolved(
        by=_replay,
        description="Send again under the same ids: what is parked, what happened after the cursor `since`, or one event.",
    )
