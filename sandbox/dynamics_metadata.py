"""What the environment says about itself: the CSDL of `$metadata` and the JSON of `EntityDefinitions`.

After the Web API's pages on metadata and the hand-made sample of a service document.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from sandbox.dynamics_tables import SCHEMAS, Column, Schema
from sandbox.table import Row

_EDM = {
    "string": "Edm.String", "memo": "Edm.String", "multi": "Edm.String", "int": "Edm.Int32", "option": "Edm.Int32", "state": "Edm.Int32",
    "status": "Edm.Int32", "bigint": "Edm.Int64", "decimal": "Edm.Decimal", "money": "Edm.Decimal", "bool": "Edm.Boolean",
    "datetime": "Edm.DateTimeOffset", "date": "Edm.Date", "guid": "Edm.Guid", "lookup": "Edm.Guid",
}  # fmt: skip
_ATTRIBUTES = {
    "string": "String", "memo": "Memo", "multi": "Virtual", "int": "Integer", "option": "Picklist", "state": "State", "status": "Status", "bigint": "BigInt",
    "decimal": "Decimal", "money": "Money", "bool": "Boolean", "datetime": "DateTime", "date": "DateTime", "guid": "Uniqueidentifier", "lookup": "Lookup",
    "virtual": "String",
}  # fmt: skip
# The casts that attributes can be asked for by, and the columns each gives.
CASTS: Mapping[str, frozenset[str]] = {
    "PicklistAttributeMetadata": frozenset({"option"}), "MultiSelectPicklistAttributeMetadata": frozenset({"multi"}),
    "StateAttributeMetadata": frozenset({"state"}), "StatusAttributeMetadata": frozenset({"status"}), "BooleanAttributeMetadata": frozenset({"bool"}),
    "DateTimeAttributeMetadata": frozenset({"date", "datetime"}), "LookupAttributeMetadata": frozenset({"lookup"}),
}  # fmt: skip
_STATED = {"IsManaged": False, "IsIntersect": False, "IsPrivate": False, "IsActivity": False}


def csdl() -> str:
    """Return the service's description, with the lookups as navigation properties."""
    types = "".join(_entity_type(each) for each in SCHEMAS.values())
    sets = "".join(
        f'<EntitySet Name="{each.set}" EntityType="Microsoft.Dynamics.CRM.{each.logical}">{_CHANGE_TRACKING}</EntitySet>\n'
        for each in SCHEMAS.values()
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx"><edmx:DataServices>\n'
        '<Schema Namespace="Microsoft.Dynamics.CRM" Alias="mscrm" xmlns="http://docs.oasis-open.org/odata/ns/edm">\n'
        '<EntityType Name="crmbaseentity" Abstract="true" />\n'
        '<EntityType Name="principal" BaseType="mscrm.crmbaseentity"><Key><PropertyRef Name="ownerid" /></Key><Property Name="ownerid" Type="Edm.Guid" /></EntityType>\n'
        f'{types}<EntityContainer Name="System">\n{sets}</EntityContainer>\n</Schema></edmx:DataServices></edmx:Edmx>'
    )


_CHANGE_TRACKING = '<Annotation Term="Org.OData.Capabilities.V1.ChangeTracking"><Record><PropertyValue Property="Supported" Bool="true" /></Record></Annotation>'


def _entity_type(schema: Schema) -> str:
    lines = [f'<EntityType Name="{schema.logical}" BaseType="mscrm.crmbaseentity"><Key><PropertyRef Name="{schema.id}" /></Key>']
    for name, column in schema.columns.items():
        if column.virtual:
            continue
        computed = "" if column.settable else '<Annotation Term="Org.OData.Core.V1.Computed" Bool="true" />'
        lines.append(f'  <Property Name="{schema.stored(name)}" Type="{_EDM[column.type]}">{computed}</Property>')
    for name, column in schema.columns.items():
        for table, navigation in column.targets.items():
            key = "ownerid" if name == "ownerid" else SCHEMAS[table].id
            target = "principal" if name == "ownerid" else table
            lines.append(
                f'  <NavigationProperty Name={quoteattr(navigation)} Type="mscrm.{target}">'
                f'<ReferentialConstraint Property="{schema.stored(name)}" ReferencedProperty="{key}" /></NavigationProperty>'
            )
    lines += [
        f'  <NavigationProperty Name="{navigation}" Type="Collection(mscrm.{table})" />'
        for navigation, (table, _) in schema.collections.items()
    ]
    return "\n".join([*lines, "</EntityType>\n"])


