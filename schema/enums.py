"""The enums of the graph: the same words that records and statuses use, so that nothing is translated on the way out."""

from enum import Enum
from typing import Any, get_args

import strawberry

from model import records
from model.errors import ERROR_CODES
from model.events import EventOp, Origin
from store import endpoints


def enum(name: str, *values: str) -> Any:
    """Return a GraphQL enum over these words; values are the words themselves."""
    members: Any = Enum(name, {value: value for value in values})  # type: ignore[misc]
    return strawberry.enum(members)


ErrorCode = enum("ErrorCode", *ERROR_CODES)


ReadState = enum(
    "ReadState", "OK", "CACHED", "STALE", "PARTIAL", "RATE_LIMITED", "TIMEOUT", "AUTH_EXPIRED", "DOWN", "CIRCUIT_OPEN", "UNSUPPORTED",
    "FORBIDDEN", "SKIPPED",
)  # fmt: skip
StageCategory = enum("StageCategory", "OPEN", "WON", "LOST")
OrderStatus = enum(
    "OrderStatus", "PENDING_PAYMENT", "OPEN", "ON_HOLD", "PARTIALLY_FULFILLED", "FULFILLED", "COMPLETED", "CANCELLED", "REFUNDED",
    "PARTIALLY_REFUNDED", "DISPUTED", "INCOMPLETE", "UNKNOWN",
)  # fmt: skip
TicketStatus = enum("TicketStatus", "NEW", "OPEN", "PENDING", "ON_HOLD", "SOLVED", "CLOSED", "DELETED", "UNKNOWN")
TicketPriority = enum("TicketPriority", "LOW", "NORMAL", "HIGH", "URGENT")
MarketingEventKind = enum("MarketingEventKind", *get_args(records.MarketingEventKind))
FieldType = enum(
    "FieldType",
    "TEXT",
    "NUMBER",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "MONEY",
    "PICKLIST",
    "MULTI_PICKLIST",
    "REFERENCE",
    "FORMULA",
    "JSON",
)
MatchMethod = enum("MatchMethod", "EXACT_EMAIL", "EXACT_PHONE", "MANUAL", "SINGLETON")
SourceState = enum("SourceState", "CONNECTED", "DEGRADED", "RECONNECT_REQUIRED", "PAUSED", "DISCONNECTED")
WebhookState = enum("WebhookState", "MANUAL", "WATCHED", "FAILED", "OFF")
WriteState = enum("WriteState", "APPLIED", "UNCHANGED", "REJECTED", "CONFLICT", "SKIPPED", "UNKNOWN")
DuplicatePolicy = enum("DuplicatePolicy", "UPSERT", "SKIP", "FAIL")
EndpointState = enum("EndpointState", *get_args(endpoints.EndpointState))
DeliveryState = enum("DeliveryState", *get_args(endpoints.DeliveryState))
ChangeOp = enum("ChangeOp", *get_args(EventOp))
ChangeOrigin = enum("ChangeOrigin", *get_args(Origin))
