"""Who belongs together: from some records of a person to the whole customer.

Sources know nothing of each other, so a person found in one is looked for in all, by e-mail address and by phone with
surname, at most two steps away; what is found is recorded in the identity index, which decides what is linked and
keeps the ids. A source that cannot be asked leaves its part out, and is told in the statuses.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.base import FindKey
from identity.index import Members, Observed
from identity.rules import is_role_address
from model.records import Kind, Person, Record, Ref
from resolvers.context import Fields
from resolvers.fanout import Fanout, Status
from sources.reading import Answer, Reading
from sources.source import Source

PERSON_KINDS: tuple[Kind, ...] = ("contact", "lead")
HOPS = 2
# Every field that identity or the golden record is made of: a person found once serves every later question.
PERSON_FIELDS = (
    "email", "emails", "phone", "phones", "name", "given_name", "family_name", "locale", "account_id", "created_at", "updated_at",
    "revision",
)  # fmt: skip
_EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """One person as all sources know them.

    Attributes:
        people: their contacts and leads, by (created, rank of the source, id).
        members: what the index holds of them, records of sources that failed included.
        statuses: what each source did while they were put together.
    """

    id: str
    people: tuple[Person, ...]
    members: Members
    statuses: tuple[Status, ...]

    def of_kind(self, kind: Kind) -> list[Person]:
        return [person for person in self.people if person.kind == kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Customers by any record of theirs, and by id."""

    by_ref: dict[Ref, str]
    customers: dict[str, Customer]


def wanted(kind: Kind, fields: Fields) -> list[str]:
    """Return the target fields to read of a person's record: what identity needs, and what the query selects."""
    return [*PERSON_FIELDS, *selected(kind, fields)]


def selected(kind: Kind, fields: Fields) -> list[str]:
    return sorted({name for of, name in fields if of == kind})


async def gather(fanout: Fanout, people: Sequence[Person], fields: Fields) -> Gathered:
    """Return the customers these records belong to, each with all of its records."""
    known: dict[Ref, Person] = {person.ref: person for person in people}
    await _expand(fanout, known, fields)
    context = fanout.context
    ids = await context.index.observe(context.workspace, [Observed.of(person) for person in known.values()])
    members = await context.index.members(context.workspace, list(dict.fromkeys(ids.values())))
    if await _complete(fanout, known, members, fields):
        ids = await context.index.observe(context.workspace, [Observed.of(person) for person in known.values()])
        members = await context.index.members(context.workspace, list(dict.fromkeys(ids.values())))
    ranks = {source.id: source.rank for source in context.sources}
    by_id: dict[str, list[Person]] = {}
    for ref, customer in ids.items():
        by_id.setdefault(customer, []).append(known[ref])
    statuses = tuple(fanout.statuses.values())
    return Gathered(
        by_ref=ids,
        customers={
            id: Customer(
                id=id, people=tuple(sorted(found, key=lambda each: _place(each, ranks))), members=members[id], statuses=statuses
            )
            for id, found in by_id.items()
        },
    )


async def by_keys(fanout: Fanout, key: FindKey, values: Sequence[str], fields: Fields) -> list[Person]:
    """Return the records that carry exactly one of these normalised e-mail addresses or phone numbers."""
    return await _find(fanout, {key: values}, fields)


async def carrying(fanout: Fanout, key: FindKey, values: Sequence[str], fields: Fields) -> list[Person]:
    """Return the records that carry exactly one of these values, also those that only the identity index knows of yet.

    A system's search may lag behind what we have read, or written, before.
    """
    found = await by_keys(fanout, key, values, fields)
    context = fanout.context
    emails, phones = (values, ()) if key == "email" else ((), values)
    unseen = await context.index.carrying(context.workspace, emails, phones) - {person.ref for person in found}
    return [*found, *await by_refs(fanout, unseen, fields)] if unseen else found


async def by_refs(fanout: Fanout, refs: Iterable[Ref], fields: Fields) -> list[Person]:
    """Return the records of these references that still exist."""
    return [record for record in (await read(fanout, refs, fields)).values() if isinstance(record, Person)]


