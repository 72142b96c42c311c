"""What HubSpot knows about its objects: properties with types and options, pipelines, one custom object's schema.

From the sheet's key properties, and the shapes `ModelProperty` and `ObjectSchema` of the official Python client.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sandbox.table import Row
from sandbox.world import CURRENCY, INDUSTRIES

PORTAL = 62515
SUBSCRIPTION, SUBSCRIPTION_TYPE = f"p{PORTAL}_subscriptions", "2-3465404"  # the custom object: fully qualified name, type id
STAGES = (
    ("appointmentscheduled", "Appointment Scheduled", "0.2", "false"), ("qualifiedtobuy", "Qualified To Buy", "0.4", "false"),
    ("presentationscheduled", "Presentation Scheduled", "0.6", "false"), ("decisionmakerboughtin", "Decision Maker Bought-In", "0.8", "false"),
    ("contractsent", "Contract Sent", "0.9", "false"), ("closedwon", "Closed Won", "1.0", "true"), ("closedlost", "Closed Lost", "0.0", "true"),
)  # fmt: skip
TICKET_STAGES = (
    ("1", "New", "OPEN"),
    ("2", "Waiting on contact", "OPEN"),
    ("3", "Waiting on us", "OPEN"),
    ("4", "Closed", "CLOSED"),
)
PARTNER_STAGES = (
    ("1011", "Partner Review", "0.3", "false"),
    ("1012", "Partner Won", "1.0", "true"),
    ("1013", "Partner Lost", "0.0", "true"),
)
PIPELINES: Mapping[str, tuple[str, Sequence[tuple[str, str, str, str]]]] = {
    "default": ("Sales Pipeline", STAGES),
    "98765": ("Partner Pipeline", PARTNER_STAGES),
}
COLORS, PLANS = ("blue", "green", "red"), ("basic", "plus", "pro")

Type = Literal["string", "number", "date", "datetime", "enumeration", "bool", "phone_number"]
PROPERTIES: Mapping[str, Mapping[str, tuple[Type, str, bool]]] = {  # name → (type, label, custom)
    "contacts": {
        "email": ("string", "Email", False), "hs_additional_emails": ("enumeration", "Additional email addresses", False),
        "firstname": ("string", "First Name", False), "lastname": ("string", "Last Name", False), "phone": ("string", "Phone Number", False),
        "mobilephone": ("string", "Mobile Phone Number", False), "jobtitle": ("string", "Job Title", False), "company": ("string", "Company Name", False),
        "country": ("string", "Country/Region", False), "hs_language": ("enumeration", "Preferred language", False),
        "lifecyclestage": ("enumeration", "Lifecycle Stage", False), "hubspot_owner_id": ("enumeration", "Contact owner", False),
        "associatedcompanyid": ("number", "Primary Associated Company ID", False), "createdate": ("datetime", "Create Date", False),
        "lastmodifieddate": ("datetime", "Last Modified Date", False), "hs_object_id": ("number", "Record ID", False),
        "hs_searchable_calculated_phone_number": ("string", "Calculated Phone Number without country code", False),
        "hs_merged_object_ids": ("enumeration", "Merged record IDs", False),
        "favorite_color": ("enumeration", "Favorite color", True), "loyalty_points": ("number", "Loyalty points", True),
    },
    "companies": {
        "name": ("string", "Company name", False), "domain": ("string", "Company Domain Name", False), "industry": ("enumeration", "Industry", False),
        "country": ("string", "Country/Region", False), "numberofemployees": ("number", "Number of Employees", False),
        "hubspot_owner_id": ("enumeration", "Company owner", False), "hs_parent_company_id": ("number", "Parent Company", False),
        "createdate": ("datetime", "Create Date", False), "hs_lastmodifieddate": ("datetime", "Last Modified Date", False),
        "hs_object_id": ("number", "Record ID", False),
    },
    "deals": {
        "dealname": ("string", "Deal Name", False), "amount": ("number", "Amount", False), "deal_currency_code": ("enumeration", "Currency", False),
        "pipeline": ("enumeration", "Pipeline", False), "dealstage": ("enumeration", "Deal Stage", False), "closedate": ("datetime", "Close Date", False),
        "hs_deal_stage_probability": ("number", "Deal probability", False), "hubspot_owner_id": ("enumeration", "Deal owner", False),
        "createdate": ("datetime", "Create Date", False), "hs_lastmodifieddate": ("datetime", "Last Modified Date", False),
        "hs_object_id": ("number", "Record ID", False), "region": ("enumeration", "Region", True),
    },
    "tickets": {
        "subject": ("string", "Ticket name", False), "content": ("string", "Ticket description", False), "hs_pipeline": ("enumeration", "Pipeline", False),
        "hs_pipeline_stage": ("enumeration", "Ticket status", False), "hs_ticket_priority": ("enumeration", "Priority", False),
        "hubspot_owner_id": ("enumeration", "Ticket owner", False), "createdate": ("datetime", "Create date", False),
        "hs_lastmodifieddate": ("datetime", "Last modified date", False), "hs_object_id": ("number", "Record ID", False),
    },
    SUBSCRIPTION: {
        "reference": ("string", "Reference", True), "plan": ("enumeration", "Plan", True), "seats": ("number", "Seats", True),
        "monthly_fee": ("number", "Monthly fee", True), "renews_on": ("date", "Renews on", True), "started_at": ("datetime", "Started at", True),
        "auto_renew": ("bool", "Renews by itself", True), "hs_createdate": ("datetime", "Object create date/time", False),
        "hs_lastmodifieddate": ("datetime", "Object last modified date/time", False), "hs_object_id": ("number", "Record ID", False),
    },
}  # fmt: skip
OPTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "favorite_color": [(each, each.title()) for each in COLORS], "region": [("emea", "EMEA"), ("amer", "Americas"), ("apac", "Asia-Pacific")],
    "hs_ticket_priority": [("LOW", "Low"), ("MEDIUM", "Medium"), ("HIGH", "High"), ("URGENT", "Urgent")],
    "lifecyclestage": [("lead", "Lead"), ("customer", "Customer")], "plan": [(each, each.title()) for each in PLANS],
    "industry": [(each.upper(), each) for each in INDUSTRIES], "deal_currency_code": [(each, each) for each in CURRENCY.values()],
    "pipeline": [(id, label) for id, (label, _) in PIPELINES.items()], "hs_pipeline": [("0", "Support Pipeline")],
    "dealstage": [(stage[0], stage[1]) for _, stages in PIPELINES.values() for stage in stages],
    "hs_pipeline_stage": [(id, label) for id, label, _ in TICKET_STAGES],
}  # fmt: skip
DEFAULTS: Mapping[str, Sequence[str]] = {
    "contacts": ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"),
    "companies": ("createdate", "domain", "hs_lastmodifieddate", "hs_object_id", "name"),
    "deals": ("amount", "closedate", "createdate", "dealname", "dealstage", "hs_lastmodifieddate", "hs_object_id", "pipeline"),
    "tickets": ("content", "createdate", "hs_lastmodifieddate", "hs_object_id", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority", "subject"),
    SUBSCRIPTION: ("hs_createdate", "hs_lastmodifieddate", "hs_object_id", "reference"),
}  # fmt: skip
# What `POST` asks for; admin-configured validation rules are not modelled.
REQUIRED: Mapping[str, Sequence[str]] = {"tickets": ("hs_pipeline_stage",), "deals": ("dealstage",), SUBSCRIPTION: ("reference",)}
READ_ONLY = frozenset({
    "createdate", "hs_createdate", "lastmodifieddate", "hs_lastmodifieddate", "hs_object_id", "hs_searchable_calculated_phone_number",
    "hs_deal_stage_probability", "associatedcompanyid", "hs_parent_company_id", "hs_merged_object_ids", "hs_additional_emails",
})  # fmt: skip
_ALIASES = {
    "0-1": "contacts", "0-2": "companies", "0-3": "deals", "0-5": "tickets", "contact": "contacts", "company": "companies", "deal": "deals",
    "ticket": "tickets", SUBSCRIPTION_TYPE: SUBSCRIPTION, "subscriptions": SUBSCRIPTION,
}  # fmt: skip
_TYPE_IDS = {"contacts": "0-1", "companies": "0-2", "deals": "0-3", "tickets": "0-5", SUBSCRIPTION: SUBSCRIPTION_TYPE}


def object_name(given: str) -> str:
    """Return the name that tables go by, of whatever a path called the object."""
    return _ALIASES.get(given, given)


def type_id(kind: str) -> str:
    return _TYPE_IDS[kind]


def modified(kind: str) -> str:
    """Return the property that holds the time of the last change."""
    return "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"


def created(kind: str) -> str:
    return "hs_createdate" if kind == SUBSCRIPTION else "createdate"


def projected(kind: str, row: Row, wanted: Iterable[str]) -> Row:
    names = {*DEFAULTS[kind], *wanted} & PROPERTIES[kind].keys()  # unknown names are silently ignored
    return {**row, "properties": {name: row["properties"].get(name) for name in sorted(names)}}


def properties(kind: str) -> list[Row]:
    return [_property(name, *facts) for name, facts in PROPERTIES[kind].items()]


def pipelines(kind: str) -> list[Row]:
    if kind == "deals":
        return [
            _pipeline(id, label, at, [_stage(*stage[:2], nth, {"isClosed": stage[3], "probability": stage[2]}) for nth, stage in enumerate(stages)])
            for at, (id, (label, stages)) in enumerate(PIPELINES.items())
        ]  # fmt: skip
    return [
        _pipeline("0", "Support Pipeline", 0, [_stage(id, label, nth, {"ticketState": state}) for nth, (id, label, state) in enumerate(TICKET_STAGES)])
    ]  # fmt: skip


def schema() -> Row:
    """Return the custom object's schema."""
    return {
        "id": SUBSCRIPTION_TYPE.removeprefix("2-"), "objectTypeId": SUBSCRIPTION_TYPE, "fullyQualifiedName": SUBSCRIPTION, "name": "subscriptions",
        "labels": {"singular": "Subscription", "plural": "Subscriptions"}, "description": "", "archived": False, "requiredProperties": list(REQUIRED[SUBSCRIPTION]),
        "searchableProperties": ["reference"], "primaryDisplayProperty": "reference", "secondaryDisplayProperties": ["plan"],
        "properties": properties(SUBSCRIPTION), "createdAt": "2024-01-01T00:00:00.000Z", "updatedAt": "2024-01-01T00:00:00.000Z",
        "associations": [{"id": "42", "fromObjectTypeId": SUBSCRIPTION_TYPE, "toObjectTypeId": "0-1", "name": "subscription_to_contact"}],
    }  # fmt: skip


