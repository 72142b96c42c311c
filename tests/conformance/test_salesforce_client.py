"""simple-salesforce, unmodified and over TLS as it insists, against the sandbox."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests
from simple_salesforce import Salesforce, SalesforceExpiredSession, SalesforceMalformedRequest, SalesforceResourceNotFound
from starlette.applications import Starlette

from sandbox.app import Sandbox, server
from tests.world import served

pytestmark = pytest.mark.filterwarnings("ignore")  # urllib3 on the self-signed certificate


@pytest.fixture(scope="module")
def org() -> Iterator[tuple[Salesforce, Sandbox, str]]:
    sandbox = Sandbox(people=400, systems=("salesforce",))
    dialect = sandbox.dialects["salesforce"]
    alone = Starlette(routes=dialect.routes(sandbox.faults))  # the client drops any path from the address
    with served(server(alone, tls=True)) as address:
        assert dialect.tokens is not None
        yield connected(address, dialect.tokens.issue("test")), sandbox, address


def connected(address: str, token: str) -> Salesforce:
    session = requests.Session()
    session.verify, session.trust_env = False, False
    return Salesforce(instance_url=address, session_id=token, version="60.0", session=session)


def live(sandbox: Sandbox) -> int:
    return sum(not each.deleted for each in sandbox.world.profiles["salesforce"])


def test_it_queries_every_page(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, sandbox, _ = org

    found = client.query_all("SELECT Id, Name, Account.Name FROM Contact", headers={"Sforce-Query-Options": "batchSize=200"})

    assert found["totalSize"] == len({each["Id"] for each in found["records"]}) == live(sandbox) > 200


def test_it_queries_with_conditions(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    found = client.query("SELECT Id, FirstName FROM Contact WHERE Email = 'ada.king@northwind.example' AND IsDeleted = false")

    assert [each["FirstName"] for each in found["records"]] == ["Ada"]


def test_it_describes_gets_and_counts(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, sandbox, _ = org
    id = client.query("SELECT Id FROM Contact LIMIT 1")["records"][0]["Id"]

    described = client.Contact.describe()
    contact = client.Contact.get(id)
    count = client.query("SELECT COUNT() FROM Contact")["totalSize"]

    assert "Loyalty_Tier__c" in {field["name"] for field in described["fields"]}
    assert contact["Id"] == id
    assert count == live(sandbox)


def test_it_reads_limits_and_usage(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    limits = client.limits()

    assert limits["DailyApiRequests"]["Max"] == 100_000
    assert client.api_usage["api-usage"].total == 100_000


def test_it_searches(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    found = client.search("FIND {ada.king@northwind.example} IN EMAIL FIELDS RETURNING Contact(Id, FirstName)")

    assert [each["FirstName"] for each in found["searchRecords"]] == ["Ada"]


@pytest.mark.parametrize("soql", ["SELECT Nonsense FROM Contact", "SELECT Id FROM Contact WHERE", "SELECT Id FROM Nowhere"])
def test_it_raises_on_a_query_that_is_wrong(org: tuple[Salesforce, Sandbox, str], soql: str) -> None:
    client, _, _ = org

    with pytest.raises(SalesforceMalformedRequest):
        client.query(soql)


def test_it_raises_on_a_record_that_is_not_there(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    with pytest.raises(SalesforceResourceNotFound):
        client.Contact.get("003000000000000AAA")


def test_it_raises_on_an_expired_session(org: tuple[Salesforce, Sandbox, str]) -> None:
    _, _, address = org

    with pytest.raises(SalesforceExpiredSession):
        connected(address, "dead").query("SELECT Id FROM Contact")


# ---- writing ----


def test_it_creates_changes_and_deletes_a_record(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    id = client.Contact.create({"LastName": "Made", "Email": "made@client.example"})["id"]
    changed = client.Contact.update(id, {"FirstName": "Changed"})
    name = client.Contact.get(id)["Name"]
    deleted = client.Contact.delete(id)

    assert (changed, name, deleted) == (204, "Changed Made", 204)
    with pytest.raises(SalesforceResourceNotFound) as raised:
        client.Contact.get(id)
    assert raised.value.content[0]["errorCode"] == "ENTITY_IS_DELETED"


def test_it_upserts_by_an_external_id(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org

    statuses = [client.Contact.upsert("External_Id__c/client-1", {"LastName": name}) for name in ("Made", "Changed")]

    assert statuses == [201, 200]
    assert client.Contact.get_by_custom_id("External_Id__c", "client-1")["LastName"] == "Changed"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"FirstName": "No family name"}, "REQUIRED_FIELD_MISSING"), ({"LastName": "x", "Email": "nonsense"}, "INVALID_EMAIL_ADDRESS"),
        ({"LastName": "King", "Email": "ada.king@northwind.example"}, "DUPLICATES_DETECTED"), ({"LastName": "x", "Score__c": -1}, "FIELD_CUSTOM_VALIDATION_EXCEPTION"),
        ({"LastName": "x" * 81}, "STRING_TOO_LONG"), ({"LastName": "x", "IsDeleted": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"LastName": "x", "AccountId": "001000000000999AAA"}, "INVALID_CROSS_REFERENCE_KEY"), ({"LastName": "x", "Newsletter__c": "maybe"}, "JSON_PARSER_ERROR"),
        ({"LastName": "x", "Loyalty_Tier__c": "Lead"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
    ],
)  # fmt: skip
def test_it_raises_on_a_record_that_is_refused(
    org: tuple[Salesforce, Sandbox, str], values: dict[str, object], code: str
) -> None:
    client, _, _ = org

    with pytest.raises(SalesforceMalformedRequest) as raised:
        client.Contact.create(values)

    assert raised.value.content[0]["errorCode"] == code


def test_it_writes_a_collection_and_is_told_record_by_record(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org
    records = [{"attributes": {"type": "Account"}, "Name": "Good"}, {"attributes": {"type": "Account"}}]

    results = client.restful("composite/sobjects", method="POST", json={"allOrNone": False, "records": records})

    assert [each["success"] for each in results] == [True, False]
    assert client.Account.get(results[0]["id"])["Name"] == "Good"


def test_it_is_told_what_changed_and_what_was_deleted(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, _, _ = org
    start = datetime.now(UTC) - timedelta(minutes=5)
    ids = [client.Account.create({"Name": name})["id"] for name in ("Stays", "Goes")]
    client.Account.delete(ids[1])

    changed = client.Account.updated(start, start + timedelta(minutes=10))
    deleted = client.Account.deleted(start, start + timedelta(minutes=10))

    assert ids[0] in changed["ids"]
    assert ids[1] not in changed["ids"]
    assert [each["id"] for each in deleted["deletedRecords"]] == [ids[1]]


def test_it_finds_the_custom_object_and_its_rows(org: tuple[Salesforce, Sandbox, str]) -> None:
    client, sandbox, _ = org

    custom = [each["name"] for each in client.describe()["sobjects"] if each["custom"]]
    rows = client.query_all("SELECT Id, Name, Plan__c, Contact__r.Name FROM Subscription__c")["records"]

    assert custom == ["Subscription__c"]
    assert len(rows) == sum(not each.deleted and each.number % 4 == 0 for each in sandbox.world.profiles["salesforce"])
    assert all(each["Contact__r"]["Name"] for each in rows)
