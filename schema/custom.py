"""Custom objects."""

import strawberry
from strawberry import ID, Parent

from model import records
from resolvers import connections, custom
from schema.fields import Information, resolved, shows
from schema.filters import CustomFieldFilter, conditions_of
from schema.selection import custom_keys
from schema.sources import ObjectType
from schema.types import Connection, CustomField, Node, RecordRef, customs_of


def _ref(root: Parent[records.CustomRecord]) -> records.CustomRecord:
    return root


def _id(root: Parent[records.CustomRecord]) -> str:
    return root.id


def _meta(root: Parent[records.CustomRecord]) -> records.ObjectType:
    return root.meta


async def _values(root: Parent[records.CustomRecord], info: Information, keys: list[str] | None = None) -> list[CustomField]:
    return await customs_of(root, keys, info.context)


@strawberry.type(description="A record of an object that only this account has.")
class CustomRecord(Node):
    is_type_of = shows(records.CustomRecord)

    id: ID = resolved(by=_id)
    ref: RecordRef = resolved(by=_ref)
    object_type: ObjectType = resolved(by=_meta)
    fields: list[CustomField] = resolved(by=_values)


async def custom_records(
    info: Information, object: str, source: ID, first: int, after: str | None = None, where: list[CustomFieldFilter] | None = None
) -> connections.Connection[records.CustomRecord]:
    return await custom.page(object, source, first, after, conditions_of(where), custom_keys(info), info.context)


CustomRecords = Connection[CustomRecord]
