"""Upserts of people and deals: find what is there, write what differs, per target."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from identity.golden import golden
from model.errors import ConflictError, RequestError, SourceError
from model.keys import normal_email, normal_phone
from model.money import Money
from model.records import Kind, Lead, Person, Record
from resolvers import lookup, people
from resolvers.context import Context, Fields, Terms
from resolvers.effects import Effects, Options, TargetOutcome, fresh, held, performed
from resolvers.fanout import Fanout, IncompleteError
from resolvers.people import Customer
from sources.source import Source
from sources.writer import Written, differing
from sources.writing import RecordWrite, one_name

MAX_KEYS = 10  # addresses, and numbers, of one person
_SURE = Terms(policy="SURE", deadline=20.0)
_CURRENCY = re.compile(r"[A-Za-z]{3}")
_DIGITS = 15  # of an amount: more are a slip, and no system's


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A custom field to write. `source`: only there; None for every target."""

    key: str
    value: Any
    source: str | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DealInput:
    """What is said of a deal; None says nothing. Ids are the graph's."""

    id: str | None = None
    customer_id: str | None = None
    account_id: str | None = None
    owner_id: str | None = None
    name: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    stage: str | None = None
    close_date: date | None = None
    custom: tuple[Custom, ...] = ()


async def customer_upsert(asked: Mapping[str, Any], said: PersonInput, options: Options, context: Context) -> Effects:
    """Write a person to each target: the contact that is the customer's there, else a new one.

    Args:
        asked: the input as it was given, for the digest.
    """

    async def work(effects: Effects) -> None:
        keys = _keys(said, effects)
        if keys is None or not _named(effects, account=said.account_id):
            return
        emails, phones = keys
        customer, failed = await _known(said, emails, phones, effects)
        if effects.errors:
            return
        contacts = customer.of_kind("contact") if customer else []
        owning = [source for each in contacts if (source := context.source(each.source)) and source.writes("contact", "upsert")]
        targets = effects.targets("contact", list(dict.fromkeys(owning)))
        if effects.errors or not _one_version(effects, targets):
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
        if effects.errors or not _one_version(effects, targets):
            return
        fanout = Fanout(context, replace(_SURE, sources=tuple(each.id for each in targets)))
        if ref is not None:
            known: Sequence[Person] = await people.by_refs(fanout, [ref], _customs_read("lead", said.custom))
        else:
            known = await people.by_keys(fanout, "email", emails, _customs_read("lead", said.custom)) if emails else []
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


async def deal_upsert(asked: Mapping[str, Any], said: DealInput, options: Options, context: Context) -> Effects:
    """Write the deal that `id` names, or a new one to each target, tied to the customer's contact and the account there."""

    async def work(effects: Effects) -> None:
        if not _sensible(said, effects) or not _named(effects, account=said.account_id, owner=said.owner_id):
            return
        if said.id is not None:
            await _deal_updated(effects, said)
            return
        if not said.name:
            effects.fault("VALIDATION", "a new deal needs a `name`", "input", "name")
            return
        targets = effects.targets("deal", [])
        if effects.options.if_version is not None:
            effects.fault("VALIDATION", "`ifVersion` needs a deal that is there: name it by `id`", "options", "ifVersion")
        contacts, failed = await _contacts_of(effects, said.customer_id)
        if effects.errors:
            return

        async def one(source: Source) -> Sequence[TargetOutcome]:
            return [await _deal_created(effects, source, said, contacts, failed)]

        await effects.each("deal", targets, one)

    return await performed("dealUpsert", asked, options, context, work)


async def written_records(effects: Effects, kind: Kind, fields: Fields) -> list[Record]:
    """Return the records of a kind that a mutation wrote or found right, as their systems show them now."""
    refs = [each.ref for each in effects.writes if each.kind == kind and each.ref is not None and each.state != "REJECTED"]
    fanout = Fanout(effects.context, fresh(effects.context))
    found = await people.read(fanout, dict.fromkeys(refs), fields)
    return [record for ref in refs if (record := found.get(ref)) is not None]


async def written_customer(effects: Effects, kind: Kind, fields: Fields) -> Customer | None:
    """Return the customer whom the written people belong to now."""
    found = [each for each in await written_records(effects, kind, fields) if isinstance(each, Person)]
    if not found:
        return None
    gathered = await people.gather(Fanout(effects.context, fresh(effects.context)), found, fields)
    return gathered.customers[gathered.by_ref[found[0].ref]]


