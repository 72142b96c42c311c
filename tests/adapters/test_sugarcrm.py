"""What is unusual about SugarCRM: sessions, lists that drift, addresses that are a list, links."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Config, Outcome, Request, Response, Scan, Write
from adapters.sugarcrm import SugarCRM as Adapter
from model.errors import SourceForbiddenError
from model.money import Money
from model.records import Kind, ObjectType
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.sugarcrm import PASSWORD, PLATFORM, USERNAME, SugarCRM
from sandbox.sugarcrm_records import moment
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.test_contract import Vendors, walked
from tests.world import served

LOGIN = {
    "grant_type": "password",
    "client_id": "sugar",
    "client_secret": "",
    "username": USERNAME,
    "password": PASSWORD,
    "platform": PLATFORM,
}


class Sugar:
    """The sandbox's instance, and a source that is asked one thing at a time."""

    def __init__(self, vendors: Vendors) -> None:
        self.vendors = vendors
        dialect = vendors.sandbox.dialects["sugarcrm"]
        assert isinstance(dialect, SugarCRM)
        self.dialect = dialect

    def run(self, work: Callable[[Source], Awaitable[Any]]) -> Any:
        return self.vendors.run("sugarcrm", work)

    def write(self, kind: Kind, *writes: RecordWrite) -> list[Outcome]:
        outcomes: list[Outcome] = self.run(lambda source: source.write(kind, writes, reading()))
        return outcomes

    def read(self, kind: Kind, id: str, *fields: str) -> Any:
        async def work(source: Source) -> Any:
            return (
                await source.read(kind, [id], fields=fields or tuple(source.adapter.kinds[kind].mapping), reading=reading())
            ).value[id]

        return self.run(work)

    def calls(self) -> dict[str, int]:
        return dict(self.dialect.calls)


