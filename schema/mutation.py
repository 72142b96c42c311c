"""The mutations: one call writes to several systems, and tells what became of each."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import strawberry
from strawberry import ID, Parent
from strawberry.scalars import JSON

from model import records
from model.errors import InvalidRequestError
from resolvers import deal_upserts, effects, order_push, person_upserts, upserts
from resolvers.effects import Effects, Options
from schema.enums import DuplicatePolicy, ErrorCode, WriteState
from schema.fields import Information, resolved
from schema.selection import needed_below
from schema.sources import Source
from schema.types import Customer, Deal, Lead, RecordRef

MAX_TARGETS = 20


@strawberry.input(
    description="`idempotencyKey`: the same key again answers what became of the first request, and writes nothing twice. "
    "`targets`: ids of sources. `dryRun`: nothing is written; SKIPPED with `changed` tells what would be. "
    "`ifVersion`: write only when the record still has this `version`."
)
class WriteOptions:
    idempotency_key: ID
    targets: list[ID] | None = None
    dry_run: bool = False
    if_version: str | None = None
    on_duplicate: DuplicatePolicy = strawberry.field(default="UPSERT")


@strawberry.input(description="`source`: only there; without it, in every target.")
class CustomFieldInput:
    key: str
    source: ID | None = None
    value: JSON | None = None


@strawberry.input(description="What is left out stays as it is. The first of `emails` and `phones` is the primary one.")
class CustomerInput:
    id: ID | None = None
    emails: list[str] | None = None
    phones: list[str] | None = None
    given_name: str | None = None
    family_name: str | None = None
    account_id: ID | None = None
    custom: list[CustomFieldInput] | None = None


@strawberry.input(description='What is left out stays as it is. `stage`: an id, a name, or "OPEN", "WON", "LOST".')
class DealInput:
    id: ID | None = None
    customer_id: ID | None = None
    account_id: ID | None = None
    name: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    stage: str | None = None
    close_date: dt.date | None = None
    owner_id: ID | None = None
    custom: list[CustomFieldInput] | None = None


@strawberry.input(description="What is left out stays as it is.")
class LeadInput:
    id: ID | None = None
    email: str | None = None
    phone: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    company: str | None = None
    custom: list[CustomFieldInput] | None = None


@strawberry.type(description="A mistake or a refusal as data. `retryable`: nothing was settled, the same key may ask again.")
class UserError:
    code: ErrorCode
    message: str
    field: list[str] | None
    source: Source | None
    upstream_code: str | None
    retryable: bool


class _Ref(NamedTuple):
    """What `RecordRef` shows, of a record that was not read."""

    source: str
    system: str
    object: str
    native_id: str
    url: str | None


def _ref(root: Parent[effects.TargetOutcome]) -> Any:
    if root.native_id is None:
        return None
    source = root.source
    url = source.adapter.web_url(root.kind, root.native_id)
    return _Ref(source.id, source.system, source.adapter.kinds[root.kind].object, root.native_id, url)


@strawberry.type(description="What became of one target. `changed`: the fields that were written, or would be.")
class WriteOutcome:
    source: Source
    state: WriteState
    ref: RecordRef | None = resolved(by=_ref)
    changed: list[str]
    error: UserError | None


class _Payload:
    """What all payloads show of `Effects`, beside the record that was written."""

    def __init__(self, done: Effects, record: Any) -> None:
        self.record, self.writes, self.replayed = record, done.writes, done.replayed
        self.user_errors = [*done.errors, *(each.error for each in done.writes if each.error is not None)]


def _record(root: Parent[_Payload]) -> Any:
    return root.record


@strawberry.type
class CustomerPayload:
    customer: Customer | None = resolved(by=_record)
    writes: list[WriteOutcome]
    user_errors: list[UserError]
    replayed: bool


@strawberry.type
class DealPayload:
    deal: Deal | None = resolved(by=_record)
    writes: list[WriteOutcome]
    user_errors: list[UserError]
    replayed: bool


@strawberry.type
class LeadPayload:
    lead: Lead | None = resolved(by=_record)
    writes: list[WriteOutcome]
    user_errors: list[UserError]
    replayed: bool


async def _customer_upsert(info: Information, input: CustomerInput, options: WriteOptions) -> Any:
    said = person_upserts.PersonInput(
        id=input.id, emails=tuple(input.emails or ()), phones=tuple(input.phones or ()), given_name=input.given_name,
        family_name=input.family_name, account_id=input.account_id, custom=_custom(input.custom),
    )  # fmt: skip
    done = await person_upserts.customer_upsert(strawberry.asdict(input), said, _options(options), info.context)
    wanted = needed_below(info, "customer")
    return _Payload(done, await upserts.written_customer(done, "contact", wanted) if wanted is not None else None)


async def _lead_capture(info: Information, input: LeadInput, options: WriteOptions) -> Any:
    said = person_upserts.PersonInput(
        id=input.id, emails=(input.email,) if input.email else (), phones=(input.phone,) if input.phone else (), given_name=input.given_name,
        family_name=input.family_name, company=input.company, custom=_custom(input.custom),
    )  # fmt: skip
    done = await person_upserts.lead_capture(strawberry.asdict(input), said, _options(options), info.context)
    return _Payload(done, await _first(done, "lead", info))


async def _deal_upsert(info: Information, input: DealInput, options: WriteOptions) -> Any:
    said = deal_upserts.DealInput(
        id=input.id, customer_id=input.customer_id, account_id=input.account_id, owner_id=input.owner_id, name=input.name, amount=input.amount,
        currency=input.currency, stage=input.stage, close_date=input.close_date, custom=_custom(input.custom),
    )  # fmt: skip
    done = await deal_upserts.deal_upsert(strawberry.asdict(input), said, _options(options), info.context)
    return _Payload(done, await _first(done, "deal", info))


async def _order_push(info: Information, order_id: ID, targets: list[ID], options: WriteOptions) -> Any:
    options.targets = targets
    asked = _options(options)
    done = await order_push.order_push({}, order_id, asked, info.context)
    return _Payload(done, await _first(done, "deal", info))


async def _first(done: Effects, kind: records.Kind, info: Information) -> records.Record | None:
    wanted = needed_below(info, kind)
    found: Sequence[records.Record] = await upserts.written_records(done, kind, wanted) if wanted is not None else ()
    return next(iter(found), None)


def _options(given: WriteOptions) -> Options:
    if given.targets is not None and len(given.targets) > MAX_TARGETS:
        raise InvalidRequestError(f"`targets` takes at most {MAX_TARGETS}, not {len(given.targets)}")
    policy: Any = given.on_duplicate
    return Options(
        key=given.idempotency_key, targets=tuple(given.targets) if given.targets is not None else None, dry_run=given.dry_run,
        if_version=given.if_version, on_duplicate=getattr(policy, "value", policy),
    )  # fmt: skip


def _custom(given: list[CustomFieldInput] | None) -> tuple[upserts.Custom, ...]:
    return tuple(upserts.Custom(key=each.key, value=each.value, source=each.source) for each in given or ())


@strawberry.type
class Mutation:
    customer_upsert: CustomerPayload = resolved(
        by=_customer_upsert,
        description="Write a person to each target: the contact that is the customer's there, else a new one.",
    )
    deal_upsert: DealPayload = resolved(
        by=_deal_upsert,
        description="Change the deal that `id` names, or make one in each target, tied to the customer's contact there.",
    )
    lead_capture: LeadPayload = resolved(
        by=_lead_capture, description="Write a lead to each target: the one with that address there, else a new one."
    )
    order_push_to_crm: DealPayload = resolved(
        by=_order_push,
        description="An order becomes contact, account and deal in each target. Pushed again, it updates that deal.",
    )
