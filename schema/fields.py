"""How a field of a type is tied to a level function of `resolvers/`."""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any

import strawberry
from aiodataloader import DataLoader
from strawberry.types import Info

from resolvers.context import Context

Information = Info[Context, None]


def resolved(by: Callable[..., Any], **options: Any) -> Any:
    """Return a field filled by `by`; the annotation it is assigned to is its GraphQL type, whatever `by` returns."""
    return strawberry.field(resolver=by, **options)


def level(
    info: Information, function: Callable[..., Awaitable[Sequence[Any]]], parent: object, *arguments: Hashable, **named: Hashable
) -> Awaitable[Any]:
    """Return `parent`'s result of a level function, called once for all parents that ask with the same arguments.

    The function gets (*arguments, parents, **named) and answers one result per parent, in order; an exception in a
    place is the error of that parent alone.
    """
    context = info.context
    key = (function, arguments, tuple(sorted(named.items(), key=lambda pair: pair[0])))
    loader = context.loaders.get(key)
    if loader is None:

        async def batch(parents: list[Any]) -> list[Any]:
            return list(await partial(function, *arguments)(parents, context=context, **named))

        # Records hold rows and cannot be hashed; within one request each parent is one object.
        loader = context.loaders[key] = DataLoader(batch_load_fn=batch, get_cache_key=id)
    answer: Awaitable[Any] = loader.load(parent)
    return answer


def shows(*records: type) -> Callable[[object, Any], bool]:
    """Return the `is_type_of` of a GraphQL type that shows these records; unions and interfaces need it."""
    return lambda value, _info: isinstance(value, records)
