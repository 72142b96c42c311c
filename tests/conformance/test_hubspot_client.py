"""HubSpot's own Python client, unmodified, against the sandbox."""

from collections.abc import Iterator

import pytest
from hubspot import HubSpot
from hubspot.crm.associations.v4 import (
    BatchInputPublicDefaultAssociationMultiPost,
    BatchInputPublicFetchAssociationsBatchRequest,
    PublicDefaultAssociationMultiPost,
    PublicFetchAssociationsBatchRequest,
    PublicObjectId,
)
from hubspot.crm.contacts import (
    BatchInputSimplePublicObjectBatchInput,
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchInputSimplePublicObjectId,
    BatchReadInputSimplePublicObjectId,
    PublicMergeInput,
    PublicObjectSearchRequest,
    SimplePublicObjectBatchInput,
    SimplePublicObjectBatchInputForCreate,
    SimplePublicObjectBatchInputUpsert,
    SimplePublicObjectId,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate,
)
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


# ---- writing ----


def made(client: HubSpot, email: str) -> str:
    body = SimplePublicObjectInputForCreate(properties={"email": email, "firstname": "Made"}, associations=[])
    return str(client.crm.contacts.basic_api.create(body).id)


def test_it_creates_changes_and_archives_a_contact(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal
    api = client.crm.contacts.basic_api
    id = made(client, "single@client.example")

    changed = api.update(id, SimplePublicObjectInput(properties={"firstname": "Changed"}))
    read = api.get_by_id("single@client.example", id_property="email", properties=["firstname"])
    api.archive(id)

    assert (changed.id, read.id, read.properties["firstname"]) == (id, id, "Changed")
    assert changed.updated_at > changed.created_at
    with pytest.raises(ApiException) as raised:
        api.get_by_id(id)
    assert raised.value.status == 404


def test_it_raises_on_an_address_that_is_taken(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal

    with pytest.raises(ApiException) as raised:
        made(client, "ada.king@northwind.example")

    assert raised.value.status == 409
    assert "Existing ID" in raised.value.body


def test_it_is_told_row_by_row_what_a_batch_came_to(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal
    api = client.crm.contacts.batch_api
    emails = ["first@client.example", "ada.king@northwind.example", "nonsense"]
    rows = [
        SimplePublicObjectBatchInputForCreate(properties={"email": email}, associations=[], object_write_trace_id=f"row-{n}")
        for n, email in enumerate(emails)
    ]

    created = api.create(BatchInputSimplePublicObjectBatchInputForCreate(inputs=rows))
    [row] = created.results
    changed = api.update(BatchInputSimplePublicObjectBatchInput(inputs=[
        SimplePublicObjectBatchInput(id=row.id, properties={"firstname": "Changed"}), SimplePublicObjectBatchInput(id="1", properties={"firstname": "x"}),
    ]))  # fmt: skip
    upserted = api.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=[
        SimplePublicObjectBatchInputUpsert(id_property="email", id=email, properties={"jobtitle": "Boss"}) for email in (emails[0], "second@client.example")
    ]))  # fmt: skip
    api.archive(BatchInputSimplePublicObjectId(inputs=[SimplePublicObjectId(id=row.id), SimplePublicObjectId(id="1")]))

    assert row.object_write_trace_id == "row-0"
    assert {each.context["objectWriteTraceId"][0]: each.category for each in created.errors} == {
        "row-1": "CONFLICT",
        "row-2": "VALIDATION_ERROR",
    }
    assert ([each.id for each in changed.results], changed.errors[0].context["ids"]) == ([row.id], ["1"])
    assert {each.new for each in upserted.results} == {True, False}
    assert client.crm.contacts.basic_api.get_by_id(row.id, archived=True).archived


def test_it_ties_records_and_merges_them(portal: tuple[HubSpot, Sandbox]) -> None:
    client, sandbox = portal
    company = next(iter(sandbox.dialects["hubspot"].tables["account"]))["id"]
    one, two = made(client, "tie1@client.example"), made(client, "tie2@client.example")
    ties = [PublicDefaultAssociationMultiPost(_from=PublicObjectId(id=id), to=PublicObjectId(id=company)) for id in (one, two)]

    tied = client.crm.associations.v4.batch_api.create_default(
        "contacts", "companies", BatchInputPublicDefaultAssociationMultiPost(inputs=ties)
    )
    merged = client.crm.contacts.basic_api.merge(PublicMergeInput(primary_object_id=one, object_id_to_merge=two))
    page = client.crm.associations.v4.basic_api.get_page("contacts", one, "companies")

    assert len(tied.results) == 4
    assert merged.id == client.crm.contacts.basic_api.get_by_id(two).id == one
    assert [(str(each.to_object_id), {type.label for type in each.association_types}) for each in page.results] == [
        (company, {"Primary", None})
    ]


def test_it_reads_a_custom_objects_schema_and_rows(portal: tuple[HubSpot, Sandbox]) -> None:
    client, _ = portal

    [schema] = client.crm.schemas.core_api.get_all().results
    rows = client.crm.objects.basic_api.get_page(schema.fully_qualified_name, limit=5, properties=["plan"])

    assert {each.name: each.type for each in schema.properties}["monthly_fee"] == "number"
    assert {each.properties["plan"] for each in rows.results} <= {"basic", "plus", "pro"}
