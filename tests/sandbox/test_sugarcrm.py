"""The sandbox's SugarCRM speaks as the vendor's documents say; what they leave open is in docs/sandbox.md."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.app import Sandbox, server
from sandbox.sugarcrm import PASSWORD, PLATFORM, USERNAME
from tests.world import served

LOGIN = {
    "grant_type": "password",
    "client_id": "sugar",
    "client_secret": "",
    "username": USERNAME,
    "password": PASSWORD,
    "platform": PLATFORM,
}


class Instance:
    """One instance, spoken to as a script would."""

    def __init__(self, sandbox: Sandbox, http: httpx.Client) -> None:
        self.sandbox, self.http = sandbox, http
        self.token = ""

    def __call__(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        self.sandbox.clock.advance(0.1)  # twenty calls a second are allowed
        headers = {"oauth-token": self.token, **more.pop("headers", {})}
        return self.http.request(method, f"/sugarcrm/rest/v11_20/{path}", json=json, headers=headers, **more)

    def login(self, **said: str) -> httpx.Response:
        return self("POST", "oauth2/token", {**LOGIN, **said})

    def some(self, module: str, **said: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self("POST", f"{module}/filter", {"max_num": 1000, **said}).json()["records"]
        return found


@pytest.fixture
def sugar() -> Iterator[Instance]:
    sandbox = Sandbox(people=80, systems=["sugarcrm"])
    with served(server(sandbox)) as address, httpx.Client(base_url=address) as http:
        made = Instance(sandbox, http)
        made.token = made.login().json()["access_token"]
        yield made


def test_tokens_end_rotate_and_leave_one_session_a_platform(sugar: Instance) -> None:
    first = sugar.login().json()
    sugar.token = first["access_token"]
    assert (first["expires_in"], first["token_type"], sugar("GET", "me").status_code) == (3600, "bearer", 200)

    refresh = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    second = sugar.login(**refresh)
    again = sugar.login(**refresh)
    assert (second.status_code, again.status_code, again.json()["error"]) == (200, 400, "invalid_grant")

    sugar.token = second.json()["access_token"]
    sugar.sandbox.clock.advance(3601)
    assert sugar("GET", "me").json()["error"] == "invalid_grant"

    sugar.token = sugar.login().json()["access_token"]
    assert sugar("GET", "me").status_code == 200
    sugar.login(platform="mobile")
    assert sugar("GET", "me").status_code == 200, "another platform is another place"
    sugar.login()
    assert sugar("GET", "me").status_code == 401, "the same platform is the same place"
    assert sugar.login(password="wrong").json()["error"] == "need_login"
    assert sugar.login(platform="nobody_registered_it").status_code == 422


def test_more_than_twenty_calls_a_second_are_not_answered_at_all(sugar: Instance) -> None:
    def call() -> int:
        return sugar.http.get("/sugarcrm/rest/v11_20/me", headers={"oauth-token": sugar.token}).status_code

    sugar.sandbox.clock.advance(5)
    answered = [call() for _ in range(15)]
    with pytest.raises(httpx.RemoteProtocolError):
        _ = [call() for _ in range(10)]
    with pytest.raises(httpx.RemoteProtocolError):
        call()
    sugar.sandbox.clock.advance(11)

    assert (set(answered), call()) == ({200}, 200)


def test_lists_end_at_minus_one_and_tell_times_in_the_users_zone(sugar: Instance) -> None:
    page = sugar("GET", "Contacts").json()
    last = sugar("GET", "Contacts", params={"offset": 20, "max_num": 1000, "fields": "last_name"}).json()
    few = sugar(
        "GET",
        "Contacts",
        params={"filter[0][date_modified][$gte]": "2026-01-01T00:00:00Z", "max_num": 5, "order_by": "date_modified:asc,id:asc"},
    ).json()
    count = sugar("GET", "Contacts/count").json()["record_count"]

    assert (page["next_offset"], len(page["records"]), last["next_offset"]) == (20, 20, -1)
    assert len(last["records"]) == count - 20
    assert last["records"][0].keys() == {"id", "date_modified", "last_name", "_acl", "_module"}
    assert all(row["date_modified"].endswith("+05:30") for row in page["records"])
    assert [row["date_modified"] for row in few["records"]] == sorted(row["date_modified"] for row in few["records"])


def test_filters_join_and_compare(sugar: Instance) -> None:
    everyone = sugar.some("Contacts")
    one = everyone[0]
    address = next(row["email"][0]["email_address"] for row in everyone if row["email"])

    def ids(*tests: Any) -> set[str]:
        return {row["id"] for row in sugar.some("Contacts", filter=list(tests))}

    assert one["id"] in ids({"$or": [{"last_name": {"$starts": one["last_name"][:2].lower()}}, {"id": "nobody"}]})
    assert ids({"last_name": one["last_name"]}, {"last_name": {"$not_equals": one["last_name"]}}) == set()
    assert ids({"email_addresses.email_address": {"$equals": address.upper()}})
    assert ids({"account_id": {"$is_null": ""}}) | ids({"account_id": {"$not_null": ""}}) == {row["id"] for row in everyone}
    assert ids({"visits_c": {"$between": [0, 999]}}) == {row["id"] for row in everyone}
    assert ids({"accounts.id": {"$in": [one["account_id"]]}}) == ids({"account_id": one["account_id"]})
    wrong = [
        sugar("POST", "Contacts/filter", {"filter": [test]})
        for test in ({"shoe_size": 1}, {"id": {"$like": 1}}, {"$owner": ""}, "id")
    ]
    assert {(answer.status_code, answer.json()["error"]) for answer in wrong} == {(422, "invalid_parameter")}


def test_a_deleted_record_shows_only_when_asked_for_and_then_nothing_of_itself(sugar: Instance) -> None:
    gone = sugar.some("Contacts")[0]["id"]

    answer = sugar("DELETE", f"Contacts/{gone}")
    again = sugar("DELETE", f"Contacts/{gone}")

    assert answer.json() == {"id": gone}
    assert (again.status_code, again.json()["error"]) == (404, "not_found")
    assert gone not in {row["id"] for row in sugar.some("Contacts")}
    [shown] = sugar.some("Contacts", filter=[{"id": gone}], deleted=True)
    assert shown.keys() == {"id", "date_modified", "deleted", "_acl", "_module"}


def test_what_is_created_is_found_by_every_way(sugar: Instance) -> None:
    account = sugar("POST", "Accounts", {"name": "Fresh"}).json()
    body = {
        "last_name": "New",
        "account_id": account["id"],
        "email": [{"email_address": "New@brandnew.example"}, {"email_address": "b@brandnew.example"}],
    }
    contact = sugar("POST", "Contacts", body).json()
    deal = sugar("POST", "Opportunities", {"name": "Big", "amount": 12, "sales_stage": "Negotiation/Review"}).json()
    tied = sugar("POST", f"Contacts/{contact['id']}/link", {"link_name": "opportunities", "ids": [deal["id"]]}).json()

    assert [each["primary_address"] for each in contact["email"]] == [True, False]
    assert (contact["name"], contact["account_name"]) == ("New", "Fresh")
    assert (deal["amount"], deal["probability"], deal["sales_status"], deal["currency_id"]) == (
        "12.000000",
        "80",
        "In Progress",
        "-99",
    )
    assert [row["id"] for row in tied["related_records"]] == [deal["id"]]
    assert [row["id"] for row in sugar.some("Contacts", filter=[{"email_addresses.email_address": "new@brandnew.example"}])] == [
        contact["id"]
    ]
    for path, id in (
        (f"Accounts/{account['id']}/link/contacts", contact["id"]), (f"Contacts/{contact['id']}/link/opportunities", deal["id"]),
        (f"Opportunities/{deal['id']}/link/contacts", contact["id"]), (f"Contacts/{contact['id']}/link/accounts", account["id"]),
    ):  # fmt: skip
        assert [row["id"] for row in sugar("GET", path).json()["records"]] == [id]
    sugar("DELETE", f"Contacts/{contact['id']}/link/opportunities/{deal['id']}")
    assert sugar("GET", f"Opportunities/{deal['id']}/link/contacts").json()["records"] == []


def test_what_does_not_fit_is_refused(sugar: Instance) -> None:
    some = sugar.some("Contacts")[0]["id"]
    refused = [
        sugar("POST", "Contacts", {"first_name": "Nameless"}), sugar("PUT", f"Contacts/{some}", {"last_name": ""}),
        sugar("PUT", f"Contacts/{some}", {"email": [{"email_address": "no address"}]}), sugar("POST", "Opportunities", {"name": "x", "sales_stage": "Someday"}),
        sugar("POST", "Opportunities", {"name": "x", "date_closed": "tomorrow"}), sugar("POST", "Contacts", {"id": some, "last_name": "Twice"}),
        sugar("PUT", "Users/1", {"title": "x"}), sugar("GET", "Nowhere"), sugar("GET", f"Contacts/{some}/link/nowhere"),
    ]  # fmt: skip

    assert [(each.status_code, each.json()["error"]) for each in refused] == [
        (400, "missing_parameter"), (400, "missing_parameter"), (422, "invalid_parameter"), (422, "invalid_parameter"), (422, "invalid_parameter"),
        (422, "invalid_parameter"), (403, "not_authorized"), (404, "no_method"), (404, "not_found"),
    ]  # fmt: skip


def test_an_update_of_what_changed_since_is_a_conflict_that_shows_the_record(sugar: Instance) -> None:
    row = sugar.some("Accounts")[0]
    seen = {"headers": {"x-timestamp": row["date_modified"]}}

    first = sugar("PUT", f"Accounts/{row['id']}", {"name": "One"}, **seen)
    late = sugar("PUT", f"Accounts/{row['id']}", {"name": "Two"}, **seen)

    assert first.json()["date_modified"] > row["date_modified"]
    assert (late.status_code, late.json()["error"], late.json()["record"]["name"]) == (409, "edit_conflict", "One")


def test_a_bulk_call_answers_each_request_and_is_itself_never_refused(sugar: Instance) -> None:
    requests = [
        {"url": "/v11_20/Leads", "method": "POST", "headers": ["Content-Type: application/json"], "data": '{"last_name":"Lead"}'},
        {"url": "/v11_20/Contacts/abc?fields=id,name", "method": "GET"}, {"url": "v11_20/Nowhere"},
    ]  # fmt: skip

    answer = sugar("POST", "bulk", {"requests": requests})

    assert answer.status_code == 200
    assert [(each["status"], each["contents"].get("error")) for each in answer.json()] == [
        (200, None),
        (404, "not_found"),
        (404, "no_method"),
    ]
    assert answer.json()[0]["contents"]["last_name"] == "Lead"
    assert sugar("POST", "bulk", {"requests": requests * 20}).status_code == 413


def test_a_record_is_made_once_under_a_key_of_the_callers_own(sugar: Instance) -> None:
    first = sugar("PATCH", "integrate/Contacts/sync_key/shop-17", {"last_name": "Keyed"})
    second = sugar("PATCH", "integrate/Contacts/sync_key/shop-17", {"title": "CEO"})

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert sugar("GET", f"Contacts/{first.json()['record']}").json()["title"] == "CEO"


def test_metadata_has_a_hash_and_refuses_who_holds_an_older_one(sugar: Instance) -> None:
    known = sugar("GET", "metadata", params={"type_filter": "modules", "module_filter": "Contacts"}).json()

    current = sugar("GET", "metadata/_hash", headers={"x-metadata-hash": known["_hash"]})
    stale = sugar("GET", "Contacts", headers={"x-metadata-hash": "older"})

    assert list(known["modules"]) == ["Contacts"]
    assert current.json() == {"_hash": known["_hash"]}
    assert (stale.status_code, stale.json()["error"]) == (412, "metadata_out_of_date")
    assert sugar("GET", "Accounts/enum/account_type").json()["Analyst"] == "Analyst"
