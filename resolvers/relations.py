"""What belongs to a customer or a record: level functions, all parents of one level at once.

Each asks every source once per relation: native ids of all parents go down, records come up, split by parent.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from model.errors import InvalidRequestError
from model.records import Contact, Deal, Kind, Lead, MarketingEvent, Order, Person, Record, Ref, Ticket
from resolvers import people
from resolvers.connections import Connection, check_first, cut
from resolvers.context import Context, Fields, Slice, Terms
from resolvers.fanout import Fanout, incomplete
from resolvers.people import Customer
from sources.reading import Answer, Reading
from sources.source import Found, Source

CAP = 100  # records of one kind per parent; beyond it the answer is PARTIAL
_TIMELINE: tuple[Kind, ...] = ("deal", "order", "ticket", "marketing_event")
_NEVER = datetime.min.replace(tzinfo=UTC)
P = TypeVar("P", Customer, Record)
SortKey = tuple[str, int, int, str]


async def of_customers(
    kind: Kind, parents: Sequence[Customer], arguments: Slice, context: Context, fields: Fields
) -> list[Connection[Record]]:
    """Return each customer's deals, orders, tickets or marketing events, of all their contacts in all sources."""
    _check(arguments, len(parents))
    fanout = Fanout(context, arguments.terms)
    owned = {parent.id: [person.ref for person in parent.people if person.kind == "contact"] for parent in parents}
    found = await _related(fanout, kind, "contact", [ref for refs in owned.values() for ref in refs], arguments, fields)
    fanout.check_all()
    pages = []
    for parent in parents:
        children = {record.ref: record for ref in owned[parent.id] for record in found.get(ref, ())}
        pages.append(_paged(fanout, (kind, "customer", parent.id), children.values(), arguments))
    return pages


async def of_records(
    kind: Kind, of: Kind, parents: Sequence[Record], arguments: Slice, context: Context, fields: Fields
) -> list[Connection[Record]]:
    """Return each record's related records of one kind, from its own source."""
    _check(arguments, len(parents))
    fanout = Fanout(context, arguments.terms)
    found = await _related(fanout, kind, of, [parent.ref for parent in parents], arguments, fields)
    return [_paged(fanout, (kind, of, parent.id), found.get(parent.ref, ()), arguments) for parent in parents]


async def timeline(
    kinds: Sequence[Kind] | None,
    since: datetime | None,
    parents: Sequence[Customer],
    arguments: Slice,
    context: Context,
    fields: Fields,
) -> list[Connection[Record]]:
    """Return what happened to each customer, the newest first: deals and tickets by creation, the rest by when it was."""
    _check(arguments, len(parents))
    fanout = Fanout(context, arguments.terms)
    contacts = [person.ref for parent in parents for person in parent.people if person.kind == "contact"]
    asked = tuple(kind for kind in _TIMELINE if kinds is None or kind in kinds)
    calls: dict[tuple[str, Kind, Kind], Call] = {}
    for kind in asked:
        calls |= _calls(fanout, kind, "contact", contacts, arguments, fields)
    found = await _answered(fanout, calls)
    fanout.check_all()
    pages = []
    for parent in parents:
        refs = {person.ref for person in parent.people}
        items = {
            record.ref: record
            for (kind, ref), records in found.items()
            if ref in refs
            for record in records
            if since is None or _when(record) >= since
        }
        query = ("timeline", asked, since, parent.id)
        rows = [(_sort_key(record, context, _when(record)), record) for record in items.values()]
        pages.append(cut(context, query, rows, arguments, fanout))
    return pages


async def looked_up(
    kind: Kind, parents: Sequence[Record], native_id: Callable[[Record], str | None], context: Context, fields: Fields
) -> list[Record | Exception | None]:
    """Return the one record of `kind` that each parent names by its native id; None where it names none.

    A parent whose source has the relation but no such id on its rows is asked for by the relation, the primary one first.
    """
    fanout = Fanout(context, Terms())
    named = {parent.ref: Ref(parent.source, kind, id) for parent in parents if (id := native_id(parent)) is not None}
    unnamed = [
        parent.ref
        for parent in parents
        if parent.ref not in named and (source := context.source(parent.source)) is not None and source.relates(parent.kind, kind)
    ]
    read = await people.read(fanout, dict.fromkeys(named.values()), fields)
    arguments = Slice(first=1)
    by_relation = await _related(fanout, kind, parents[0].kind, unnamed, arguments, fields) if unnamed else {}
    failed = {status.source.id: status for status in fanout.failures()}
    answers: list[Record | Exception | None] = []
    for parent in parents:
        ref = named.get(parent.ref)
        record = read.get(ref) if ref else next(iter(by_relation.get(parent.ref, ())), None)
        asked = ref is not None or parent.ref in unnamed
        lost = record is None and asked and parent.source in failed
        answers.append(incomplete([failed[parent.source]], f"the {kind} could not be read") if lost else record)
    return answers


async def accounts_of_customers(
    parents: Sequence[Customer], arguments: Slice, context: Context, fields: Fields
) -> list[Connection[Record]]:
    """Return the accounts that each customer's contacts belong to."""
    _check(arguments, len(parents))
    fanout = Fanout(context, arguments.terms)
    named = {
        parent.id: [
            Ref(person.source, "account", person.account_id)
            for person in parent.people
            if isinstance(person, Contact) and person.account_id
        ]
        for parent in parents
    }
    found = await people.read(fanout, dict.fromkeys(ref for refs in named.values() for ref in refs), fields)
    pages = []
    for parent in parents:
        accounts = {record.ref: record for ref in named[parent.id] if (record := found.get(ref)) is not None}
        pages.append(_paged(fanout, ("account", "customer", parent.id), accounts.values(), arguments))
    return pages


