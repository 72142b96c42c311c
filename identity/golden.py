"""The golden record: per field the value that survives, and why. Pure, and independent of the order of arrival.

Single values: the most recently changed record that has one wins; ties go to the better-ranked source, then to the
lower id. Lists are the union of all values, in the same order of preference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from model.records import Contact, Person

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What is shown of a customer."""

    email: str | None
    emails: tuple[str, ...]
    phones: tuple[str, ...]
    name: str | None
    given_name: str | None
    family_name: str | None
    locale: str | None
    created_at: datetime | None
    updated_at: datetime | None
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value and the record it comes from."""

    value: Any
    person: Person


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Why a field shows what it shows. `conflicts`: other values, each once, in the order of preference."""

    field: str
    rule: str
    chosen: Value
    conflicts: tuple[Value, ...]


def _full_name(person: Person) -> str | None:
    return person.name or " ".join(part for part in (person.given_name, person.family_name) if part) or None


_SINGLE: Mapping[str, Callable[[Person], Any]] = {
    "primaryEmail": lambda person: person.email,
    "name": _full_name,
    "givenName": lambda person: person.given_name,
    "familyName": lambda person: person.family_name,
    "locale": lambda person: person.locale if isinstance(person, Contact) else None,
}


def golden(people: Sequence[Person], ranks: Mapping[str, int]) -> Golden:
    """Return the golden record of one customer's people.

    Args:
        ranks: source id → rank; lower is preferred.
    """
    ordered = _preferred(people, ranks)
    return Golden(
        email=_first(ordered, _SINGLE["primaryEmail"]),
        emails=_union(each for person in ordered for each in (person.email, *person.emails)),
        phones=_union(each for person in ordered for each in (person.phone, *person.phones)),
        name=_first(ordered, _full_name),
        given_name=_first(ordered, _SINGLE["givenName"]),
        family_name=_first(ordered, _SINGLE["familyName"]),
        locale=_first(ordered, _SINGLE["locale"]),
        created_at=min((person.created_at for person in people if person.created_at), default=None),
        updated_at=max((person.updated_at for person in people if person.updated_at), default=None),
        version=max((person.version for person in people), default=""),
    )


def provenance(people: Sequence[Person], ranks: Mapping[str, int], fields: Sequence[str] | None) -> list[Provenance]:
    """Explain single-valued fields that have a value; `fields` are graph names, None for all."""
    ordered = _preferred(people, ranks)
    found = []
    for field, take in _SINGLE.items():
        values = [Value(value=value, person=person) for person in ordered if (value := take(person))]
        if (fields is not None and field not in fields) or not values:
            continue
        others = {each.value: each for each in reversed(values) if each.value != values[0].value}
        found.append(
            Provenance(
                field=field,
                rule="MOST_RECENT",
                chosen=values[0],
                conflicts=tuple(each for each in values if others.get(each.value) is each),
            )
        )
    return found


def _preferred(people: Sequence[Person], ranks: Mapping[str, int]) -> list[Person]:
    last = len(ranks)
    by_identity = sorted(people, key=lambda each: (ranks.get(each.source, last), each.kind, len(each.native_id), each.native_id))
    return sorted(by_identity, key=lambda each: each.updated_at or _NEVER, reverse=True)


def _first(ordered: Sequence[Person], take: Callable[[Person], Any]) -> Any:
    return next((value for person in ordered if (value := take(person))), None)


def _union(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value))
