"""The types of the graph. Names and shapes follow the committed SDL, `schema/schema.graphql`."""

import datetime as dt
from collections.abc import Awaitable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import strawberry
from strawberry import ID, Parent
from strawberry.federation.schema_directives import Key, Shareable

from identity import golden
from identity.index import Link
from mapping import convert
from model import money, records
from model.errors import NotFoundError
from resolvers import connections, fanout, people, relations
from resolvers.context import Context, Slice
from schema.enums import FieldType, MarketingEventKind, MatchMethod, OrderStatus, StageCategory, TicketPriority, TicketStatus
from schema.fields import Information, level, resolved, shows
from schema.inputs import DealOrder, ReadOptions, TimelineKind, slice_of
from schema.scalars import JSON, System
from schema.selection import needed
from schema.sources import SourceStatus
from sources.source import CustomValue

RAW_SCOPE = "raw:read"


@strawberry.type(directives=[Shareable()])
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


# ---- values inside records ----


@strawberry.type
class Money:
    amount: Decimal
    currency: str


def _ref_source(root: Parent[records.Record]) -> str:
    return root.source


def _ref_record(root: Parent[records.Record]) -> str:
    return root.native_id


@strawberry.type(directives=[Shareable()], description="Where a record lives.")
class RecordRef:
    source_id: ID = resolved(by=_ref_source)
    system: System
    object: str
    record_id: ID = resolved(by=_ref_record)
    url: str | None


@strawberry.type
class FieldValue:
    value: JSON | None
    source: RecordRef
    observed_at: dt.datetime
    modified_at: dt.datetime | None


@strawberry.type(description="Why the golden record shows what it shows.")
class FieldProvenance:
    field: str
    chosen: FieldValue
    rule: str
    conflicts: list[FieldValue]


@strawberry.type
class CustomField:
    key: str
    label: str | None
    type: FieldType
    source: RecordRef
    json: JSON | None
    text: str | None
    number: Decimal | None
    boolean: bool | None
    date_time: dt.datetime | None
    options: list[str] | None


@strawberry.type
class Stage:
    id: ID
    name: str
    category: StageCategory
    pipeline: str | None
    native: str


@strawberry.type
class OrderItem:
    sku: str | None
    title: str
    quantity: int
    price: Money


# ---- pages ----

N = TypeVar("N")


@strawberry.type
class Edge(Generic[N]):
    cursor: str
    node: N


def _edges(root: Parent[connections.Connection[Any]]) -> list[Edge[Any]]:
    return [Edge(cursor=root.cursor(at), node=node) for at, node in enumerate(root.nodes)]


def _page_info(root: Parent[connections.Connection[Any]]) -> PageInfo:
    return PageInfo(
        has_next_page=root.more,
        has_previous_page=False,
        start_cursor=root.cursor(0) if root.nodes else None,
        end_cursor=root.end,
    )


def _statuses(root: Parent[connections.Connection[Any]]) -> Sequence[fanout.Status]:
    return root.statuses


@strawberry.type
class Connection(Generic[N]):
    edges: list[Edge[N]] = resolved(by=_edges)
    nodes: list[N]
    page_info: PageInfo = resolved(by=_page_info)
    sources: list[SourceStatus] = resolved(by=_statuses)


# ---- fields that several types share ----


def _ref(root: Parent[records.Record]) -> records.Record:
    return root


_VERSION = "Give it back as `ifVersion` to write only what has not changed since."


def _version(root: Parent[records.Record]) -> str:
    return root.version


def _global_id(root: Parent[records.Record]) -> str:
    return root.id


def _name(root: Parent[records.Person]) -> str | None:
    return root.name or convert.joined([root.given_name, root.family_name])


def _customer(root: Parent[records.Record], info: Information) -> Awaitable[Any]:
    return level(info, _customers_of, root, fields=needed(info))


