"""Which fields a Pipedrive account has, and whether a body that is written fits them.

Custom fields have a name for people and a key of 40 hexadecimal digits that differs per account. API v2 checks strictly:
a number in quotes, an unknown name or an unknown key refuses the whole request (migration guide, custom fields guide).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

Row = dict[str, Any]
_SUBFIELDS: Mapping[str, tuple[str, ...]] = {
    "monetary": ("value", "currency"), "daterange": ("value", "until"), "timerange": ("value", "until"), "time": ("value", "timezone_name"),
}  # fmt: skip
INDUSTRIES = ("Technology", "Retail", "Healthcare", "Finance", "Education", "Manufacturing")
CURRENCIES = ("EUR", "GBP", "USD")
STATUSES = ("open", "won", "lost")
# Only an account with Contact Sync has these.
SYNCED = ("job_title", "notes", "im", "birthday", "postal_address")


class Refused(Exception):
    """What Pipedrive says instead of doing it."""

    def __init__(self, status: int, error: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.code, self.field = status, error, code, field


class Field(NamedTuple):
    """One field's metadata; options have the ids from `first` on."""

    name: str
    type: str
    options: tuple[str, ...] = ()
    first: int = 1
    custom: bool = True

    @property
    def ids(self) -> range:
        return range(self.first, self.first + len(self.options))


def key(object: str, name: str, nth: int = 0) -> str:
    """Return the key of a custom field; `nth` tells those of one name apart."""
    return hashlib.sha1(f"{object}/{name}/{nth}".encode(), usedforsecurity=False).hexdigest()


def _custom(object: str, *fields: Field) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for each in fields:
        nth = sum(other.name == each.name for other in found.values())
        found[key(object, each.name, nth)] = each
    return found


def _standard(**types: str) -> dict[str, Field]:
    return {code: Field(code.replace("_", " ").capitalize(), type, custom=False) for code, type in types.items()}


FIELDS: Mapping[str, Mapping[str, Field]] = {
    "person": {
        **_standard(
            id="int", name="varchar", first_name="varchar", last_name="varchar", phone="phone", email="varchar", owner_id="user", org_id="org", label_ids="set",
            visible_to="visible_to", add_time="date", update_time="date",
        ),
        **_custom(
            "person", Field("Loyalty tier", "enum", ("Gold", "Silver", "Bronze"), 101), Field("Interests", "set", ("Skiing", "Chess", "Sailing"), 111),
            Field("Score", "double"), Field("Yearly budget", "monetary"), Field("Customer since", "date"), Field("Best time to call", "time"),
            *(Field(f"Survey answer {nth}", "varchar") for nth in range(1, 13)),
        ),
    },
    "organization": {
        **_standard(
            id="int", name="varchar", owner_id="user", address="address", website="varchar", linkedin="varchar", annual_revenue="monetary", employee_count="int",
            label_ids="set", visible_to="visible_to", add_time="date", update_time="date",
        ),
        "industry": Field("Industry", "enum", INDUSTRIES, 1, custom=False),
        **_custom("organization", Field("Segment", "enum", ("Small", "Large"), 201), Field("Region", "varchar"), Field("Region", "varchar")),
    },
    "deal": {
        **_standard(
            id="int", title="varchar", value="monetary", currency="varchar_options", person_id="people", org_id="org", owner_id="user", pipeline_id="int", stage_id="stage",
            status="status", probability="int", expected_close_date="date", lost_reason="varchar_options", label_ids="set", visible_to="visible_to", add_time="date",
            update_time="date", won_time="date", lost_time="date", close_time="date",
        ),
        **_custom(
            "deal", Field("Sales region", "enum", ("EMEA", "AMER", "APAC"), 301), Field("Contract term", "daterange"), Field("Setup fee", "monetary"),
            Field("Competitor", "varchar"),
        ),
    },
}  # fmt: skip

