"""What every adapter that writes promises the core, kept against its system's sandbox: the same suite for all of them."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from adapters.base import Outcome
from adapters.registry import ADAPTERS
from model.money import Money
from model.records import Kind
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite, one_name
from tests.adapters.test_contract import Vendors
from tests.world import served

SYSTEMS = sorted(name for name, each in ADAPTERS.items() if any(facts.verbs for facts in each.kinds.values()))
WRITTEN = [(system, kind) for system in SYSTEMS for kind, facts in ADAPTERS[system].kinds.items() if facts.verbs]
DELETED = [(system, kind) for system, kind in WRITTEN if "delete" in ADAPTERS[system].kinds[kind].verbs]
VERSIONED = [(system, kind) for system, kind in WRITTEN if ADAPTERS[system].kinds[kind].if_version]
UPSERTED = [(system, kind) for system, kind in WRITTEN if "email" in ADAPTERS[system].kinds[kind].upsert_by]
UNIQUE = [(system, kind) for system, kind in WRITTEN if "email" in ADAPTERS[system].kinds[kind].unique]
TIED = [(system, kind, other) for system, kind in WRITTEN for other in sorted(ADAPTERS[system].kinds[kind].links)]
_NUMBER = count(1)


def new(system: str, kind: Kind) -> dict[str, Any]:
    """Return values of a record that nobody has yet: those of them that the system can write."""
    n = next(_NUMBER)
    values: dict[str, Any] = {
        "contact": {"email": f"fresh{n}@brandnew.example", "given_name": "Fresh", "family_name": f"Person{n}", "title": "Buyer"},
        "lead": {
            "email": f"lead{n}@brandnew.example",
            "given_name": "Hot",
            "family_name": f"Lead{n}",
            "company": f"Prospect {n}",
        },
        "account": {"name": f"Brand New {n}", "domain": f"brandnew{n}.example"},
        "deal": {"name": f"Big Deal {n}", "amount": Money(Decimal("1250.50"), ""), "stage": "OPEN"},
        "ticket": {"subject": f"It does not work {n}"},
    }[kind]
    rules = ADAPTERS[system].kinds[kind].writes
    return {name: value for name, value in one_name(values, None, rules).items() if name in rules}


def changed(system: str, kind: Kind) -> tuple[str, Any]:
    """Return a field to change, and its new value."""
    name, value = CHANGED[kind]
    value = f"{value} {next(_NUMBER)}"
    return (name, value) if name in ADAPTERS[system].kinds[kind].writes else ("name", f"Fresh {value}")


CHANGED: dict[str, tuple[str, Any]] = {
    "contact": ("family_name", "Renamed"), "lead": ("family_name", "Renamed"), "account": ("name", "Renamed Ltd"), "deal": ("name", "Renamed deal"),
    "ticket": ("subject", "Renamed subject"),
}  # fmt: skip


@pytest.fixture(scope="module")
def vendors() -> Iterator[Vendors]:
    sandbox = Sandbox(people=30)
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Vendors(sandbox, address, Path(folder))


def reading(seconds: float = 60) -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + seconds, policy="LIVE", lane="write")


async def written(source: Source, kind: Kind, *writes: RecordWrite, seconds: float = 60) -> list[Outcome]:
    return await source.write(kind, writes, reading(seconds))


async def made(source: Source, kind: Kind, values: dict[str, Any] | None = None, **more: Any) -> str:
    """Create a record; return its native id."""
    write = RecordWrite(verb="create", values=values or new(source.system, kind), **more)
    [outcome] = await written(source, kind, write)
    assert (outcome.state, outcome.error) == ("APPLIED", None)
    assert outcome.native_id
    return outcome.native_id


async def read(source: Source, kind: Kind, id: str, *fields: str) -> Any:
    names = fields or tuple(source.adapter.kinds[kind].mapping)
    return (await source.read(kind, [id], fields=names, reading=reading())).value[id]


@pytest.mark.parametrize(("system", "kind"), WRITTEN)
def test_what_is_created_is_read_back_as_it_was_said(vendors: Vendors, system: str, kind: Kind) -> None:
    values = new(system, kind)

    async def work(source: Source) -> Any:
        return await read(source, kind, await made(source, kind, values))

    record = vendors.run(system, work)

    for name, value in values.items():
        has = getattr(record, name)
        if name == "stage":
            assert has.category == "OPEN"
        elif name == "amount":
            assert has.amount == value.amount
        else:
            assert has == value
    assert record.created_at is None or record.updated_at is None or record.updated_at >= record.created_at


@pytest.mark.parametrize(("system", "kind"), WRITTEN)
def test_an_update_changes_what_it_names_and_nothing_else(vendors: Vendors, system: str, kind: Kind) -> None:
    values, (name, value) = new(system, kind), changed(system, kind)

    async def work(source: Source) -> tuple[Outcome, Any, Any]:
        id = await made(source, kind, values)
        before = await read(source, kind, id)
        vendors.sandbox.clock.advance(5)
        [outcome] = await written(source, kind, RecordWrite(verb="update", native_id=id, values={name: value}))
        return outcome, before, await read(source, kind, id)

    outcome, before, after = vendors.run(system, work)

    assert (outcome.state, outcome.native_id) == ("APPLIED", before.native_id)
    assert getattr(after, name) == value
    assert {each: getattr(after, each) for each in values if each != name} == {
        each: getattr(before, each) for each in values if each != name
    }
    assert before.updated_at is None or after.updated_at > before.updated_at, "the version moves"


@pytest.mark.parametrize(("system", "kind"), WRITTEN)
def test_many_are_written_with_an_outcome_each_in_their_order(vendors: Vendors, system: str, kind: Kind) -> None:
    facts = ADAPTERS[system].kinds[kind]

    async def work(source: Source) -> tuple[list[Outcome], list[Any], list[dict[str, Any]]]:
        values = [new(system, kind) for _ in range(min(facts.write_batch + 2, 12))]
        some = await made(source, kind)
        unknown = some[:-9] + "999999999" if len(some) > 9 else "9" * len(some)
        writes = [RecordWrite(verb="create", values=each) for each in values]
        name, value = changed(system, kind)
        writes[1:1] = [RecordWrite(verb="update", native_id=unknown, values={name: value})]
        writes.append(RecordWrite(verb="update", native_id=some, values={name: value}))
        outcomes = await written(source, kind, *writes)
        ids = [outcome.native_id for outcome in outcomes if outcome.state == "APPLIED" and outcome.native_id]
        found = (await source.read(kind, ids, fields=list(new(system, kind)), reading=reading())).value
        return outcomes, [found[id] for id in ids], [values[0], *values[1:], {name: value}]

    outcomes, records, said = vendors.run(system, work)

    refused = outcomes[1]
    assert refused.state == "REJECTED"
    assert refused.error is not None
    assert refused.error.code == "NOT_FOUND"
    assert [each.state for at, each in enumerate(outcomes) if at != 1] == ["APPLIED"] * (len(outcomes) - 1)
    for record, values in zip(records, said, strict=True):
        name = "family_name" if "family_name" in values else "name" if "name" in values else "subject"
        assert getattr(record, name) == values[name]


@pytest.mark.parametrize(("system", "kind"), DELETED)
def test_what_is_deleted_is_gone_and_deleting_it_again_changes_nothing(vendors: Vendors, system: str, kind: Kind) -> None:
    async def work(source: Source) -> tuple[Outcome, Any, Outcome]:
        id = await made(source, kind)
        [first] = await written(source, kind, RecordWrite(verb="delete", native_id=id))
        gone = await read(source, kind, id)
        [second] = await written(source, kind, RecordWrite(verb="delete", native_id=id))
        return first, gone, second

    first, gone, second = vendors.run(system, work)

    assert (first.state, gone, second.state) == ("APPLIED", None, "UNCHANGED")


@pytest.mark.parametrize(("system", "kind"), UPSERTED)
def test_an_upsert_makes_one_record_and_then_changes_it(vendors: Vendors, system: str, kind: Kind) -> None:
    values, (name, value) = new(system, kind), changed(system, kind)

    async def work(source: Source) -> tuple[Outcome, Outcome, Any]:
        [first] = await written(source, kind, RecordWrite(verb="upsert", match="email", values=values))
        [second] = await written(source, kind, RecordWrite(verb="upsert", match="email", values={**values, name: value}))
        return first, second, await read(source, kind, first.native_id or "")

    first, second, record = vendors.run(system, work)

    assert (first.state, second.state, first.native_id) == ("APPLIED", "APPLIED", second.native_id)
    assert first.created in (True, None)
    assert second.created in (False, None)
    assert getattr(record, name) == value


@pytest.mark.parametrize(("system", "kind"), UNIQUE)
def test_a_second_record_with_a_key_that_must_be_unique_is_a_conflict(vendors: Vendors, system: str, kind: Kind) -> None:
    values = new(system, kind)

    async def work(source: Source) -> Outcome:
        await made(source, kind, values)
        [outcome] = await written(source, kind, RecordWrite(verb="create", values=values))
        return outcome

    outcome = vendors.run(system, work)

    assert outcome.state == "CONFLICT"
    assert outcome.error is not None
    assert outcome.error.code == "DUPLICATE"
    assert values["email"] not in outcome.error.message


@pytest.mark.parametrize(("system", "kind"), VERSIONED)
def test_a_write_for_a_version_that_is_past_is_refused(vendors: Vendors, system: str, kind: Kind) -> None:
    name, value = changed(system, kind)

    async def work(source: Source) -> tuple[list[Outcome], Any]:
        id = await made(source, kind)
        seen = (await read(source, kind, id)).version
        vendors.sandbox.clock.advance(5)
        fresh = RecordWrite(verb="update", native_id=id, values={name: value}, if_version=seen)
        late = RecordWrite(verb="update", native_id=id, values={name: "Too late"}, if_version=seen)
        outcomes = [*await written(source, kind, fresh), *await written(source, kind, late)]
        return outcomes, await read(source, kind, id)

    (first, second), record = vendors.run(system, work)

    assert (first.state, second.state) == ("APPLIED", "CONFLICT")
    assert second.error is not None
    assert second.error.code == "STALE_VERSION"
    assert getattr(record, name) == value


@pytest.mark.parametrize(("system", "kind", "other"), TIED)
def test_a_record_is_tied_to_another_when_it_is_made(vendors: Vendors, system: str, kind: Kind, other: Kind) -> None:
    adapter = ADAPTERS[system]

    async def work(source: Source) -> tuple[str, set[str], Any]:
        parent = await made(source, other)
        id = await made(source, kind, links={other: [parent]})
        record = await read(source, kind, id)
        children: set[str] = set()
        if (other, kind) in adapter.relations:
            found = (await source.related(kind, other, [parent], fields=["native_id"], first=20, reading=reading())).value
            children = {each.native_id for each in found[parent].records}
        return parent, children | {id} if (other, kind) not in adapter.relations else children, (id, record)

    parent, children, (id, record) = vendors.run(system, work)

    assert id in children
    if f"{other}_id" in adapter.kinds[kind].mapping:
        assert getattr(record, f"{other}_id") == parent


@pytest.mark.parametrize("system", [name for name in SYSTEMS if ADAPTERS[name].pause_when_cut is None])
def test_a_write_that_is_throttled_is_made_once_when_the_wait_is_over(vendors: Vendors, system: str) -> None:
    values = new(system, "contact")

    async def work(source: Source) -> tuple[Outcome, int]:
        await source.check(reading())
        before = len(vendors.sandbox.dialects[system].tables["contact"])
        number = vendors.sandbox.faults.add(Fault(system=system, fault="throttle", seconds=0.05, times=1))
        [outcome] = await written(source, "contact", RecordWrite(verb="create", values=values))
        vendors.sandbox.faults.remove(number)
        return outcome, len(vendors.sandbox.dialects[system].tables["contact"]) - before

    outcome, more = vendors.run(system, work)

    assert (outcome.state, more) == ("APPLIED", 1)


@pytest.mark.parametrize("fault", ["reset", "status", "truncate"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_create_without_a_clear_answer_is_unknown_and_never_sent_twice(vendors: Vendors, system: str, fault: Any) -> None:
    values = new(system, "contact")

    async def work(source: Source) -> tuple[Outcome, int]:
        await source.described("contact", reading())
        calls = sum(vendors.sandbox.dialects[system].calls.values())
        number = vendors.sandbox.faults.add(Fault(system=system, fault=fault, status=503))
        [outcome] = await written(source, "contact", RecordWrite(verb="create", values=values), seconds=5)
        vendors.sandbox.faults.remove(number)
        return outcome, sum(vendors.sandbox.dialects[system].calls.values()) - calls

    outcome, calls = vendors.run(system, work)

    assert (outcome.state, calls) == ("UNKNOWN", 1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_field_that_cannot_be_written_is_refused_before_a_call(vendors: Vendors, system: str) -> None:
    async def work(source: Source) -> tuple[Outcome, int]:
        before = sum(vendors.sandbox.dialects[system].calls.values())
        [outcome] = await written(source, "contact", RecordWrite(verb="create", values={"shoe_size": 42}))
        return outcome, sum(vendors.sandbox.dialects[system].calls.values()) - before

    outcome, calls = vendors.run(system, work)

    assert (outcome.state, list(outcome.fields), calls) == ("REJECTED", ["shoe_size"], 0)
