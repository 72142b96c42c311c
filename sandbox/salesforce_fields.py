"""What a Salesforce org knows about its objects: fields with types, picklists, relationships, what a record needs.

The field lists are a part of the standard objects'; beside them stand custom fields, an external id and one custom object.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sandbox.salesforce_answers import VERSION
from sandbox.table import Row

SUBSCRIPTION = "Subscription__c"
PREFIXES = {
    "Contact": "003",
    "Account": "001",
    "Opportunity": "006",
    "Lead": "00Q",
    "User": "005",
    "OpportunityContactRole": "00K",
    SUBSCRIPTION: "a01",
}
PLANS = ("Basic", "Plus", "Pro")
DESCRIBED_AT = datetime(2026, 1, 5, tzinfo=UTC)
STAGES = (
    ("Prospecting", 10, False, False), ("Qualification", 10, False, False), ("Needs Analysis", 20, False, False),
    ("Proposal/Price Quote", 75, False, False), ("Negotiation/Review", 90, False, False), ("Closed Won", 100, True, True), ("Closed Lost", 0, True, False),
)  # fmt: skip
TIERS, REGIONS = ("Gold", "Silver", "Bronze"), ("EMEA", "AMER", "APAC")
_SYSTEM = {
    "Id": "id", "OwnerId": "reference", "CurrencyIsoCode": "picklist", "CreatedDate": "datetime", "LastModifiedDate": "datetime",
    "SystemModstamp": "datetime", "IsDeleted": "boolean",
}  # fmt: skip
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Contact": {
        **_SYSTEM, "MasterRecordId": "reference", "AccountId": "reference", "FirstName": "string", "LastName": "string", "Name": "string", "Email": "email", "Phone": "phone",
        "MobilePhone": "phone", "HomePhone": "phone", "Title": "string", "Department": "string", "MailingCountry": "string", "LeadSource": "picklist",
        "HasOptedOutOfEmail": "boolean", "Description": "textarea", "External_Id__c": "string", "Loyalty_Tier__c": "picklist", "Newsletter__c": "boolean", "Score__c": "double",
    },
    "Account": {
        **_SYSTEM, "MasterRecordId": "reference", "Name": "string", "Type": "picklist", "ParentId": "reference", "Website": "url", "Phone": "phone", "Industry": "picklist",
        "AnnualRevenue": "currency", "NumberOfEmployees": "int", "BillingCountry": "string", "Description": "textarea",
    },
    "Opportunity": {
        **_SYSTEM, "AccountId": "reference", "Name": "string", "StageName": "picklist", "CloseDate": "date", "Amount": "currency", "Probability": "percent",
        "ForecastCategory": "picklist", "Type": "picklist", "LeadSource": "picklist", "NextStep": "string", "IsClosed": "boolean", "IsWon": "boolean",
        "Description": "textarea", "Region__c": "picklist",
    },
    "Lead": {
        **_SYSTEM, "MasterRecordId": "reference", "FirstName": "string", "LastName": "string", "Name": "string", "Company": "string", "Email": "email", "Phone": "phone",
        "MobilePhone": "phone", "Title": "string", "Status": "picklist", "LeadSource": "picklist", "Rating": "picklist", "IsConverted": "boolean",
        "Lead_Score__c": "double",
    },
    "User": {
        "Id": "id", "Username": "string", "Email": "email", "Name": "string", "FirstName": "string", "LastName": "string", "IsActive": "boolean",
        "TimeZoneSidKey": "picklist", "CreatedDate": "datetime", "LastModifiedDate": "datetime", "SystemModstamp": "datetime",
    },
    "OpportunityContactRole": {
        "Id": "id", "OpportunityId": "reference", "ContactId": "reference", "Role": "picklist", "IsPrimary": "boolean", "CreatedDate": "datetime",
        "LastModifiedDate": "datetime", "SystemModstamp": "datetime", "IsDeleted": "boolean",
    },
    SUBSCRIPTION: {
        **_SYSTEM, "Name": "string", "Contact__c": "reference", "Plan__c": "picklist", "Seats__c": "double", "Monthly_Fee__c": "currency", "Renews_On__c": "date",
        "Started_At__c": "datetime", "Auto_Renew__c": "boolean",
    },
    "OpportunityStage": {
        "Id": "id", "MasterLabel": "string", "ApiName": "string", "IsActive": "boolean", "IsClosed": "boolean", "IsWon": "boolean",
        "DefaultProbability": "percent", "SortOrder": "int", "ForecastCategoryName": "string",
    },
}  # fmt: skip
PICKLISTS: Mapping[str, Sequence[str]] = {
    "Plan__c": PLANS, "Loyalty_Tier__c": TIERS, "Region__c": REGIONS, "StageName": [each[0] for each in STAGES], "CurrencyIsoCode": ("USD", "EUR", "GBP"),
    "Status": ("Open - Not Contacted", "Working - Contacted", "Closed - Converted", "Closed - Not Converted"),
}  # fmt: skip
PARENTS: Mapping[tuple[str, str], tuple[str, str]] = {  # (object, relationship) → (lookup field, object)
    ("Contact", "Account"): ("AccountId", "Account"), ("Opportunity", "Account"): ("AccountId", "Account"), ("Account", "Parent"): ("ParentId", "Account"),
    ("OpportunityContactRole", "Opportunity"): ("OpportunityId", "Opportunity"), ("OpportunityContactRole", "Contact"): ("ContactId", "Contact"),
    ("Contact", "Owner"): ("OwnerId", "User"), ("Account", "Owner"): ("OwnerId", "User"), ("Opportunity", "Owner"): ("OwnerId", "User"), ("Lead", "Owner"): ("OwnerId", "User"),
    (SUBSCRIPTION, "Contact__r"): ("Contact__c", "Contact"), (SUBSCRIPTION, "Owner"): ("OwnerId", "User"),
}  # fmt: skip
CHILDREN: Mapping[tuple[str, str], tuple[str, str]] = {  # (object, relationship) → (child object, lookup field)
    ("Account", "Contacts"): ("Contact", "AccountId"), ("Account", "Opportunities"): ("Opportunity", "AccountId"),
    ("Contact", "OpportunityContactRoles"): ("OpportunityContactRole", "ContactId"), ("Opportunity", "OpportunityContactRoles"): ("OpportunityContactRole", "OpportunityId"),
}  # fmt: skip
REQUIRED: Mapping[str, Sequence[str]] = {
    "Contact": ("LastName",), "Lead": ("LastName", "Company"), "Account": ("Name",), "Opportunity": ("Name", "StageName", "CloseDate"),
    "OpportunityContactRole": ("OpportunityId", "ContactId"), SUBSCRIPTION: (),
}  # fmt: skip
REFERS: Mapping[str, Sequence[str]] = {
    "AccountId": ("Account",), "ParentId": ("Account",), "OwnerId": ("User",), "OpportunityId": ("Opportunity",), "ContactId": ("Contact",), "Contact__c": ("Contact",),
}  # fmt: skip
EXTERNAL = {"External_Id__c"}  # unique, and good to upsert by
RESTRICTED = {"Loyalty_Tier__c", "Plan__c", "CurrencyIsoCode"}  # picklists that take no other value
LENGTHS = {"FirstName": 40, "LastName": 80, "Title": 128, "Company": 255, "External_Id__c": 40}
READ_ONLY = frozenset({
    "Id", "CreatedDate", "LastModifiedDate", "SystemModstamp", "IsDeleted", "MasterRecordId", "IsClosed", "IsWon", "ForecastCategory", "IsConverted",
})  # fmt: skip
_COMPOUND = {"Contact", "Lead"}  # their Name is put together of its parts


def read_only(object: str, field: str) -> bool:
    return field in READ_ONLY or (field == "Name" and object in _COMPOUND)


def listed(object: str) -> Row:
    """Return an object as describeGlobal lists it."""
    custom = object.endswith("__c")
    return {
        "name": object, "label": object.removesuffix("__c"), "labelPlural": f"{object.removesuffix('__c')}s", "custom": custom, "customSetting": False,
        "keyPrefix": PREFIXES.get(object), "queryable": True, "createable": object in REQUIRED, "updateable": object in REQUIRED, "deletable": object in REQUIRED,
        "urls": {"describe": f"/services/data/{VERSION}/sobjects/{object}/describe", "sobject": f"/services/data/{VERSION}/sobjects/{object}"},
    }  # fmt: skip


def described(object: str) -> Row:
    return {**listed(object), "fields": [_field(object, name, type) for name, type in FIELDS[object].items()]}


def _field(object: str, name: str, type: str) -> Row:
    values = [
        {"active": True, "defaultValue": False, "label": each, "validFor": None, "value": each}
        for each in PICKLISTS.get(name, ())
    ]
    writable, external = not read_only(object, name) and object in REQUIRED, name in EXTERNAL
    return {
        "name": name, "label": name.removesuffix("__c").replace("_", " "), "type": type, "length": LENGTHS.get(name, 255), "nillable": name not in REQUIRED.get(object, ()),
        "createable": writable, "updateable": writable, "custom": name.endswith("__c"), "unique": external, "externalId": external, "idLookup": name == "Id" or external,
        "calculated": False, "filterable": True, "sortable": True, "restrictedPicklist": name in RESTRICTED, "referenceTo": list(REFERS.get(name, ())),
        "relationshipName": None, "picklistValues": values,
    }  # fmt: skip
