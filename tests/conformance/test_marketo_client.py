"""marketorestpython, unmodified, against the sandbox: it reads and writes, and takes the address as an attribute."""

from collections.abc import Iterator

import pytest
from marketorestpython.client import MarketoClient
from marketorestpython.helper.exceptions import MarketoException

from sandbox.app import Sandbox, server
from sandbox.marketo import CLIENT_ID, CLIENT_SECRET
from tests.world import served

ADA = "ada.king@northwind.example"
LONG_AGO = "2006-01-01T00:00:00Z"

Instance = tuple[MarketoClient, Sandbox]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    sandbox = Sandbox(people=60, systems=("marketo",))
    with served(server(sandbox)) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield connected(address), sandbox


def connected(address: str, secret: str = CLIENT_SECRET) -> MarketoClient:
    client = MarketoClient("000-AAA-000", CLIENT_ID, secret, max_retry_time=1, requests_timeout=10.0)
    client.host = f"{address}/marketo"
    return client


def live(sandbox: Sandbox) -> list[int]:
    return sorted(each.id for each in sandbox.world.profiles["marketo"] if not each.deleted)


def test_it_finds_leads_by_many_ids_and_by_address(instance: Instance) -> None:
    client, sandbox = instance

    by_id = client.execute("get_multiple_leads_by_filter_type", filterType="id", filterValues=[*map(str, live(sandbox)), "1"], fields="id,email", batchSize="10")  # fmt: skip
    by_address = client.execute("get_multiple_leads_by_filter_type", filterType="email", filterValues=[ADA.upper()])

    assert sorted(each["id"] for each in by_id) == live(sandbox)
    assert {each["firstName"] for each in by_address} == {"Ada"}


def test_it_reads_one_lead_and_is_told_of_one_that_is_not_there(instance: Instance) -> None:
    client, sandbox = instance

    [lead] = client.execute("get_lead_by_id", id=live(sandbox)[0], fields="id,visitCount")

    assert lead["id"] == live(sandbox)[0]
    with pytest.raises(Exception, match=r"1004|not found"):
        client.get_lead_by_id(999_999_999)


def test_it_describes_fields_and_activities(instance: Instance) -> None:
    client, _ = instance

    fields = {each["rest"]["name"]: each["dataType"] for each in client.execute("describe")}
    [anew] = client.execute("describe2")
    types = {each["id"]: each["name"] for each in client.execute("get_activity_types")}

    assert (fields["visitCount"], fields["email"]) == ("integer", "email")
    assert ["email"] in anew["searchableFields"]
    assert types[10] == "Open Email"


def test_it_pages_through_activities(instance: Instance) -> None:
    client, sandbox = instance
    types = ["6", "7", "8", "9", "10", "11"]

    every = client.execute("get_lead_activities", activityTypeIds=types, sinceDatetime=LONG_AGO, batchSize=20)
    of_some = client.execute("get_lead_activities", activityTypeIds=types, sinceDatetime=LONG_AGO, leadIds=live(sandbox)[:30])

    assert {each["marketoGUID"] for each in every} == {str(each.id) for each in sandbox.world.events["marketo"]}
    assert 0 < len(of_some) < len(every)
    assert {each["leadId"] for each in of_some} <= set(live(sandbox)[:30])


def test_it_writes_and_is_told_of_each_record(instance: Instance) -> None:
    client, sandbox = instance
    leads = [{"email": "new@people.example", "firstName": "New"}, {"email": ADA}]

    created = client.execute("create_update_leads", leads=leads, action="createOnly", lookupField="email")
    id = created[0]["id"]
    updated = client.execute(
        "create_update_leads", leads=[{"id": id, "firstName": "Grace"}], action="updateOnly", lookupField="id"
    )
    [read] = client.execute("get_lead_by_id", id=id)
    changes = client.execute("get_lead_changes", fields=["firstName"], sinceDatetime=f"{sandbox.clock.now():%Y-%m-%d}T00:00:00Z")
    deleted = client.execute("delete_lead", id=[id, 999_999_999])
    gone = client.execute("get_deleted_leads", sinceDatetime=LONG_AGO)

    assert created[0]["status"] == "created"
    assert created[1] == {"status": "skipped", "reasons": [{"code": "1005", "message": "Lead already exists"}]}
    assert (updated, read["firstName"]) == ([{"id": id, "status": "updated"}], "Grace")
    assert [each["newValue"] for each in (change["fields"][0] for change in changes if change["fields"])] == ["Grace"]
    assert [each["status"] for each in deleted] == ["deleted", "skipped"]
    assert id in {each["leadId"] for each in gone}


def test_it_merges_leads_and_their_activities(instance: Instance) -> None:
    client, sandbox = instance
    of_lead = {each.contact: each for each in sandbox.world.events["marketo"]}
    winner, loser = next(id for id in live(sandbox) if id not in of_lead), next(iter(of_lead))

    merged = client.execute("merge_lead", id=winner, leadIds=[loser])
    found = client.execute("get_multiple_leads_by_filter_type", filterType="id", filterValues=[str(winner), str(loser)])
    activities = client.execute("get_lead_activities", activityTypeIds=["6", "7", "8", "9", "10", "11"], sinceDatetime=LONG_AGO, leadIds=winner)  # fmt: skip

    assert merged
    assert [each["id"] for each in found] == [winner]
    assert str(of_lead[loser].id) in {each["marketoGUID"] for each in activities}


def test_it_goes_on_with_the_token_it_is_given_again(instance: Instance) -> None:
    client, sandbox = instance
    client.execute("get_daily_usage")
    first = client.token
    sandbox.clock.advance(3580)
    client.valid_until = None
    client.execute("get_daily_usage")
    again, left = client.token, client.expires_in
    sandbox.clock.advance(30)
    client.valid_until = None
    client.execute("get_daily_usage")

    assert again == first != client.token
    assert left is not None
    assert left < 60


def test_it_raises_on_a_secret_that_is_wrong_and_a_token_that_is_dead(instance: Instance) -> None:
    client, _ = instance
    with pytest.raises(Exception, match="Bad client credentials"):
        connected(client.host.removesuffix("/marketo"), "wrong").describe()

    stranger = MarketoClient("000-AAA-000", access_token="dead", max_retry_time=1)
    stranger.host = client.host
    with pytest.raises(MarketoException) as told:
        stranger.describe()

    assert told.value.code == "601"