_BODIES: Mapping[str, Mapping[str, str]] = {
    "person": {
        "name": "str", "owner_id": "int", "org_id": "int?", "add_time": "str", "update_time": "str", "emails": "values", "phones": "values", "visible_to": "int",
        "label_ids": "labels", "marketing_status": "str", "custom_fields": "custom",
    },
    "organization": {
        "name": "str", "owner_id": "int", "add_time": "str", "update_time": "str", "visible_to": "int", "label_ids": "labels", "address": "object", "website": "str?",
        "linkedin": "str?", "industry": "int?", "annual_revenue": "num?", "employee_count": "int?", "custom_fields": "custom",
    },
    "deal": {
        "title": "str", "owner_id": "int", "person_id": "int?", "org_id": "int?", "pipeline_id": "int", "stage_id": "int", "value": "num", "currency": "str",
        "is_deleted": "bool", "is_archived": "bool", "archive_time": "str?", "status": "str", "probability": "num?", "lost_reason": "str?", "visible_to": "int",
        "close_time": "str?", "won_time": "str", "lost_time": "str", "expected_close_date": "day?", "label_ids": "labels", "custom_fields": "custom",
    },
}  # fmt: skip
_REQUIRED = {"person": "name", "organization": "name", "deal": "title"}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def described(object: str) -> list[Row]:
    """Return what `GET /api/v2/{object}Fields` lists."""
    return [
        {
            "field_name": each.name, "field_code": code, "description": "", "field_type": each.type,
            "options": [{"id": id, "label": label, "color": None} for id, label in zip(each.ids, each.options, strict=True)] or None,
            "subfields": [{"field_code": part, "field_name": f"{part} of {each.name}", "field_type": "varchar"} for part in _SUBFIELDS.get(each.type, ())] or None,
            "is_custom_field": each.custom, "is_optional_response_field": False,
        }
        for code, each in FIELDS[object].items()
    ]  # fmt: skip


def custom_keys(object: str) -> list[str]:
    return [code for code, each in FIELDS[object].items() if each.custom]


def check(object: str, body: Any, *, creating: bool) -> Row:
    """Return a body that fits.

    Raises:
        Refused: it does not; a custom field that is at fault is named.
    """
    if not isinstance(body, dict):
        raise _invalid("body", "object")
    if object == "person" and any(name in body for name in SYNCED):
        raise Refused(403, "Contact sync is not enabled", code="ERR_FORBIDDEN")
    for name, value in body.items():
        shape = _BODIES[object].get(name)
        if shape is None:
            raise _invalid(name, "no such property")
        if shape == "custom":
            _check_custom(object, value)
        elif not _fits(value, shape):
            raise _invalid(name, shape)
    wanted = _REQUIRED[object]
    if (creating and wanted not in body) or (wanted in body and not body[wanted].strip()):
        raise _invalid(wanted, "required")
    return body


def _check_custom(object: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise _invalid("custom_fields", "object")
    for code, value in values.items():
        field = FIELDS[object].get(code)
        if field is None or not field.custom:
            raise _invalid(f"custom_fields.{code}", "no such field", field=code)
        if value is not None and not _fits_field(value, field):
            raise _invalid(f"custom_fields.{code}", field.type, field=code)


def _fits_field(value: Any, field: Field) -> bool:
    match field.type:
        case "enum":
            return _fits(value, "int") and value in field.ids
        case "set":  # an empty list clears nothing, it is refused
            return isinstance(value, list) and bool(value) and all(_fits(each, "int") and each in field.ids for each in value)
        case "double":
            return _fits(value, "num")
        case "date":
            return _fits(value, "day")
        case "monetary":
            return (
                isinstance(value, dict)
                and value.keys() == {"value", "currency"}
                and _fits(value["value"], "num")
                and value["currency"] in CURRENCIES
            )
        case "daterange":
            return (
                isinstance(value, dict)
                and value.keys() <= {"value", "until"}
                and all(_fits(each, "day") for each in value.values())
            )
        case "time":
            return (
                isinstance(value, dict)
                and value.keys() <= {"value", "timezone_name"}
                and all(_fits(each, "str") for each in value.values())
            )
        case _:
            return isinstance(value, str)


def _fits(value: Any, shape: str) -> bool:
    if value is None:
        return shape.endswith("?")
    match shape.removesuffix("?"):
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "num":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "day":
            return isinstance(value, str) and _DAY.fullmatch(value) is not None
        case "object":
            return isinstance(value, dict)
        case "labels":
            return isinstance(value, list) and all(_fits(each, "int") for each in value)
        case _:  # values: e-mail addresses and phone numbers
            return isinstance(value, list) and all(_fits_value(each) for each in value)


def _fits_value(each: Any) -> bool:
    return (
        isinstance(each, dict) and isinstance(each.get("value"), str) and each.keys() <= {"value", "primary", "label"}
        and isinstance(each.get("primary", False), bool) and isinstance(each.get("label", ""), str)
    )  # fmt: skip


def _invalid(name: str, wanted: str, *, field: str | None = None) -> Refused:
    return Refused(400, f"Validation failed: {name}: {wanted}", code="ERR_SCHEMA_VALIDATION_FAILED", field=field)