@pytest.fixture(scope="module")
def sugar() -> Iterator[Sugar]:
    sandbox = Sandbox(people=150, systems=["sugarcrm"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Sugar(Vendors(sandbox, address, Path(folder)))


def reading() -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + 60, policy="LIVE")


def live(sugar: Sugar, kind: str) -> list[dict[str, Any]]:
    return [row for row in sugar.dialect.tables[kind] if not row["deleted"]]


# ---- reading ----


def test_a_deal_has_exact_money_in_its_own_currency_and_a_stage_with_its_probability(sugar: Sugar) -> None:
    euro = next(
        row for row in live(sugar, "deal") if row["currency_id"].startswith("b9a5ac6e") and row["sales_stage"] == "Needs Analysis"
    )
    won = next(row for row in live(sugar, "deal") if row["sales_stage"] == "Closed Won")

    deal, other = sugar.read("deal", euro["id"]), sugar.read("deal", won["id"])

    assert deal.amount == Money(Decimal(euro["amount"]), "EUR")
    assert (deal.stage.name, deal.stage.category, deal.stage.probability, deal.probability) == (
        "Needs Analysis",
        "OPEN",
        0.25,
        0.25,
    )
    assert (other.stage.category, other.stage.probability) == ("WON", 1.0)
    assert (deal.close_date.isoformat(), deal.account_id) == (euro["date_closed"], euro["account_id"] or None)
    assert deal.updated_at.utcoffset().total_seconds() == 0, "told in the user's zone, kept in UTC"


def test_what_became_of_a_deal_is_known_where_line_items_hold_the_stage(sugar: Sugar) -> None:
    row = next(row for row in live(sugar, "deal") if row["sales_stage"] == "Closed Lost")
    sugar.dialect.tables["deal"].put(row["id"], {**row, "sales_stage": ""})

    assert sugar.read("deal", row["id"]).stage.category == "LOST"


def test_all_addresses_count_and_the_primary_one_is_first_wherever_it_stands(sugar: Sugar) -> None:
    several = [row for row in live(sugar, "contact") if len(row["email"]) > 1 and not row["email"][0]["primary_address"]]

    async def work(source: Source) -> Any:
        other = several[0]["email"][0]["email_address"].lower()
        return (await source.find("contact", "email", [other], fields=["emails"], reading=reading())).value[other]

    [found] = sugar.run(work)

    primary = several[0]["email1"].lower()
    assert (found.native_id, found.email, found.emails[0], len(found.emails)) == (several[0]["id"], primary, primary, 2)


def test_custom_fields_come_with_labels_for_their_options(sugar: Sugar) -> None:
    row = next(row for row in live(sugar, "contact") if row["loyalty_level_c"] == "gold")

    async def work(source: Source) -> Any:
        record = (await source.read("contact", [row["id"]], fields=["custom.*"], reading=reading())).value[row["id"]]
        assert record is not None
        return {each.field.name: (each.value, each.field.label) for each in await source.custom_values(record, None, reading())}

    assert sugar.run(work) == {
        "loyalty_level_c": ("Gold level", "Loyalty Level"), "visits_c": (row["visits_c"], "Visits"), "newsletter_c": (row["newsletter_c"], "Newsletter"),
    }  # fmt: skip


def test_a_list_misses_nothing_while_rows_move_to_its_end(sugar: Sugar) -> None:
    """With offsets, each row that moves away from a page that was read would make the next page skip one."""
    before = {row["id"] for row in live(sugar, "lead")} | {row["id"] for row in live(sugar, "contact")}

    async def work(source: Source) -> set[str]:
        found: set[str] = set()
        after = None
        while True:
            page = (
                await source.scan("contact", Scan(order="updated", after=after, size=10), fields=["email"], reading=reading())
            ).value
            found |= {place.native_id for place, _ in page.rows}
            if page.end or len(found) > 500:
                return found
            after = page.rows[-1][0]
            if len(found) < 40:
                sugar.dialect.change("contact", page.rows[0][0].native_id, {"description": "moved"})

    found = sugar.run(work)

    assert found == {row["id"] for row in live(sugar, "contact")} <= before


@pytest.mark.parametrize("descending", [False, True])
def test_an_import_within_one_second_is_listed_whole_however_its_ids_are_spelled(descending: bool) -> None:
    sandbox = Sandbox(people=150, systems=["sugarcrm"])
    table = sandbox.dialects["sugarcrm"].tables["contact"]
    for row in list(table)[:35]:
        table.put(row["id"], {**row, "date_entered": moment(1_750_000_000_000)})

    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        vendors = Vendors(sandbox, address, Path(folder))
        found = vendors.run("sugarcrm", lambda source: walked(source, "contact", sizes=[10], descending=descending))

    assert len({len(id) for _, id in found}) > 1
    assert [place for place, _ in found] == sorted((place for place, _ in found), reverse=descending)
    assert {id for _, id in found} == {row["id"] for row in table if not row["deleted"]}


def test_links_are_read_twenty_parents_a_call(sugar: Sugar) -> None:
    parents = [row["id"] for row in live(sugar, "contact")][:41]

    async def work(source: Source) -> Any:
        before = sugar.calls().get("POST /rest/{version}/bulk", 0)
        found = await source.related("deal", "contact", parents, fields=["name"], first=1, reading=reading())
        return found.value, sugar.calls()["POST /rest/{version}/bulk"] - before

    found, calls = sugar.run(work)

    assert calls == 3
    linked = {
        id: [each for each in sugar.dialect._records.linked("Contacts", id, "opportunities") if sugar.read("deal", each)]
        for id in parents[:12]
    }
    for id in linked:
        assert [each.native_id for each in found[id].records] == [
            each.native_id for each in found[id].records if each.native_id in linked[id]
        ]
        assert (len(found[id].records), found[id].more) == (min(len(linked[id]), 1), len(linked[id]) > 1)


class Canned:
    """Answers by the end of the path; what it does not know is not found."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    async def send(self, request: Request) -> Response:
        known = self.answers.get(request.path.rsplit("/", 1)[-1])
        body = orjson.dumps(known if known is not None else {"error": "not_found", "error_message": "no"})
        answer = Response(status=200 if known is not None else 404, headers={}, body=body)
        if (fault := SUGAR.classify(answer)) is not None:
            raise fault
        return answer

    async def described(self, kind: Kind) -> ObjectType:
        raise NotImplementedError


SUGAR = Adapter(Config(source="sugar", base_url="https://crm.example"))


async def test_an_instance_that_gives_out_no_words_is_described_by_its_keys() -> None:
    fields = {"sales_stage": {"name": "sales_stage", "type": "enum", "options": "own_dom", "vname": "LBL_STAGE"}, "_hash": "x"}
    api = Canned(
        metadata={"modules": {"Opportunities": {"fields": fields}}, "currencies": []},
        sales_stage={"": "", "Talk": "We talk", "Closed Lost": "Lost"},
    )

    meta = await SUGAR.describe(api, "deal")

    assert meta.fields["sales_stage"].label == "sales_stage"
    assert [(each.name, each.category, each.probability) for each in meta.stages.values()] == [
        ("We talk", "OPEN", None),
        ("Lost", "LOST", None),
    ]


async def test_a_module_that_the_user_may_not_see_is_forbidden() -> None:
    with pytest.raises(SourceForbiddenError):
        await SUGAR.describe(Canned(metadata={"modules": [], "_hash": "x"}, en_us={}), "lead")


async def test_what_the_instance_works_out_by_itself_is_refused_and_not_passed_over() -> None:
    class Described(Canned):
        async def described(self, kind: Kind) -> ObjectType:
            return await SUGAR.describe(self, kind)

    fields = {"sales_stage": {"type": "enum"}, "amount": {"type": "currency", "calculated": True}, "name": {"type": "name"}}
    api = Described(metadata={"modules": {"Opportunities": {"fields": fields}}}, sales_stage={}, en_us={})
    write = Write(verb="update", native_id="x", row={"name": "New", "amount": "12.00", "currency_code": "USD"})

    [outcome] = await SUGAR.write(api, "deal", [write])

    assert (outcome.state, list(outcome.fields)) == ("REJECTED", ["amount"])


# ---- sessions and the limit ----


def test_a_session_that_another_login_ended_is_begun_anew(sugar: Sugar) -> None:
    async def work(source: Source) -> int:
        await source.check(reading())
        async with httpx.AsyncClient() as http:
            intruder = await http.post(f"{sugar.vendors.address}/sugarcrm/rest/v11_20/oauth2/token", json=LOGIN)
        await source.check(reading())
        return intruder.status_code

    logins = sugar.calls().get("POST /rest/{version}/oauth2/token", 0)

    assert sugar.run(work) == 200
    assert sugar.calls()["POST /rest/{version}/oauth2/token"] - logins >= 3, "the intruder's, a refresh in vain, and a login"


def test_a_line_that_is_cut_makes_everyone_wait_and_then_go_on(sugar: Sugar) -> None:
    async def work(source: Source) -> float:
        await source.check(reading())
        sugar.vendors.sandbox.faults.add(Fault(system="sugarcrm", fault="throttle", seconds=0.2, times=1))
        began = time.monotonic()
        await asyncio.gather(*(source.check(reading()) for _ in range(3)))
        return time.monotonic() - began

    assert sugar.run(work) >= 1.0


# ---- writing ----


def test_another_address_takes_the_primary_place_and_leaves_the_rest(sugar: Sugar) -> None:
    row = next(row for row in live(sugar, "contact") if len(row["email"]) > 1)
    other = next(each["email_address"] for each in row["email"] if not each["primary_address"])

    def addresses() -> list[tuple[str, bool]]:
        kept = sugar.dialect.tables["contact"].get(row["id"])
        assert kept is not None
        return [(each["email_address"], each["primary_address"]) for each in kept["email"]]

    sugar.write("contact", RecordWrite(verb="update", native_id=row["id"], values={"email": "new@brandnew.example"}))
    replaced = addresses()
    sugar.write("contact", RecordWrite(verb="update", native_id=row["id"], values={"title": "CEO"}))
    untouched = addresses()
    sugar.write("contact", RecordWrite(verb="update", native_id=row["id"], values={"email": other}))

    assert replaced == untouched == [("new@brandnew.example", True), (other, False)]
    assert addresses() == [(other, True)]


def test_rows_that_are_refused_leave_the_others_of_their_call_alone(sugar: Sugar) -> None:
    ids = [row["id"] for row in live(sugar, "lead")][:2]
    writes = [
        RecordWrite(verb="update", native_id=ids[0], values={"company": "Told"}), RecordWrite(verb="update", native_id=ids[1], values={"status": "No such"}),
        RecordWrite(verb="delete", native_id="nobody"), RecordWrite(verb="update", native_id="nobody", values={"company": "Told"}),
        RecordWrite(verb="create", values={"given_name": "Nameless"}), RecordWrite(verb="create", values={"family_name": "Named"}),
    ]  # fmt: skip
    before = sugar.calls().get("POST /rest/{version}/bulk", 0)

    outcomes = sugar.write("lead", *writes)

    assert [each.state for each in outcomes] == ["APPLIED", "REJECTED", "UNCHANGED", "REJECTED", "REJECTED", "APPLIED"]
    assert [each.error.code for each in outcomes if each.error] == ["VALIDATION", "NOT_FOUND", "VALIDATION"]
    assert [each.error.upstream_code for each in outcomes if each.error] == [
        "invalid_parameter",
        "not_found",
        "missing_parameter",
    ]
    assert sugar.calls()["POST /rest/{version}/bulk"] - before == 2, "creations apart: they are never sent twice"


def test_a_deal_is_written_in_its_currency_and_tied_to_its_contacts(sugar: Sugar) -> None:
    contacts = [row["id"] for row in live(sugar, "contact")][:2]
    values = {"name": "Tied", "amount": Money(Decimal("99.90"), "EUR"), "stage": "Negotiation/Review"}

    [outcome] = sugar.write("deal", RecordWrite(verb="create", values=values, links={"contact": contacts}))

    async def work(source: Source) -> list[str]:
        found = await source.related("contact", "deal", [outcome.native_id or ""], fields=["email"], first=5, reading=reading())
        return [each.native_id for each in found.value[outcome.native_id or ""].records]

    deal = sugar.read("deal", outcome.native_id or "")
    row = sugar.dialect.tables["deal"].get(outcome.native_id or "")
    assert (deal.amount, deal.probability) == (Money(Decimal("99.900000"), "EUR"), 0.8)
    assert row is not None
    assert (row["amount"], row["sales_status"]) == ("99.900000", "In Progress")
    assert set(sugar.run(work)) == set(contacts)


def test_a_currency_that_the_instance_lacks_is_refused_before_a_call(sugar: Sugar) -> None:
    before = sugar.calls().get("POST /rest/{version}/bulk", 0)

    [outcome] = sugar.write("deal", RecordWrite(verb="create", values={"name": "Yen", "amount": Money(Decimal(1), "JPY")}))

    assert (outcome.state, list(outcome.fields)) == ("REJECTED", ["amount"])
    assert sugar.calls().get("POST /rest/{version}/bulk", 0) == before


def test_what_is_written_and_not_tied_is_neither_done_nor_undone(sugar: Sugar) -> None:
    writes = [RecordWrite(verb="create", values={"name": "Loose"}, links={"contact": ["nobody"]})]
    known = live(sugar, "deal")[0]["id"]

    [outcome] = sugar.write("deal", *writes)
    [alone] = sugar.write("deal", RecordWrite(verb="update", native_id=known, links={"contact": ["nobody"]}))
    [nothing] = sugar.write("deal", RecordWrite(verb="update", native_id=known))

    assert (outcome.state, outcome.error and outcome.error.code) == ("UNKNOWN", "NOT_FOUND")
    assert sugar.read("deal", outcome.native_id or "").name == "Loose"
    assert (alone.state, nothing.state) == ("REJECTED", "UNCHANGED")


def test_a_delete_of_a_version_that_is_past_is_refused(sugar: Sugar) -> None:
    row = live(sugar, "account")[-1]
    seen = sugar.read("account", row["id"], "name").version
    sugar.dialect.change("account", row["id"], {"name": "Changed meanwhile"})

    [late] = sugar.write("account", RecordWrite(verb="delete", native_id=row["id"], if_version=seen))
    now = sugar.read("account", row["id"], "name").version
    [outcome] = sugar.write("account", RecordWrite(verb="delete", native_id=row["id"], if_version=now))

    assert (late.state, late.error and late.error.code, outcome.state) == ("CONFLICT", "STALE_VERSION", "APPLIED")


def test_a_write_that_nothing_was_sent_of_is_rejected_not_unknown(sugar: Sugar) -> None:
    id = live(sugar, "contact")[0]["id"]

    async def work(source: Source) -> Sequence[Outcome]:
        await source.check(reading())
        number = sugar.vendors.sandbox.faults.add(Fault(system="sugarcrm", fault="status", status=403, path="POST *filter"))
        try:
            return await source.write(
                "contact", [RecordWrite(verb="update", native_id=id, values={"email": "x@brandnew.example"})], reading()
            )
        finally:
            sugar.vendors.sandbox.faults.remove(number)

    [outcome] = sugar.run(work)

    assert (outcome.state, outcome.error.code) == ("REJECTED", "FORBIDDEN")
