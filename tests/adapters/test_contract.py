"""What every adapter promises the core, kept against its system's sandbox: the same suite for all of them.

The verbs are asked through a `Source`, so that requests, guard and mapping are the real ones.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Position, Scan
from adapters.registry import ADAPTERS
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.records import Kind
from sandbox.app import Sandbox, server
from sources.reading import Reading
from sources.source import Source
from tests.world import served, source_settings

T = TypeVar("T")
SYSTEMS = sorted(ADAPTERS)
KINDS = [(system, kind) for system in SYSTEMS for kind in ADAPTERS[system].kinds if kind not in {"owner", "marketing_event"}]
READ = [(system, kind) for system, kind in KINDS if ADAPTERS[system].kinds[kind].read_batch]
LISTED = [(system, kind) for system in SYSTEMS for kind, facts in ADAPTERS[system].kinds.items() if facts.orders]
ORDERED = [(system, kind, order) for system, kind in LISTED for order in sorted(ADAPTERS[system].kinds[kind].orders)]
CHANGED = [(system, kind) for system, kind, order in ORDERED if order == "updated"]
RELATED = [(system, of, kind) for system in SYSTEMS for of, kind in sorted(ADAPTERS[system].relations)]
FOUND = [
    (system, kind, key) for system in SYSTEMS for kind, facts in ADAPTERS[system].kinds.items() for key in sorted(facts.find)
]
_CARRIED = {"email": ["emails"], "phone": ["phones"], "domain": ["domain"]}
NOT_DESCRIBED = {("bigcommerce", "order")}  # the vendor has no metadata of them
PLAIN: dict[str, list[str]] = {
    "contact": ["email", "emails", "phone", "family_name"], "lead": ["email", "emails", "phone", "family_name"],
    "account": ["name"], "deal": ["name", "amount"], "order": ["number", "total"], "ticket": ["subject", "status"],
    "marketing_event": ["event", "raw_kind", "at"],
}  # fmt: skip

NOBODY = {"email": "nobody@example.invalid", "phone": "+15550000000", "domain": "nobody.invalid"}


@dataclass(frozen=True, slots=True)
class Vendors:
    sandbox: Sandbox
    address: str
    folder: Path

    def run(self, system: str, work: Callable[[Source], Awaitable[T]]) -> T:
        """Run `work(source)` with a source of that system, its budgets full again."""
        self.sandbox.clock.advance(120)

        async def run() -> T:
            async with self._opened() as runtime:
                return await work(next(each for each in runtime.registry.of(WORKSPACE) if each.system == system))

        return asyncio.run(run())

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Runtime]:
        values = {"data_dir": self.folder, "sources": source_settings(self.sandbox, self.address)}
        runtime = Runtime(Settings.model_validate(values))
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()


@pytest.fixture(scope="module")
def vendors() -> Iterator[Vendors]:
    sandbox = Sandbox(people=110)
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Vendors(sandbox, address, Path(folder))


def reading() -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + 60, policy="LIVE")


async def ids_of(vendors: Vendors, source: Source, kind: Kind) -> list[str]:
    """Return the ids of all live records, from the list or, where the system has none, from the sandbox's own truth."""
    if source.adapter.kinds[kind].orders:
        return [id for _, id in await walked(source, kind, sizes=[500])]
    return [str(row["id"]) for row in vendors.sandbox.dialects[source.system].tables[kind]]


async def walked(
    source: Source, kind: Kind, *, sizes: list[int], order: Any = None, descending: bool = False, **span: Any
) -> list[tuple[Position, str]]:
    """Return (place, native id) of every row, taken in pages whose sizes go round; by default in the first order there is."""
    order = order or min(source.adapter.kinds[kind].orders)
    found: list[tuple[Position, str]] = []
    after = None
    for turn in range(10_000):
        size = min(sizes[turn % len(sizes)], source.adapter.kinds[kind].page)
        scan = Scan(order=order, descending=descending, after=after, size=size, **span)
        page = (await source.scan(kind, scan, fields=PLAIN[kind], reading=reading())).value
        found += [(place, place.native_id) for place, _ in page.rows]
        if page.end:
            return found
        assert page.rows, "a page before the end is never empty"
        after = page.rows[-1][0]
    raise AssertionError("the list never ended")


@pytest.mark.parametrize("system", SYSTEMS)
def test_check_names_the_account(vendors: Vendors, system: str) -> None:
    async def work(source: Source) -> str:
        return (await source.check(reading())).account

    assert vendors.run(system, work)


@pytest.mark.parametrize(("system", "kind"), KINDS)
def test_describe_tells_fields_under_stable_names(vendors: Vendors, system: str, kind: Kind) -> None:
    meta = vendors.run(system, lambda source: source.described(kind, reading()))

    assert meta.fields or (system, kind) in NOT_DESCRIBED
    assert all(name == field.name and field.path and field.label for name, field in meta.fields.items())
    assert kind != "deal" or {stage.category for stage in meta.stages.values()} == {"OPEN", "WON", "LOST"}


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("system", "kind", "order"), ORDERED)
def test_scan_keeps_one_total_order(vendors: Vendors, system: str, kind: Kind, order: Any, descending: bool) -> None:
    found = vendors.run(system, lambda source: walked(source, kind, sizes=[40], order=order, descending=descending))

    places = [place for place, _ in found]
    assert places == sorted(places, reverse=descending)
    assert len({id for _, id in found}) == len(found) > 10


