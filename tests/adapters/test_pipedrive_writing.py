"""What is unusual about writing to Pipedrive: lists are written whole, options are numbers, people take part in deals."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from adapters.base import Outcome
from adapters.pipedrive_fields import with_primary
from model.money import Money
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.pipedrive_fields import key
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.test_contract import Vendors, reading
from tests.adapters.test_writing import made, written
from tests.world import served


@pytest.fixture(scope="module")
def vendors() -> Iterator[Vendors]:
    sandbox = Sandbox(people=60, systems=["pipedrive"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Vendors(sandbox, address, Path(folder))


def row(vendors: Vendors, kind: str, id: str) -> dict[str, Any]:
    found = vendors.sandbox.dialects["pipedrive"].tables[kind].get(id)
    assert found is not None
    return found


def test_a_new_address_takes_the_primary_ones_place_and_the_others_stay(vendors: Vendors) -> None:
    dialect = vendors.sandbox.dialects["pipedrive"]
    values = {"given_name": "Eve", "family_name": "Moss", "email": "eve@first.example"}

    async def work(source: Source) -> tuple[str, Any]:
        id = await made(source, "contact", values)
        emails = [
            {"value": "eve@first.example", "primary": True, "label": "work"},
            {"value": "eve@home.example", "primary": False, "label": "home"},
        ]
        dialect.change("contact", id, {"emails": emails})
        await written(source, "contact", RecordWrite(verb="update", native_id=id, values={"email": "eve@second.example"}))
        return id, (await source.read("contact", [id], fields=["email", "emails"], reading=reading())).value[id]

    id, record = vendors.run("pipedrive", work)

    assert (record.email, record.emails) == ("eve@second.example", ("eve@second.example", "eve@home.example"))
    assert row(vendors, "contact", id)["emails"][1]["label"] == "home"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("new@x.example", ["new@x.example", "b@x.example"]),
        ("B@x.example", ["B@x.example", "a@x.example"]),
        (None, ["b@x.example"]),
    ],
)
def test_addresses_are_never_lost_by_writing_one(value: str | None, found: list[str]) -> None:
    before = [
        {"value": "a@x.example", "primary": True, "label": "work"},
        {"value": "b@x.example", "primary": False, "label": "home"},
    ]

    after = with_primary(before, value)

    assert [each["value"] for each in after] == found
    assert [each["primary"] for each in after] == [True, False][: len(after)]


def test_one_half_of_a_name_leaves_the_other(vendors: Vendors) -> None:
    async def work(source: Source) -> tuple[str, Outcome]:
        id = await made(source, "contact", {"given_name": "Ada", "family_name": "Byron"})
        [outcome] = await written(source, "contact", RecordWrite(verb="update", native_id=id, values={"family_name": "von King"}))
        return id, outcome

    id, outcome = vendors.run("pipedrive", work)

    assert outcome.state == "APPLIED"
    assert {name: row(vendors, "contact", id)[name] for name in ("name", "first_name", "last_name")} == {
        "name": "Ada von King", "first_name": "Ada", "last_name": "von King",
    }  # fmt: skip


def test_custom_fields_are_written_by_name_and_label(vendors: Vendors) -> None:
    said = {
        "Loyalty tier": "silver",
        "Interests": ["Skiing", "Chess"],
        "Score": 4.5,
        "Yearly budget": 250,
        "Customer since": "2026-03-01",
    }

    async def work(source: Source) -> str:
        return await made(source, "contact", {"family_name": "Custom"}, custom=said)

    custom = row(vendors, "contact", vendors.run("pipedrive", work))["custom_fields"]

    assert {name: custom[key("person", name)] for name in said} == {
        "Loyalty tier": 102, "Interests": [111, 112], "Score": 4.5, "Yearly budget": {"value": 250, "currency": "USD"}, "Customer since": "2026-03-01",
    }  # fmt: skip


def test_what_is_not_named_stays_the_currency_of_an_amount_too_and_null_clears(vendors: Vendors) -> None:
    tier, budget, interests = (key("person", name) for name in ("Loyalty tier", "Yearly budget", "Interests"))
    german = next(
        each
        for each in vendors.sandbox.world.profiles["pipedrive"]
        if each.country == "DE" and not each.deleted and each.number % 2
    )
    before = row(vendors, "contact", str(german.id))["custom_fields"]

    async def work(source: Source) -> list[Outcome]:
        write = RecordWrite(verb="update", native_id=str(german.id), custom={"Yearly budget": 7, "Interests": None})
        return await written(source, "contact", write)

    [outcome] = vendors.run("pipedrive", work)
    after = row(vendors, "contact", str(german.id))["custom_fields"]

    assert outcome.state == "APPLIED"
    assert (after[budget], after[interests], after[tier]) == ({"value": 7, "currency": "EUR"}, None, before[tier])


def test_a_custom_field_that_is_refused_is_named(vendors: Vendors) -> None:
    async def work(source: Source) -> list[Outcome]:
        writes = [
            RecordWrite(verb="create", values={"family_name": f"No {n}"}, custom={"Customer since": date})
            for n, date in enumerate(("soon", "2026-01-01"))
        ]
        return await written(source, "contact", *writes)

    refused, applied = vendors.run("pipedrive", work)

    assert (refused.state, refused.fields) == ("REJECTED", [f"custom_fields.{key('person', 'Customer since')}"])
    assert applied.state == "APPLIED"
    assert refused.error is not None
    assert "soon" not in refused.error.message


def test_an_outcome_leaves_a_deal_in_its_stage_and_an_open_stage_opens_it_again(vendors: Vendors) -> None:
    seen = []

    async def work(source: Source) -> None:
        id = await made(source, "deal", {"name": "Boat", "amount": Money(Decimal("10.50"), "EUR"), "stage": "Proposal Made"})
        for stage in ("WON", "LOST", "Contact Made"):
            await written(source, "deal", RecordWrite(verb="update", native_id=id, values={"stage": stage}))
            record: Any = (await source.read("deal", [id], fields=["stage"], reading=reading())).value[id]
            now = row(vendors, "deal", id)
            seen.append(
                (
                    record.stage.category,
                    now["status"],
                    now["stage_id"],
                    now["won_time"] is not None,
                    now["close_time"] is not None,
                )
            )

    vendors.run("pipedrive", work)

    assert seen == [("WON", "won", 4, True, True), ("LOST", "lost", 4, False, True), ("OPEN", "open", 2, False, False)]


def test_the_first_contact_is_the_deals_own_and_the_others_take_part(vendors: Vendors) -> None:
    async def work(source: Source) -> tuple[list[str], str, list[str]]:
        people = [await made(source, "contact", {"family_name": f"Partner{n}"}) for n in range(3)]
        id = await made(source, "deal", {"name": "Shared"}, links={"contact": people[:2]})
        write = RecordWrite(verb="update", native_id=id, links={"contact": [people[2], people[1]]})
        [outcome] = await written(source, "deal", write)
        assert outcome.state == "APPLIED"
        found = (await source.related("contact", "deal", [id], fields=["name"], first=10, reading=reading())).value[id]
        return people, id, [each.native_id for each in found.records]

    people, id, found = vendors.run("pipedrive", work)

    assert found == people
    assert row(vendors, "deal", id)["person_id"] == int(people[0]), "a link is added, never taken away"


def test_a_deal_that_was_made_and_not_tied_is_unknown_and_named(vendors: Vendors) -> None:
    async def work(source: Source) -> tuple[list[Outcome], int]:
        people = [await made(source, "contact", {"family_name": f"Lost{n}"}) for n in range(2)]
        number = vendors.sandbox.faults.add(Fault(system="pipedrive", fault="reset", path="*/participants"))
        before = len(vendors.sandbox.dialects["pipedrive"].tables["deal"])
        outcomes = await written(
            source, "deal", RecordWrite(verb="create", values={"name": "Half"}, links={"contact": people}), seconds=5
        )
        vendors.sandbox.faults.remove(number)
        return outcomes, len(vendors.sandbox.dialects["pipedrive"].tables["deal"]) - before

    [outcome], more = vendors.run("pipedrive", work)

    assert (outcome.state, more) == ("UNKNOWN", 1)
    assert outcome.native_id is not None
    assert row(vendors, "deal", outcome.native_id)["title"] == "Half"


def test_nobody_can_be_made_without_a_name(vendors: Vendors) -> None:
    async def work(source: Source) -> list[Outcome]:
        return await written(source, "contact", RecordWrite(verb="create", values={"email": "nameless@brandnew.example"}))

    [outcome] = vendors.run("pipedrive", work)

    assert outcome.state == "REJECTED"
    assert outcome.error is not None
    assert outcome.error.upstream_code == "ERR_SCHEMA_VALIDATION_FAILED"


def test_what_is_written_is_found_at_once(vendors: Vendors) -> None:
    async def work(source: Source) -> tuple[str, str, dict[str, list[str]], list[str]]:
        account = await made(source, "account", {"name": "Found Ltd", "domain": "found.example"})
        id = await made(source, "contact", {"family_name": "Found", "email": "found@found.example"}, links={"account": [account]})
        found = (await source.find("contact", "email", ["found@found.example"], fields=["name"], reading=reading())).value
        people = (await source.related("contact", "account", [account], fields=["name"], first=10, reading=reading())).value
        return (
            account,
            id,
            {value: [each.native_id for each in records] for value, records in found.items()},
            [each.native_id for each in people[account].records],
        )

    _, id, found, people = vendors.run("pipedrive", work)

    assert (found, people) == ({"found@found.example": [id]}, [id])
