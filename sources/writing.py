"""From target values to what an adapter writes: names become ids, labels become options, and mistakes are told by field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters.base import KindFacts
from adapters.writing import Outcome, Write, WriteVerb
from mapping.convert import joined
from mapping.native import Spelling, native, plant
from model.errors import RejectedError, SourceError, UnsupportedError
from model.money import Money
from model.records import FieldMeta, Kind, ObjectType, Record, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWrite:
    """One record to write, in target fields.

    Attributes:
        values: target field → value as the record has it; a stage is its id, name, or category; a Money without a currency
            ("") is in the system's own; None clears.
        custom: key of a custom field → its value, labels where it has options.
        links: kinds → native ids in the same source, the primary one first.
        match: what an upsert goes by.
    """

    verb: WriteVerb
    native_id: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[Kind, Sequence[str]] = field(default_factory=dict)
    match: Literal["email", "phone"] | None = None
    if_version: str | None = None

    @property
    def needs_metadata(self) -> bool:
        return bool(self.custom) or self.values.get("stage") is not None or isinstance(self.values.get("amount"), Money)


@dataclass(frozen=True, slots=True)
class Mistake:
    """Why something cannot be written, and the target field or custom key that is at fault."""

    error: SourceError
    field: str | None = None


def refused(mistake: Mistake) -> Outcome:
    return Outcome(state="REJECTED", error=mistake.error, fields=(mistake.field,) if mistake.field else ())


def native_write(
    facts: KindFacts, rules: Mapping[str, Spelling], write: RecordWrite, meta: ObjectType | None, *, currency: str
) -> Write | Mistake:
    """Return what the adapter is given, or the first mistake.

    Args:
        meta: needed where `write.needs_metadata`.
    """
    if write.verb not in facts.verbs and not (write.verb == "upsert" and write.match in facts.upsert_by):
        return Mistake(UnsupportedError(f"the system cannot {write.verb} {facts.object}"))
    if write.if_version is not None and not facts.if_version:
        return Mistake(UnsupportedError("the system does not compare versions before it writes"), "ifVersion")
    values = dict(write.values)
    if (unknown := next((name for name in values if name not in rules), None)) is not None:
        return Mistake(UnsupportedError("the system has no such field, or it cannot be written"), unknown)
    if isinstance(said := values.get("stage"), str):
        stage = stage_named(said, meta)
        if stage is None:
            names = ", ".join(sorted({each.name for each in meta.stages.values()})) if meta else ""
            return Mistake(RejectedError(f"there is no such stage; there are: {names}"), "stage")
        values["stage"] = stage.native
    if isinstance(amount := values.get("amount"), Money) and not amount.currency:
        values["amount"] = Money(amount.amount, (meta and meta.currency) or currency)
    row = native(rules, values)
    for key, value in write.custom.items():
        found = _custom(key, value, meta)
        if isinstance(found, Mistake):
            return found
        plant(row, *found)
    links: dict[Kind, Sequence[str]] = {}
    for kind, ids in write.links.items():
        if kind not in facts.links:
            return Mistake(UnsupportedError(f"the system does not tie {facts.object} to a record of that kind"), f"{kind}Id")
        if (path := facts.links[kind]) is None:
            links[kind] = ids
        elif ids:
            plant(row, path, ids[0])
    return Write(verb=write.verb, native_id=write.native_id, row=row, links=links, match=write.match, if_version=write.if_version)


def stage_named(said: str, meta: ObjectType | None) -> Stage | None:
    """Return the stage with that id or name, or else the first one of that category."""
    stages = list(meta.stages.values()) if meta else []
    folded = said.strip().casefold()
    for matches in (
        lambda each: folded in {each.id.casefold(), each.native.casefold()},
        lambda each: folded == each.name.casefold(),
        lambda each: folded == each.category.casefold(),
    ):
        if (found := next((each for each in stages if matches(each)), None)) is not None:
            return found
    return None


def one_name(values: Mapping[str, Any], existing: Record | None, rules: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with given and family name in one, for a system that keeps only that; what is not said stays."""
    parts = ("given_name", "family_name")
    if "name" not in rules or "family_name" in rules or not any(part in values for part in parts):
        return dict(values)
    whole = joined([values.get(part, getattr(existing, part, None)) for part in parts])
    return {name: value for name, value in values.items() if name not in parts} | {"name": whole}


def _custom(key: str, value: Any, meta: ObjectType | None) -> tuple[str, Any] | Mistake:
    """Return the path and the native value of a custom field."""
    found = meta.fields.get(key) if meta else None
    if found is None:
        return Mistake(RejectedError("there is no such field"), key)
    if not found.writable:
        return Mistake(RejectedError("the field is read-only"), key)
    if value is None or not found.options:
        return found.path, value
    several = value if isinstance(value, list) else [value]
    natives = [_option(found, each) for each in several]
    if None in natives:
        return Mistake(RejectedError(f"the field has no such option; there are: {', '.join(found.options.values())}"), key)
    return found.path, natives if isinstance(value, list) else natives[0]


def _option(meta: FieldMeta, said: Any) -> str | None:
    by_label = {label.casefold(): option for option, label in meta.options.items()}
    return str(said) if str(said) in meta.options else by_label.get(str(said).casefold())
