"""Who is who, over a real database, against a recomputation from nothing."""

import random
import tempfile
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.index import IdentityIndex, Observed, minter
from identity.rules import Known, components, fold
from model.clock import SystemClock
from model.records import Ref
from store.database import Database

W = "default"
START = datetime(2026, 1, 1, tzinfo=UTC)


def seen(
    source: str, number: int, *, emails: str = "", phones: str = "", surname: str | None = "king", kind: str = "contact"
) -> Observed:
    return Observed(
        ref=Ref(source, kind, str(number)), emails=tuple(sorted(emails.split())), phones=tuple(sorted(phones.split())),  # type: ignore[arg-type]
        family_name=surname, created_at=START + timedelta(days=number),
    )  # fmt: skip


@pytest.fixture
async def database(database_url: str):  # type: ignore[no-untyped-def]
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def index(database: Database) -> IdentityIndex:
    return made(database)


def made(database: Database) -> IdentityIndex:
    clock = SystemClock()
    return IdentityIndex(database, clock=clock, mint=minter(clock, random.Random(7)))


async def test_the_same_address_in_two_sources_is_one_customer(index: IdentityIndex) -> None:
    found = await index.observe(W, [seen("a", 1, emails="x@y.example"), seen("b", 2, emails="x@y.example"), seen("b", 3)])

    assert found[Ref("a", "contact", "1")] == found[Ref("b", "contact", "2")] != found[Ref("b", "contact", "3")]


async def test_a_phone_links_only_with_the_surname(index: IdentityIndex) -> None:
    found = await index.observe(
        W, [seen("a", 1, phones="+1"), seen("b", 2, phones="+1", surname="king"), seen("c", 3, phones="+1", surname="other")]
    )

    assert len(set(found.values())) == 2
    assert found[Ref("a", "contact", "1")] == found[Ref("b", "contact", "2")]


async def test_a_phone_never_joins_two_records_of_one_source(index: IdentityIndex) -> None:
    found = await index.observe(W, [seen("a", 1, phones="+1"), seen("a", 2, phones="+1")])

    assert len(set(found.values())) == 2


async def test_role_addresses_link_nobody(index: IdentityIndex) -> None:
    found = await index.observe(W, [seen("a", 1, emails="info@y.example"), seen("b", 2, emails="info@y.example")])

    assert len(set(found.values())) == 2


async def test_an_address_that_many_carry_links_nobody(index: IdentityIndex) -> None:
    for number in range(12):
        await index.observe(W, [seen("a", number, emails="x@y.example")])

    members = await index.members(W, (await index.observe(W, [seen("a", 0, emails="x@y.example")])).values())

    assert all(len(each.refs) == 1 for each in members.values())


async def test_someone_whom_many_systems_know_is_still_one(index: IdentityIndex) -> None:
    for number in range(40):
        found = await index.observe(W, [seen(f"system{number}", number, emails="x@y.example")])

    members = await index.members(W, found.values())

    assert [len(each.refs) for each in members.values()] == [40]


async def test_a_merge_keeps_the_oldest_id_and_the_other_goes_on_resolving(index: IdentityIndex) -> None:
    first = (await index.observe(W, [seen("a", 1, emails="x@y.example")]))[Ref("a", "contact", "1")]
    second = (await index.observe(W, [seen("b", 2, emails="z@y.example")]))[Ref("b", "contact", "2")]

    await index.observe(W, [seen("c", 3, emails="x@y.example z@y.example")])

    members = await index.members(W, [first, second])
    assert members[second].id == members[first].id == min(first, second)
    assert members[first].merged_from == (max(first, second),)
    assert len(members[first].refs) == 3


async def test_after_a_split_each_id_is_back_with_the_record_it_was_minted_for(index: IdentityIndex) -> None:
    first = (await index.observe(W, [seen("a", 1, emails="x@y.example")]))[Ref("a", "contact", "1")]
    second = (await index.observe(W, [seen("b", 2, emails="z@y.example")]))[Ref("b", "contact", "2")]
    await index.observe(W, [seen("c", 3, emails="x@y.example z@y.example")])

    await index.observe(W, [seen("c", 3, emails="x@y.example")])

    members = await index.members(W, [first, second])
    assert members[first].id == first
    assert members[second].id == second


