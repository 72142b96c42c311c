"""Pipedrive's metadata as fields with names for people, and values on their way in.

Facts from the vendor's custom fields guide and the v2 migration guide: a custom field's key is a hash of 40 hexadecimal digits that differs
per account, its value stands under `custom_fields`, options are numbers, some types are objects, null clears.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.records import FieldMeta, FieldType, ObjectType, Row, Stage, StageCategory

CUSTOM = "custom_fields."
KEYS = 15  # custom fields that one request may name
_TYPES: Mapping[str, FieldType] = {
    "int": "NUMBER", "double": "NUMBER", "boolean": "BOOLEAN", "date": "DATE", "daterange": "DATE", "enum": "PICKLIST", "set": "MULTI_PICKLIST",
    "monetary": "MONEY", "user": "REFERENCE", "org": "REFERENCE", "people": "REFERENCE", "deal": "REFERENCE", "json": "JSON",
}  # fmt: skip
# Custom values that are objects: what they hold beside `value`.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "monetary": ("currency",), "daterange": ("until",), "timerange": ("until",), "time": ("timezone_name",), "address": (),
}  # fmt: skip
# Standard fields whose code in the metadata is not their name in a row.
_RENAMED = {"phone": "phones", "email": "emails"}


def fields(described: Sequence[Row], writable: frozenset[str]) -> dict[str, FieldMeta]:
    """Return fields by name: a standard one's is its code, a custom one's the label people gave it.

    Labels need not differ: those that do not get the first six digits of their key behind them, all of them, so that none is
    taken for another.
    """
    names = Counter(each["field_name"] if each["is_custom_field"] else each["field_code"] for each in described)
    return {meta.name: meta for each in described for meta in _field(each, names, writable)}


def _field(each: Row, names: Mapping[str, int], writable: frozenset[str]) -> Iterator[FieldMeta]:
    code: str = each["field_code"]
    label, type = each["field_name"], each["field_type"]
    options = {str(option["id"]): option["label"] for option in each.get("options") or ()}
    known: FieldType = _TYPES.get(type, "TEXT")
    if not each["is_custom_field"]:
        path = _RENAMED.get(code, code)
        readable = not each.get("is_optional_response_field", False)
        yield FieldMeta(
            name=code, path=path, type=known, label=label, readable=readable, writable=path in writable, options=options
        )
        return
    name = label if names[label] == 1 else f"{label} ({code[:6]})"
    if type not in _PARTS:
        yield FieldMeta(name=name, path=f"{CUSTOM}{code}", type=known, label=label, custom=True, options=options)
        return
    yield FieldMeta(name=name, path=f"{CUSTOM}{code}.value", type=known, label=label, custom=True)
    for part in _PARTS[type]:
        yield FieldMeta(name=f"{name}: {part}", path=f"{CUSTOM}{code}.{part}", type="TEXT", label=f"{label}: {part}", custom=True)


def asked(paths: Sequence[str], meta: ObjectType) -> dict[str, str]:
    """Return the parameter that leaves out custom fields nobody wants.

    None named means all, so where none is wanted one is named: the least that can be asked for.
    """
    wanted = list(dict.fromkeys(path.split(".")[1] for path in paths if path.startswith(CUSTOM)))
    if not wanted:
        wanted = [each.path.split(".")[1] for each in meta.fields.values() if each.custom][:1]
    return {"custom_fields": ",".join(wanted)} if 0 < len(wanted) <= KEYS else {}


def custom_values(said: Mapping[str, Any], before: Mapping[str, Any], meta: ObjectType, currency: str) -> dict[str, Any]:
    """Return custom values as API v2 takes them: options are numbers, never text; nothing is null, never an empty list.

    Args:
        said: by key, as they were planted.
        before: what the record has now.
        currency: for an amount that neither names one nor had one before.
    """
    by_path = {each.path: each for each in meta.fields.values()}
    found: dict[str, Any] = {}
    for code, value in said.items():
        if isinstance(value, dict):
            whole = {**(before.get(code) or {}), **value}
            if (each := by_path.get(f"{CUSTOM}{code}.value")) is not None and each.type == "MONEY":
                whole = {"currency": currency, **whole}
            found[code] = None if whole.get("value") is None else whole
        elif value in (None, []):
            found[code] = None
        elif (each := by_path.get(f"{CUSTOM}{code}")) is not None and each.options:
            found[code] = [int(option) for option in value] if isinstance(value, list) else int(value)
        else:
            found[code] = value
    return found


def stages(listed: Sequence[Row], pipelines: Sequence[Row]) -> dict[str, Stage]:
    """Return the stages of all pipelines, and one WON and one LOST of each.

    A won or lost deal keeps the stage that it was in: its `status` tells the outcome (`stage_key`).
    """
    names = {each["id"]: each["name"] for each in pipelines}
    found = {
        str(each["id"]): Stage(
            id=str(each["id"]), name=each["name"], category="OPEN", pipeline=names.get(each["pipeline_id"]), native=str(each["id"]),
            probability=each["deal_probability"] / 100,
        )
        for each in sorted(listed, key=lambda each: (each["pipeline_id"], each["order_nr"]))
    }  # fmt: skip
    outcomes: tuple[tuple[str, StageCategory, float], ...] = (("won", "WON", 1.0), ("lost", "LOST", 0.0))
    for id, pipeline in names.items():
        for status, category, probability in outcomes:
            key = f"{status}:{id}"
            found[key] = Stage(
                id=key, name=status.capitalize(), category=category, pipeline=pipeline, native=key, probability=probability
            )
    return found


def stage_key(row: Row) -> str:
    return str(row["stage_id"]) if row["status"] == "open" else f"{row['status']}:{row['pipeline_id']}"


def stage_body(key: str) -> Row:
    """Return what sets a stage: an outcome leaves the stage as it is, an open stage opens the deal again."""
    status, _, pipeline = key.partition(":")
    return {"status": status} if pipeline else {"stage_id": int(key), "status": "open"}


def with_primary(entries: Sequence[Row], value: str | None) -> list[Row]:
    """Return e-mail addresses or phone numbers with this primary one; None takes the primary one away.

    A new value takes the primary one's place; one that is there already changes places with it.
    """
    folded = (value or "").casefold()
    there = [each for each in entries if each["value"].casefold() == folded]
    rest = [each for each in entries if each not in there and (there or not each["primary"])]
    label = (there or [each for each in entries if each["primary"]] or [{}])[0].get("label", "work")
    ordered = [{"value": value, "label": label}, *rest] if value is not None else rest
    return [{**each, "primary": at == 0} for at, each in enumerate(ordered)]