async def _customers_of(parents: Sequence[records.Record], *, context: Context, fields: Any) -> Sequence[Any]:
    return await relations.customers_of(parents, context, fields)


def _looked_up(kind: records.Kind, attribute: str) -> Any:
    def native_id(record: records.Record) -> str | None:
        value: str | None = getattr(record, attribute, None)
        return value

    async def function(parents: Sequence[records.Record], *, context: Context, fields: Any) -> Sequence[Any]:
        return await relations.looked_up(kind, parents, native_id, context, fields)

    def resolver(root: Parent[records.Record], info: Information) -> Awaitable[Any]:
        return level(info, function, root, fields=needed(info))

    return resolver


async def _custom_fields(root: Parent[records.Record], info: Information, keys: list[str] | None = None) -> list[CustomField]:
    return await customs_of(root, keys, info.context)


async def customs_of(record: records.Record, keys: list[str] | None, context: Context) -> list[CustomField]:
    """Return a record's custom fields, typed; all of them when `keys` is None."""
    source = context.source(record.source)
    if source is None:
        return []
    reading = context.reading()
    return [_custom(value, record) for value in await source.custom_values(record, keys, reading)]


def _custom(custom: CustomValue, record: records.Record) -> CustomField:
    meta, value = custom.field, custom.value
    kind = meta.type
    return CustomField(
        key=meta.name,
        label=meta.label,
        type=kind,
        source=record,  # type: ignore[arg-type]
        json=value,
        text=None if value is None else value if isinstance(value, str) else str(value),
        number=money.decimal_of(value) if value not in (None, "") and kind in {"NUMBER", "MONEY"} else None,
        boolean=convert.boolean(value) if value not in (None, "") and kind == "BOOLEAN" else None,
        date_time=convert.instant(value) if value not in (None, "") and kind in {"DATE", "DATETIME"} else None,
        options=list(meta.options.values()) or None,
    )


def _related(kind: records.Kind, of: records.Kind) -> Any:
    def resolver(root: Parent[records.Record], info: Information, first: int = 20, after: str | None = None) -> Awaitable[Any]:
        return level(info, _of_records, root, kind, of, arguments=slice_of(first, after, None), fields=needed(info))

    return resolver


async def _of_records(
    kind: records.Kind, of: records.Kind, parents: Sequence[records.Record], *, arguments: Slice, context: Context, fields: Any
) -> Sequence[Any]:
    return await relations.of_records(kind, of, parents, arguments, context, fields)


# ---- the graph ----


@strawberry.interface
class Node:
    id: ID


@strawberry.type(description="Someone who owns records in a system.")
class Owner:
    is_type_of = shows(records.Owner)

    id: ID = resolved(by=_global_id)
    name: str | None
    email: str | None


_BY_REF = Key(fields="ref { sourceId object recordId }")  # type: ignore[arg-type]
_BY_ID = Key(fields="id")  # type: ignore[arg-type]


@strawberry.type(directives=[_BY_ID], description="A company. Companies are not merged over systems yet.")
class Account(Node):
    is_type_of = shows(records.Account)

    id: ID = resolved(by=_global_id)
    name: str | None
    domain: str | None
    industry: str | None
    parent: "Account | None" = resolved(by=_looked_up("account", "parent_id"))
    owner: Owner | None = resolved(by=_looked_up("owner", "owner_id"))
    contacts: Connection["Contact"] = resolved(by=_related("contact", "account"))
    deals: Connection["Deal"] = resolved(by=_related("deal", "account"))
    refs: list[RecordRef] = resolved(by=lambda root: [root])
    custom_fields: list[CustomField] = resolved(by=_custom_fields)


