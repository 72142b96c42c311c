"""HubSpot's own Python client, unmodified, against the sandbox."""

from collections.abc import Iterator

import pytest
from hubspot import HubSpot
from hubspot.crm.associations.v4 import BatchInputPublicFetchAssociationsBatchRequest, PublicFetchAssociationsBatchRequest
from hubspot.crm.contacts import BatchReadInputSimplePublicObjectId, PublicObjectSearchRequest, SimplePublicObjectId
from hubspot.crm.contacts.exceptions import ApiException

from sandbox.app import Sandbox, server
from tests.world import served


@pytest.fixture(scope="module")
def portal() -> Iterator[tuple[HubSpot, Sandbox]]:
    sandbox = Sandbox(people=150, systems=("hubspot",))
    with served(server(sandbox)) as address:
        tokens = sandbox.dialects["hubspot"].tokens
        assert tokens is not None
        yield HubSpot(access_token=tokens.issue("test"), host=f"{address}/hubspot"), sandbox


def live(sandbox: Sandbox) -> list[str]:
    return sorted(str(each.id) for each in sandbox.world.profiles["hubspot"] if not each.deleted)


def test_it_lists_all_contacts_page_by_page(portal: tuple[HubSpot, Sandbox]) -> None:
    client, sandbox = portal

    found = client.crm.contacts.get_all(properties=["email", "phone"])

    assert sorted(each.id for each in found) == live(sandbox)
    assert found[0].properties["email"]


def test_it_reads_a_batch_and_is_told_what_is_missing(portal: tuple[HubSpot, Sandbox]) -> None:
    client, sandbox = portal
    inputs = [SimplePublicObjectId(id=id) for id in [*live(sandbox)[:3], "1"]]

    answer = client.crm.contacts.batch_api.read(
        BatchReadInputSimplePublicObjectId(inputs=inputs, properties=["email"], properties_with_history=[])
    )

    assert sorted(each.id for each in answer.results) == live(sandbox)[:3]
    assert answer.num_errors == 1


def test_it_searches_with_filters_and_sorts(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal
    request = PublicObjectSearchRequest(
        filter_groups=[{"filters": [{"propertyName": "email", "operator": "EQ", "value": "ada.king@northwind.example"}]}],
        sorts=["createdate"], properties=["firstname"], limit=10, after=0,
    )  # fmt: skip

    answer = client.crm.contacts.search_api.do_search(request)

    assert (answer.total, answer.results[0].properties["firstname"]) == (1, "Ada")


def test_it_reads_associations_in_bulk(portal: tuple[HubSpot, Sandbox]) -> None:
    client, sandbox = portal
    ada = next(each for each in sandbox.world.profiles["hubspot"] if each.person == 0)
    inputs = [PublicFetchAssociationsBatchRequest(id=str(ada.id))]

    answer = client.crm.associations.v4.batch_api.get_page(
        "contacts", "deals", BatchInputPublicFetchAssociationsBatchRequest(inputs=inputs)
    )

    assert len(answer.results[0].to) >= 1
    assert answer.results[0].to[0].association_types[0].type_id == 4


def test_it_reads_owners_pipelines_and_properties(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal

    owners = client.crm.owners.owners_api.get_page(limit=100)
    pipelines = client.crm.pipelines.pipelines_api.get_all("deals")
    properties = client.crm.properties.core_api.get_all("contacts")

    assert owners.results[0].email.endswith(".example")
    assert {stage.id for stage in pipelines.results[0].stages} >= {"closedwon", "closedlost"}
    assert "favorite_color" in {each.name for each in properties.results}


def test_it_raises_on_a_throttled_call_with_the_policy_readable(portal: tuple[HubSpot, Sandbox]) -> None:
    from sandbox.faults import Fault

    client, sandbox = portal
    number = sandbox.faults.add(Fault(system="hubspot", fault="throttle"))

    with pytest.raises(ApiException) as raised:
        client.crm.contacts.basic_api.get_page(limit=1)
    sandbox.faults.remove(number)

    assert raised.value.status == 429
    assert "TEN_SECONDLY_ROLLING" in raised.value.body


def test_it_raises_on_an_unknown_property_in_a_search(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal
    bad = PublicObjectSearchRequest(
        filter_groups=[{"filters": [{"propertyName": "nonsense", "operator": "EQ", "value": "x"}]}], limit=10
    )

    with pytest.raises(ApiException) as raised:
        client.crm.contacts.search_api.do_search(bad)

    assert "nonsense" in raised.value.body
