"""Federation's `_entities`: answered in the order asked, batched per key, capped; a bad one fails alone."""

from collections.abc import Mapping
from typing import Any

from model.errors import InvalidRequestError
from resolvers import lookup
from resolvers.context import Context, Terms
from resolvers.people import Customer
from schema.fields import Information, level
from schema.inputs import RecordRefInput, ref_of
from schema.selection import KINDS, needed

MAX_ENTITIES = 500


def entities(info: Information, representations: list[Any], *, email_key: bool) -> list[Any]:
    """Return one awaitable or error per representation.

    Raises:
        InvalidRequestError: more than 500.
    """
    if len(representations) > MAX_ENTITIES:
        raise InvalidRequestError(f"`_entities` takes at most {MAX_ENTITIES} representations, not {len(representations)}")
    return [_entity(info, each, email_key=email_key) for each in representations]


def _entity(info: Information, representation: object, *, email_key: bool) -> Any:
    if not isinstance(representation, Mapping) or not isinstance(name := representation.get("__typename"), str):
        return InvalidRequestError("a representation is an object with `__typename`")
    if name != "Customer" and name not in KINDS:
        return InvalidRequestError("there is no entity of that `__typename` here")
    try:
        if isinstance(id := representation.get("id"), str):
            return _by_id(info, name, id)
        if isinstance(ref := representation.get("ref"), Mapping) and name in KINDS:
            found = ref_of(
                RecordRefInput(source_id=ref["sourceId"], object=ref["object"], record_id=ref["recordId"]), info.context
            )
            return _by_id(info, name, found.id)
        if email_key and name == "Customer" and isinstance(email := representation.get("primaryEmail"), str):
            return _by_email(info, email)
    except (KeyError, InvalidRequestError) as error:
        return error if isinstance(error, InvalidRequestError) else InvalidRequestError(f"`ref` needs {error}")
    return InvalidRequestError(f"{name} cannot be found by these keys")


async def _by_id(info: Information, name: str, id: str) -> Any:
    if id.partition(":")[0] != ("customer" if name == "Customer" else KINDS[name]):
        return None
    kept = info.context.loaders.setdefault(("node id", id), id)
    return await level(info, _records, kept, fields=needed(info))


async def _records(ids: Any, *, context: Context, fields: Any) -> Any:
    return await lookup.records(ids, context, fields)


async def _by_email(info: Information, email: str) -> Customer | None:
    kept = info.context.loaders.setdefault(("email", email), email)
    found: Customer | None = await level(info, _customers, kept, fields=needed(info))
    return found


async def _customers(emails: Any, *, context: Context, fields: Any) -> Any:
    return await lookup.customers_by_email(emails, Terms(), context, fields)