@strawberry.type(directives=[_BY_ID, _BY_REF], description="A person as one system knows them.")
class Contact(Node):
    is_type_of = shows(records.Contact)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    customer: "Customer | None" = resolved(by=_customer)
    account: Account | None = resolved(by=_looked_up("account", "account_id"))
    email: str | None
    phone: str | None
    name: str | None = resolved(by=_name)
    title: str | None
    owner: Owner | None = resolved(by=_looked_up("owner", "owner_id"))
    updated_at: dt.datetime | None
    version: str = resolved(by=_version, description=_VERSION)
    custom_fields: list[CustomField] = resolved(by=_custom_fields)


@strawberry.type(directives=[_BY_ID, _BY_REF])
class Lead(Node):
    is_type_of = shows(records.Lead)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    customer: "Customer | None" = resolved(by=_customer)
    status: str | None
    score: int | None
    owner: Owner | None = resolved(by=_looked_up("owner", "owner_id"))
    company: str | None
    updated_at: dt.datetime | None
    version: str = resolved(by=_version, description=_VERSION)
    custom_fields: list[CustomField] = resolved(by=_custom_fields)


def _deal_contacts(root: Parent[records.Deal], info: Information) -> Awaitable[Any]:
    return level(info, _contacts_of_deals, root, fields=needed(info))


async def _contacts_of_deals(parents: Sequence[records.Deal], *, context: Context, fields: Any) -> Sequence[Any]:
    return await relations.contacts_of_deals(parents, context, fields)


@strawberry.type(directives=[_BY_ID, _BY_REF])
class Deal(Node):
    is_type_of = shows(records.Deal)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    contacts: list[Contact] | None = resolved(by=_deal_contacts)
    customer: "Customer | None" = resolved(by=_customer)
    account: Account | None = resolved(by=_looked_up("account", "account_id"))
    name: str | None
    amount: Money | None
    stage: Stage
    probability: float | None
    close_date: dt.date | None
    owner: Owner | None = resolved(by=_looked_up("owner", "owner_id"))
    updated_at: dt.datetime | None
    version: str = resolved(by=_version, description=_VERSION)
    custom_fields: list[CustomField] = resolved(by=_custom_fields)


@strawberry.type(directives=[_BY_ID, _BY_REF])
class Order(Node):
    is_type_of = shows(records.Order)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    number: str | None
    customer: "Customer | None" = resolved(by=_customer)
    status: OrderStatus
    raw_status: str
    payment_status: str | None
    fulfillment_status: str | None
    total: Money
    placed_at: dt.datetime
    items: list[OrderItem]


@strawberry.type(directives=[_BY_ID, _BY_REF])
class Ticket(Node):
    is_type_of = shows(records.Ticket)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    customer: "Customer | None" = resolved(by=_customer)
    subject: str | None
    status: TicketStatus
    raw_status: str
    priority: TicketPriority | None
    created_at: dt.datetime
    updated_at: dt.datetime


def _event(root: Parent[records.MarketingEvent]) -> str:
    return root.event


@strawberry.type(
    description="What a marketing tool did to someone, or saw them do. Its id cannot be looked up: no tool offers that."
)
class MarketingEvent:
    is_type_of = shows(records.MarketingEvent)

    id: ID = resolved(by=_global_id)
    ref: RecordRef = resolved(by=_ref)
    customer: "Customer | None" = resolved(by=_customer)
    kind: MarketingEventKind = resolved(by=_event)
    raw_kind: str
    campaign: str | None
    at: dt.datetime


TimelineItem = Annotated[Deal | Order | Ticket | MarketingEvent, strawberry.union("TimelineItem")]


@strawberry.type
class TimelineEdge:
    cursor: str
    node: TimelineItem


def _timeline_edges(root: Parent[connections.Connection[Any]]) -> list[TimelineEdge]:
    return [TimelineEdge(cursor=root.cursor(at), node=node) for at, node in enumerate(root.nodes)]


@strawberry.type
class TimelineConnection:
    edges: list[TimelineEdge] = resolved(by=_timeline_edges)
    nodes: list[TimelineItem]
    page_info: PageInfo = resolved(by=_page_info)
    sources: list[SourceStatus] = resolved(by=_statuses)


