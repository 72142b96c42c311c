"""An order becomes contact, account and deal in a CRM, in one call and once.

The steps go in this order, each under the caller's key: the account (the known contact's, else by the domain of the e-mail
address), the contact (by that address), the deal. Which deal an order became is kept in the ledger by the order itself: pushing it
again, under whatever key, updates that deal.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model.errors import SourceError
from model.records import Contact, Kind, Order, OrderStatus, Record, Ref, StageCategory
from resolvers import lookup, people
from resolvers.context import Context
from resolvers.effects import Effects, Options, TargetOutcome, held, performed
from resolvers.fanout import Fanout
from resolvers.upserts import SURE, upserted
from sources.source import Source
from sources.writing import one_name

ORDER_NAMES = "order/"  # ledger keys under which it is kept which deal an order became
_STAGES: Mapping[OrderStatus, StageCategory] = {
    "PENDING_PAYMENT": "OPEN", "ON_HOLD": "OPEN", "INCOMPLETE": "OPEN", "UNKNOWN": "OPEN", "DISPUTED": "OPEN", "CANCELLED": "LOST",
    "REFUNDED": "LOST",
}  # fmt: skip
# Addresses under these domains say nothing about a company.
_MAILBOXES = frozenset({
    "aol.com", "gmail.com", "gmx.de", "gmx.net", "googlemail.com", "hotmail.com", "icloud.com", "live.com", "mail.com", "me.com", "msn.com",
    "outlook.com", "proton.me", "protonmail.com", "qq.com", "t-online.de", "web.de", "yahoo.com", "yandex.ru", "163.com",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buyer:
    email: str
    phone: str | None
    given_name: str | None
    family_name: str | None

    @property
    def domain(self) -> str | None:
        domain = self.email.rpartition("@")[2]
        return None if domain in _MAILBOXES else domain


async def order_push(asked: Mapping[str, Any], order_id: str, options: Options, context: Context) -> Effects:
    """Make an order a deal in each target, with its contact and account."""

    async def work(effects: Effects) -> None:
        if options.if_version is not None:
            effects.fault("VALIDATION", "an order has no version to compare", "options", "ifVersion")
            return
        order, buyer = await _order(effects, order_id)
        targets = effects.targets("deal", [])
        if order is None or buyer is None or effects.errors:
            return
        if not await effects.hold(held(buyer.email)) or not await effects.hold(held(buyer.domain or buyer.email)):
            return
        await effects.each("deal", targets, lambda source: _pushed(effects, source, order, buyer))

    return await performed(
        "orderPushToCrm", {**asked, "orderId": order_id}, options, context, work, holding=[held(f"order/{order_id}")]
    )


async def _order(effects: Effects, order_id: str) -> tuple[Order | None, _Buyer | None]:
    """Return the order and who bought; None, and a fault, where there is none or nobody to name."""
    context = effects.context
    ref = lookup.ref_of(order_id)
    source = context.source(ref.source) if ref and ref.kind == "order" else None
    if ref is None or source is None:
        effects.fault("NOT_FOUND", "there is no such order", "orderId")
        return None, None
    fanout = Fanout(context, replace(SURE, sources=(source.id,)))
    fields = frozenset({("order", name) for name in source.adapter.kinds["order"].mapping})
    order = (await people.read(fanout, [ref], fields)).get(ref)
    if not isinstance(order, Order):
        failed = fanout.failures()
        effects.fault(
            failed[0].code or "UPSTREAM" if failed else "NOT_FOUND",
            "the order could not be read" if failed else "there is no such order",
            "orderId",
        )
        return None, None
    contact_ref = Ref(source.id, "contact", order.contact_id) if order.contact_id else None
    found = await people.by_refs(fanout, [contact_ref], frozenset()) if contact_ref else []
    person = next(iter(found), None)
    email = person.email if person else None
    if person is None or email is None:
        effects.fault("VALIDATION", "the order names no customer with an e-mail address", "orderId")
        return order, None
    return order, _Buyer(email=email, phone=person.phone, given_name=person.given_name, family_name=person.family_name)


async def _pushed(effects: Effects, source: Source, order: Order, buyer: _Buyer) -> list[TargetOutcome]:
    lacking = next((kind for kind in ("contact", "deal") if not source.writes(kind, "upsert")), None)
    if lacking is not None:
        return [
            effects.refusal(
                source, "deal", "UNSUPPORTED", f"the system's {lacking} records cannot be written", "options", "targets"
            )
        ]
    try:
        known, asked = await _known(effects, source, buyer)
        if known is None and not asked:
            return [
                effects.refusal(
                    source, "contact", "UPSTREAM", "the source could not tell whether the person is there", retryable=True
                )
            ]
        account = await _account(effects, source, buyer, known)
    except SourceError as error:
        return [effects.refusal(source, "contact", error.code, error.message, retryable=True)]
    outcomes = [account] if account is not None else []
    if not outcomes or _goes_on(outcomes[0]):
        outcomes.append(await _contact(effects, source, buyer, known, account))
    if not all(_goes_on(each) for each in outcomes):
        return outcomes  # a deal that hangs in the air helps nobody; the same key goes on from here
    links: dict[Kind, list[str]] = {}
    for each in outcomes:
        if each.native_id is not None and each.kind in source.adapter.kinds["deal"].links:
            links[each.kind] = [each.native_id]
    return [*outcomes, await _deal(effects, source, order, links)]


def _goes_on(outcome: TargetOutcome) -> bool:
    """The record is there; or, dry, it would be."""
    return outcome.native_id is not None or outcome.state == "SKIPPED"


async def _known(effects: Effects, source: Source, buyer: _Buyer) -> tuple[Contact | None, bool]:
    """Return the buyer's contact, and whether its absence is certain (or does no harm)."""
    fanout = Fanout(effects.context, replace(SURE, sources=(source.id,)))
    found = await people.carrying(fanout, "email", [buyer.email], frozenset())
    known = next((each for each in found if isinstance(each, Contact)), None)
    return known, not fanout.failures() or "email" in source.adapter.kinds["contact"].upsert_by


