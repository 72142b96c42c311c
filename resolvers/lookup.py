"""One customer or one record, by id or by what is known of them."""

from collections.abc import Mapping, Sequence, Set

from adapters.base import FindKey
from model.errors import ConflictError, InvalidRequestError
from model.keys import normal_email, normal_phone
from model.records import RECORDS, Kind, Person, Record, Ref
from resolvers import custom, people
from resolvers.context import Context, Fields, Terms
from resolvers.fanout import Fanout, incomplete
from resolvers.people import Customer

CUSTOMER = "customer"


async def customer_by_id(id: str, terms: Terms, context: Context, fields: Fields) -> Customer | None:
    """Return the customer with that id, or the one it was merged into; None when all sources answered and nobody is there."""
    return _one(await customers_by_id([id], terms, context, fields))


async def customers_by_id(
    ids: Sequence[str], terms: Terms, context: Context, fields: Fields
) -> list[Customer | Exception | None]:
    """Return customers in the order of `ids`: None for nobody, an error where a failed source leaves it open."""
    fanout = Fanout(context, terms)
    members = await context.index.members(context.workspace, list(dict.fromkeys(ids)))
    refs = [member.ref for each in members.values() for member in each.refs]
    found = await people.by_refs(fanout, refs, fields)
    gathered = await people.gather(fanout, found, fields)
    fanout.check_all()
    answers: list[Customer | Exception | None] = []
    for id in ids:
        known = members.get(id)
        # Records may have moved to another customer since: the id stays with the one it names now.
        customer = gathered.customers.get(known.id) if known else None
        if customer is None and known is not None:
            moved = {gathered.by_ref[member.ref] for member in known.refs if member.ref in gathered.by_ref}
            customer = gathered.customers[min(moved)] if moved else None
        owners = {member.ref.source for member in known.refs} if known else set()
        failed = [status for status in fanout.failures() if status.source.id in owners]
        answers.append(
            incomplete(failed, "the customer's records could not be read") if customer is None and failed else customer
        )
    return answers


async def customer_by_email(email: str, terms: Terms, context: Context, fields: Fields) -> Customer | None:
    """Return the one customer with that address.

    Raises:
        ConflictError: several customers share it.
        IncompleteError: nobody was found, and a source failed.
    """
    return _one(await customers_by_email([email], terms, context, fields))


async def customers_by_email(
    emails: Sequence[str], terms: Terms, context: Context, fields: Fields
) -> list[Customer | Exception | None]:
    """Return the customer of each address, in order; the errors of `customer_by_email` as values."""
    return await _by_keys("email", [normal_email(email) for email in emails], terms, context, fields)


async def customer_by_phone(phone: str, terms: Terms, context: Context, fields: Fields) -> Customer | None:
    """Return the one customer with that phone number. Raises as `customer_by_email` does."""
    return _one(await customers_by_phone([phone], terms, context, fields))


async def customers_by_phone(
    phones: Sequence[str], terms: Terms, context: Context, fields: Fields
) -> list[Customer | Exception | None]:
    """Return the customer of each number, in order; the errors of `customer_by_phone` as values."""
    return await _by_keys("phone", [normal_phone(phone, context.region) for phone in phones], terms, context, fields)


async def customer_by_ref(ref: Ref, terms: Terms, context: Context, fields: Fields) -> Customer | None:
    """Return the customer whom a contact or lead belongs to."""
    if ref.kind not in people.PERSON_KINDS:
        raise InvalidRequestError("`ref` must name a contact or a lead")
    fanout = Fanout(context, terms)
    found = await people.by_refs(fanout, [ref], fields)
    gathered = await people.gather(fanout, found, fields)
    fanout.check_all()
    return _one([_chosen({gathered.by_ref[person.ref] for person in found}, gathered, fanout, "record")])


async def records(ids: Sequence[str], context: Context, fields: Fields) -> list[Record | Customer | Exception | None]:
    """Return whatever each graph id names, in their order: None for what does not exist or is no id."""
    customer_ids = [id for id in ids if id.startswith(f"{CUSTOMER}:")]
    refs = {id: ref for id in ids if (ref := ref_of(id)) is not None}
    fanout = Fanout(context, Terms())
    read = await people.read(fanout, dict.fromkeys(refs.values()), fields)
    customers = (
        dict(zip(customer_ids, await customers_by_id(customer_ids, Terms(), context, fields), strict=True))
        if customer_ids
        else {}
    )
    custom_ids = [id for id in ids if id.startswith(custom.PREFIX)]
    customs = await custom.by_ids(custom_ids, context) if custom_ids else {}
    failed = {status.source.id: status for status in fanout.failures()}
    found: list[Record | Customer | Exception | None] = []
    for id in ids:
        ref = refs.get(id)
        if ref is None:
            found.append(customs.get(id) if id in customs else customers.get(id))
        elif ref.source in failed and ref not in read:
            found.append(incomplete([failed[ref.source]], "the record could not be read"))
        else:
            found.append(read.get(ref))
    return found


def ref_of(id: str) -> Ref | None:
    """Return what a record's graph id names, None when it is no such id."""
    kind, _, rest = id.partition(":")
    source, _, native_id = rest.partition(":")
    if kind not in RECORDS or not source or not native_id:
        return None
    return Ref(source, _kind(kind), native_id)


def _kind(name: str) -> Kind:
    return next(kind for kind in RECORDS if kind == name)


_HOW: Mapping[FindKey, str] = {
    "email": "`email` is not an e-mail address",
    "phone": "`phone` is not a phone number; write it as +14155550123",
}


async def _by_keys(
    key: FindKey, values: Sequence[str | None], terms: Terms, context: Context, fields: Fields
) -> list[Customer | Exception | None]:
    fanout = Fanout(context, terms)
    asked = list(dict.fromkeys(value for value in values if value is not None))
    found = await people.carrying(fanout, key, asked, fields)
    gathered = await people.gather(fanout, found, fields)
    fanout.check_all()
    owners: dict[str, set[str]] = {}
    for person in found:
        for value in _values(person, key):
            owners.setdefault(value, set()).add(gathered.by_ref[person.ref])
    return [
        _chosen(owners.get(value, set()), gathered, fanout, key) if value is not None else InvalidRequestError(_HOW[key])
        for value in values
    ]


def _chosen(ids: Set[str], gathered: people.Gathered, fanout: Fanout, key: str) -> Customer | Exception | None:
    if len(ids) > 1:
        return ConflictError(f"{len(ids)} customers share this {key}; ask for one by `id` or `ref`")
    if not ids and (failed := fanout.failures()):
        return incomplete(failed, "nobody was found, but not every source answered")
    return gathered.customers[next(iter(ids))] if ids else None


def _one(found: Sequence[Customer | Exception | None]) -> Customer | None:
    [customer] = found
    if isinstance(customer, Exception):
        raise customer
    return customer


def _values(person: Person, key: FindKey) -> tuple[str, ...]:
    primary, every = (person.email, person.emails) if key == "email" else (person.phone, person.phones)
    return (primary, *every) if primary else every
