"""What HubSpot accepts as a property's value, and how it keeps it: everything is text in the end."""

import re
from collections.abc import Mapping

import orjson
import phonenumbers

from model.keys import normal_phone
from sandbox.hubspot_answers import Refusal, iso, millis
from sandbox.hubspot_properties import OPTIONS, PIPELINES, PROPERTIES, READ_ONLY, REQUIRED
from sandbox.table import Row

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}", re.IGNORECASE)


def checked(kind: str, given: Mapping[str, str | bool | None], *, before: Row | None) -> Row:
    """Return the properties to keep, spelled as HubSpot spells them.

    Args:
        before: the record's properties so far, None for a new one.

    Raises:
        Refusal: 400, with every property that is wrong.
    """
    faults = []
    kept: Row = {}
    for name, value in given.items():
        try:
            kept[name] = _value(kind, name, value)
        except _Fault as fault:
            faults.append({"isValid": False, "message": fault.message, "error": fault.code, "name": name})
    if faults:
        details = [
            {"message": each["message"], "code": each["error"], "context": {"propertyName": [each["name"]]}} for each in faults
        ]
        raise Refusal(400, "VALIDATION_ERROR", f"Property values were not valid: {orjson.dumps(faults).decode()}", errors=details)
    after = {**(before or {}), **kept}
    missing = [name for name in REQUIRED.get(kind, ()) if not after.get(name)]
    if missing:
        details = [
            {"message": f"{kind} need these properties", "code": "REQUIRED_FIELDS_MISSING", "context": {"properties": missing}}
        ]
        raise Refusal(
            400, "VALIDATION_ERROR", f"Error creating {kind.upper()}. Some required properties were not set.", errors=details
        )
    return kept | _calculated(kind, after, kept)


class _Fault(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code, self.message = code, message


def _value(kind: str, name: str, given: str | bool | None) -> str | None:
    if name not in PROPERTIES[kind]:
        raise _Fault("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
    if name in READ_ONLY:
        raise _Fault("READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
    text = {True: "true", False: "false"}[given] if isinstance(given, bool) else given
    if text is None or text == "":
        return None  # an empty text clears a property
    type = PROPERTIES[kind][name][0]
    if name == "email":
        if not _EMAIL.fullmatch(text.strip()):
            raise _Fault("INVALID_EMAIL", f"Email address {text} is invalid")
        return text.strip().lower()
    if type == "number":
        try:
            float(text)
        except ValueError:
            raise _Fault("INVALID_NUMBER", f"{text} was not a valid number.") from None
    elif type in {"date", "datetime"}:
        try:
            moment = iso(millis(text))
        except ValueError:
            raise _Fault("INVALID_DATE", f"{text} was not a valid {type}.") from None
        return moment if type == "datetime" else moment[:10]
    elif type == "bool" and text not in {"true", "false"}:
        raise _Fault("INVALID_BOOLEAN", f"{text} was not a valid boolean.")
    elif type == "enumeration" and name in OPTIONS and text not in {value for value, _ in OPTIONS[name]}:
        raise _Fault("INVALID_OPTION", f"{text} was not one of the allowed options: {[value for value, _ in OPTIONS[name]]}")
    return text


def _calculated(kind: str, after: Row, kept: Row) -> Row:
    """Return what follows from the values: the searchable phone number, a deal's pipeline and probability."""
    if kind == "contacts" and "phone" in kept:
        return {"hs_searchable_calculated_phone_number": searchable(after["phone"])}
    if kind == "tickets":
        return {"hs_pipeline": after.get("hs_pipeline") or "0"}
    if kind != "deals" or not {"dealstage", "pipeline"} & kept.keys():
        return {}
    pipeline = after.get("pipeline") or "default"
    stage = next((each for each in PIPELINES[pipeline][1] if each[0] == after["dealstage"]), None)
    if stage is None:
        detail = {"message": "no such stage", "code": "INVALID_OPTION", "context": {"propertyName": ["dealstage"]}}
        message = f"{after['dealstage']} is not a valid stage of pipeline {pipeline}"
        raise Refusal(400, "VALIDATION_ERROR", message, errors=[detail])
    return {"pipeline": pipeline, "hs_deal_stage_probability": stage[2]}


def searchable(phone: str | None) -> str | None:
    """Return area code and local number only, as HubSpot's calculated property holds them."""
    normal = normal_phone(phone, "US") if phone else None
    return str(phonenumbers.parse(normal, None).national_number) if normal else None