async def read(fanout: Fanout, refs: Iterable[Ref], fields: Fields) -> dict[Ref, Record | None]:
    """Read any records at once, one call per source and kind; those of sources that failed are absent."""
    grouped: dict[tuple[str, Kind], list[str]] = {}
    for ref in refs:
        grouped.setdefault((ref.source, ref.kind), []).append(ref.native_id)
    calls = {}
    for (source_id, kind), ids in grouped.items():
        source = next((each for each in fanout.sources if each.id == source_id), None)
        if source is None or not source.reads(kind):
            continue
        names = wanted(kind, fields) if kind in PERSON_KINDS else selected(kind, fields)
        calls[source_id, kind] = (source, _reading(source, kind, ids, names))
    answers, _ = await fanout.ask(calls)
    return {
        Ref(source_id, kind, native_id): record
        for (source_id, kind), found in answers.items()
        for native_id, record in found.items()
    }


async def _expand(fanout: Fanout, known: dict[Ref, Person], fields: Fields) -> None:
    asked: set[tuple[FindKey, str]] = set()
    for _ in range(HOPS):
        emails = {email for person in known.values() for email in _emails(person) if not is_role_address(email)}
        phones = {phone for person in known.values() if person.family_name for phone in _phones(person)}
        keys: dict[FindKey, list[str]] = {
            "email": sorted(email for email in emails if ("email", email) not in asked),
            "phone": sorted(phone for phone in phones if ("phone", phone) not in asked),
        }
        if not any(keys.values()):
            return
        asked |= {(key, value) for key, values in keys.items() for value in values}
        for person in await _find(fanout, keys, fields, _held(known.values())):
            known.setdefault(person.ref, person)


Held = Set[tuple[str, Kind, FindKey, str]]  # (source, kind, key, value): what a record at hand carries


def _held(people: Iterable[Person]) -> Held:
    carried: list[tuple[FindKey, Callable[[Person], tuple[str, ...]]]] = [("email", _emails), ("phone", _phones)]
    return {(person.source, person.kind, key, value) for person in people for key, values in carried for value in values(person)}


async def _find(fanout: Fanout, keys: Mapping[FindKey, Sequence[str]], fields: Fields, held: Held = frozenset()) -> list[Person]:
    """Look everywhere for these values, except where a record that carries one is known to be the only one."""
    calls = {}
    for source in fanout.sources:
        for kind in PERSON_KINDS:
            for key, values in keys.items():
                if not source.finds(kind, key):
                    continue
                if source.unique(kind, key):
                    values = [value for value in values if (source.id, kind, key, value) not in held]
                if values:
                    calls[source.id, kind, key] = (source, _finding(source, kind, key, values, wanted(kind, fields)))
    answers, _ = await fanout.ask(calls)
    return [
        record for found in answers.values() for records in found.values() for record in records if isinstance(record, Person)
    ]


def _finding(
    source: Source, kind: Kind, key: FindKey, values: Sequence[str], names: Sequence[str]
) -> Callable[[Reading], Awaitable[Answer[dict[str, list[Record]]]]]:
    return lambda reading: source.find(kind, key, values, fields=names, reading=reading)


def _reading(
    source: Source, kind: Kind, ids: Sequence[str], names: Sequence[str]
) -> Callable[[Reading], Awaitable[Answer[dict[str, Record | None]]]]:
    return lambda reading: source.read(kind, ids, fields=names, reading=reading)


async def _complete(fanout: Fanout, known: dict[Ref, Person], members: dict[str, Members], fields: Fields) -> bool:
    """Read members that the index knows and the search did not show; forget those that are gone. Tell if anything changed."""
    missing = [member.ref for each in members.values() for member in each.refs if member.ref not in known]
    if not missing:
        return False
    found = await read(fanout, missing, fields)
    # What is not kept is not gone.
    gone = [ref for ref, record in found.items() if record is None] if fanout.policy != "CACHE_ONLY" else []
    known.update({ref: record for ref, record in found.items() if isinstance(record, Person)})
    if gone:
        await fanout.context.index.forget(fanout.context.workspace, gone)
    return bool(found)


def _emails(person: Person) -> tuple[str, ...]:
    return (person.email, *person.emails) if person.email else person.emails


def _phones(person: Person) -> tuple[str, ...]:
    return (person.phone, *person.phones) if person.phone else person.phones


def _place(person: Person, ranks: dict[str, int]) -> tuple[datetime, int, int, str]:
    return (person.created_at or _EARLIEST, ranks.get(person.source, 0), len(person.native_id), person.native_id)
