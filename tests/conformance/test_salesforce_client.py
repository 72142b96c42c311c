"""simple-salesforce, unmodified and over TLS as it insists, against the sandbox."""

from collections.abc import Iterator

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
