"""What a Dataverse environment says of its tables: columns, options, statuses, currencies, and tables of its own."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from adapters.base import Api, Request
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row, Stage, StageCategory

HEADERS = {"Accept": "application/json", "OData-MaxVersion": "4.0", "OData-Version": "4.0"}
COST = {"execution": 0.1}  # seconds of the server's work, until its headers tell better
LOGICAL = {
    "contacts": "contact", "accounts": "account", "leads": "lead", "opportunities": "opportunity", "systemusers": "systemuser",
}  # fmt: skip
CURRENCY = "transactioncurrencyid"
_TYPES: Mapping[str, FieldType] = {
    "Boolean": "BOOLEAN", "Integer": "NUMBER", "BigInt": "NUMBER", "Decimal": "NUMBER", "Double": "NUMBER", "Money": "MONEY", "DateTime": "DATETIME",
    "Picklist": "PICKLIST", "State": "PICKLIST", "Status": "PICKLIST", "Lookup": "REFERENCE", "Customer": "REFERENCE", "Owner": "REFERENCE",
}  # fmt: skip
_LOOKUPS = frozenset({"Lookup", "Customer", "Owner"})
_SELECT = "LogicalName,AttributeType,AttributeTypeName,AttributeOf,DisplayName,IsCustomAttribute,IsValidForRead,IsValidForUpdate"
_CATEGORIES: Mapping[int, StageCategory] = {0: "OPEN", 1: "WON", 2: "LOST"}
_PROBABILITIES = {"WON": 1.0, "LOST": 0.0}


async def describe(api: Api, root: str, kind: Kind, name: str) -> ObjectType:
    """Return a table's columns by logical name; a deal's statuses as its stages, an amount's currencies as options."""
    fields, statuses = await _columns(api, root, f"{kind}.describe", LOGICAL[name])
    if CURRENCY in fields:
        rows = await _values(api, f"{kind}.describe", f"{root}/transactioncurrencies", {"$select": "isocurrencycode"})
        options = {str(row[CURRENCY]): str(row["isocurrencycode"]) for row in rows}
        fields[CURRENCY] = _lookup(CURRENCY, fields[CURRENCY].label, options)
    return ObjectType(name=name, fields=fields, id_path=f"{LOGICAL[name]}id", stages=_stages(statuses) if kind == "deal" else {})


async def custom_objects(api: Api, root: str) -> list[ObjectType]:
    said = {
        "$select": "LogicalName,EntitySetName,PrimaryIdAttribute,DisplayName", "$filter": "IsCustomEntity eq true and IsIntersect eq false and IsPrivate eq false",
    }  # fmt: skip
    tables = await _values(api, "custom.describe", f"{root}/EntityDefinitions", said)
    columns = await asyncio.gather(*(_columns(api, root, "custom.describe", each["LogicalName"]) for each in tables))
    return [
        ObjectType(
            name=each["EntitySetName"], label=_label(each["DisplayName"]), custom=True, id_path=each["PrimaryIdAttribute"], fields=fields,
        )
        for each, (fields, _) in zip(tables, columns, strict=True)
        if each["EntitySetName"]
    ]  # fmt: skip


def with_lists(rows: Iterable[Row], meta: ObjectType) -> list[Row]:
    """Return rows with a list where a column of several options has "1,3"."""
    several = [each.path for each in meta.fields.values() if each.type == "MULTI_PICKLIST"]
    found = list(rows)
    for row in found:
        for path in several:
            if isinstance(value := row.get(path), str):
                row[path] = value.split(",")
    return found


async def _columns(api: Api, root: str, operation: str, table: str) -> tuple[dict[str, FieldMeta], list[Row]]:
    """Return the columns that can be read, and the options of the status column."""
    path = f"{root}/EntityDefinitions(LogicalName='{table}')/Attributes"

    async def cast(name: str, more: Mapping[str, str]) -> dict[str, Row]:
        rows = await _values(api, operation, f"{path}/Microsoft.Dynamics.CRM.{name}", more)
        return {row["LogicalName"]: row for row in rows}

    options = {"$select": "LogicalName", "$expand": "OptionSet,GlobalOptionSet"}
    own = {"$select": "LogicalName", "$expand": "OptionSet"}
    every, *option_sets, dates = await asyncio.gather(
        _values(api, operation, path, {"$select": _SELECT}),
        cast("PicklistAttributeMetadata", options), cast("MultiSelectPicklistAttributeMetadata", options), cast("StatusAttributeMetadata", own),
        cast("StateAttributeMetadata", own), cast("DateTimeAttributeMetadata", {"$select": "LogicalName,Format"}),
    )  # fmt: skip
    labels = {
        name: {str(each["Value"]): _label(each["Label"]) or str(each["Value"]) for each in _options(row)}
        for part in option_sets
        for name, row in part.items()
    }
    fields = {each["LogicalName"]: _field(each, labels, dates) for each in every if _readable(each)}
    return fields, [option for row in option_sets[2].values() for option in _options(row)]


def _readable(each: Row) -> bool:
    """Names of lookups and other companions of a column are told of, and are none of a row's."""
    several = (each.get("AttributeTypeName") or {}).get("Value") == "MultiSelectPicklistType"
    return bool(each["IsValidForRead"]) and not each.get("AttributeOf") and (each["AttributeType"] != "Virtual" or several)


def _options(row: Row) -> list[Row]:
    found: list[Row] = ((row.get("OptionSet") or row.get("GlobalOptionSet") or {}).get("Options")) or []
    return found


def _field(each: Row, labels: Mapping[str, Mapping[str, str]], dates: Mapping[str, Row]) -> FieldMeta:
    name, said, label = each["LogicalName"], each["AttributeType"], _label(each["DisplayName"]) or each["LogicalName"]
    if said in _LOOKUPS:
        return _lookup(name, label, {}, custom=each["IsCustomAttribute"])
    type: FieldType = "MULTI_PICKLIST" if said == "Virtual" else _TYPES.get(said, "TEXT")
    if type == "DATETIME" and dates.get(name, {}).get("Format") == "DateOnly":
        type = "DATE"
    return FieldMeta(
        name=name, path=name, type=type, label=label, custom=each["IsCustomAttribute"], writable=each["IsValidForUpdate"], options=labels.get(name, {}),
    )  # fmt: skip


def _lookup(name: str, label: str | None, options: Mapping[str, str], *, custom: bool = False) -> FieldMeta:
    # What a lookup points to is written by a navigation property that the columns do not name.
    return FieldMeta(
        name=name, path=f"_{name}_value", type="REFERENCE", label=label, custom=custom, writable=False, options=options,
    )  # fmt: skip


def _stages(statuses: Iterable[Row]) -> dict[str, Stage]:
    found = {}
    for each in statuses:
        value, category = str(each["Value"]), _CATEGORIES.get(each["State"], "OPEN")
        found[value] = Stage(
            id=value, name=_label(each["Label"]) or value, category=category, pipeline=None, native=value,
            probability=_PROBABILITIES.get(category),
        )  # fmt: skip
    return found


def _label(said: Any) -> str | None:
    """Return a label in the language of the user, which the vendor picks."""
    found = ((said or {}).get("UserLocalizedLabel") or {}).get("Label")
    return str(found) if found else None


async def _values(api: Api, operation: str, path: str, said: Mapping[str, str]) -> list[Row]:
    request = Request(operation=operation, path=path, params=list(said.items()), headers=HEADERS, cost=COST)
    rows: list[Row] = (await api.send(request)).json()["value"]
    return rows


__all__ = ["COST", "CURRENCY", "HEADERS", "LOGICAL", "custom_objects", "describe", "with_lists"]
