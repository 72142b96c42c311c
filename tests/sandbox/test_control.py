"""The controls of the vendor world: what tests and proofs of concept steer it by."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.app import DIALECTS, Sandbox, server
from tests.world import served

SYSTEMS = sorted(DIALECTS)
# A cheap call of each system with its credentials, and one it refuses without.
CALLS: dict[str, tuple[str, str, dict[str, str]]] = {
    "bigcommerce": ("GET", "/bigcommerce/stores/c360demo/v3/customers?limit=1", {"x-auth-token": "bigcommerce-demo-token"}),
    "dynamics": ("GET", "/dynamics/api/data/v9.2/WhoAmI", {}),
    "freshdesk": ("GET", "/freshdesk/api/v2/agents/me", {"authorization": "Basic ZnJlc2hkZXNrLWRlbW8ta2V5Olg="}),
    "hubspot": ("GET", "/hubspot/crm/v3/objects/contacts?limit=1", {"authorization": "Bearer pat-na1-demo"}),
    "mailchimp": ("GET", "/mailchimp/3.0/lists", {"authorization": "Bearer 0123456789abcdef0123456789abcdef-us19"}),
    "marketo": ("GET", "/marketo/rest/v1/leads/partitions.json", {}),
    "magento": ("GET", "/magento/rest/default/V1/store/storeConfigs", {}),
    "pipedrive": ("GET", "/pipedrive/api/v1/users/me", {"x-api-token": "pipedrive-demo-api-token"}),
    "zendesk": ("GET", "/zendesk/api/v2/users/me.json", {}),
    "shopify": ("POST", "/shopify/admin/api/2026-07/graphql.json", {"x-shopify-access-token": "shpat_demo"}),
    "salesforce": ("GET", "/salesforce/services/data/v60.0/limits", {}),
    "zoho": ("GET", "/zoho/crm/v8/org", {}),
    "sugarcrm": ("GET", "/sugarcrm/rest/v11_20/me", {}),
}


@pytest.fixture
def vendors() -> Iterator[tuple[Sandbox, httpx.Client]]:
    sandbox = Sandbox(people=40)
    with served(server(sandbox)) as address, httpx.Client(base_url=address, timeout=10) as http:
        yield sandbox, http


def call(http: httpx.Client, system: str) -> httpx.Response:
    method, path, headers = CALLS[system]
    json = {"query": "{ shop { name } }"} if method == "POST" else None
    return http.request(method, path, headers=headers, json=json)


def fault(http: httpx.Client, system: str, name: str, **facts: Any) -> int:
    answer = http.post("/_control/faults", json={"system": system, "fault": name, **facts})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_nobody_gets_in_without_credentials(vendors: tuple[Sandbox, httpx.Client], system: str) -> None:
    method, path, _ = CALLS[system]

    answer = vendors[1].request(method, path, json={"query": "{ shop { name } }"} if method == "POST" else None)

    if system == "marketo":  # which says so in the body, of a 200
        assert answer.json()["errors"][0]["code"] == "601"
    else:
        assert answer.status_code == 401


@pytest.mark.parametrize("system", SYSTEMS)
def test_calls_are_counted_by_template_until_they_are_reset(vendors: tuple[Sandbox, httpx.Client], system: str) -> None:
    _, http = vendors
    call(http, system)
    call(http, system)

    counted = http.get("/_control/calls").json()
    http.delete("/_control/calls")

    assert list(counted[system].values()) == [2]
    assert http.get("/_control/calls").json() == {name: {} for name in DIALECTS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_faults_strike_as_often_as_told_and_no_other_system(vendors: tuple[Sandbox, httpx.Client], system: str) -> None:
    _, http = vendors
    fault(http, system, "status", status=418, times=2)

    struck = [call(http, system).status_code for _ in range(3)]
    others = [call(http, other).status_code for other in SYSTEMS if other != system]

    assert struck[:2] == [418, 418]
    assert struck[2] != 418
    assert 418 not in others


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_way_to_fail_looks_as_it_is_called(vendors: tuple[Sandbox, httpx.Client], system: str) -> None:
    sandbox, http = vendors

    def struck(name: str, **facts: Any) -> httpx.Response:
        number = fault(http, system, name, **facts)
        try:
            return call(http, system)
        finally:
            assert http.delete(f"/_control/faults/{number}").status_code == 204

    html = struck("html", status=502)
    for name in ("throttle", "exhaust"):
        if sandbox.dialects[system].cuts:
            with pytest.raises(httpx.TransportError):
                struck(name, seconds=7)
            sandbox.clock.advance(60)
        else:
            assert struck(name, seconds=7).status_code in {200, 403, 429}
    began = time.monotonic()
    struck("latency", seconds=0.15)

    assert time.monotonic() - began >= 0.15
    assert html.headers["content-type"].startswith("text/html")
    for name in ("reset", "truncate"):
        with pytest.raises(httpx.TransportError):
            struck(name)
    with pytest.raises(ValueError):
        struck("bad_json").json()


def test_a_share_of_calls_is_the_same_share_for_the_same_seed() -> None:
    def drawn() -> list[int]:
        sandbox = Sandbox(people=2, seed=5)
        with served(server(sandbox)) as address, httpx.Client(base_url=address) as http:
            fault(http, "shopify", "status", status=500, rate=0.5)
            return [call(http, "shopify").status_code for _ in range(20)]

    first = drawn()

    assert first == drawn()
    assert {200, 500} == set(first)


def test_a_path_glob_narrows_a_fault(vendors: tuple[Sandbox, httpx.Client]) -> None:
    _, http = vendors
    fault(http, "hubspot", "status", path="/crm/v3/owners*")

    assert call(http, "hubspot").status_code == 200
    assert http.get("/hubspot/crm/v3/owners", headers=CALLS["hubspot"][2]).status_code == 503


def test_the_clock_moves_tokens_to_their_end(vendors: tuple[Sandbox, httpx.Client]) -> None:
    sandbox, http = vendors
    auth = dict(sandbox.dialects["hubspot"].demo_auth())
    said = {name: auth[name] for name in ("client_id", "client_secret", "refresh_token")}
    token = http.post("/hubspot/oauth/v1/token", data={"grant_type": "refresh_token", **said}).json()["access_token"]

    def allowed() -> int:
        return http.get("/hubspot/crm/v3/owners", headers={"authorization": f"Bearer {token}"}).status_code

    before = allowed()
    moved = http.post("/_control/clock", json={"advance_s": 1801})

    assert (before, moved.status_code, allowed()) == (200, 200, 401)


def test_the_truth_lists_every_person_with_their_spellings(vendors: tuple[Sandbox, httpx.Client]) -> None:
    sandbox, http = vendors

    first = http.get("/_control/people?limit=15").json()
    second = http.get("/_control/people?limit=100&offset=15").json()

    people = first["people"] + second["people"]
    assert first["total"] == len(people) == len(sandbox.world.people) == 40
    assert {system for person in people for system in person["systems"]} == set(DIALECTS)
    spelled = [
        record["email"] for person in people for records in person["systems"].values() for record in records if record["email"]
    ]
    assert len(spelled) > len(set(map(str.lower, spelled))), "the same address in several systems"
    assert set(spelled) != set(map(str.lower, spelled)), "and not always spelled the same"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_record_is_changed_and_deleted_as_a_user_of_the_vendor_would(
    vendors: tuple[Sandbox, httpx.Client], system: str
) -> None:
    sandbox, http = vendors
    profile = next(each for each in sandbox.world.profiles[system] if not each.deleted)
    path = f"/_control/records/{system}/contact/{sandbox.dialects[system].native('contact', profile.id)}"
    field = {
        "bigcommerce": "first_name",
        "dynamics": "firstname",
        "freshdesk": "name",
        "hubspot": "firstname",
        "magento": "firstname",
        "mailchimp": "language",
        "marketo": "firstName",
        "pipedrive": "name",
        "salesforce": "FirstName",
        "shopify": "firstName",
        "sugarcrm": "first_name",
        "zendesk": "name",
        "zoho": "First_Name",
    }[system]

    changed = http.patch(path, json={field: "Grace"})
    gone = [http.delete(path).status_code for _ in range(2)]

    assert changed.status_code == 200
    assert "Grace" in changed.text
    assert gone == [204, 404]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/_control/faults", {"system": "hubspot", "fault": "nonsense"}),
        ("POST", "/_control/faults", {"system": "nobody", "fault": "hang"}),
        ("POST", "/_control/faults", {"system": "hubspot", "fault": "hang", "rate": 2}),
        ("POST", "/_control/clock", {"advance_s": -1}),
        ("POST", "/_control/clock", {"advance": 1}),
        ("GET", "/_control/people?limit=all", None),
    ],
)
def test_a_wrong_control_is_refused_with_a_reason(
    vendors: tuple[Sandbox, httpx.Client], method: str, path: str, body: Any
) -> None:
    answer = vendors[1].request(method, path, json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]