@pytest.mark.parametrize(("system", "kind"), LISTED)
def test_scan_in_pages_of_any_size_gives_the_same_rows(vendors: Vendors, system: str, kind: Kind) -> None:
    whole = vendors.run(system, lambda source: walked(source, kind, sizes=[1000]))

    @settings(max_examples=3, deadline=None)
    @given(sizes=st.lists(st.integers(20, 70), min_size=1, max_size=3), descending=st.booleans())
    def check(sizes: list[int], descending: bool) -> None:
        joined = vendors.run(system, lambda source: walked(source, kind, sizes=sizes, descending=descending))
        assert joined == (whole[::-1] if descending else whole)

    check()


@pytest.mark.parametrize(("system", "kind"), CHANGED)
def test_scan_of_a_span_of_changes_leaves_out_the_rest(vendors: Vendors, system: str, kind: Kind) -> None:
    async def work(source: Source) -> tuple[list[tuple[Position, str]], list[tuple[Position, str]], datetime, datetime]:
        everything = await walked(source, kind, sizes=[500], order="updated")
        low, high = everything[len(everything) // 3][0].at, everything[len(everything) * 2 // 3][0].at
        span = await walked(source, kind, sizes=[25], order="updated", updated_since=low, updated_before=high)
        return everything, span, low, high

    everything, span, low, high = vendors.run(system, work)

    assert span == [each for each in everything if low <= each[0].at < high]


@pytest.mark.parametrize(("system", "kind"), READ)
def test_read_answers_in_the_order_asked_and_none_for_the_unknown(vendors: Vendors, system: str, kind: Kind) -> None:
    async def work(source: Source) -> tuple[list[str], dict[str, Any]]:
        ids = await ids_of(vendors, source, kind)
        asked = [*ids[::-1], _unknown_like(ids[0])]
        return asked, (await source.read(kind, asked, fields=PLAIN[kind], reading=reading())).value

    asked, found = vendors.run(system, work)

    assert list(found) == asked
    assert found[asked[-1]] is None
    assert [record.native_id for record in found.values() if record is not None] == asked[:-1]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_deleted_record_is_read_as_none(system: str) -> None:
    sandbox = Sandbox(people=30)
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        gone = next(each for each in sandbox.world.profiles[system] if not each.deleted)
        native_id = sandbox.dialects[system].native("contact", gone.id)
        sandbox.dialects[system].delete("contact", native_id)

        async def work(source: Source) -> tuple[dict[str, Any], list[str]]:
            answer = await source.read("contact", [native_id], fields=["email"], reading=reading())
            listed = source.adapter.kinds["contact"].orders
            return answer.value, [id for _, id in await walked(source, "contact", sizes=[50])] if listed else []

        found, listed = Vendors(sandbox, address, Path(folder)).run(system, work)

    assert found == {native_id: None}
    assert native_id not in listed


@pytest.mark.parametrize(("system", "kind", "key"), FOUND)
def test_find_gives_exactly_the_records_that_carry_the_value(vendors: Vendors, system: str, kind: Kind, key: Any) -> None:
    async def work(source: Source) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        ids = await ids_of(vendors, source, kind)
        carriers: dict[str, set[str]] = {}
        fields = [*PLAIN[kind], *_CARRIED[key]]
        for record in (await source.read(kind, ids, fields=fields, reading=reading())).value.values():
            one, several = (getattr(record, name, ()) for name in (key, f"{key}s"))
            for value in {one, *several} - {None}:
                carriers.setdefault(value, set()).add(record.native_id)
        asked = [*carriers, NOBODY[key]]
        answer = await source.find(kind, key, asked, fields=PLAIN[kind], reading=reading())
        return carriers, {value: {record.native_id for record in records} for value, records in answer.value.items()}

    carriers, found = vendors.run(system, work)

    assert {value: ids for value, ids in found.items() if ids} == carriers
    assert len(found) == len(carriers) + 1


@pytest.mark.parametrize(("system", "of", "kind"), RELATED)
def test_related_of_many_is_what_related_of_each_is(vendors: Vendors, system: str, of: Kind, kind: Kind) -> None:
    async def work(source: Source) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        parents = (await ids_of(vendors, source, of))[:40]

        async def children(some: list[str]) -> dict[str, list[str]]:
            found = await source.related(kind, of, some, fields=PLAIN[kind], first=20, reading=reading())
            return {parent: [record.native_id for record in each.records] for parent, each in found.value.items()}

        one_by_one: dict[str, list[str]] = {}
        for parent in parents[:6]:
            one_by_one |= await children([parent])
        return await children(parents), one_by_one

    together, single = vendors.run(system, work)

    assert any(together.values())
    assert {parent: sorted(together[parent]) for parent in single} == {parent: sorted(ids) for parent, ids in single.items()}


@pytest.mark.parametrize(("system", "kind"), READ)
def test_only_what_is_selected_is_fetched(vendors: Vendors, system: str, kind: Kind) -> None:
    async def work(source: Source) -> tuple[int, int]:
        ids = (await ids_of(vendors, source, kind))[:6]
        few = (await source.read(kind, ids, fields=PLAIN[kind][:1], reading=reading())).value
        many = (await source.read(kind, ids, fields=[*source.adapter.kinds[kind].mapping, "custom.*"], reading=reading())).value
        return _size(few), _size(many)

    few, many = vendors.run(system, work)

    # The help desks' REST APIs have no projection; what HubSpot sends unasked of small objects is all that is mapped of them.
    assert few < many if kind in {"contact", "deal", "order"} and system not in {"zendesk", "freshdesk"} else few <= many


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_token_that_dies_is_renewed_and_the_call_repeated(vendors: Vendors, system: str) -> None:
    async def work(source: Source) -> None:
        await source.check(reading())
        vendors.sandbox.clock.advance(90_000)
        await source.check(reading())

    vendors.run(system, work)


def _unknown_like(id: str) -> str:
    return id[:-9] + "999999999" if len(id) > 9 else "9" * len(id)


def _size(records: dict[str, Any]) -> int:
    return sum(len(str(record.row)) for record in records.values())