def definition(schema: Schema) -> Row:
    """Return a table's definition without its attributes."""
    return {
        "MetadataId": _metadata_id(schema.logical, ""), "LogicalName": schema.logical, "SchemaName": schema.label if not schema.custom else schema.logical,
        "EntitySetName": schema.set, "PrimaryIdAttribute": schema.id, "PrimaryNameAttribute": schema.name, "ObjectTypeCode": schema.code,
        "IsCustomEntity": schema.custom, "ChangeTrackingEnabled": True, "DisplayName": _label(schema.label), **_STATED,
    }  # fmt: skip


def attributes(schema: Schema, cast: str | None = None) -> list[Row]:
    """Return the definitions of a table's columns; with a cast only those of that type, with their options."""
    chosen = ((name, each) for name, each in schema.columns.items() if cast is None or each.type in CASTS[cast])
    return [_attribute(schema, name, each, cast) for name, each in chosen]


def _attribute(schema: Schema, name: str, column: Column, cast: str | None) -> Row:
    custom = name.startswith("new_") and name != schema.id
    row: Row = {
        "MetadataId": _metadata_id(schema.logical, name), "LogicalName": name, "SchemaName": column.schema or name, "EntityLogicalName": schema.logical,
        "AttributeType": "Owner" if name == "ownerid" else "Customer" if len(column.targets) == 2 else _ATTRIBUTES[column.type],
        "AttributeTypeName": {"Value": f"{'MultiSelectPicklist' if column.type == 'multi' else _ATTRIBUTES[column.type]}Type"},
        "AttributeOf": name.removesuffix("name") if column.virtual else None, "IsCustomAttribute": custom, "DisplayName": _label(column.label),
        "IsValidForRead": True, "IsValidForCreate": column.settable and not column.virtual,
        "IsValidForUpdate": column.settable and not column.virtual and name != schema.id, "RequiredLevel": {"Value": "None"},
    }  # fmt: skip
    if cast is None:
        return row
    if column.type in {"option", "multi", "state", "status"}:
        options = [
            {"Value": value, "Label": _label(label), **({"State": column.states[value]} if column.type == "status" else {})}
            for value, label in column.options.items()
        ]
        row |= {"OptionSet": {"Name": f"{schema.logical}_{name}", "IsGlobal": False, "Options": options}, "GlobalOptionSet": None}
    elif column.type == "bool":
        row |= {
            "OptionSet": {"TrueOption": {"Value": 1, "Label": _label("Yes")}, "FalseOption": {"Value": 0, "Label": _label("No")}}
        }
    elif column.type in {"date", "datetime"}:
        row |= {"Format": "DateOnly" if column.type == "date" else "DateAndTime"}
    elif column.type == "lookup":
        row |= {"Targets": list(column.targets)}
    return row


def cut(row: Mapping[str, Any], select: Iterable[str] | None, keep: Iterable[str] = ()) -> Row:
    """Return what was selected of a definition; its id always comes."""
    if select is None:
        return dict(row)
    return {name: value for name, value in row.items() if name in {"MetadataId", *select, *keep}}


def _label(text: str) -> Row:
    said = {"Label": text, "LanguageCode": 1033, "IsManaged": True}
    return {"LocalizedLabels": [said], "UserLocalizedLabel": said}


def _metadata_id(table: str, column: str) -> str:
    digits = f"{table}.{column}".encode().hex()[:32].ljust(32, "0")
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
