"""Whether Dataverse's sandbox behaves as its documents say, where the adapter does not make it."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from sandbox.app import Sandbox, server
from sandbox.dynamics import CLIENT_ID, CLIENT_SECRET, TENANT
from tests.adapters.test_contract import Vendors
from tests.adapters.test_dynamics import rows, some
from tests.world import served

API = "/dynamics/api/data/v9.2"


@pytest.fixture(scope="module")
def vendors() -> Iterator[Vendors]:
    sandbox = Sandbox(people=120, systems=["dynamics"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Vendors(sandbox, address, Path(folder))


@pytest.fixture
def http(vendors: Vendors) -> Iterator[httpx.Client]:
    """A client of the sandbox itself, with a token."""
    vendors.sandbox.clock.advance(400)
    tokens = vendors.sandbox.dialects["dynamics"].tokens
    assert tokens is not None
    with httpx.Client(base_url=vendors.address + API, headers={"authorization": f"Bearer {tokens.issue('test')}"}) as client:
        yield client


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"client_secret": "wrong"}, 401, 7000215),
        ({"scope": "https://other.crm.dynamics.com/.default"}, 400, 70011),
        ({"grant_type": "refresh_token", "refresh_token": "old"}, 400, 700082),
    ],
)
def test_the_sandbox_refuses_tokens_as_the_directory_does(
    vendors: Vendors, change: dict[str, str], status: int, code: int
) -> None:
    said = {
        "grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": f"{vendors.address}/dynamics/.default",
    }  # fmt: skip

    answer = httpx.post(f"{vendors.address}/dynamics/login/{TENANT}/oauth2/v2.0/token", data={**said, **change})

    assert (answer.status_code, answer.json()["error_codes"]) == (status, [code])
    assert f"AADSTS{code}" in answer.json()["error_description"]


def test_the_sandbox_pages_behind_cookies_that_must_not_be_spelled_anew(http: httpx.Client) -> None:
    ask = {"$select": "contactid", "$top": "1", "$orderby": "createdon desc"}
    first = http.get("/contacts", params=ask, headers={"prefer": "odata.maxpagesize=5"})
    link = first.json()["@odata.nextLink"]
    second = http.get(link, headers={"prefer": "odata.maxpagesize=5"})
    twice = http.get(link.replace("%", "%25"), headers={"prefer": "odata.maxpagesize=5"})

    assert len(first.json()["value"]) == 5  # $top does nothing beside a page size
    assert not {row["contactid"] for row in first.json()["value"]} & {row["contactid"] for row in second.json()["value"]}
    assert twice.status_code == 400
    assert http.get("/contacts", params={"$skip": "5"}).status_code == 400


def test_the_sandbox_shows_annotations_only_where_they_are_asked_for(http: httpx.Client) -> None:
    ask = {"$select": "_parentcustomerid_value", "$filter": "_parentcustomerid_value ne null", "$top": "1"}

    bare = http.get("/contacts", params=ask).json()["value"][0]
    full = http.get("/contacts", params=ask, headers={"prefer": 'odata.include-annotations="*"'}).json()["value"][0]

    assert bare.keys() == {"@odata.etag", "contactid", "_parentcustomerid_value"}
    assert full["_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "account"
    assert full["_parentcustomerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "parentcustomerid_account"


def test_the_sandbox_makes_what_a_patch_without_a_condition_does_not_find(http: httpx.Client) -> None:
    fresh = "/contacts(aaaaaaaa-0000-4000-8000-00000000000a)"

    held = http.patch(fresh, json={"lastname": "Upserted"}, headers={"if-match": "*"})
    made = http.patch(fresh, json={"lastname": "Upserted"})
    only_new = http.patch(fresh, json={"lastname": "Upserted"}, headers={"if-none-match": "*"})
    stale = http.patch(fresh, json={"lastname": "Changed"}, headers={"if-match": 'W/"1"'})
    by_key = [
        http.patch("/contacts(new_externalid='K-77')", json={"firstname": name}).headers["odata-entityid"] for name in ("A", "B")
    ]
    no_key = http.get("/contacts(emailaddress1='a@b.example')")

    assert [each.status_code for each in (held, made, only_new, stale, no_key)] == [404, 204, 412, 412, 400]
    assert [each.json()["error"]["code"] for each in (held, only_new, stale)] == ["0x80040217", "0x80040237", "0x80060882"]
    assert by_key[0] == by_key[1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"foo": 1}, "Invalid property 'foo'"),
        ({"foo@odata.bind": "/accounts(1)"}, "An undeclared property 'foo'"),
        ({"_parentcustomerid_value": "aaaaaaaa-0000-4000-8000-00000000000a"}, "do not support direct update of Entity Reference"),
        ({"new_loyaltytier": 5}, "outside the valid range"),
        ({"new_loyaltytier": "Gold"}, "Cannot convert the literal"),
        ({"statuscode": 2}, "is not a valid status code"),
    ],
)
def test_the_sandbox_refuses_what_does_not_fit(vendors: Vendors, http: httpx.Client, body: dict[str, Any], words: str) -> None:
    contact = some(vendors, "contact", merged=False)["contactid"]

    answer = http.patch(f"/contacts({contact})", json=body)

    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_the_sandbox_lets_nobody_win_a_deal_by_its_state(vendors: Vendors, http: httpx.Client) -> None:
    deal = some(vendors, "deal", statecode=0)["opportunityid"]

    assert http.patch(f"/opportunities({deal})", json={"statecode": 1, "statuscode": 3}).status_code == 400
    assert some(vendors, "deal", opportunityid=deal)["statecode"] == 0


def test_the_sandbox_does_bulk_actions_wholly_or_not_at_all(vendors: Vendors, http: httpx.Client) -> None:
    before = len(rows(vendors, "contact"))
    action = "/contacts/Microsoft.Dynamics.CRM.CreateMultiple"
    good, bad = {"@odata.type": "Microsoft.Dynamics.CRM.contact", "lastname": "Bulk"}, {"lastname": "x" * 60}

    refused = http.post(action, json={"Targets": [good, bad]})
    between = len(rows(vendors, "contact"))
    done = http.post(action, json={"Targets": [good, good]})

    assert (refused.status_code, between) == (400, before)
    assert len(done.json()["Ids"]) == 2


def test_the_sandbox_ends_a_batch_at_the_first_failure_unless_told_to_go_on(http: httpx.Client) -> None:
    def part(lastname: str) -> str:
        body = json.dumps({"lastname": lastname})
        return f"--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\nPOST {API.removeprefix('/dynamics')}/leads HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{body}\r\n"

    text = part("One") + part("x" * 60) + part("Three") + "--b--\r\n"
    headers = {"content-type": "multipart/mixed; boundary=b"}

    stopped = http.post("/$batch", content=text, headers=headers)
    went_on = http.post("/$batch", content=text, headers={**headers, "prefer": "odata.continue-on-error"})

    assert (stopped.status_code, stopped.text.count("HTTP/1.1")) == (400, 2)
    assert (went_on.status_code, went_on.text.count("204 No Content"), went_on.text.count("400 Bad Request")) == (200, 2, 1)


def test_the_sandbox_protects_itself_with_429_and_a_wait(vendors: Vendors, http: httpx.Client) -> None:
    first = http.get("/WhoAmI")
    left = int(first.headers["x-ms-ratelimit-burst-remaining-xrm-requests"])
    dialect: Any = vendors.sandbox.dialects["dynamics"]
    dialect._requests.limit -= left - 1

    try:
        last, refused = http.get("/WhoAmI"), http.get("/WhoAmI")
    finally:
        dialect._requests.limit += left - 1

    assert (last.status_code, refused.status_code, refused.json()["error"]["code"]) == (200, 429, "0x80072322")
    assert 0 < int(refused.headers["retry-after"]) <= 300
    assert httpx.get(vendors.address + API + "/WhoAmI").content == b""
