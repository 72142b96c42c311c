"""Events: what was applied, one per change, in one order per workspace."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from model.records import Ref

EventOp = Literal["CREATED", "UPDATED", "DELETED", "MERGED"]
Origin = Literal["WEBHOOK", "CDC", "POLL", "RECONCILE", "LOCAL_WRITE"]


class Event(Struct, frozen=True, kw_only=True, gc=False):
    """One applied change. It names records and fields, and holds no value of any.

    Attributes:
        seq: 1, 2, 3 … within the workspace, without gaps, in the order in which changes were applied.
        op: MERGED: the record went into `into`, which has an event of its own.
        customer: whose record it is, None where nobody's is known.
        changed: target fields, and "custom.<key>", that differ from what was known before; None where nothing was known.
        at: when its system says that it changed.
        received_at: when we heard.
    """

    workspace: str
    seq: int
    op: EventOp
    ref: Ref
    system: str
    customer: str | None = None
    changed: tuple[str, ...] | None = None
    into: str | None = None
    at: datetime
    received_at: datetime
    origin: Origin

    @property
    def id(self) -> str:
        return f"event:{self.seq}"
