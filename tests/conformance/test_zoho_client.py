"""zohocrmsdk8_0, Zoho's own Python SDK, unmodified, against the sandbox: its hosts come from an environment made by hand."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api import HeaderMap, ParameterMap
from zohocrmsdk.src.com.zoho.crm.api.contact_roles import ContactRolesOperations
from zohocrmsdk.src.com.zoho.crm.api.coql import BodyWrapper as Query
from zohocrmsdk.src.com.zoho.crm.api.coql import CoqlOperations
from zohocrmsdk.src.com.zoho.crm.api.dc import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.deal_contact_roles import BodyWrapper as RoleBody
from zohocrmsdk.src.com.zoho.crm.api.deal_contact_roles import (
    ContactRole,
    Data,
    DealContactRolesOperations,
    GetAssociatedContactRolesParam,
)
from zohocrmsdk.src.com.zoho.crm.api.fields import FieldsOperations, GetFieldsParam
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.modules import ModulesOperations
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.pipeline import PipelineOperations
from zohocrmsdk.src.com.zoho.crm.api.record import (
    ActionWrapper,
    APIException,
    BodyWrapper,
    DeletedRecordsWrapper,
    DeleteRecordsParam,
    GetDeletedRecordsParam,
    GetRecordsParam,
    Record,
    RecordOperations,
    ResponseWrapper,
    SearchRecordsParam,
    SuccessResponse,
)
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig
from zohocrmsdk.src.com.zoho.crm.api.users import UsersOperations
from zohocrmsdk.src.com.zoho.crm.api.util import Choice

from sandbox.app import Sandbox, server
from sandbox.zoho import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, Zoho
from tests.world import served


@pytest.fixture(scope="module")
def org() -> Iterator[Sandbox]:
    sandbox = Sandbox(people=600, systems=("zoho",))
    with served(server(sandbox)) as address, tempfile.TemporaryDirectory() as folder:
        here = f"{address}/zoho"
        token = OAuthToken(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, refresh_token=REFRESH_TOKEN, find_user=False)
        Initializer.initialize(
            DataCenter.Environment(here, f"{here}/accounts/oauth/v2/token", here), token, store=FileStore(str(Path(folder) / "tokens.txt")),
            sdk_config=SDKConfig(), resource_path=folder,
        )  # fmt: skip
        yield sandbox


def dialect(org: Sandbox) -> Zoho:
    found = org.dialects["zoho"]
    assert isinstance(found, Zoho)
    return found


def parameters(**said: Any) -> ParameterMap:
    """Return parameters by their names in the SDK's own classes."""
    found = ParameterMap()
    for name, (param, value) in said.items():
        found.add(getattr(param, name), value)
    return found


def record(**values: Any) -> Record:
    made = Record()
    for name, value in values.items():
        made.add_key_value(name, value)
    return made


def body(*records: Record, checks: list[str] | None = None) -> BodyWrapper:
    wrapper = BodyWrapper()
    wrapper.set_data(list(records))
    if checks is not None:
        wrapper.set_duplicate_check_fields(checks)
    return wrapper


def asked(response: Any, kind: type = ResponseWrapper) -> Any:
    found = response.get_object()
    assert isinstance(found, kind), getattr(found, "get_key_modified", lambda: type(found))
    return found


def verdicts(response: Any) -> list[Any]:
    found: list[Any] = asked(response, ActionWrapper).get_data()
    return found


def created(operations: RecordOperations, *records: Record) -> list[int]:
    return [int(each.get_details()["id"]) for each in verdicts(operations.create_records(body(*records), HeaderMap()))]


