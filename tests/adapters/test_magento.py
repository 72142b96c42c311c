"""What is unusual about Magento: signed requests, searches whose last page repeats, variants, websites, and writing one by one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import pytest

from adapters.writing import Outcome
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.errors import GrantLostError, TokenExpiredError
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.magento import ADMIN, INTEGRATION, PASSWORD
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.test_contract import walked
from tests.world import World, served, source_settings, world

T = TypeVar("T")
SIGNED = {
    "scheme": "oauth1", "client_id": INTEGRATION.key, "client_secret": INTEGRATION.secret, "token": INTEGRATION.token,
    "token_secret": INTEGRATION.token_secret,
}  # fmt: skip
BOND = {"email": "james@bond.example", "given_name": "James", "family_name": "Bond"}


@dataclass(frozen=True, slots=True)
class Shop:
    sandbox: Sandbox
    address: str

    @property
    def dialect(self) -> Any:
        return self.sandbox.dialects["magento"]

    def customer(self, at: int = 0) -> str:
        return str(list(self.dialect.tables["contact"])[at]["id"])

    def run(self, work: Callable[[Source], Awaitable[T]], auth: Mapping[str, str] | None = None, store: str = "default") -> T:
        async def run() -> T:
            async with self._opened(auth, store) as source:
                return await work(source)

        return asyncio.run(run())

    def write(self, *writes: RecordWrite, store: str = "default", deadline: float = 10) -> list[Outcome]:
        return self.run(lambda source: source.write("contact", writes, reading(deadline)), store=store)

    def fault(self, fault: str, path: str = "*", **facts: Any) -> None:
        self.sandbox.faults.add(Fault(system="magento", fault=fault, path=path, **facts))  # type: ignore[arg-type]

    def calls(self) -> dict[str, int]:
        found = {name.replace("/rest/{store}/V1", ""): count for name, count in self.dialect.calls.items()}
        self.dialect.calls.clear()
        return found

    @asynccontextmanager
    async def _opened(self, auth: Mapping[str, str] | None, store: str) -> AsyncIterator[Source]:
        [said] = source_settings(self.sandbox, self.address)
        said |= {"base_url": said["base_url"].replace("default", store), **({"auth": dict(auth)} if auth else {})}
        with TemporaryDirectory() as folder:
            runtime = Runtime(Settings.model_validate({"data_dir": Path(folder), "sources": [said]}))
            await runtime.start()
            try:
                yield next(iter(runtime.registry.of(WORKSPACE)))
            finally:
                await runtime.stop()


@contextmanager
def shop(people: int = 60) -> Iterator[Shop]:
    sandbox = Sandbox(people=people, systems=["magento"])
    with served(server(sandbox)) as address:
        yield Shop(sandbox, address)


@pytest.fixture(scope="module")
def vendor() -> Iterator[Shop]:
    with shop() as running:
        yield running


@pytest.fixture(scope="module")
def graph() -> Iterator[World]:
    with world(people=60, systems=["magento", "hubspot"]) as running:
        yield running


def reading(seconds: float = 10) -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + seconds, policy="LIVE")


# ---- who asks ----


def test_an_integration_signs_its_requests_however_they_are_spelled() -> None:
    with shop() as running:
        listed = running.run(lambda source: walked(source, "order", sizes=[7], order="updated"), SIGNED)

        assert len(listed) == len(running.dialect.tables["order"])


def test_a_signed_request_that_fails_is_signed_anew() -> None:
    with shop() as running:
        # The signature was looked at, and its nonce is used up, before the line is cut.
        running.fault("reset", "*storeConfigs", times=2)

        assert running.run(lambda source: source.check(reading()), SIGNED).account == "https://shop.example/"
        assert running.calls() == {"GET /store/storeConfigs": 3}


def test_a_wrong_secret_is_told() -> None:
    with shop() as running, pytest.raises(TokenExpiredError):
        running.run(lambda source: source.check(reading()), {**SIGNED, "token_secret": "another"})


def test_an_integrations_token_alone_is_refused_as_the_shop_does_by_default() -> None:
    with shop() as running, pytest.raises(TokenExpiredError):
        running.run(lambda source: source.check(reading()), {"scheme": "token", "token": INTEGRATION.token})


def test_an_admin_logs_in_once_for_four_hours() -> None:
    with shop() as running:

        async def work(source: Source) -> None:
            for seconds in (0, 3 * 3600, 3600):
                running.sandbox.clock.advance(seconds)
                await source.check(reading())

        running.run(work)

        assert running.calls()["POST /integration/admin/token"] == 2


def test_a_wrong_password_is_a_lost_grant() -> None:
    with shop() as running, pytest.raises(GrantLostError):
        running.run(lambda source: source.check(reading()), {"scheme": "login", "username": ADMIN, "password": "guessed"})


# ---- reading ----


def test_orders_come_without_the_rows_of_variants_and_their_lines_add_up(graph: World) -> None:
    query = "{ orders(first: 60) { nodes { status rawStatus number total { amount currency } items { sku quantity price { amount currency } } customer { id } } } }"

    orders = graph.data(query)["orders"]["nodes"]

    assert "S-4" in {item["sku"] for each in orders for item in each["items"]}
    for each in orders:
        lines = sum(float(item["price"]["amount"]) * item["quantity"] for item in each["items"])
        assert float(each["total"]["amount"]) == pytest.approx(lines)
        assert {item["price"]["currency"] for item in each["items"]} == {each["total"]["currency"]}
        assert each["number"].isdigit()
        assert each["customer"]


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("new", "PENDING_PAYMENT"), ("pending_payment", "PENDING_PAYMENT"), ("processing", "OPEN"), ("complete", "COMPLETED"),
        ("closed", "REFUNDED"), ("canceled", "CANCELLED"), ("holded", "ON_HOLD"), ("payment_review", "ON_HOLD"), ("of_an_extension", "UNKNOWN"),
    ],
)  # fmt: skip
def test_the_state_decides_and_the_status_is_the_merchants_own_word(vendor: Shop, state: str, status: str) -> None:
    [order, *_] = vendor.dialect.tables["order"]
    vendor.dialect.change("order", str(order["entity_id"]), {"state": state, "status": "packed_by_ann"})

    async def work(source: Source) -> Any:
        found = await source.read("order", [str(order["entity_id"])], fields=["status", "raw_status"], reading=reading())
        return next(iter(found.value.values()))

    found = vendor.run(work)

    assert (found.status, found.raw_status) == (status, "packed_by_ann")


def test_attributes_are_custom_fields_with_the_labels_of_their_options(graph: World) -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { customFields(keys: ["loyalty_tier", "interests", "visits", "gift_wrap"]) { key type text number } } }'

    fields = {each["key"]: each for each in graph.data(query)["customer"]["customFields"]}

    assert fields["loyalty_tier"]["text"] in {"Gold", "Silver", "Bronze"}
    assert fields["interests"]["type"] == "MULTI_PICKLIST"
    assert "Garden" in fields["interests"]["text"] or "Lighting" in fields["interests"]["text"]
    assert fields["visits"]["type"] == "NUMBER"
    assert fields["gift_wrap"]["type"] == "BOOLEAN"


def test_the_last_page_repeats_and_a_list_ends_all_the_same() -> None:
    with shop() as running:
        orders = len(running.dialect.tables["order"])
        beyond = running.run(lambda source: page_of(running, "orders", 10, 9_999))
        last = running.run(lambda source: page_of(running, "orders", 10, -(-orders // 10)))
        running.calls()

        listed = running.run(lambda source: walked(source, "order", sizes=[10]))

        assert [each["entity_id"] for each in beyond["items"]] == [each["entity_id"] for each in last["items"]] != []
        assert len(listed) == orders
        assert running.calls()["GET /orders"] == -(-orders // 10)


def test_a_shop_that_limits_its_input_is_asked_for_no_more_than_it_gives() -> None:
    with shop(people=900) as running:
        running.dialect.limited = True

        listed = running.run(lambda source: walked(source, "contact", sizes=[1000]))

        assert len(listed) == len(running.dialect.tables["contact"]) > 300


def test_equal_times_are_put_in_order_by_id_and_cut_without_loss() -> None:
    with shop() as running:
        table = running.dialect.tables["order"]
        for row in list(table):
            table.put(str(row["entity_id"]), {**row, "updated_at": "2026-07-01 12:00:00"})
        ids = sorted(int(row["entity_id"]) for row in table)

        up = running.run(lambda source: walked(source, "order", sizes=[3, 20], order="updated"))
        down = running.run(lambda source: walked(source, "order", sizes=[20, 3], order="updated", descending=True))

    assert [int(id) for _, id in up] == ids
    assert [int(id) for _, id in down] == ids[::-1]


def test_a_customer_with_very_many_orders_costs_no_more_pages_than_are_wanted() -> None:
    with shop() as running:
        table = running.dialect.tables["order"]
        [row, *_] = table
        for nth in range(450):
            id = 960_000_000 + nth
            table.put(str(id), {**row, "entity_id": id, "customer_id": int(running.customer())})
        ids = [str(each["id"]) for each in running.dialect.tables["contact"]]

        async def work(source: Source) -> Any:
            found = await source.related("order", "contact", ids, fields=["number"], first=20, reading=reading())
            return found.value[running.customer()]

        found = running.run(work)

        assert (len(found.records), found.more) == (20, True)
        assert running.calls()["GET /orders"] <= 2


def test_a_guests_order_belongs_to_nobody_and_a_customer_without_address_is_read() -> None:
    with shop() as running:
        [order, *_] = running.dialect.tables["order"]
        guest = {name: value for name, value in order.items() if name != "customer_id"} | {"customer_is_guest": 1}
        running.dialect.tables["order"].put(str(order["entity_id"]), guest)
        running.dialect.change("contact", running.customer(), {"addresses": []})

        async def work(source: Source) -> Any:
            orders = await source.read("order", [str(order["entity_id"])], fields=["contact_id", "total"], reading=reading())
            people = await source.read("contact", [running.customer()], fields=["phone", "email"], reading=reading())
            return next(iter(orders.value.values())), next(iter(people.value.values()))

        found, person = running.run(work)

    assert found.contact_id is None
    assert person.email
    assert person.phone is None


# ---- writing ----


def test_a_customer_is_created_changed_and_deleted_and_each_is_seen_at_once() -> None:
    with shop() as running:

        async def work(source: Source) -> list[Any]:
            [made] = await source.write(
                "contact", [RecordWrite(verb="create", values=BOND, custom={"loyalty_tier": "Gold"})], reading()
            )
            assert made.native_id is not None
            found = (await source.find("contact", "email", [BOND["email"]], fields=["email"], reading=reading())).value
            change = RecordWrite(
                verb="update", native_id=made.native_id, values={"given_name": "Jim"}, custom={"interests": ["Garden", "Office"]}
            )
            [changed] = await source.write("contact", [change], reading())
            read = await source.read(
                "contact", [made.native_id], fields=["given_name", "family_name", "custom.*"], reading=reading()
            )
            person = read.value[made.native_id]
            assert person is not None
            custom = {each.field.name: each.value for each in await source.custom_values(person, None, reading())}
            gone = [
                (await source.write("contact", [RecordWrite(verb="delete", native_id=made.native_id)], reading()))[0].state
                for _ in range(2)
            ]
            return [made, found, changed, person, custom, gone]

        made, found, changed, person, custom, gone = running.run(work)

    assert (made.state, made.created) == ("APPLIED", True)
    assert [each.native_id for each in found[BOND["email"]]] == [made.native_id]
    assert (changed.state, changed.native_id, changed.created) == ("APPLIED", made.native_id, False)
    assert (person.given_name, person.family_name) == ("Jim", "Bond")
    assert custom["loyalty_tier"] == "Gold"
    assert custom["interests"] == ["Garden", "Office"]
    assert gone == ["APPLIED", "UNCHANGED"]


def test_each_of_many_writes_has_its_own_outcome() -> None:
    with shop() as running:
        taken = running.dialect.tables["contact"].get(running.customer(1))["email"]

        outcomes = running.write(
            RecordWrite(verb="create", values=BOND),
            RecordWrite(verb="create", values={**BOND, "email": taken}),
            RecordWrite(verb="create", values={"email": "no.name@bond.example"}),
            RecordWrite(verb="update", native_id=running.customer(), values={"email": taken.upper()}),
            RecordWrite(verb="update", native_id="999999999", values={"given_name": "Nobody"}),
            RecordWrite(verb="update", native_id=running.customer(2), values={"given_name": "Moneypenny"}),
            RecordWrite(verb="delete", native_id="999999999"),
        )

        assert running.dialect.tables["contact"].get(running.customer(2))["firstname"] == "Moneypenny"

    told = [(each.state, each.error and each.error.code, tuple(each.fields)) for each in outcomes]
    assert told == [
        ("APPLIED", None, ()), ("CONFLICT", "DUPLICATE", ("email",)), ("REJECTED", "VALIDATION", ("given_name", "family_name")),
        ("CONFLICT", "DUPLICATE", ("email",)), ("REJECTED", "NOT_FOUND", told[4][2]), ("APPLIED", None, ()), ("UNCHANGED", None, ()),
    ]  # fmt: skip
    assert not any("bond" in str(each.error) for each in outcomes)


def test_an_address_is_one_customers_on_each_website() -> None:
    with shop() as running:
        first, second = (
            running.write(RecordWrite(verb="create", values=BOND)),
            running.write(RecordWrite(verb="create", values=BOND), store="second"),
        )

        async def work(source: Source) -> list[str]:
            found = await source.find("contact", "email", [BOND["email"]], fields=["email"], reading=reading())
            return sorted(each.native_id for each in found.value[BOND["email"]])

        assert running.run(work) == sorted(str(each[0].native_id) for each in (first, second))


def test_a_create_without_a_clear_answer_is_unknown_and_not_sent_again() -> None:
    with shop() as running:
        running.fault("truncate", "POST*customers")

        [outcome] = running.write(RecordWrite(verb="create", values=BOND))

        assert outcome.state == "UNKNOWN"
        assert running.calls()["POST /customers"] == 1
        assert len(running.dialect.tables["contact"].having("email", [BOND["email"]])) == 1


def test_an_update_without_a_clear_answer_is_sent_again() -> None:
    with shop() as running:
        running.fault("reset", "PUT*", times=1)

        [outcome] = running.write(RecordWrite(verb="update", native_id=running.customer(), values={"family_name": "Bond"}))

        assert outcome.state == "APPLIED"
        assert running.calls()["PUT /customers/{id:int}"] == 2


def test_deleting_a_customer_leaves_the_orders_to_nobody() -> None:
    with shop() as running:
        row = next(each for each in running.dialect.tables["order"] if each.get("customer_id"))

        running.write(RecordWrite(verb="delete", native_id=str(row["customer_id"])))

        assert "customer_id" not in running.dialect.tables["order"].get(str(row["entity_id"]))


# ---- the sandbox ----


def test_the_sandbox_speaks_as_the_documents_say() -> None:
    with shop() as running:
        everything = ask(running, "GET", "orders?searchCriteria")
        nothing = ask(running, "GET", "customers/search")
        unwrapped = ask(running, "GET", "orders?searchCriteria&fields=entity_id")
        trimmed = ask(running, "GET", "orders?searchCriteria[page_size]=2&fields=items[entity_id,items[sku]],total_count")
        empty = ask(
            running,
            "GET",
            "orders?searchCriteria[filterGroups][0][filters][0][field]=customer_id&searchCriteria[filterGroups][0][filters][0][value]=1&fields=items[entity_id],total_count",
        )
        either = ask(
            running, "GET",
            "orders?searchCriteria[filter_groups][0][filters][0][field]=state&searchCriteria[filter_groups][0][filters][0][value]=closed"
            "&searchCriteria[filter_groups][0][filters][1][field]=state&searchCriteria[filter_groups][0][filters][1][value]=cance%25"
            "&searchCriteria[filter_groups][0][filters][1][condition_type]=like",
        )  # fmt: skip
        missing = ask(running, "GET", "customers/1")
        nowhere = ask(running, "GET", "nowhere")

    assert len(everything.json()["items"]) == everything.json()["total_count"]
    assert (nothing.status_code, nothing.json()["parameters"]) == (400, {"fieldName": "searchCriteria"})
    assert unwrapped.json() == []
    assert [set(each) for each in trimmed.json()["items"]] == [{"entity_id", "items"}] * 2
    assert empty.json() == {"items": None, "total_count": 0}
    assert {each["state"] for each in either.json()["items"]} == {"closed", "canceled"}
    assert missing.json() == {
        "message": "No such entity with %fieldName = %fieldValue", "parameters": {"fieldName": "customerId", "fieldValue": 1},
    }  # fmt: skip
    assert nowhere.status_code == 404


async def page_of(running: Shop, path: str, size: int, number: int) -> Any:
    said = f"{path}?searchCriteria[pageSize]={size}&searchCriteria[currentPage]={number}"
    said += "&searchCriteria[sortOrders][0][field]=created_at&searchCriteria[sortOrders][0][direction]=ASC"
    return ask(running, "GET", said).json()


def ask(running: Shop, method: str, path: str) -> httpx.Response:
    root = running.dialect.address(running.address) + "/V1"
    said = {"username": ADMIN, "password": PASSWORD}
    with httpx.Client() as http:
        token = http.post(f"{root}/integration/admin/token", json=said).json()
        return http.request(method, f"{root}/{path}", headers={"authorization": f"Bearer {token}"})
