"""What a system's rows become: frozen records, one class per kind.

A record carries its native row, so custom fields and raw values need no second read. Fields that were not asked for
(projection) are None or empty; `fetched_at` says when the row left its system.

Records are msgspec structs, not dataclasses: a frozen dataclass pays `object.__setattr__` per field, and a page
makes hundreds of them.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, ClassVar, Literal

from msgspec import Struct

from model.money import Money

Row = dict[str, Any]  # a system's own dict, exactly as it came over the wire
Kind = Literal["contact", "account", "lead", "deal", "order", "ticket", "marketing_event", "owner", "custom"]

StageCategory = Literal["OPEN", "WON", "LOST"]
OrderStatus = Literal[
    "PENDING_PAYMENT", "OPEN", "ON_HOLD", "PARTIALLY_FULFILLED", "FULFILLED", "COMPLETED", "CANCELLED", "REFUNDED",
    "PARTIALLY_REFUNDED", "DISPUTED", "INCOMPLETE", "UNKNOWN",
]  # fmt: skip
TicketStatus = Literal["NEW", "OPEN", "PENDING", "ON_HOLD", "SOLVED", "CLOSED", "DELETED", "UNKNOWN"]
TicketPriority = Literal["LOW", "NORMAL", "HIGH", "URGENT"]
MarketingEventKind = Literal[
    "EMAIL_SENT", "EMAIL_DELIVERED", "EMAIL_OPENED", "EMAIL_CLICKED", "EMAIL_BOUNCED", "UNSUBSCRIBED", "SUBSCRIBED", "FORM_FILLED",
    "PAGE_VISITED", "LIST_ADDED", "SCORE_CHANGED", "PROFILE_UPDATED", "CUSTOM",
]  # fmt: skip


class Ref(Struct, frozen=True, order=True, gc=False):
    """Where a record lives: which source, which kind, and the id its system gave it."""

    source: str
    kind: Kind
    native_id: str

    @property
    def id(self) -> str:
        """The graph's id of the record, such as "contact:hubspot:512"."""
        return f"{self.kind}:{self.source}:{self.native_id}"


class Record(Struct, frozen=True, kw_only=True):
    kind: ClassVar[Kind]

    source: str  # the source's id
    system: str  # the adapter's name
    object: str  # the system's own name for the kind, such as "Opportunity"
    native_id: str
    row: Row
    fetched_at: datetime
    url: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    revision: str | None = None  # the system's own mark of this version, where it has one, such as an ETag

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.source}:{self.native_id}"

    @property
    def ref(self) -> Ref:
        return Ref(self.source, self.kind, self.native_id)

    @property
    def version(self) -> str:
        """What `ifVersion` is compared with: the system's own mark, else the time of the last change as it tells it."""
        return self.revision or (self.updated_at.isoformat() if self.updated_at else "")


class Person(Record, frozen=True, kw_only=True):
    """What contacts and leads share: the keys that identity is resolved by."""

    email: str | None = None
    emails: tuple[str, ...] = ()  # normalised, the primary one first
    phone: str | None = None
    phones: tuple[str, ...] = ()  # E.164, the primary one first
    name: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    owner_id: str | None = None


class Contact(Person, frozen=True, kw_only=True):
    kind = "contact"

    title: str | None = None
    locale: str | None = None
    account_id: str | None = None


class Lead(Person, frozen=True, kw_only=True):
    kind = "lead"

    status: str | None = None
    score: int | None = None
    company: str | None = None


class Account(Record, frozen=True, kw_only=True):
    kind = "account"

    name: str | None = None
    domain: str | None = None
    industry: str | None = None
    parent_id: str | None = None
    owner_id: str | None = None


class Stage(Struct, frozen=True):
    """A step of a pipeline, named and ordered by the system's own metadata."""

    id: str
    name: str
    category: StageCategory
    pipeline: str | None
    native: str
    probability: float | None = None  # 0..1


class Deal(Record, frozen=True, kw_only=True):
    kind = "deal"

    stage: Stage
    name: str | None = None
    amount: Money | None = None
    probability: float | None = None  # 0..1
    close_date: date | None = None
    account_id: str | None = None
    owner_id: str | None = None


class OrderItem(Struct, frozen=True):
    title: str
    quantity: int
    price: Money
    sku: str | None = None


class Order(Record, frozen=True, kw_only=True):
    kind = "order"

    status: OrderStatus
    raw_status: str
    total: Money
    placed_at: datetime
    number: str | None = None
    payment_status: str | None = None
    fulfillment_status: str | None = None
    items: tuple[OrderItem, ...] = ()
    contact_id: str | None = None


class Ticket(Record, frozen=True, kw_only=True):
    kind = "ticket"

    status: TicketStatus
    raw_status: str
    subject: str | None = None
    priority: TicketPriority | None = None
    contact_id: str | None = None


class MarketingEvent(Record, frozen=True, kw_only=True):
    """What a marketing tool did to someone, or saw them do; it happens once and never changes."""

    kind = "marketing_event"

    event: MarketingEventKind
    raw_kind: str  # the system's own word
    at: datetime
    campaign: str | None = None
    contact_id: str | None = None


class Owner(Record, frozen=True, kw_only=True):
    kind = "owner"

    name: str | None = None
    email: str | None = None


RECORDS: Mapping[Kind, type[Record]] = {
    each.kind: each for each in (Contact, Lead, Account, Deal, Order, Ticket, MarketingEvent, Owner)
}


# ---- what a system says about its own objects ----

FieldType = Literal[
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
]


class FieldMeta(Struct, frozen=True, kw_only=True):
    """One field of an object.

    Attributes:
        name: the stable name callers use.
        path: where its value stands in a row, dotted, such as "properties.region".
        options: native value → label, for picklists.
    """

    name: str
    path: str
    type: FieldType
    label: str | None = None
    custom: bool = False
    readable: bool = True
    writable: bool = True
    options: Mapping[str, str] = {}


class ObjectType(Struct, frozen=True, kw_only=True):
    """The metadata of one object; cached, never asked per row.

    Attributes:
        stages: by native stage id, empty where the object has none.
        currency: what an amount without one is in, when the system knows.
        id_path: where a row has its id.
    """

    name: str
    fields: Mapping[str, FieldMeta]
    label: str | None = None
    custom: bool = False
    id_path: str = "id"
    stages: Mapping[str, Stage] = {}
    currency: str | None = None
    version: str = ""


class CustomRecord(Record, frozen=True, kw_only=True):
    """A row of an object that only this account has; it is in no mapping, and all of its fields are custom ones."""

    kind = "custom"

    meta: ObjectType

    @property
    def id(self) -> str:
        return f"custom:{self.source}:{self.object}/{self.native_id}"
