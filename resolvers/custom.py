"""Custom objects: pages of one object of one source, and single records by id."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec import Struct

from model.errors import NotFoundError, UnsupportedError
from model.records import CustomRecord, ObjectType
from resolvers import filters
from resolvers.connections import Connection, check_first
from resolvers.context import Context, Terms
from resolvers.fanout import Fanout
from resolvers.filters import Condition
from sources.reading import Answer, Reading
from sources.source import Source

PAGES = 10  # pages that a filtered list looks through before it answers with what it has
PREFIX = "custom:"


class Mark(Struct, frozen=True):
    """Where a list stands: the token of the page at hand, how many of its rows have been looked at, and how many it has at most."""

    token: str | None
    offset: int
    size: int


async def page(
    object: str,
    source_id: str,
    first: int,
    after: str | None,
    where: Sequence[Condition],
    keys: Sequence[str] | None,
    context: Context,
) -> Connection[CustomRecord]:
    """Return a page of a custom object's records, in the system's own order.

    Args:
        keys: of the fields selected, None for all.

    Raises:
        NotFoundError: there is no such source or object.
        SourceError: the source failed: there is no other one that could answer.
    """
    check_first(first)
    source = context.source(source_id)
    if source is None:
        raise NotFoundError(f"there is no source {source_id!r}")
    query = ("custom", source_id, object, tuple(where))
    mark = context.signer.open(after, Mark, workspace=context.workspace, query=query) if after else Mark(None, 0, first)
    fanout = Fanout(context, Terms(sources=(source_id,)))
    wanted = None if keys is None else list(dict.fromkeys([*keys, *(each.key for each in where)]))

    async def walk(reading: Reading) -> Answer[tuple[list[tuple[CustomRecord, Mark]], Mark | None]]:
        meta = await _object(source, object, reading)
        found: list[tuple[CustomRecord, Mark]] = []
        at = mark
        for _ in range(PAGES):
            rows, following = await source.scan_custom(meta, after=at.token, size=at.size, keys=wanted, reading=reading)
            for nth, record in enumerate(rows[at.offset :], start=at.offset + 1):
                here = Mark(at.token, nth, at.size)
                if await filters.matches(source, record, where, reading):
                    found.append((record, here))
                if len(found) == first:
                    last = nth == len(rows)
                    return _answer(found, None if last and following is None else Mark(following, 0, first) if last else here)
            if following is None:
                return _answer(found, None)
            at = Mark(following, 0, first)
        return _answer(found, at)

    answers, errors = await fanout.ask({0: (source, walk)})
    if errors:
        raise errors[0]
    found, rest = answers[0]

    def cursor(at: int) -> str:
        return context.signer.seal(found[at][1], workspace=context.workspace, query=query)

    return Connection(
        nodes=[record for record, _ in found], cursor=cursor, more=rest is not None, statuses=list(fanout.statuses.values()),
        end=context.signer.seal(rest, workspace=context.workspace, query=query) if rest else cursor(len(found) - 1) if found else None,
    )  # fmt: skip


async def by_ids(ids: Sequence[str], context: Context) -> Mapping[str, CustomRecord | Exception | None]:
    """Return the records that these graph ids name, by id: None for what does not exist."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for id in ids:
        source_id, _, rest = id.removeprefix(PREFIX).partition(":")
        object, _, native_id = rest.rpartition("/")
        if object and native_id and context.source(source_id) is not None:
            grouped.setdefault((source_id, object), []).append(native_id)
    fanout = Fanout(context, Terms())
    calls = {
        (source_id, object): (source, _reading(source, object, native_ids))
        for (source_id, object), native_ids in grouped.items()
        if (source := context.source(source_id)) is not None
    }
    answers, errors = await fanout.ask(calls)
    found: dict[str, CustomRecord | Exception | None] = dict.fromkeys(ids)
    for (source_id, object), native_ids in grouped.items():
        for at, native_id in enumerate(native_ids):
            error = errors.get((source_id, object))
            found[f"{PREFIX}{source_id}:{object}/{native_id}"] = (
                answers[source_id, object][at] if error is None else None if isinstance(error, UnsupportedError) else error
            )
    return found


def _reading(
    source: Source, object: str, native_ids: Sequence[str]
) -> Callable[[Reading], Awaitable[Answer[list[CustomRecord | None]]]]:
    async def read(reading: Reading) -> Answer[list[CustomRecord | None]]:
        meta = await source.object_named(object, reading)
        records = await source.read_custom(meta, native_ids, None, reading) if meta else [None] * len(native_ids)
        return Answer(value=list(records), state="OK", fetched_at=None)

    return read


async def _object(source: Source, name: str, reading: Reading) -> ObjectType:
    found = await source.object_named(name, reading)
    if found is None:
        names = ", ".join(each.name for each in await source.objects(reading))
        raise UnsupportedError(f"the source has no custom object {name!r}; it has: {names or 'none'}")
    return found


def _answer(
    found: list[tuple[CustomRecord, Mark]], rest: Mark | None
) -> Answer[tuple[list[tuple[CustomRecord, Mark]], Mark | None]]:
    return Answer(value=(found, rest), state="OK", fetched_at=found[0][0].fetched_at if found else None)