def test_it_lists_by_page_token_to_the_end(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")
    found: list[Record] = []
    token = None
    while True:
        said = {
            "fields": (GetRecordsParam, "Last_Name,Email,Account_Name,Interests,Created_Time"),
            "per_page": (GetRecordsParam, 50),
        }
        if token is not None:
            said["page_token"] = (GetRecordsParam, token)
        page = asked(contacts.get_records(parameters(**said), HeaderMap()))
        found += page.get_data()
        token = page.get_info().get_next_page_token()
        if not page.get_info().get_more_records():
            break

    assert len({each.get_id() for each in found}) == len(found) == dialect(org).live("contact") > 200
    assert all(isinstance(each.get_created_time(), datetime) for each in found)
    assert {type(each.get_key_value("Account_Name")) for each in found} == {Record, type(None)}


def test_it_gets_one_with_all_fields(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")
    [first] = asked(
        contacts.get_records(parameters(fields=(GetRecordsParam, "Email"), per_page=(GetRecordsParam, 1)), HeaderMap())
    ).get_data()

    [whole] = asked(contacts.get_record(first.get_id(), ParameterMap(), HeaderMap())).get_data()
    nobody = contacts.get_record(5540231019999999999, ParameterMap(), HeaderMap())

    assert whole.get_key_value("Email") == first.get_key_value("Email")
    assert isinstance(whole.get_key_value("Loyalty_Level"), Choice)
    assert isinstance(whole.get_key_value("Score"), int)
    assert nobody.get_status_code() == 204


def test_it_searches_and_queries(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")
    email = "ada.king@northwind.example"
    query = Query()
    query.set_select_query(
        f"select id, Last_Name, Account_Name.Account_Name from Contacts where (Email = '{email}' and id is not null) limit 0, 10"
    )

    by_email = asked(contacts.search_records(parameters(email=(SearchRecordsParam, email)), HeaderMap())).get_data()
    by_criteria = asked(
        contacts.search_records(
            parameters(criteria=(SearchRecordsParam, f"((Email:equals:{email})and(Last_Name:starts_with:Ki))")), HeaderMap()
        )
    ).get_data()
    [queried] = CoqlOperations().get_records(query).get_object().get_data()

    assert [each.get_key_value("First_Name") for each in by_email] == ["Ada"]
    assert [each.get_id() for each in by_criteria] == [by_email[0].get_id()] == [queried.get_id()]
    assert queried.get_key_value("Account_Name.Account_Name") == "Northwind"


def test_it_reads_the_metadata(org: Sandbox) -> None:
    modules = {
        each.get_api_name(): each
        for each in ModulesOperations().get_modules(ParameterMap(), HeaderMap()).get_object().get_modules()
    }
    fields = FieldsOperations().get_fields(parameters(module=(GetFieldsParam, "Deals"))).get_object().get_fields()
    [pipeline] = PipelineOperations(554023000000091023).get_pipelines().get_object().get_pipeline()
    [company] = OrgOperations().get_organization().get_object().get_org()
    users = UsersOperations().get_users(ParameterMap(), HeaderMap()).get_object().get_users()

    assert modules["Subscriptions"].get_generated_type().get_value() == "custom"
    assert {"Stage", "Amount", "Region"} <= {each.get_api_name() for each in fields}
    assert {each.get_forecast_type() for each in pipeline.get_maps()} == {"Open", "Closed Won", "Closed Lost"}
    assert company.get_time_zone() == "Asia/Kolkata"
    assert len(users) == 8


def test_it_writes_and_is_told_of_each_record(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")
    good = record(Last_Name="Client", Email="sdk.client@brandnew.example", Loyalty_Level=Choice("Gold"), Score=7)

    [id] = created(contacts, good)
    changed = record(id=id, Last_Name="Renamed")
    [updated] = verdicts(contacts.update_records(body(changed), HeaderMap()))
    upserts = body(
        record(Last_Name="Again", Email="SDK.client@brandnew.example"),
        record(Last_Name="New", Email="other@brandnew.example"),
        checks=["Email"],
    )
    second, third = verdicts(contacts.upsert_records(upserts, HeaderMap()))
    [whole] = asked(contacts.get_record(id, ParameterMap(), HeaderMap())).get_data()
    [gone] = verdicts(contacts.delete_records(parameters(ids=(DeleteRecordsParam, str(id))), HeaderMap()))
    [again] = verdicts(contacts.delete_records(parameters(ids=(DeleteRecordsParam, str(id))), HeaderMap()))

    assert updated.get_message().get_value() == "record updated"
    assert [each.get_action().get_value() for each in (second, third)] == ["update", "insert"]
    assert second.get_duplicate_field() == "Email"
    assert (whole.get_key_value("Last_Name"), whole.get_key_value("Score")) == ("Again", 7)
    assert isinstance(gone, SuccessResponse)
    assert isinstance(again, APIException)
    assert again.get_code().get_value() == "INVALID_DATA"


def test_it_is_told_which_records_of_a_batch_were_refused(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")
    taken = (
        dialect(org)
        .tables["contact"]
        .get(dialect(org).native("contact", next(each.id for each in org.world.profiles["zoho"] if not each.deleted)))
    )
    assert taken is not None

    found = verdicts(
        contacts.create_records(
            body(record(Last_Name="Fine"), record(Last_Name="Taken", Member_Number=taken["Member_Number"]), record(Last_Name="Lost", Account_Name=record(id=5540231029999999999))),
            HeaderMap(),
        )
    )  # fmt: skip

    assert [type(each) for each in found] == [SuccessResponse, APIException, APIException]
    assert [each.get_code().get_value() for each in found] == ["SUCCESS", "DUPLICATE_DATA", "INVALID_DATA"]


def test_it_sees_what_was_deleted(org: Sandbox) -> None:
    contacts = RecordOperations("Contacts")

    found = asked(
        contacts.get_deleted_records(parameters(type=(GetDeletedRecordsParam, "all")), HeaderMap()), DeletedRecordsWrapper
    )

    assert len(found.get_data()) >= sum(each.deleted for each in org.world.profiles["zoho"]) > 0
    assert all(each.get_deleted_time() <= datetime.now(UTC) for each in found.get_data())


def test_it_ties_contacts_to_a_deal_by_roles(org: Sandbox) -> None:
    [contact] = created(RecordOperations("Contacts"), record(Last_Name="Role"))
    [other] = created(RecordOperations("Contacts"), record(Last_Name="Other"))
    stage, primary = Choice("Qualification"), record(id=contact)
    [deal] = created(RecordOperations("Deals"), record(Deal_Name="Tied", Stage=stage, Contact_Name=primary))
    [role, *_] = ContactRolesOperations().get_roles().get_object().get_contact_roles()
    tie, data, said = RoleBody(), Data(), ContactRole()
    said.set_id(role.get_id())
    said.set_name(role.get_name())
    data.set_contact_role(said)
    tie.set_data([data])

    DealContactRolesOperations().associate_contact_role_to_deal(other, deal, tie)
    listed = DealContactRolesOperations().get_associated_contact_roles(
        deal, parameters(fields=(GetAssociatedContactRolesParam, "Last_Name"))
    )

    assert {each.get_id() for each in listed.get_object().get_data()} == {contact, other}


def test_it_is_told_what_is_wrong_with_a_call(org: Sandbox) -> None:
    query = Query()
    query.set_select_query("select id, Shoe_Size from Contacts where id is not null")

    unnamed = asked(RecordOperations("Contacts").get_records(ParameterMap(), HeaderMap()), APIException)
    wrong = CoqlOperations().get_records(query).get_object()

    assert unnamed.get_code().get_value() == "REQUIRED_PARAM_MISSING"
    assert wrong.get_code().get_value() == "INVALID_QUERY"
