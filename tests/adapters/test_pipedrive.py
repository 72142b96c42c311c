"""What is unusual about Pipedrive's reading: calls have prices, fields have hashes for names, hosts are learned."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from adapters.base import Position, Scan
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.pipedrive import (
    _COUNTS,
    _FILTERS,
    _KINDS,
    _LISTED,
    _SHOWN,
    API_TOKEN,
    CLIENT_ID,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    Pipedrive,
)  # fmt: skip
from sandbox.pipedrive_fields import _BODIES, Refused, check, key
from sources.source import Source
from tests.adapters.test_contract import Vendors, reading, walked
from tests.specifications import digest
from tests.world import World, served, world


@pytest.fixture(scope="module")
def vendors() -> Iterator[Vendors]:
    sandbox = Sandbox(people=400, systems=["pipedrive"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Vendors(sandbox, address, Path(folder))


@pytest.fixture(scope="module")
def crm() -> Iterator[World]:
    with world(people=120, systems=["pipedrive"]) as running:
        yield running


def dialect(vendors: Vendors) -> Pipedrive:
    found = vendors.sandbox.dialects["pipedrive"]
    assert isinstance(found, Pipedrive)
    return found


async def spent(vendors: Vendors, work: Any) -> tuple[dict[str, int], float]:
    """Return the calls that `work` made, and what they cost in tokens."""
    pipedrive = dialect(vendors)
    pipedrive.calls.clear()
    before = pipedrive.spent
    await work
    return dict(pipedrive.calls), pipedrive.spent - before


@pytest.mark.parametrize(
    ("count", "singles", "lists", "tokens"), [(1, 1, 0, 1), (9, 9, 0, 9), (10, 0, 1, 10), (100, 0, 1, 10), (105, 5, 1, 15)]
)
def test_records_are_read_one_by_one_or_in_batches_whichever_costs_less(
    vendors: Vendors, count: int, singles: int, lists: int, tokens: int
) -> None:  # fmt: skip
    ids = [str(each.id) for each in vendors.sandbox.world.profiles["pipedrive"] if not each.deleted][:count]

    async def work(source: Source) -> tuple[dict[str, int], float]:
        await source.described("contact", reading())
        return await spent(vendors, source.read("contact", ids, fields=["email"], reading=reading()))

    calls, cost = vendors.run("pipedrive", work)

    assert (calls.get("GET /api/v2/persons/{id}", 0), calls.get("GET /api/v2/persons", 0), cost) == (singles, lists, tokens)


def test_lists_are_asked_for_only_of_people_that_have_deals(vendors: Vendors) -> None:
    sandbox = vendors.sandbox
    ids = [str(each.id) for each in sandbox.world.profiles["pipedrive"] if not each.deleted][:60]
    having = {str(person) for deal in sandbox.world.deals["pipedrive"] if not deal.deleted for person in deal.contacts} & {*ids}

    async def work(source: Source) -> tuple[dict[str, int], float]:
        await source.described("contact", reading())
        await source.described("deal", reading())
        asked = source.related("deal", "contact", ids, fields=["name"], first=5, reading=reading())
        return await spent(vendors, asked)

    calls, cost = vendors.run("pipedrive", work)

    assert calls == {"GET /api/v2/persons": 1, "GET /api/v2/deals": len(having)}
    assert 0 < len(having) < len(ids)
    assert cost == 10 + 10 * len(having)


def test_a_deal_with_one_participant_needs_no_list_of_its_own(vendors: Vendors) -> None:
    deals = [each for each in vendors.sandbox.world.deals["pipedrive"] if not each.deleted]
    several = [each for each in deals if len(each.contacts) > 1][:2]
    some = [*several, *[each for each in deals if len(each.contacts) == 1][:30]]
    wanted = {str(each.id): [str(person) for person in each.contacts] for each in some}

    async def work(source: Source) -> tuple[dict[str, list[str]], dict[str, int]]:
        dialect(vendors).calls.clear()
        found = (await source.related("contact", "deal", list(wanted), fields=["name"], first=20, reading=reading())).value
        return {id: [each.native_id for each in of.records] for id, of in found.items()}, dict(dialect(vendors).calls)

    found, calls = vendors.run("pipedrive", work)

    assert found == wanted, "the first person of the deal stands first"
    assert calls["GET /api/v2/persons"] == len(several) + 1


def test_custom_fields_have_the_names_that_people_gave_them(crm: World) -> None:
    query = """{ customer(by: {email: "ada.king@northwind.example"}) {
      customFields(keys: ["Loyalty tier", "Interests", "Yearly budget", "Yearly budget: currency", "Best time to call"]) { key type text } } }"""

    fields = {each["key"]: each for each in crm.data(query)["customer"]["customFields"]}

    assert fields["Loyalty tier"]["text"] in {"Gold", "Silver", "Bronze"}
    assert fields["Yearly budget"]["type"] == "MONEY"
    assert fields["Yearly budget: currency"]["text"] == "USD"
    assert fields["Best time to call"]["text"] == "09:00:00"


def test_fields_of_one_name_are_told_apart_by_their_keys(vendors: Vendors) -> None:
    meta = vendors.run("pipedrive", lambda source: source.described("account", reading()))

    first, second = (key("organization", "Region", nth) for nth in (0, 1))
    assert {name: each.path for name, each in meta.fields.items() if name.startswith("Region")} == {
        f"Region ({first[:6]})": f"custom_fields.{first}", f"Region ({second[:6]})": f"custom_fields.{second}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "came"), [(["Score"], 1), ([f"Survey answer {n}" for n in range(1, 11)], 10), (["*"], 18), ([], 1)]
)
def test_at_most_fifteen_custom_fields_are_named_and_beyond_that_all_come(vendors: Vendors, wanted: list[str], came: int) -> None:
    id = str(next(each.id for each in vendors.sandbox.world.profiles["pipedrive"] if not each.deleted))

    async def work(source: Source) -> Any:
        fields = ["email", *(f"custom.{name}" for name in wanted)]
        return (await source.read("contact", [id], fields=fields, reading=reading())).value[id]

    record = vendors.run("pipedrive", work)

    assert len(record.row["custom_fields"]) == came


def test_a_closed_deal_is_won_or_lost_in_its_pipeline(crm: World) -> None:
    deals = crm.data("{ deals(first: 100) { nodes { stage { id name category pipeline } amount { currency } } } }")["deals"][
        "nodes"
    ]

    stages = {(each["stage"]["category"], each["stage"]["name"]) for each in deals}
    assert {("WON", "Won"), ("LOST", "Lost"), ("OPEN", "Qualified")} <= stages
    assert {each["stage"]["pipeline"] for each in deals} == {"Sales", "Renewals"}
    assert {name for category, name in stages if category == "OPEN"}.isdisjoint({"Won", "Lost"})


def test_industries_are_labels(crm: World) -> None:
    accounts = crm.data("{ accounts(first: 20) { nodes { industry domain } } }")["accounts"]["nodes"]

    assert {each["industry"] for each in accounts} <= {
        "Technology",
        "Retail",
        "Healthcare",
        "Finance",
        "Education",
        "Manufacturing",
    }
    assert all(each["domain"].endswith(".example") for each in accounts)


@pytest.mark.parametrize("descending", [False, True])
def test_where_a_made_cursor_is_refused_the_list_is_walked_to_its_place(vendors: Vendors, descending: bool) -> None:
    async def work(source: Source) -> tuple[list[str], list[str]]:
        whole = [id for _, id in await walked(source, "contact", sizes=[500], descending=descending)]
        first = await source.scan("contact", Scan(size=30, descending=descending), fields=["email"], reading=reading())
        place: Position = first.value.rows[-1][0]
        number = vendors.sandbox.faults.add(
            Fault(system="pipedrive", fault="status", status=400, path="/api/v2/persons", times=1)
        )
        # The fault's body is not Pipedrive's, but a 400 all the same.
        after = Scan(after=place, size=30, descending=descending)
        second = await source.scan("contact", after, fields=["email"], reading=reading())
        vendors.sandbox.faults.remove(number)
        return whole, [place.native_id for page in (first, second) for place, _ in page.value.rows]

    whole, found = vendors.run("pipedrive", work)

    assert found == whole[: len(found)]
    assert len(found) > 40


def test_calls_go_to_the_host_that_came_with_the_token_and_the_rotated_refresh_token_is_kept() -> None:
    sandbox = Sandbox(people=10, systems=["pipedrive"])
    pipedrive = sandbox.dialects["pipedrive"]
    tokens_only = [route for route in pipedrive.routes(sandbox.faults) if "oauth" in getattr(route, "path", "")]
    accounts = Starlette(routes=[Mount("/pipedrive", routes=tokens_only)])
    with served(server(sandbox)) as api, served(server(accounts)) as oauth, TemporaryDirectory() as folder:
        pipedrive.base_url = f"{api}/pipedrive"
        vendors = Vendors(sandbox, oauth, Path(folder))

        async def check(source: Source) -> str:
            return (await source.check(reading())).account

        first = vendors.run("pipedrive", check)
        sandbox.clock.advance(7200)
        second = vendors.run("pipedrive", check)

    assert first == second == "7300001"
    assert pipedrive.tokens is not None
    assert not pipedrive.tokens.knows(REFRESH_TOKEN)
    assert pipedrive.calls["POST /oauth/token"] == 2


def test_an_api_token_works_as_well() -> None:
    settings = [{"id": "acme", "system": "pipedrive", "auth": {"scheme": "token", "token": API_TOKEN}}]
    sandbox = Sandbox(people=10, systems=["pipedrive"])
    with (
        served(server(sandbox)) as address,
        world(people=5, systems=["pipedrive"], sources=[{**settings[0], "base_url": f"{address}/pipedrive"}]) as running,
    ):
        found = running.data("{ customers(first: 5) { nodes { id } sources { state } } }")["customers"]

    assert found["nodes"]
    assert found["sources"] == [{"state": "OK"}]


def test_a_day_without_tokens_left_is_told_and_not_tried_again() -> None:
    query = "{ customers(first: 5) { nodes { id } sources { state code retryAt } } }"
    with world(people=10, systems=["pipedrive"]) as running:
        pipedrive = running.sandbox.dialects["pipedrive"]
        assert isinstance(pipedrive, Pipedrive)
        pipedrive.daily_limit = 0  # others of the company have used them up

        [first] = running.data(query)["customers"]["sources"]
        calls = dict(pipedrive.calls)
        [second] = running.data(query)["customers"]["sources"]

    assert first["code"] == second["code"] == "QUOTA_EXHAUSTED"
    assert first["retryAt"]
    assert pipedrive.calls == calls


HEADERS = {"x-api-token": API_TOKEN}


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with (
        served(server(Sandbox(people=150, systems=["pipedrive"]))) as address,
        httpx.Client(base_url=f"{address}/pipedrive", headers=HEADERS) as client,
    ):
        yield client


def test_the_sandbox_refuses_as_the_documents_say(http: httpx.Client) -> None:
    unknown = http.get("/api/v2/persons", headers={"x-api-token": "nobody"})
    missing = http.get("/api/v2/deals/1")
    fraction = http.get("/api/v2/persons", params={"updated_since": "2026-01-01T00:00:00.000Z"})
    keys = http.get("/api/v2/persons", params={"custom_fields": ",".join(f"{n:040x}" for n in range(16))})
    many = http.get("/api/v2/persons", params={"ids": ",".join(map(str, range(101)))})
    quoted = http.post("/api/v2/deals", json={"title": "x", "value": "12"})
    synced = http.post("/api/v2/persons", json={"name": "Ada", "job_title": "CEO"})
    fields = {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "grant_type": "refresh_token",
        "refresh_token": REFRESH_TOKEN,
    }
    unnamed = http.post("/oauth/token", data=fields)
    other = http.post("/oauth/token", data={"grant_type": "refresh_token", "refresh_token": "x"}, auth=(CLIENT_ID, CLIENT_SECRET))

    assert (unknown.status_code, unknown.json()["error"], unknown.headers["x-401-by-gw"]) == (401, "unauthorized access", "true")
    assert (missing.status_code, missing.json()["error"]) == (404, "Deal not found")
    assert [each.status_code for each in (fraction, keys, many, quoted, synced)] == [400, 400, 400, 400, 403]
    assert quoted.json()["code"] == "ERR_SCHEMA_VALIDATION_FAILED"
    assert (unnamed.status_code, unnamed.json()["error"]) == (400, "invalid_client"), "the client is named by HTTP Basic only"
    assert (other.status_code, other.json()["error"]) == (400, "invalid_grant")


def test_the_sandbox_counts_tokens_and_calls_and_shuts_out_who_does_not_stop(http: httpx.Client) -> None:
    first, second = http.get("/api/v2/persons"), http.get("/api/v1/users/me")
    hammered = [http.get("/api/v1/users/me") for _ in range(60)]

    tokens = [int(each.headers["x-daily-ratelimit-token-remaining"]) for each in (first, second)]
    assert tokens[0] - tokens[1] == 2
    assert [int(each.headers["x-ratelimit-remaining"]) for each in (first, second)] == [19, 18]
    assert [each.status_code for each in hammered[:18]] == [200] * 18
    assert hammered[18].json()["errorCode"] == 429
    assert int(hammered[18].headers["x-ratelimit-reset"]) <= 2
    assert hammered[-1].status_code == 403
    assert hammered[-1].headers["content-type"].startswith("text/html")


def test_deleted_deals_are_listed_for_thirty_days() -> None:
    sandbox = Sandbox(people=60, systems=["pipedrive"])
    with served(server(sandbox)) as address, httpx.Client(base_url=f"{address}/pipedrive", headers=HEADERS) as client:
        id = client.get("/api/v2/deals", params={"limit": 1}).json()["data"][0]["id"]
        client.delete(f"/api/v2/deals/{id}").raise_for_status()

        listed = [each["id"] for each in client.get("/api/v2/deals", params={"status": "deleted"}).json()["data"]]
        again = client.delete(f"/api/v2/deals/{id}").status_code
        sandbox.clock.advance(31 * 86_400)
        later = client.get("/api/v2/deals", params={"status": "deleted"}).json()["data"]
        gone = client.get(f"/api/v2/deals/{id}").status_code

    assert (listed, again, later, gone) == ([id], 404, [], 404)


# ---- the published description ----

NEWER = {"organization": {"website", "linkedin", "industry", "annual_revenue", "employee_count"}, "deal": set(), "person": set()}
EXAMPLE_ONLY = {"creator_user_id", "archive_time"}  # in the description's example, and not among its properties


def operations(version: str) -> dict[str, Any]:
    return {
        f"{each['method']} /api/{version}{each['path']}": each
        for each in digest("pipedrive", f"pipedrive-{version}.shape.json")["operations"]
    }


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    found = dict(schema.get("properties", {}))
    for each in schema.get("allOf", ()):
        found |= properties(each)
    return found


def test_every_endpoint_is_in_the_published_description_at_its_price() -> None:
    known = operations("v1") | operations("v2")
    sandbox = Sandbox(people=5, systems=["pipedrive"]).dialects["pipedrive"]

    prices = {each.template: each.cost["daily"] for each in sandbox.endpoints() if not each.open}

    assert prices == {template: known[template]["x-token-cost"] for template in prices}


@pytest.mark.parametrize("object", ["person", "organization", "deal"])
def test_parameters_rows_and_bodies_are_those_of_the_published_description(object: str) -> None:

    known = operations("v2")
    listed, created = known[f"GET /api/v2/{object}s"], known[f"POST /api/v2/{object}s"]
    row = next(iter(Sandbox(people=20, systems=["pipedrive"]).dialects["pipedrive"].tables[_KINDS[object]]))
    parameters = {each["name"]: each for each in listed["params"]}
    shown = properties(properties(listed["responses"]["200"]["application/json"]["schema"])["data"]["items"])
    body = properties(created["body"]["application/json"]["schema"])

    # The sandbox refuses every parameter and every property that it does not know, so what the adapter sends is among these.
    assert parameters.keys() >= _LISTED | _SHOWN | _FILTERS[object]
    assert set(parameters["include_fields"]["enum"]) >= _COUNTS[object]
    assert {name for name in row if not name.startswith("_")} <= shown.keys() | NEWER[object] | EXAMPLE_ONLY
    assert _BODIES[object].keys() <= body.keys() | NEWER[object]


def test_a_body_is_checked_as_strictly_as_the_description_is() -> None:
    for object, wanted in (("person", "name"), ("organization", "name"), ("deal", "title")):
        schema = operations("v2")[f"PATCH /api/v2/{object}s/{{id}}"]["body"]["application/json"]["schema"]
        numbers = [name for name, shape in properties(schema).items() if shape["type"] in {"integer", "number"}]

        assert numbers
        for name in numbers:
            with pytest.raises(Refused, match=name):
                check(object, {wanted: "x", name: "1"}, creating=True)