def _property(name: str, type: Type, label: str, custom: bool) -> Row:
    options = [
        {"label": each, "value": value, "displayOrder": at, "hidden": False}
        for at, (value, each) in enumerate(OPTIONS.get(name, ()))
    ]
    field_type = {"enumeration": "select", "number": "number", "datetime": "date", "date": "date", "bool": "booleancheckbox"}.get(
        type, "text"
    )
    return {
        "name": name, "label": label, "type": type, "fieldType": field_type, "groupName": "custom" if custom else "information", "description": "",
        "options": options, "hasUniqueValue": False, "calculated": name.startswith("hs_searchable"), "externalOptions": name == "hubspot_owner_id", "hubspotDefined": not custom,
        "modificationMetadata": {"archivable": custom, "readOnlyDefinition": not custom, "readOnlyValue": name in READ_ONLY},
        "updatedAt": "2024-01-01T00:00:00.000Z",
    }  # fmt: skip


def _pipeline(id: str, label: str, order: int, stages: list[Row]) -> Row:
    return {"id": id, "label": label, "displayOrder": order, "archived": False, "stages": stages}


def _stage(id: str, label: str, order: int, metadata: Mapping[str, str]) -> Row:
    return {"id": id, "label": label, "displayOrder": order, "metadata": dict(metadata), "archived": False}
