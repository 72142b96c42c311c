"""The merged list, against a model: whatever fails on the way, joined pages are the sorted union."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.base import Position
from model.errors import SourceError, UnavailableError
from resolvers.cursors import Mark, Signer
from resolvers.merge import Chunk, Merge, Stream

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Row = tuple[Position, str]


def place(second: int, native_id: int) -> Position:
    return Position.of(EPOCH + timedelta(seconds=second), str(native_id))


def source(rows: list[Row], *, size: int, descending: bool, fails: "random.Random | None" = None, rate: float = 0.25):  # type: ignore[no-untyped-def]
    """A system that answers pages in order, with tie groups kept whole, and fails when the dice say so."""
    ordered = sorted(rows, reverse=descending)

    async def fetch(after: Position | None) -> Chunk[str] | SourceError:
        if fails is not None and fails.random() < rate:
            return UnavailableError("out of order")
        left = [row for row in ordered if after is None or (row[0] < after if descending else row[0] > after)]
        page = left[:size]
        return Chunk(page, len(page) == len(left))

    return fetch


def streams(data: list[list[Row]], *, size: int, descending: bool, fails: "random.Random | None" = None) -> list[Stream[str]]:
    return [Stream(f"s{n}", n, source(rows, size=size, descending=descending, fails=fails)) for n, rows in enumerate(data)]


sources_of_rows = st.lists(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 120)), max_size=30, unique_by=lambda pair: pair[1]),
    min_size=1,
    max_size=5,
)


async def joined(
    data: list[list[Row]], *, first: int, size: int, descending: bool, fails: "random.Random | None" = None
) -> tuple[list[tuple[str, str]], bool]:
    """Walk all pages through sealed cursors; return the rows and whether any page had a failure."""
    signer = Signer(b"secret")
    mark: Mark | None = None
    found: list[tuple[str, str]] = []
    failed = False
    for _ in range(2000):
        merge = Merge(
            streams(data, size=size, descending=descending, fails=fails), mark=mark, as_of=EPOCH + timedelta(days=1),
            descending=descending, bounded=True,
        )  # fmt: skip
        found += [(taken.stream.name, taken.place.native_id) for taken in await merge.take(first)]
        failed = failed or any(stream.failure for stream in merge.streams.values())
        if not merge.more:
            return found, failed
        mark = signer.open(signer.seal(merge.mark(), workspace="w", query="q"), Mark, workspace="w", query="q")
    raise AssertionError("the list never ended")


@given(data=sources_of_rows, first=st.integers(1, 9), size=st.integers(1, 12), descending=st.booleans())
def test_joined_pages_are_the_sorted_union(data, first, size, descending) -> None:  # type: ignore[no-untyped-def]
    import anyio

    rows = [[(place(at, id), str(id)) for at, id in part] for part in data]
    expected = sorted(
        ((spot.at, n, spot.id_length, spot.native_id) for n, part in enumerate(rows) for spot, _ in part), reverse=descending
    )

    found, _ = anyio.run(lambda: joined(rows, first=first, size=size, descending=descending))

    assert found == [(f"s{n}", id) for _, n, _, id in expected]


@given(
    data=sources_of_rows, first=st.integers(1, 9), size=st.integers(1, 12), seed=st.integers(0, 2**32), descending=st.booleans()
)
def test_failures_lose_and_double_nothing(data, first, size, seed, descending) -> None:  # type: ignore[no-untyped-def]
    import anyio

    rows = [[(place(at, id), str(id)) for at, id in part] for part in data]
    expected = sorted((f"s{n}", spot.native_id) for n, part in enumerate(rows) for spot, _ in part)

    found, _ = anyio.run(lambda: joined(rows, first=first, size=size, descending=descending, fails=random.Random(seed)))

    assert sorted(found) == expected


async def test_rows_younger_than_the_first_page_belong_to_no_page() -> None:
    rows = [(place(second, second), "") for second in (1, 2, 3)]
    merge = Merge(
        streams([rows], size=10, descending=False), mark=None, as_of=EPOCH + timedelta(seconds=2), descending=False, bounded=True
    )

    taken = await merge.take(10)

    assert [each.place.native_id for each in taken] == ["1", "2"]
    assert not merge.more


async def test_a_resumed_list_takes_the_half_used_page_again_and_skips_what_was_taken() -> None:
    asked: list[Position | None] = []
    rows = [(place(second, second), "") for second in range(6)]
    inner = source(rows, size=4, descending=False)

    async def fetch(after: Position | None) -> Chunk[str] | SourceError:
        asked.append(after)
        return await inner(after)

    first = Merge([Stream("s0", 0, fetch)], mark=None, as_of=EPOCH + timedelta(days=1), descending=False, bounded=True)
    await first.take(2)
    second = Merge([Stream("s0", 0, fetch)], mark=first.mark(), as_of=EPOCH, descending=False, bounded=True)

    taken = await second.take(2)

    assert [each.place.native_id for each in taken] == ["2", "3"]
    assert asked == [None, None]  # the same page: the page cache answers the second time


async def test_late_rows_are_counted_where_a_source_had_failed() -> None:
    early = [(place(1, 1), "")]
    late = [(place(2, 2), "")]
    down = UnavailableError("down")

    async def failing(_: Position | None) -> Chunk[str] | SourceError:
        return down

    first = Merge(
        [Stream("a", 0, failing), Stream("b", 1, source(late, size=5, descending=False))],
        mark=None, as_of=EPOCH + timedelta(days=1), descending=False, bounded=True,
    )  # fmt: skip
    await first.take(5)
    second = Merge(
        [Stream("a", 0, source(early, size=5, descending=False)), Stream("b", 1, source(late, size=5, descending=False))],
        mark=first.mark(), as_of=EPOCH, descending=False, bounded=True,
    )  # fmt: skip

    taken = await second.take(5)

    assert [each.place.native_id for each in taken] == ["1"]
    assert second.streams["a"].late == 1


@pytest.mark.parametrize("spoiled", ["", "x", "AAAA", "é", "1" * 400])
def test_a_forged_cursor_is_refused(spoiled: str) -> None:
    from model.errors import InvalidRequestError

    with pytest.raises(InvalidRequestError):
        Signer(b"secret").open(spoiled, Mark, workspace="w", query="q")


@pytest.mark.parametrize(("workspace", "query"), [("other", "q"), ("w", "other")])
def test_a_cursor_is_good_for_its_own_list_and_workspace_only(workspace: str, query: str) -> None:
    from model.errors import InvalidRequestError

    signer = Signer(b"secret")
    cursor = signer.seal(Mark(as_of=EPOCH, streams={}), workspace="w", query="q")

    with pytest.raises(InvalidRequestError):
        signer.open(cursor, Mark, workspace=workspace, query=query)
