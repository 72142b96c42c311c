"""Upserts of customers and leads: find who is there, in each target and by the identity index, and write what differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from identity.golden import golden
from model.errors import ConflictError, RequestError
from model.keys import normal_email, normal_phone
from model.records import Kind, Lead, Person, Record
from resolvers import lookup, people
from resolvers.context import Context
from resolvers.effects import Effects, Options, TargetOutcome, held, performed
from resolvers.fanout import Fanout, IncompleteError
from resolvers.people import Customer
from resolvers.upserts import SURE, Custom, customs, customs_read, links_of, named_well, one_version, upserted, writable
from sources.source import Source
from sources.writing import one_name

MAX_KEYS = 10  # addresses, and numbers, of one person


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonInput:
    """What is said of a person; None says nothing.

    Attributes:
        id: of the customer (contacts) or the lead.
        account_id: graph id of an account; it is tied where the target is its source.
    """

    id: str | None = None
    emails: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    given_name: str | None = None
    family_name: str | None = None
    company: str | None = None
    account_id: str | None = None
    custom: tuple[Custom, ...] = ()


async def customer_upsert(asked: Mapping[str, Any], said: PersonInput, options: Options, context: Context) -> Effects:
    """Write a person to each target: the contact that is the customer's there, else a new one.

    Args:
        asked: the input as it was given, for the digest.
    """

    async def work(effects: Effects) -> None:
        keys = _keys(said, effects)
        if keys is None or not named_well(effects, account=said.account_id):
            return
        emails, phones = keys
        customer, failed = await _known(said, emails, phones, effects)
        if effects.errors:
            return
        contacts = customer.of_kind("contact") if customer else []
        owning = [source for each in contacts if (source := context.source(each.source)) and source.writes("contact", "upsert")]
        targets = effects.targets("contact", list(dict.fromkeys(owning)))
        if effects.errors or not one_version(effects, targets):
            return
        cleaned = replace(said, emails=emails, phones=phones)
        whole = _filled(cleaned, customer, context)

        async def one(source: Source) -> Sequence[TargetOutcome]:
            known = [each for each in contacts if each.source == source.id]
            return [await _person(effects, source, "contact", cleaned if known else whole, known, failed)]

        await effects.each("contact", targets, one)

    return await performed("customerUpsert", asked, options, context, work, holding=_people_held(said))


async def lead_capture(asked: Mapping[str, Any], said: PersonInput, options: Options, context: Context) -> Effects:
    """Write a lead to each target: the one with that address there, else a new one."""

    async def work(effects: Effects) -> None:
        keys = _keys(said, effects)
        if keys is None:
            return
        emails, phones = keys
        ref = lookup.ref_of(said.id) if said.id else None
        if said.id and (ref is None or ref.kind != "lead" or context.source(ref.source) is None):
            effects.fault("NOT_FOUND", "there is no such lead", "input", "id")
            return
        able = [each for each in context.sources if each.writes("lead", "upsert")]
        chosen = [each for each in able if each.id == ref.source] if ref else able if len(able) == 1 else []
        targets = effects.targets("lead", chosen)
        if effects.errors or not one_version(effects, targets):
            return
        fanout = Fanout(context, replace(SURE, sources=tuple(each.id for each in targets)))
        if ref is not None:
            known: Sequence[Person] = await people.by_refs(fanout, [ref], customs_read("lead", said.custom))
        else:
            known = await people.carrying(fanout, "email", emails, customs_read("lead", said.custom)) if emails else []
        failed = {status.source.id for status in fanout.failures()}
        if ref is not None and not known and ref.source not in failed:
            effects.fault("NOT_FOUND", "there is no such lead", "input", "id")
            return
        cleaned = replace(said, emails=emails, phones=phones)

        async def one(source: Source) -> Sequence[TargetOutcome]:
            there = [each for each in known if isinstance(each, Lead) and each.source == source.id]
            return [await _person(effects, source, "lead", cleaned, there, failed)]

        await effects.each("lead", targets, one)

    return await performed("leadCapture", asked, options, context, work, holding=_people_held(said))


def _keys(said: PersonInput, effects: Effects) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return normalised addresses and numbers; None, and a fault, where one is none or nothing says who it is."""
    emails = [normal_email(each) for each in said.emails]
    phones = [normal_phone(each, effects.context.region) for each in said.phones]
    if None in emails:
        effects.fault("VALIDATION", "this is not an e-mail address", "input", "emails", str(emails.index(None)))
    if None in phones:
        effects.fault(
            "VALIDATION", "this is not a phone number; write it as +14155550123", "input", "phones", str(phones.index(None))
        )
    if len(said.emails) > MAX_KEYS or len(said.phones) > MAX_KEYS:
        effects.fault("VALIDATION", f"at most {MAX_KEYS} addresses and {MAX_KEYS} numbers", "input")
    if not said.id and not emails and not phones:
        effects.fault("VALIDATION", "say who it is: an `id`, an e-mail address or a phone number", "input")
    if effects.errors:
        return None
    return tuple(each for each in emails if each), tuple(each for each in phones if each)


