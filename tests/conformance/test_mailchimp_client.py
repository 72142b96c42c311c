"""Mailchimp's own Python client, unmodified, against the sandbox.

It builds `https://{server}.api.mailchimp.com/3.0` from a public attribute, `api_client.host`, in which it puts the server's name in the
place of the word "server": a host without that word is called as it stands.
"""

import hashlib
from collections.abc import Iterator

import pytest
from mailchimp_marketing import Client
from mailchimp_marketing.api_client import ApiClientError

from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.mailchimp import ACCESS_TOKEN, API_KEY, AUDIENCE
from tests.world import served

ADA = "ada.king@northwind.example"


@pytest.fixture(scope="module")
def account() -> Iterator[tuple[Client, Sandbox]]:
    sandbox = Sandbox(people=150, systems=["mailchimp"])
    with served(server(sandbox)) as address:
        client = Client({"api_key": API_KEY})
        client.api_client.host = f"{address}/mailchimp/3.0"
        yield client, sandbox


def named(email: str) -> str:
    return hashlib.md5(email.encode(), usedforsecurity=False).hexdigest()


def test_it_learns_the_data_centre_from_the_key(account: tuple[Client, Sandbox]) -> None:
    client, _ = account

    assert client.api_client.server == "us19"
    assert client.ping.get()["health_status"] == "Everything's Chimpy!"
    assert client.root.get_root()["account_id"]


def test_it_lists_all_members_page_by_page(account: tuple[Client, Sandbox]) -> None:
    client, sandbox = account
    live = {row["contact_id"] for row in sandbox.dialects["mailchimp"].tables["contact"] if row["status"] != "archived"}

    seen: list[str] = []
    while True:
        page = client.lists.get_list_members_info(
            AUDIENCE,
            count=30,
            offset=len(seen),
            fields=["members.contact_id", "total_items"],
            sort_field="last_changed",
            sort_dir="ASC",
        )
        seen += [each["contact_id"] for each in page["members"]]
        if len(seen) >= page["total_items"]:
            break

    assert set(seen) == live
    assert len(seen) == len(live)


def test_it_reads_a_member_under_each_of_its_names(account: tuple[Client, Sandbox]) -> None:
    client, _ = account

    found = client.lists.get_list_member(AUDIENCE, named(ADA))

    assert found["merge_fields"]["FNAME"] == "Ada"
    assert client.lists.get_list_member(AUDIENCE, found["contact_id"])["id"] == named(ADA)
    assert client.searchMembers.search(ADA)["exact_matches"]["total_items"] == 1


def test_it_reads_audiences_merge_fields_and_activity(account: tuple[Client, Sandbox]) -> None:
    client, _ = account

    lists = client.lists.get_all_lists(sort_field="date_created", sort_dir="ASC")
    fields = client.lists.get_list_merge_fields(AUDIENCE, count=100)
    feed = client.lists.get_list_member_activity_feed(AUDIENCE, named(ADA), activity_filters=["open", "click", "sent"])

    assert lists["lists"][0]["id"] == AUDIENCE
    assert {"FNAME", "LNAME", "PHONE"} < {each["tag"] for each in fields["merge_fields"]}
    assert {each["activity_type"] for each in feed["activity"]} == {"open", "click", "sent"}


def test_it_adds_changes_upserts_archives_and_forgets(account: tuple[Client, Sandbox]) -> None:
    client, _ = account
    email = "client@new.example"

    added = client.lists.add_list_member(
        AUDIENCE, {"email_address": email, "status": "subscribed", "merge_fields": {"FNAME": "First"}}
    )
    changed = client.lists.update_list_member(AUDIENCE, added["id"], {"merge_fields": {"LNAME": "Last"}})
    put = client.lists.set_list_member(
        AUDIENCE, named(email), {"email_address": email, "status_if_new": "pending", "language": "de"}
    )
    archived = client.lists.delete_list_member(AUDIENCE, added["id"])
    seen = client.lists.get_list_member(AUDIENCE, added["id"])
    client.lists.delete_list_member_permanent(AUDIENCE, added["id"])

    assert (changed["full_name"], put["status"], put["language"]) == ("First Last", "subscribed", "de")
    assert (archived.status_code, seen["status"]) == (204, "archived")
    with pytest.raises(ApiClientError) as raised:
        client.lists.set_list_member(AUDIENCE, named(email), {"email_address": email, "status_if_new": "subscribed"})
    assert "Forgotten Email Not Subscribed" in raised.value.text


def test_it_writes_a_batch_whose_rows_fail_alone(account: tuple[Client, Sandbox]) -> None:
    client, _ = account
    rows = [
        {"email_address": "a@batch.example", "status": "subscribed"}, {"email_address": "none", "status": "subscribed"},
        {"email_address": ADA, "status": "subscribed"},
    ]  # fmt: skip

    answer = client.lists.batch_list_members(AUDIENCE, {"members": rows, "update_existing": False})

    assert [each["email_address"] for each in answer["new_members"]] == ["a@batch.example"]
    assert [each["error_code"] for each in answer["errors"]] == ["ERROR_GENERIC", "ERROR_CONTACT_EXISTS"]
    assert (answer["total_created"], answer["total_updated"], answer["error_count"]) == (1, 0, 2)


def test_it_raises_with_the_problem_readable(account: tuple[Client, Sandbox]) -> None:
    client, sandbox = account

    with pytest.raises(ApiClientError) as taken:
        client.lists.add_list_member(AUDIENCE, {"email_address": ADA, "status": "subscribed"})
    sandbox.faults.add(Fault(system="mailchimp", fault="throttle", times=1))
    with pytest.raises(ApiClientError) as throttled:
        client.lists.get_all_lists()

    assert (taken.value.status_code, "Member Exists" in taken.value.text) == (400, True)
    assert (throttled.value.status_code, "Too Many Requests" in throttled.value.text) == (429, True)


def test_it_works_with_an_oauth_token(account: tuple[Client, Sandbox]) -> None:
    client = Client({"access_token": ACCESS_TOKEN, "server": "us19"})
    client.api_client.host = account[0].api_client.host

    assert client.lists.get_all_lists()["total_items"] == 2
