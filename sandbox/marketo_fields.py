"""The fields of a Marketo lead: their metadata in three spellings, and what values they take."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sandbox.table import Row

_DATE = re.compile(r"\d{4}-\d\d-\d\d")


class Field(NamedTuple):
    label: str
    type: str
    length: int | None = None
    custom: bool = False
    updateable: bool = True
    searchable: bool = False


FIELDS: Mapping[str, Field] = {
    "id": Field("Id", "integer", updateable=False, searchable=True),
    "email": Field("Email Address", "email", 255, searchable=True),
    "firstName": Field("First Name", "string", 255), "lastName": Field("Last Name", "string", 255),
    "phone": Field("Phone Number", "phone", 255), "mobilePhone": Field("Mobile Phone Number", "phone", 255),
    "title": Field("Job Title", "string", 255), "country": Field("Country", "string", 255),
    "company": Field("Company Name", "string", 255, updateable=False),
    "unsubscribed": Field("Unsubscribed", "boolean"), "leadScore": Field("Lead Score", "score"),
    "leadPartitionId": Field("Lead Partition Id", "integer", updateable=False, searchable=True),
    "createdAt": Field("Created At", "datetime", updateable=False), "updatedAt": Field("Updated At", "datetime", updateable=False),
    "favoriteColor": Field("Favorite Color", "string", 255, custom=True, searchable=True),
    "visitCount": Field("Visit Count", "integer", custom=True, searchable=True),
    "memberSince": Field("Member Since", "date", custom=True),
}  # fmt: skip
DEFAULTS = ("id", "email", "updatedAt", "createdAt", "firstName", "lastName")


def stored(name: str, value: Any) -> Any:
    """Return a value as the field keeps it; null and "" are the same.

    Raises:
        ValueError: it is of another type.
    """
    if value is None or value == "":
        return None
    match FIELDS[name].type:
        case "integer" | "score":
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        case "boolean":
            if str(value).lower() not in {"true", "false", "1", "0"}:
                raise ValueError
            return str(value).lower() in {"true", "1"}
        case "date":
            if not _DATE.fullmatch(str(value)):
                raise ValueError
        case "email":
            if not str(value).isascii():
                raise ValueError
    if not isinstance(value, str | int | float):
        raise ValueError
    return str(value)


def described() -> list[Row]:
    return [
        {
            "id": number, "displayName": each.label, "dataType": each.type, **({"length": each.length} if each.length else {}),
            "rest": {"name": name, "readOnly": not each.updateable}, "soap": {"name": each.label.replace(" ", ""), "readOnly": not each.updateable},
        }
        for number, (name, each) in enumerate(FIELDS.items(), 1)
    ]  # fmt: skip


def described_anew() -> list[Row]:
    fields = [
        {
            "name": name, "displayName": each.label, "dataType": each.type, **({"length": each.length} if each.length else {}),
            "updateable": each.updateable, "crmManaged": False,
        }
        for name, each in FIELDS.items()
    ]  # fmt: skip
    return [
        {"name": "API Lead", "searchableFields": [[name] for name, each in FIELDS.items() if each.searchable], "fields": fields}
    ]


def schema() -> list[Row]:
    return [
        {
            "displayName": each.label, "name": name, "description": None, "dataType": each.type, **({"length": each.length} if each.length else {}),
            "isHidden": False, "isHtmlEncodingInEmail": each.type == "string", "isSensitive": False, "isCustom": each.custom, "isApiCreated": False,
        }
        for name, each in FIELDS.items()
    ]  # fmt: skip


ACTIVITY_TYPES: Mapping[int, tuple[str, str]] = {
    1: ("Visit Webpage", "Webpage ID"), 2: ("Fill Out Form", "Webform ID"), 3: ("Click Link", "Link ID"), 6: ("Send Email", "Mailing ID"),
    7: ("Email Delivered", "Mailing ID"), 8: ("Email Bounced", "Mailing ID"), 9: ("Unsubscribe Email", "Mailing ID"),
    10: ("Open Email", "Mailing ID"), 11: ("Click Email", "Mailing ID"), 12: ("New Lead", "Source Type"),
    13: ("Change Data Value", "Attribute Name"), 22: ("Change Score", "Score Name"), 24: ("Add to List", "List ID"),
    27: ("Email Bounced Soft", "Mailing ID"), 32: ("Merge Leads", "Lead ID"), 37: ("Delete Lead", "Lead ID"), 46: ("Interesting Moment", "Type"),
    100001: ("Attend Conference", "Conference Name"),
}  # fmt: skip


def activity_types() -> list[Row]:
    return [
        {
            "id": id, "name": name, "description": name, "primaryAttribute": {"name": primary, "dataType": "string"},
            "attributes": [{"name": "Campaign Run ID", "dataType": "integer"}],
        }
        for id, (name, primary) in ACTIVITY_TYPES.items()
    ]  # fmt: skip
