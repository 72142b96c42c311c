"""python-odata, a generic OData client, unmodified, against the sandbox: it reflects `$metadata`, reads and writes."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
import requests
from odata import ODataService
from odata.exceptions import ODataError
from odata.flags import ODataServerFlags

from sandbox.app import Sandbox, server
from tests.world import served


@pytest.fixture(scope="module")
def environment() -> Iterator[tuple[ODataService, Sandbox]]:
    sandbox = Sandbox(people=150, systems=("dynamics",))
    tokens = sandbox.dialects["dynamics"].tokens
    assert tokens is not None
    with served(server(sandbox)) as address:
        yield connected(f"{address}/dynamics", tokens.issue("test"), "odata.maxpagesize=20"), sandbox


def connected(address: str, token: str, prefer: str) -> ODataService:
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"Authorization": f"Bearer {token}", "Prefer": f"return=representation,{prefer}"})
    flags = ODataServerFlags(skip_null_properties=True)  # else it sends every column it does not know as null
    url = f"{address}/api/data/v9.2/"
    return ODataService(url, session=session, reflect_entities=True, quiet_progress=True, server_flags=flags)


def live(sandbox: Sandbox) -> int:
    return sum(not each.deleted for each in sandbox.world.profiles["dynamics"])


def test_it_reflects_the_tables(environment: tuple[ODataService, Sandbox]) -> None:
    service, _ = environment

    assert service.entities.keys() >= {"contacts", "accounts", "leads", "opportunities", "systemusers", "new_subscriptionset"}
    assert service.entities["contacts"].contactid.primary_key
    assert service.entities["contacts"].fullname.is_computed_value


def test_it_reads_every_page(environment: tuple[ODataService, Sandbox]) -> None:
    service, sandbox = environment
    contacts = service.entities["contacts"]

    found = service.query(contacts).filter(contacts.merged == False).all()  # noqa: E712 - the client's way to say it

    assert len({each.contactid for each in found}) == len(found) == live(sandbox) > 20


def test_it_filters_sorts_and_expands(environment: tuple[ODataService, Sandbox]) -> None:
    service, _ = environment
    contacts = service.entities["contacts"]

    ada = (
        service.query(contacts)
        .filter(contacts.emailaddress1 == "ADA.KING@northwind.example")
        .expand(contacts.parentcustomerid_account)
        .first()
    )
    ordered = service.query(contacts).filter(contacts.lastname.startswith("K")).order_by(contacts.createdon.desc()).all()

    assert (ada.firstname, ada.parentcustomerid_account.name) == ("Ada", "Northwind")
    times = [each.createdon for each in ordered]
    assert len(times) > 1
    assert times == sorted(times, reverse=True)


def test_it_gets_one_by_its_key_and_follows_a_lookup(environment: tuple[ODataService, Sandbox]) -> None:
    service, sandbox = environment
    deals = service.entities["opportunities"]
    some = next(iter(sandbox.dialects["dynamics"].tables["deal"]))

    deal = service.query(deals).get(some["opportunityid"])

    assert deal.estimatedvalue == Decimal(str(some["estimatedvalue"]))
    assert deal.parentcontactid.contactid == some["_parentcontactid_value"]


def test_it_creates_updates_and_deletes(environment: tuple[ODataService, Sandbox]) -> None:
    service, sandbox = environment
    contacts, accounts = service.entities["contacts"], service.entities["accounts"]
    account = service.query(accounts).first()
    contact = contacts()
    contact.firstname, contact.lastname, contact.emailaddress1 = "Grace", "Hopper", "grace@brandnew.example"
    contact.parentcustomerid_account = account

    service.save(contact)
    made = sandbox.dialects["dynamics"].tables["contact"].get(contact.contactid)
    contact.jobtitle = "Admiral"
    service.save(contact)
    changed = sandbox.dialects["dynamics"].tables["contact"].get(contact.contactid)
    service.delete(contact)

    assert made is not None
    assert (made["fullname"], made["_parentcustomerid_value"]) == ("Grace Hopper", account.accountid)
    assert changed is not None
    assert (changed["jobtitle"], changed["lastname"]) == ("Admiral", "Hopper")
    assert changed["versionnumber"] > made["versionnumber"]
    assert sandbox.dialects["dynamics"].tables["contact"].get(contact.contactid) is None


def test_it_raises_with_the_vendors_code_and_words(environment: tuple[ODataService, Sandbox]) -> None:
    service, _ = environment
    contact = service.entities["contacts"]()
    contact.lastname = "x" * 51

    with pytest.raises(ODataError) as raised:
        service.save(contact)

    assert (raised.value.status_code, raised.value.code) == ("HTTP 400", "0x80044331")
    assert "maximum allowed length of '50'" in raised.value.message