async def contacts_of_deals(parents: Sequence[Deal], context: Context, fields: Fields) -> list[list[Record] | None]:
    """Return each deal's contacts, the primary one first; None where its source failed."""
    fanout = Fanout(context, Terms())
    found = await _related(fanout, "contact", "deal", [parent.ref for parent in parents], Slice(first=CAP), fields)
    failed = {status.source.id for status in fanout.failures()}
    return [None if parent.source in failed else list(found.get(parent.ref, ())) for parent in parents]


async def customers_of(parents: Sequence[Record], context: Context, fields: Fields) -> list[Customer | None]:
    """Return the customer that each record belongs to: its own for a person, the primary contact's for the rest."""
    fanout = Fanout(context, Terms())
    own: dict[Ref, Ref] = {}
    for parent in parents:
        if isinstance(parent, Person):
            own[parent.ref] = parent.ref
        elif isinstance(parent, Order | Ticket | MarketingEvent) and parent.contact_id:
            own[parent.ref] = Ref(parent.source, "contact", parent.contact_id)
    rest = [
        parent.ref
        for parent in parents
        if parent.ref not in own
        and (source := context.source(parent.source)) is not None
        and source.relates(parent.kind, "contact")
    ]
    known = {parent.ref: parent for parent in parents if isinstance(parent, Person)}
    for kind in dict.fromkeys(ref.kind for ref in rest):
        some = [ref for ref in rest if ref.kind == kind]
        related = await _related(fanout, "contact", kind, some, Slice(first=CAP), fields)
        for ref, contacts in related.items():
            if contacts:
                own[ref] = contacts[0].ref
                known[contacts[0].ref] = contacts[0]  # type: ignore[assignment]
    found = await people.read(fanout, [ref for ref in own.values() if ref not in known], fields)
    known |= {ref: record for ref, record in found.items() if isinstance(record, Contact | Lead)}
    gathered = await people.gather(fanout, list(known.values()), fields)
    owners = {ref: gathered.by_ref.get(person) for ref, person in own.items()}
    return [gathered.customers[owner] if (owner := owners.get(parent.ref)) is not None else None for parent in parents]


def _check(arguments: Slice, parents: int) -> None:
    check_first(arguments.first)
    if arguments.after is not None and parents > 1:
        raise InvalidRequestError("a nested `after` is good for one parent: ask for that one by its id")


def _paged(fanout: Fanout, query: tuple[str, ...], records: Iterable[Record], arguments: Slice) -> Connection[Record]:
    rows = [(_sort_key(record, fanout.context, _order_time(record, arguments)), record) for record in records]
    return cut(fanout.context, (*query, arguments.order, arguments.descending), rows, arguments, fanout)


def _order_time(record: Record, arguments: Slice) -> datetime:
    if isinstance(record, MarketingEvent):
        return record.at
    return (record.updated_at if arguments.order == "updated" else record.created_at) or _NEVER


def _when(record: Record) -> datetime:
    if isinstance(record, MarketingEvent):
        return record.at
    return (record.placed_at if isinstance(record, Order) else record.created_at) or _NEVER


def _sort_key(record: Record, context: Context, at: datetime) -> SortKey:
    source = context.source(record.source)
    return (at.isoformat(timespec="microseconds"), source.rank if source else 0, len(record.native_id), record.native_id)


async def _related(
    fanout: Fanout, kind: Kind, of: Kind, parents: Sequence[Ref], arguments: Slice, fields: Fields
) -> dict[Ref, Sequence[Record]]:
    found = await _answered(fanout, _calls(fanout, kind, of, parents, arguments, fields))
    return {ref: records for (_, ref), records in found.items()}


Call = tuple[Source, Callable[[Reading], Awaitable[Answer[dict[str, Found]]]]]


def _calls(
    fanout: Fanout, kind: Kind, of: Kind, parents: Sequence[Ref], arguments: Slice, fields: Fields
) -> dict[tuple[str, Kind, Kind], Call]:
    # Only creation time upwards can be cut at the system: everything else needs all of a parent's records at hand.
    cuttable = arguments.after is None and arguments.order == "created" and not arguments.descending
    first = min(arguments.first + 1, CAP) if cuttable else CAP
    names = people.wanted(kind, fields) if kind in people.PERSON_KINDS else people.selected(kind, fields)
    calls: dict[tuple[str, Kind, Kind], Call] = {}
    for source in fanout.sources:
        ids = [ref.native_id for ref in parents if ref.source == source.id and ref.kind == of]
        if ids and source.relates(of, kind):
            calls[source.id, of, kind] = (source, _relating(source, kind, of, ids, names, first))
    return calls


def _relating(
    source: Source, kind: Kind, of: Kind, ids: Sequence[str], names: Sequence[str], first: int
) -> Callable[[Reading], Awaitable[Answer[dict[str, Found]]]]:
    return lambda reading: source.related(kind, of, ids, fields=names, first=first, reading=reading)


async def _answered(fanout: Fanout, calls: Mapping[tuple[str, Kind, Kind], Call]) -> dict[tuple[Kind, Ref], Sequence[Record]]:
    """Run the calls; a parent with more records than were fetched makes its source's part PARTIAL where that matters."""
    answers, _ = await fanout.ask(dict(calls))
    found: dict[tuple[Kind, Ref], Sequence[Record]] = {}
    for (source_id, of, kind), by_parent in answers.items():
        for native_id, each in by_parent.items():
            found[kind, Ref(source_id, of, native_id)] = each.records
            if each.more and len(each.records) >= CAP:
                status = fanout.statuses[source_id]
                status.worsen("PARTIAL")
                status.message = f"a parent has more than {CAP} {kind} records; the rest is left out"
    return found
