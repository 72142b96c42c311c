"""What Zoho's metadata says, as object types: fields, options, stages."""

from collections.abc import Iterable, Mapping, Sequence

from model.records import FieldMeta, FieldType, ObjectType, Row, Stage, StageCategory

_TYPES: Mapping[str, FieldType] = {
    "picklist": "PICKLIST", "multiselectpicklist": "MULTI_PICKLIST", "integer": "NUMBER", "bigint": "NUMBER", "double": "NUMBER", "percent": "NUMBER",
    "currency": "MONEY", "boolean": "BOOLEAN", "date": "DATE", "datetime": "DATETIME", "lookup": "REFERENCE", "ownerlookup": "REFERENCE", "userlookup": "REFERENCE",
    "formula": "FORMULA", "rollup_summary": "FORMULA", "subform": "JSON", "fileupload": "JSON", "imageupload": "JSON", "multiselectlookup": "JSON", "multiuserlookup": "JSON",
}  # fmt: skip
_CATEGORIES: Mapping[str, StageCategory] = {"closed won": "WON", "closed lost": "LOST"}
_COMPUTED = frozenset({"formula", "rollup_summary", "autonumber", "profileimage"})


def object_type(
    module: str, fields: Iterable[Row], *, label: str | None = None, custom: bool = False,
    stages: Mapping[str, Stage] | None = None, currency: str | None = None,
) -> ObjectType:  # fmt: skip
    return ObjectType(
        name=module, label=label, custom=custom, fields={each["api_name"]: _field(each) for each in fields}, stages=stages or {}, currency=currency
    )  # fmt: skip


def stages(pipelines: Iterable[Row], fields: Iterable[Row]) -> dict[str, Stage]:
    """Return the stages by the values that rows have; of one that stands in several pipelines the first counts."""
    stage_field = next((each for each in fields if each["api_name"] == "Stage"), {})
    likely = {each["actual_value"]: each.get("probability") for each in stage_field.get("pick_list_values") or ()}
    found: dict[str, Stage] = {}
    for pipeline in pipelines:
        for each in pipeline["maps"]:
            chance = likely.get(each["actual_value"])
            stage = Stage(
                id=each["id"], name=each["display_value"], category=_CATEGORIES.get(each["forecast_type"].lower(), "OPEN"), pipeline=pipeline["display_value"],
                native=each["actual_value"], probability=None if chance is None else chance / 100,
            )  # fmt: skip
            found.setdefault(each["actual_value"], stage)
            found.setdefault(each["display_value"], stage)
    return found


def _field(each: Row) -> FieldMeta:
    kind = _TYPES.get(each["data_type"], "TEXT")
    values: Sequence[Row] = each.get("pick_list_values") or ()
    return FieldMeta(
        name=each["api_name"], path=f"{each['api_name']}.id" if kind == "REFERENCE" else each["api_name"], type=kind, label=each["field_label"],
        custom=bool(each["custom_field"]), writable=not (each["read_only"] or each.get("field_read_only") or each["data_type"] in _COMPUTED),
        options={value["actual_value"]: value["display_value"] for value in values},
    )  # fmt: skip