# ---- the customer ----


def _golden(attribute: str) -> Any:
    def resolver(root: Parent[people.Customer], info: Information) -> Any:
        return getattr(_golden_record(root, info.context), attribute)

    return resolver


def _golden_record(customer: people.Customer, context: Context) -> golden.Golden:
    key = ("golden", customer.id, id(customer))
    if key not in context.loaders:
        ranks = {source.id: source.rank for source in context.sources}
        context.loaders[key] = golden.golden(customer.people, ranks)
    record: golden.Golden = context.loaders[key]
    return record


def _of_kind(kind: records.Kind) -> Any:
    def resolver(root: Parent[people.Customer]) -> list[Any]:
        return list(root.of_kind(kind))

    return resolver


def _customer_slice(kind: records.Kind) -> Any:
    def resolver(
        root: Parent[people.Customer],
        info: Information,
        first: int = 20,
        after: str | None = None,
        read: ReadOptions | None = None,
    ) -> Awaitable[Any]:
        return level(info, _of_customers, root, kind, arguments=slice_of(first, after, read), fields=needed(info))

    return resolver


def _customer_deals(
    root: Parent[people.Customer], info: Information, first: int = 20, after: str | None = None,
    order_by: list[DealOrder] | None = None, read: ReadOptions | None = None,
) -> Awaitable[Any]:  # fmt: skip
    return level(info, _of_customers, root, "deal", arguments=slice_of(first, after, read, order_by), fields=needed(info))


async def _of_customers(
    kind: records.Kind, parents: Sequence[people.Customer], *, arguments: Slice, context: Context, fields: Any
) -> Sequence[Any]:
    return await relations.of_customers(kind, parents, arguments, context, fields)


def _customer_accounts(
    root: Parent[people.Customer], info: Information, first: int = 10, after: str | None = None
) -> Awaitable[Any]:
    return level(info, _accounts_of, root, arguments=slice_of(first, after, None), fields=needed(info))


async def _accounts_of(parents: Sequence[people.Customer], *, arguments: Slice, context: Context, fields: Any) -> Sequence[Any]:
    return await relations.accounts_of_customers(parents, arguments, context, fields)


def _timeline(
    root: Parent[people.Customer], info: Information, first: int = 50, after: str | None = None,
    kinds: list[TimelineKind] | None = None, since: dt.datetime | None = None, read: ReadOptions | None = None,
) -> Awaitable[Any]:  # fmt: skip
    asked = slice_of(first, after, read)
    newest_first = Slice(first=asked.first, after=asked.after, descending=True, terms=asked.terms)
    wanted = tuple(sorted({kind.value for kind in kinds})) if kinds is not None else None
    return level(info, _timelines, root, wanted, since, arguments=newest_first, fields=needed(info))


async def _timelines(
    kinds: Sequence[records.Kind] | None, since: dt.datetime | None, parents: Sequence[people.Customer], *,
    arguments: Slice, context: Context, fields: Any,
) -> Sequence[Any]:  # fmt: skip
    return await relations.timeline(kinds, since, parents, arguments, context, fields)


def _customer_refs(root: Parent[people.Customer]) -> Sequence[records.Record]:
    return root.people


def _merged_from(root: Parent[people.Customer]) -> Sequence[str]:
    return root.members.merged_from


def _provenance(root: Parent[people.Customer], info: Information, fields: list[str] | None = None) -> list[FieldProvenance]:
    ranks = {source.id: source.rank for source in info.context.sources}
    return [
        FieldProvenance(
            field=each.field,
            chosen=_field_value(each.chosen),
            rule=each.rule,
            conflicts=[_field_value(one) for one in each.conflicts],
        )
        for each in golden.provenance(root.people, ranks, fields)
    ]


def _field_value(value: golden.Value) -> FieldValue:
    person = value.person
    return FieldValue(value=value.value, source=person, observed_at=person.fetched_at, modified_at=person.updated_at)  # type: ignore[arg-type]


