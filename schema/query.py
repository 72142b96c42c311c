"""The root fields."""

from collections.abc import Awaitable, Sequence
from typing import Any

import strawberry
from strawberry import ID

from model.errors import InvalidRequestError, NotFoundError
from model.records import Kind
from resolvers import lists, lookup
from resolvers.connections import MAX_FIRST
from resolvers.context import Context
from schema.custom import CustomRecords, custom_records
from schema.fields import Information, level, resolved
from schema.filters import CustomerFilter, DealFilter, conditions_of
from schema.inputs import CustomerLookup, CustomerOrder, DealOrder, ReadOptions, ref_of, slice_of, terms_of
from schema.selection import needed
from schema.types import Account, Connection, Contact, Customer, Deal, Lead, Node, Order, Ticket


async def _customer(info: Information, by: CustomerLookup, read: ReadOptions | None = None) -> Any:
    terms, context, fields = terms_of(read), info.context, needed(info)
    if by.id:
        return await lookup.customer_by_id(by.id, terms, context, fields)
    if by.email:
        return await lookup.customer_by_email(by.email, terms, context, fields)
    if by.phone:
        return await lookup.customer_by_phone(by.phone, terms, context, fields)
    if by.ref:
        return await lookup.customer_by_ref(ref_of(by.ref, context), terms, context, fields)
    raise InvalidRequestError("`by` needs a value that is not empty")


async def _customers(
    info: Information,
    first: int,
    after: str | None = None,
    order_by: list[CustomerOrder] | None = None,
    read: ReadOptions | None = None,
) -> Any:
    return await lists.customers(slice_of(first, after, read, order_by), info.context, needed(info))


async def _contacts(
    info: Information, first: int, after: str | None = None, where: CustomerFilter | None = None, read: ReadOptions | None = None
) -> Any:
    conditions = conditions_of(where.custom if where else None)
    return await lists.records("contact", slice_of(first, after, read), info.context, needed(info), conditions)


def _records(kind: Kind) -> Any:
    async def resolver(info: Information, first: int, after: str | None = None, read: ReadOptions | None = None) -> Any:
        return await lists.records(kind, slice_of(first, after, read), info.context, needed(info))

    return resolver


async def _deals(
    info: Information,
    first: int,
    after: str | None = None,
    where: DealFilter | None = None,
    order_by: list[DealOrder] | None = None,
    read: ReadOptions | None = None,
) -> Any:
    conditions = conditions_of(where.custom if where else None)
    return await lists.records("deal", slice_of(first, after, read, order_by), info.context, needed(info), conditions)


async def _node(info: Information, id: ID) -> Any:
    found = await _named(info, id)
    if found is None:
        raise NotFoundError("there is no such node")
    return found


def _nodes(info: Information, ids: list[ID]) -> list[Awaitable[Any]]:
    if len(ids) > MAX_FIRST:
        raise InvalidRequestError(f"`ids` takes at most {MAX_FIRST}, not {len(ids)}")
    return [_named(info, id) for id in ids]


def _named(info: Information, id: str) -> Awaitable[Any]:
    """Load one node together with all others that this request names."""
    # A loader is keyed by the identity of the parent, and equal ids must meet: so each id is kept once per request.
    kept = info.context.loaders.setdefault(("node id", id), id)
    return level(info, _by_ids, kept, fields=needed(info))


async def _by_ids(ids: Sequence[str], *, context: Context, fields: Any) -> Sequence[Any]:
    return await lookup.records(ids, context, fields)


@strawberry.type
class Query:
    node: Node | None = resolved(by=_node)
    nodes: list[Node | None] = resolved(by=_nodes)
    customer: Customer | None = resolved(
        by=_customer, description="One customer out of everything connected; null when all sources answered and nobody is there."
    )
    customers: Connection[Customer] = resolved(by=_customers)
    deals: Connection[Deal] = resolved(by=_deals)
    contacts: Connection[Contact] = resolved(by=_contacts)
    orders: Connection[Order] = resolved(by=_records("order"))
    tickets: Connection[Ticket] = resolved(by=_records("ticket"))
    leads: Connection[Lead] = resolved(by=_records("lead"))
    accounts: Connection[Account] = resolved(by=_records("account"))
    custom_records: CustomRecords = resolved(by=custom_records, description="The records of one custom object of one source.")
