"""What every upsert does: write what differs, or create; and read back what was written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import SourceError
from model.records import Kind, Person, Record
from resolvers import lookup, people
from resolvers.context import Fields, Terms
from resolvers.effects import Effects, TargetOutcome, fresh
from resolvers.fanout import Fanout
from resolvers.people import Customer
from sources.source import Source
from sources.writer import Written, differing
from sources.writing import RecordWrite

# What a write is decided by: nothing that was kept may stand in for a system that does not answer.
SURE = Terms(policy="SURE", deadline=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A custom field to write. `source`: only there; None for every target."""

    key: str
    value: Any
    source: str | None = None


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


def writable(effects: Effects, source: Source, kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose fields the system takes; the others are told."""
    rules = source.adapter.kinds[kind].writes
    for name in values:
        if name not in rules:
            effects.fault("UNSUPPORTED", f"the system has no writable {name}; the rest is written", "input", name, source=source)
    return {name: value for name, value in values.items() if name in rules}


def customs_read(kind: Kind, custom: Sequence[Custom]) -> Fields:
    """Return what must be read to tell which custom fields differ: an unread one looks like an empty one."""
    return frozenset((kind, f"custom.{each.key}") for each in custom)


def customs(custom: Sequence[Custom], source: Source) -> dict[str, Any]:
    return {each.key: each.value for each in custom if each.source in (None, source.id)}


def named_well(effects: Effects, **named: str | None) -> bool:
    """Tell whether what is named by id (kind → graph id) can be there; faults say what cannot."""
    for kind, id in named.items():
        ref = lookup.ref_of(id) if id else None
        if id and (ref is None or ref.kind != kind or effects.context.source(ref.source) is None):
            effects.fault("NOT_FOUND", f"there is no such {kind}", "input", f"{kind}Id")
    return not effects.errors


def links_of(source: Source, account_id: str | None) -> dict[Kind, list[str]]:
    """Return the native id of the account, where it lives in this source."""
    ref = lookup.ref_of(account_id) if account_id else None
    return {"account": [ref.native_id]} if ref is not None and ref.source == source.id else {}


def one_version(effects: Effects, targets: Sequence[Source]) -> bool:
    """`ifVersion` is of one record."""
    if effects.options.if_version is not None and len(targets) > 1:
        effects.fault("VALIDATION", "`ifVersion` is of one record: name one target", "options", "ifVersion")
        return False
    return True


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