async def test_a_forgotten_record_leaves_its_id_to_the_oldest_that_shared_it(index: IdentityIndex) -> None:
    id = (await index.observe(W, [seen("a", 1, emails="x@y.example"), seen("b", 2, emails="x@y.example")]))[
        Ref("a", "contact", "1")
    ]

    await index.forget(W, [Ref("a", "contact", "1")])

    assert [member.ref for member in (await index.members(W, [id]))[id].refs] == [Ref("b", "contact", "2")]


async def test_an_id_without_records_resolves_to_nobody(index: IdentityIndex) -> None:
    id = (await index.observe(W, [seen("a", 1)]))[Ref("a", "contact", "1")]

    await index.forget(W, [Ref("a", "contact", "1")])

    assert (await index.members(W, [id]))[id].refs == ()


async def test_workspaces_know_nothing_of_each_other(index: IdentityIndex) -> None:
    mine = await index.observe(W, [seen("a", 1, emails="x@y.example")])
    other = await index.observe("other", [seen("a", 1, emails="x@y.example")])

    assert set(mine.values()).isdisjoint(other.values())
    assert await index.members("other", mine.values()) == {}


async def test_links_tell_method_and_evidence(index: IdentityIndex) -> None:
    id = (await index.observe(W, [seen("a", 1, emails="x@y.example"), seen("b", 2, emails="x@y.example")]))[
        Ref("a", "contact", "1")
    ]

    [link] = (await index.members(W, [id]))[id].links

    assert (link.method, link.evidence) == ("EXACT_EMAIL", {"email": "x@y.example"})


async def test_two_processes_that_see_the_same_person_mint_one_id(database: Database) -> None:
    indexes = [made(database) for _ in range(8)]
    found: list[str] = []

    async def observe(index: IdentityIndex, number: int) -> None:
        found.extend(
            (await index.observe(W, [seen("a", 1, emails="x@y.example"), seen("b", number, emails="x@y.example")])).values()
        )

    async with anyio.create_task_group() as group:
        for number, index in enumerate(indexes):
            group.start_soon(observe, index, number)

    assert len({each.id for each in (await made(database).members(W, found)).values()}) == 1


people = st.builds(
    lambda source, number, emails, phones, surname: seen(
        source, number, emails=" ".join(emails), phones=" ".join(phones), surname=surname
    ),
    st.sampled_from("abc"),
    st.integers(0, 7),
    st.sets(st.sampled_from(["p@e.example", "q@e.example", "r@e.example", "info@e.example"]), max_size=2),
    st.sets(st.sampled_from(["+1", "+2", "+3"]), max_size=2),
    st.sampled_from(["king", "smith"]),
)


@settings(deadline=None, max_examples=25)
@given(batches=st.lists(st.lists(people, max_size=6), max_size=5))
def test_any_order_and_batching_gives_what_a_recomputation_gives(batches: list[list[Observed]]) -> None:
    latest = {each.ref: each for batch in batches for each in batch}
    expected, _ = components(
        Known(ref=each.ref, emails=each.emails, phones=each.phones, surname=each.family_name) for each in latest.values()
    )

    async def observed() -> list[list[Ref]]:
        with tempfile.TemporaryDirectory() as folder:
            database = await Database.open(f"sqlite:///{folder}/c360.db")
            index = made(database)
            ids: set[str] = set()
            for batch in batches:
                ids |= set((await index.observe(W, list({each.ref: each for each in batch}.values()))).values())
            ids |= set((await index.observe(W, list(latest.values()))).values())  # a split may have minted ids since
            members = await index.members(W, ids)
            await database.close()
            assert ids <= members.keys()  # no id ever stops resolving
            alive = {each.id: each for each in members.values() if each.refs}
            return sorted(sorted(member.ref for member in each.refs) for each in alive.values())

    assert anyio.run(observed) == expected


@pytest.mark.parametrize("spelling", ["Müller", "MÜLLER", "Mueller", "muller", " Müller "])
def test_surnames_compare_without_case_accents_and_umlaut_spelling(spelling: str) -> None:
    assert fold(spelling) == fold("Muller")