async def _customer_customs(
    root: Parent[people.Customer], info: Information, keys: list[str] | None = None, sources: list[ID] | None = None
) -> list[CustomField]:
    found: list[CustomField] = []
    for person in root.people:
        if sources is None or person.source in sources:
            found += await customs_of(person, keys, info.context)
    return found


def _raw(root: Parent[people.Customer], info: Information, source: ID) -> Any:
    info.context.require(RAW_SCOPE)
    if info.context.source(source) is None:
        raise NotFoundError(f"there is no source {source!r}")
    return [person.row for person in root.people if person.source == source] or None


@strawberry.type
class IdentityLink:
    a: RecordRef
    b: RecordRef
    method: MatchMethod
    score: float
    evidence: JSON
    at: dt.datetime
    by: str | None


@strawberry.type(description="Why these records are one customer.")
class Identity:
    confidence: float
    method: MatchMethod
    links: list[IdentityLink]


def _identity(root: Parent[people.Customer], info: Information) -> Identity:
    by_ref = {person.ref: person for person in root.people}
    links = root.members.links
    weakest = min(links, key=lambda link: link.score, default=None)
    return Identity(
        confidence=weakest.score if weakest else 1.0,
        method=weakest.method if weakest else "SINGLETON",
        links=[_link(link, by_ref) for link in links if link.a in by_ref and link.b in by_ref],
    )


def _link(link: Link, by_ref: dict[records.Ref, records.Person]) -> IdentityLink:
    a: Any = by_ref[link.a]  # shown as RecordRef
    b: Any = by_ref[link.b]
    evidence: Any = link.evidence
    return IdentityLink(a=a, b=b, method=link.method, score=link.score, evidence=evidence, at=link.at, by=link.by)


@strawberry.type(
    directives=[_BY_ID, Key(fields="primaryEmail")],  # type: ignore[arg-type]
    description="One person as all connected systems know them. The id is stable: merged ids keep resolving to the survivor.",
)
class Customer(Node):
    is_type_of = shows(people.Customer)

    id: ID
    primary_email: str | None = resolved(by=_golden("email"))
    emails: list[str] = resolved(by=_golden("emails"))
    phones: list[str] = resolved(by=_golden("phones"))
    name: str | None = resolved(by=_golden("name"))
    given_name: str | None = resolved(by=_golden("given_name"))
    family_name: str | None = resolved(by=_golden("family_name"))
    locale: str | None = resolved(by=_golden("locale"))
    identity: Identity = resolved(by=_identity)
    accounts: Connection[Account] = resolved(by=_customer_accounts)
    contacts: list[Contact] = resolved(by=_of_kind("contact"))
    leads: list[Lead] = resolved(by=_of_kind("lead"))
    deals: Connection[Deal] = resolved(by=_customer_deals)
    orders: Connection[Order] = resolved(by=_customer_slice("order"))
    tickets: Connection[Ticket] = resolved(by=_customer_slice("ticket"))
    marketing_events: Connection[MarketingEvent] = resolved(by=_customer_slice("marketing_event"))
    timeline: TimelineConnection = resolved(by=_timeline)
    merged_from: list[ID] = resolved(by=_merged_from)
    sources: list[SourceStatus] = resolved(by=lambda root: root.statuses)
    refs: list[RecordRef] = resolved(by=_customer_refs)
    created_at: dt.datetime | None = resolved(by=_golden("created_at"))
    updated_at: dt.datetime | None = resolved(by=_golden("updated_at"))
    version: str = resolved(by=_golden("version"))
    provenance: list[FieldProvenance] = resolved(by=_provenance)
    custom_fields: list[CustomField] = resolved(by=_customer_customs)
    raw: JSON | None = resolved(by=_raw, description="The native rows of one source. Needs the scope raw:read.")