# ---- people ----


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
    context, fields = effects.context, _customs_read("contact", said.custom)
    if said.id is not None:
        found = (await lookup.customers_by_id([said.id], _SURE, context, fields))[0]
        where = "id"
    elif emails:
        found = (await lookup.customers_by_email(emails[:1], _SURE, context, fields))[0]
        where = "emails"
    else:
        found = (await lookup.customers_by_phone(phones[:1], _SURE, context, fields))[0]
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
    values = _writable(effects, source, kind, values)
    links = _links(source, said.account_id)
    return (
        await upserted(effects, source, kind, existing, values, _customs(said.custom, source), links, upserts=upserts)
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


# ---- deals ----


def _sensible(said: DealInput, effects: Effects) -> bool:
    """Tell whether amount and currency can be written at all; faults say what is wrong."""
    amount = said.amount
    if amount is not None and not (
        amount.is_finite() and amount.adjusted() < _DIGITS and int(amount.as_tuple().exponent) >= -_DIGITS
    ):
        effects.fault("VALIDATION", f"an amount has at most {_DIGITS} digits before and after the point", "input", "amount")
    if said.currency and not _CURRENCY.fullmatch(said.currency):
        effects.fault("VALIDATION", 'a currency is three letters, such as "EUR"', "input", "currency")
    return not effects.errors


async def _deal_updated(effects: Effects, said: DealInput) -> None:
    context = effects.context
    ref = lookup.ref_of(said.id or "")
    source = context.source(ref.source) if ref and ref.kind == "deal" else None
    if ref is None or source is None:
        effects.fault("NOT_FOUND", "there is no such deal", "input", "id")
        return
    if effects.options.targets not in (None, (source.id,)):
        effects.fault("VALIDATION", "a deal named by `id` is written in its own source only", "options", "targets")
        return
    fanout = Fanout(context, replace(_SURE, sources=(source.id,)))
    wanted = frozenset({("deal", name) for name in source.adapter.kinds["deal"].mapping}) | _customs_read("deal", said.custom)
    record = (await people.read(fanout, [ref], wanted)).get(ref)
    if record is None:
        failed = fanout.failures()
        code = failed[0].code if failed else "NOT_FOUND"
        effects.writes.append(
            effects.refusal(source, "deal", code or "UPSTREAM", "the deal could not be read" if failed else "there is no such deal", retryable=bool(failed))
        )  # fmt: skip
        return
    contacts, silent = await _contacts_of(effects, said.customer_id)
    if effects.errors:
        return
    if contacts is not None and not contacts.get(source.id):
        effects.writes.append(_no_contact(effects, source, silent))
        return
    values = _writable(effects, source, "deal", _deal_values(said, source))
    links = _links(source, said.account_id) | _contact_link(source, contacts)
    effects.writes.append(
        await upserted(effects, source, "deal", record, values, _customs(said.custom, source), links, upserts=False)
    )


async def _deal_created(
    effects: Effects, source: Source, said: DealInput, contacts: Mapping[str, Sequence[Record]] | None, failed: frozenset[str]
) -> TargetOutcome:
    if not source.writes("deal", "create"):
        return effects.refusal(source, "deal", "UNSUPPORTED", "the system's deals cannot be written", "options", "targets")
    if contacts is not None and not contacts.get(source.id):
        return _no_contact(effects, source, failed)
    begins = said.stage is None and "stage" in source.adapter.kinds["deal"].writes  # a new deal is in its first stage
    begun = replace(said, stage="OPEN") if begins else said
    values = _writable(effects, source, "deal", _deal_values(begun, source))
    links = _links(source, said.account_id) | _contact_link(source, contacts)
    return await upserted(effects, source, "deal", None, values, _customs(said.custom, source), links, upserts=False)


def _deal_values(said: DealInput, source: Source) -> dict[str, Any]:
    values: dict[str, Any] = {"name": said.name, "stage": said.stage, "close_date": said.close_date}
    if said.amount is not None:
        values["amount"] = Money(said.amount, (said.currency or "").upper())
    owner = lookup.ref_of(said.owner_id) if said.owner_id else None
    if owner is not None and owner.source == source.id:
        values["owner_id"] = owner.native_id
    return {name: value for name, value in values.items() if value is not None}


def _no_contact(effects: Effects, source: Source, failed: frozenset[str]) -> TargetOutcome:
    if source.id in failed:
        return effects.refusal(
            source, "deal", "UPSTREAM", "the source could not tell whether the person is there", retryable=True
        )
    return effects.refusal(
        source, "deal", "VALIDATION", "the customer has no contact in this source: customerUpsert comes first", "input", "customerId"
    )  # fmt: skip


async def _contacts_of(effects: Effects, customer_id: str | None) -> tuple[dict[str, list[Record]] | None, frozenset[str]]:
    """Return a customer's contacts by source, None where no customer is named; and the sources that could not say."""
    if customer_id is None:
        return None, frozenset()
    found = (await lookup.customers_by_id([customer_id], _SURE, effects.context, frozenset()))[0]
    if isinstance(found, IncompleteError):
        return {}, frozenset(found.sources)
    if isinstance(found, Exception):
        raise found
    if found is None:
        effects.fault("NOT_FOUND", "there is no such customer", "input", "customerId")
        return None, frozenset()
    by_source: dict[str, list[Record]] = {}
    for each in found.of_kind("contact"):
        by_source.setdefault(each.source, []).append(each)
    return by_source, frozenset(status.source.id for status in found.statuses if status.failed)


def _contact_link(source: Source, contacts: Mapping[str, Sequence[Record]] | None) -> dict[Kind, list[str]]:
    own = contacts.get(source.id, ()) if contacts else ()
    return {"contact": [own[0].native_id]} if own else {}


# ---- what both do ----


async def upserted(
    effects: Effects, source: Source, kind: Kind, existing: Record | None, values: Mapping[str, Any], custom: Mapping[str, Any],
    links: Mapping[Kind, Sequence[str]], *, upserts: bool, known_as: str | None = None,
) -> TargetOutcome:  # fmt: skip
    """Update what differs, or create; or, dry, tell what would be done.

    Args:
        known_as: of a record that is made once for this name, whatever keys the requests have.
    """
    options, step = effects.options, f"{source.id}/{kind}"
    entered = await effects.entered(step) if known_as is None else None
    if entered is not None and entered.outcome is not None:  # by this key, when another target kept it from its end
        return effects.outcome(source, kind, Written.read(entered.outcome), [*values, *custom])
    if existing is None:
        if options.if_version is not None:
            return effects.refusal(
                source, kind, "STALE_VERSION", "there is no record to have that version", "options", "ifVersion", state="CONFLICT"
            )
        changed = [*values, *custom]
        verb = "upsert" if upserts else "create"
        native_id: str | None = None
    else:
        try:
            meta = await source.described(kind, effects.reading) if custom or "stage" in values else None
        except SourceError as error:
            return effects.refusal(source, kind, error.code, error.message, retryable=True)
        changed = differing(existing, values, custom, meta)
        done = not changed and entered is not None  # by this key, before we were cut off
        if not done and options.if_version is not None and options.if_version != existing.version:
            return effects.refusal(
                source, kind, "STALE_VERSION", "the record has changed since that version", "options", "ifVersion", state="CONFLICT", native_id=existing.native_id
            )  # fmt: skip
        if not changed and not links:
            state = "APPLIED" if done else "UNCHANGED"
            return TargetOutcome(source=source, kind=kind, state=state, native_id=existing.native_id)  # type: ignore[arg-type]
        verb, native_id = "update", existing.native_id
    if options.dry_run:
        return TargetOutcome(source=source, kind=kind, state="SKIPPED", native_id=native_id, changed=tuple(changed))
    write = RecordWrite(
        verb=verb, match="email" if upserts and existing is None else None, native_id=native_id, links=links, if_version=options.if_version,  # type: ignore[arg-type]
        values={name: value for name, value in values.items() if name in changed},
        custom={key: value for key, value in custom.items() if key in changed},
    )  # fmt: skip
    if known_as is not None and existing is None:
        return await effects.write(source, kind, source.id, write, changed, known_as=known_as)
    return await effects.write(source, kind, step, write, changed)


def _writable(effects: Effects, source: Source, kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose fields the system takes; the others are told."""
    rules = source.adapter.kinds[kind].writes
    for name in values:
        if name not in rules:
            effects.fault("UNSUPPORTED", f"the system has no writable {name}; the rest is written", "input", name, source=source)
    return {name: value for name, value in values.items() if name in rules}


def _customs_read(kind: Kind, custom: Sequence[Custom]) -> Fields:
    """Return what must be read to tell which custom fields differ: an unread one looks like an empty one."""
    return frozenset((kind, f"custom.{each.key}") for each in custom)


def _customs(custom: Sequence[Custom], source: Source) -> dict[str, Any]:
    return {each.key: each.value for each in custom if each.source in (None, source.id)}


def _named(effects: Effects, **named: str | None) -> bool:
    """Tell whether what is named by id (kind → graph id) can be there; faults say what cannot."""
    for kind, id in named.items():
        ref = lookup.ref_of(id) if id else None
        if id and (ref is None or ref.kind != kind or effects.context.source(ref.source) is None):
            effects.fault("NOT_FOUND", f"there is no such {kind}", "input", f"{kind}Id")
    return not effects.errors


def _links(source: Source, account_id: str | None) -> dict[Kind, list[str]]:
    """Return the native id of the account, where it lives in this source."""
    ref = lookup.ref_of(account_id) if account_id else None
    return {"account": [ref.native_id]} if ref is not None and ref.source == source.id else {}


def _one_version(effects: Effects, targets: Sequence[Source]) -> bool:
    """`ifVersion` is of one record."""
    if effects.options.if_version is not None and len(targets) > 1:
        effects.fault("VALIDATION", "`ifVersion` is of one record: name one target", "options", "ifVersion")
        return False
    return True