async def _account(effects: Effects, source: Source, buyer: _Buyer, contact: Contact | None) -> TargetOutcome | None:
    """Return the account's outcome: the contact's own, the one with the buyer's domain, or a new one; None without a company."""
    if contact is not None and contact.account_id:
        return _unchanged(source, "account", contact.account_id)
    domain = buyer.domain
    if domain is None or not source.writes("account", "create"):
        return None
    if source.finds("account", "domain"):
        sure = replace(effects.reading, policy="SURE")
        found = (await source.find("account", "domain", [domain], fields=["domain"], reading=sure)).value[domain]
        if found:
            oldest = min(found, key=lambda each: (each.created_at is None, each.created_at, each.native_id))
            return _unchanged(source, "account", oldest.native_id)
    values = _known_values(source, "account", {"name": domain, "domain": domain})
    return await upserted(effects, source, "account", None, values, {}, {}, upserts=False)


async def _contact(
    effects: Effects, source: Source, buyer: _Buyer, known: Contact | None, account: TargetOutcome | None
) -> TargetOutcome:
    """Return the contact's outcome: it is made, or tied to the account where it has none."""
    ties = account is not None and account.native_id is not None and "account" in source.adapter.kinds["contact"].links
    links: dict[Kind, list[str]] = {"account": [account.native_id]} if ties and account and account.native_id else {}
    if known is not None:
        if known.account_id or not links:
            return _unchanged(source, "contact", known.native_id)
        return await upserted(effects, source, "contact", known, {}, {}, links, upserts=False)
    said = {"email": buyer.email, "phone": buyer.phone, "given_name": buyer.given_name, "family_name": buyer.family_name}
    upserts = "email" in source.adapter.kinds["contact"].upsert_by
    return await upserted(effects, source, "contact", None, _known_values(source, "contact", said), {}, links, upserts=upserts)


async def _deal(effects: Effects, source: Source, order: Order, links: dict[Kind, list[str]]) -> TargetOutcome:
    context, known_as = effects.context, f"{ORDER_NAMES}{order.id}"
    row = await context.writer.ledger.row(context.workspace, known_as, source.id)
    existing: Record | None = None
    if row is not None and row.outcome is not None and (native_id := row.outcome.get("native_id")):
        ref = Ref(source.id, "deal", str(native_id))
        fanout = Fanout(context, replace(SURE, sources=(source.id,)))
        wanted = frozenset({("deal", name) for name in source.adapter.kinds["deal"].mapping})
        read = await people.read(fanout, [ref], wanted)
        if ref not in read:
            return effects.refusal(source, "deal", "UPSTREAM", "the order's deal could not be read", retryable=True)
        existing = read[ref]  # None where somebody deleted it since: it is made anew
    said = {
        "name": f"Order {order.number or order.native_id}", "amount": order.total, "stage": _STAGES.get(order.status, "WON"),
        "close_date": order.placed_at.date(),
    }  # fmt: skip
    values = _known_values(source, "deal", said)
    if existing is not None:
        return await upserted(effects, source, "deal", existing, values, {}, {}, upserts=False)
    if row is not None and row.outcome is not None and not effects.options.dry_run:
        await context.writer.ledger.forget(context.workspace, known_as, [source.id])
    # Entered under the order's own name before it leaves: another key must not make another deal of what this one began.
    return await upserted(effects, source, "deal", None, values, {}, links, upserts=False, known_as=known_as)


def _known_values(source: Source, kind: Kind, said: Mapping[str, Any]) -> dict[str, Any]:
    rules = source.adapter.kinds[kind].writes
    known = one_name({name: value for name, value in said.items() if value is not None}, None, rules)
    return {name: value for name, value in known.items() if name in rules}


def _unchanged(source: Source, kind: Kind, native_id: str) -> TargetOutcome:
    return TargetOutcome(source=source, kind=kind, state="UNCHANGED", native_id=native_id)
