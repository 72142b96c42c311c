"""Root lists: one page over all sources, merge-sorted."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence, Set
from datetime import datetime
from typing import TypeVar

from msgspec import structs

from adapters.base import Position, Scan
from model.errors import SourceError
from model.records import Kind, Person, Record, Ref
from resolvers import filters, people
from resolvers.connections import Connection, check_first
from resolvers.context import Context, Fields, Slice
from resolvers.cursors import Mark
from resolvers.fanout import Fanout
from resolvers.filters import Condition
from resolvers.merge import Chunk, Merge, Stream, Taken
from resolvers.people import Customer
from sources.source import Source

N = TypeVar("N")
AHEAD = 1.5  # rows looked at for each customer still wanted: most people stand in several sources
PAGE = 100  # rows asked of a source at a time, or its own page limit where that is lower
LOOKED_THROUGH = 2000  # rows that a filtered list looks at before it answers with what it has


async def records(
    kind: Kind, arguments: Slice, context: Context, fields: Fields, where: Sequence[Condition] = ()
) -> Connection[Record]:
    """Return a page of one kind's records over all sources that have it.

    Args:
        where: only records that pass; a page may come short, with more behind it, when few do.
    """
    check_first(arguments.first)
    query = (kind, arguments.order, arguments.descending, arguments.terms.sources, arguments.terms.systems, tuple(where))
    fanout = Fanout(context, arguments.terms)
    mark = _opened(arguments, context, query)
    merge = _merge(fanout, (kind,), arguments, mark, {kind: [*people.selected(kind, fields), *filters.needs(where)]})
    reading = context.reading()
    nodes: list[Record] = []
    marks: list[Mark] = []
    looked_at = 0
    while len(nodes) < arguments.first and looked_at < LOOKED_THROUGH and (taken := await merge.take(1)):
        looked_at += 1 if where else 0
        record = taken[0].row
        source = context.source(record.source) if record is not None else None
        if record is not None and source is not None and await filters.matches(source, record, where, reading):
            nodes.append(record)
            marks.append(merge.mark())
    return _page(fanout, merge, nodes, marks, query, end=merge.mark(), more=merge.more)


async def customers(arguments: Slice, context: Context, fields: Fields) -> Connection[Customer]:
    """Return a page of customers, each at the first of their rows, and once.

    A customer was given out when any record of theirs has been passed, for whoever passed it either showed the customer
    or skipped them for having been shown: so the mark of the list and the identity index together tell what was
    emitted. Only customers that a failed source may yet split, because a phone number alone ties one of its records to
    them, travel in the cursor: what was given out then is remembered with its records.
    """
    check_first(arguments.first)
    query = ("customers", arguments.order, arguments.descending, arguments.terms.sources, arguments.terms.systems)
    fanout = Fanout(context, arguments.terms)
    names = {kind: people.wanted(kind, fields) for kind in people.PERSON_KINDS}
    start = _opened(arguments, context, query)
    merge = _merge(fanout, people.PERSON_KINDS, arguments, start, names)
    nodes: list[Customer] = []
    marks: list[Mark] = []
    end = merge.mark()
    passed = _Passed({name: stream.last for name, stream in merge.streams.items()}, arguments, start.told if start else {})
    left = True
    while len(nodes) < arguments.first and left:
        taken = await _taken(merge, arguments.first - len(nodes))
        gathered = await people.gather(fanout, [each.row for each, _ in taken if isinstance(each.row, Person)], fields)
        left = False
        for each, mark in taken:
            if len(nodes) == arguments.first:
                left = True  # looked at too early: the next page takes it again, from the caches
                break
            if isinstance(each.row, Person):
                customer = gathered.customers[gathered.by_ref[each.row.ref]]
                if not passed.any_of(customer):
                    nodes.append(customer)
                    if _may_split(customer, {status.source.id for status in fanout.failures()}):
                        passed.remember(customer)
                    marks.append(structs.replace(mark, told=dict(passed.told)))
            passed.step(each)
            end = structs.replace(mark, told=dict(passed.told))
        left = left or merge.more
        if not taken:
            break
    return _page(fanout, merge, nodes, marks, query, end=end, more=left)


async def _taken(merge: Merge[Record], wanted: int) -> list[tuple[Taken[Record], Mark]]:
    """Take rows with the mark after each; more than wanted, because most people stand in several sources."""
    found: list[tuple[Taken[Record], Mark]] = []
    for _ in range(round(max(wanted * AHEAD, 10))):
        if not (one := await merge.take(1)):
            break
        found.append((one[0], merge.mark()))
    return found


def _may_split(customer: Customer, failed: Set[str]) -> bool:
    """Tell whether a phone number alone ties a record of a failed source to the rest: another record of it may untie them."""
    return any(link.method == "EXACT_PHONE" and failed & {link.a.source, link.b.source} for link in customer.members.links)


class _Passed:
    """Which records the list has gone past.

    Attributes:
        told: see `Mark`.
    """

    def __init__(self, before: dict[str, Position | None], arguments: Slice, told: Mapping[str, tuple[bytes, ...]]) -> None:
        self._last = dict(before)
        self._arguments = arguments
        self.told = dict(told)

    def remember(self, customer: Customer) -> None:
        self.told[customer.id] = tuple(_digest(member.ref) for member in customer.members.refs)

    def step(self, taken: Taken[Record]) -> None:
        self._last[taken.stream.name] = taken.place

    def any_of(self, customer: Customer) -> bool:
        if not self.told:
            return any(self._has(name, place) for _, name, place in self._places(customer))
        if not self.told.keys().isdisjoint((customer.id, *customer.members.merged_from)):
            return True
        # A record that stood for another customer when it was passed says nothing of this one.
        elsewhere = {digest for digests in self.told.values() for digest in digests}
        return any(self._has(name, place) and _digest(ref) not in elsewhere for ref, name, place in self._places(customer))

    def _has(self, name: str, place: Position) -> bool:
        last = self._last.get(name)
        return last is not None and (place >= last if self._arguments.descending else place <= last)

    def _places(self, customer: Customer) -> list[tuple[Ref, str, Position]]:
        if self._arguments.order == "updated":
            at = {person.ref: person.updated_at for person in customer.people}
        else:
            at = {member.ref: member.created_at for member in customer.members.refs}
            at |= {person.ref: person.created_at for person in customer.people}
        return [
            (ref, _stream_name(ref.source, ref.kind), Position.of(when, ref.native_id))
            for ref, when in at.items()
            if when is not None
        ]


def _page(
    fanout: Fanout, merge: Merge[Record], nodes: Sequence[N], marks: Sequence[Mark], query: Hashable, *, end: Mark, more: bool
) -> Connection[N]:
    fanout.check_all()
    context = fanout.context
    for stream in merge.streams.values():
        source = context.source(stream.name.partition(":")[0])
        if source is not None and stream.late:
            fanout.late(source, stream.late)
    for id, status in fanout.statuses.items():
        status.exhausted = all(stream.done for stream in merge.streams.values() if stream.name.partition(":")[0] == id)
    return Connection(
        nodes=nodes,
        cursor=lambda at: context.signer.seal(marks[at], workspace=context.workspace, query=query),
        end=context.signer.seal(end, workspace=context.workspace, query=query),
        more=more,
        statuses=list(fanout.statuses.values()),
    )


def _opened(arguments: Slice, context: Context, query: Hashable) -> Mark | None:
    if arguments.after is None:
        return None
    return context.signer.open(arguments.after, Mark, workspace=context.workspace, query=query)


def _merge(
    fanout: Fanout, kinds: Sequence[Kind], arguments: Slice, mark: Mark | None, names: dict[Kind, list[str]]
) -> Merge[Record]:
    context = fanout.context
    streams = [
        _stream(fanout, source, kind, source.rank * len(kinds) + nth, arguments, names[kind])
        for source in fanout.sources
        for nth, kind in enumerate(kinds)
        if source.has(kind)
    ]
    return Merge(
        streams, mark=mark, as_of=_whole_seconds(context.clock.now()), descending=arguments.descending,
        bounded=arguments.order == "created",
    )  # fmt: skip


def _stream(fanout: Fanout, source: Source, kind: Kind, rank: int, arguments: Slice, names: list[str]) -> Stream[Record]:
    size = min(source.adapter.kinds[kind].page, PAGE)

    async def fetch(after: Position | None) -> Chunk[Record] | SourceError:
        scan = Scan(order=arguments.order, descending=arguments.descending, after=after, size=size)
        answers, errors = await fanout.ask({0: (source, lambda reading: source.scan(kind, scan, fields=names, reading=reading))})
        return Chunk(answers[0].rows, answers[0].end) if answers else errors[0]

    stream: Stream[Record] = Stream(_stream_name(source.id, kind), rank, fetch)
    if not source.orders(kind, arguments.order):
        stream.end = True
        status = fanout.statuses[source.id]
        status.worsen("UNSUPPORTED")
        status.code, status.message = "UNSUPPORTED", f"cannot list {kind} by {arguments.order} time"
    return stream


def _stream_name(source: str, kind: Kind) -> str:
    return f"{source}:{kind}"


def _digest(ref: Ref) -> bytes:
    return hashlib.blake2b(ref.id.encode(), digest_size=6).digest()


def _whole_seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
