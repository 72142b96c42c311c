"""Upserts of deals, tied to the customer's contact and the account in each target."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any

from model.money import Money
from model.records import Kind, Record
from resolvers import lookup, people
from resolvers.context import Context
from resolvers.effects import Effects, Options, TargetOutcome, performed
from resolvers.fanout import Fanout, IncompleteError
from resolvers.upserts import (
    SURE,
    Custom,
    customs,
    customs_read,
    links_of,
    named_well,
    upserted,
    writable,
)
from sources.source import Source

_CURRENCY = re.compile(r"[A-Za-z]{3}")
_DIGITS = 15  # of an amount: more are a slip, and no system's


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


async def deal_upsert(asked: Mapping[str, Any], said: DealInput, options: Options, context: Context) -> Effects:
    """Write the deal that `id` names, or a new one to each target, tied to the customer's contact and the account there."""

    async def work(effects: Effects) -> None:
        if not _sensible(said, effects) or not named_well(effects, account=said.account_id, owner=said.owner_id):
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
    fanout = Fanout(context, replace(SURE, sources=(source.id,)))
    wanted = frozenset({("deal", name) for name in source.adapter.kinds["deal"].mapping}) | customs_read("deal", said.custom)
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
    values = writable(effects, source, "deal", _deal_values(said, source))
    links = links_of(source, said.account_id) | _contact_link(source, contacts)
    effects.writes.append(
        await upserted(effects, source, "deal", record, values, customs(said.custom, source), links, upserts=False)
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
    values = writable(effects, source, "deal", _deal_values(begun, source))
    links = links_of(source, said.account_id) | _contact_link(source, contacts)
    return await upserted(effects, source, "deal", None, values, customs(said.custom, source), links, upserts=False)


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
    found = (await lookup.customers_by_id([customer_id], SURE, effects.context, frozenset()))[0]
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