def _people_held(said: PersonInput) -> list[str]:
    """One request at a time per address: two that create the same person must see each other."""
    return [held(email) for each in said.emails if (email := normal_email(each))]


async def _known(
    said: PersonInput, emails: Sequence[str], phones: Sequence[str], effects: Effects
) -> tuple[Customer | None, frozenset[str]]:
    """Return the customer who is meant, and the sources that could not say."""
    context, fields = effects.context, customs_read("contact", said.custom)
    if said.id is not None:
        found = (await lookup.customers_by_id([said.id], SURE, context, fields))[0]
        where = "id"
    elif emails:
        found = (await lookup.customers_by_email(emails[:1], SURE, context, fields))[0]
        where = "emails"
    else:
        found = (await lookup.customers_by_phone(phones[:1], SURE, context, fields))[0]
        where = "phones"
    if isinstance(found, IncompleteError):
        return None, frozenset(found.sources)
    if isinstance(found, RequestError):
        effects.fault("CONFLICT" if isinstance(found, ConflictError) else "VALIDATION", found.message, "input", where)
        return None, frozenset()
    if isinstance(found, Exception):
        raise found
    if found is None and said.id is not None:
        effects.fault("NOT_FOUND", "there is no such customer", "input", "id")
    return found, frozenset(status.source.id for status in found.statuses if status.failed) if found else frozenset()


async def _person(
    effects: Effects, source: Source, kind: Kind, said: PersonInput, known: Sequence[Person], failed: frozenset[str] | set[str]
) -> TargetOutcome:
    options = effects.options
    if not source.writes(kind, "upsert"):
        return effects.refusal(
            source, kind, "UNSUPPORTED", f"the system's {kind} records cannot be written", "options", "targets"
        )
    existing = next((each for each in known if said.emails and said.emails[0] in each.emails), next(iter(known), None))
    # A system's own upsert overwrites whom it meets: not where the caller wants a record that is there left alone.
    upserts = "email" in source.adapter.kinds[kind].upsert_by and bool(said.emails) and options.on_duplicate == "UPSERT"
    if existing is None and source.id in failed and not upserts:
        return effects.refusal(source, kind, "UPSTREAM", "the source could not tell whether the person is there", retryable=True)
    values = one_name(_person_values(said, existing), existing, source.adapter.kinds[kind].writes)
    values = writable(effects, source, kind, values)
    links = links_of(source, said.account_id)
    return (
        await upserted(effects, source, kind, existing, values, customs(said.custom, source), links, upserts=upserts)
        if options.on_duplicate == "UPSERT" or existing is None
        else _duplicate(effects, source, kind, existing)
    )


def _filled(said: PersonInput, customer: Customer | None, context: Context) -> PersonInput:
    """Return what a record that is made for a known customer says: without their address and name it would be another person's."""
    if customer is None:
        return said
    ranks = {source.id: source.rank for source in context.sources}
    gold = golden(customer.people, ranks)
    return replace(
        said, emails=said.emails or gold.emails[:1], phones=said.phones or gold.phones[:1], given_name=said.given_name or gold.given_name,
        family_name=said.family_name or gold.family_name,
    )  # fmt: skip


def _duplicate(effects: Effects, source: Source, kind: Kind, existing: Record) -> TargetOutcome:
    if effects.options.on_duplicate == "SKIP":
        return TargetOutcome(source=source, kind=kind, state="SKIPPED", native_id=existing.native_id)
    return effects.refusal(
        source, kind, "DUPLICATE", "the record is there already", state="CONFLICT", native_id=existing.native_id
    )


def _person_values(said: PersonInput, existing: Person | None) -> dict[str, Any]:
    """Return target fields: an address or number that the record has already, be it a further one, is not moved."""
    values: dict[str, Any] = {}
    if said.emails and not (existing and said.emails[0] in (existing.email, *existing.emails)):
        values["email"] = said.emails[0]
    if said.phones and not (existing and said.phones[0] in (existing.phone, *existing.phones)):
        values["phone"] = said.phones[0]
    named = {"given_name": said.given_name, "family_name": said.family_name, "company": said.company}
    return values | {name: value for name, value in named.items() if value is not None}
