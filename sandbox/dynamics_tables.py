"""The tables of the sandbox's Dataverse environment: columns, options, lookups, as data.

Column names, labels and option values are from the Common Data Model's entity documents; lookups from the Web API's entity
pages; columns that begin with new_ are this environment's own, and so is the table new_subscription.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_INDUSTRIES = {
    1: "Accounting", 2: "Agriculture and Non-petrol Natural Resource Extraction", 6: "Business Services", 7: "Consulting", 12: "Durable Manufacturing",
    16: "Financial", 22: "Non-Durable Merchandise Retail",
}  # fmt: skip
_SOURCES = {
    1: "Advertisement", 2: "Employee Referral", 3: "External Referral", 4: "Partner", 5: "Public Relations", 6: "Seminar", 7: "Trade Show", 8: "Web",
    9: "Word of Mouth", 10: "Other",
}  # fmt: skip
_CUSTOMERS = {
    1: "Competitor", 2: "Consultant", 3: "Customer", 4: "Investor", 5: "Partner", 6: "Influencer", 7: "Press", 8: "Prospect", 9: "Reseller", 10: "Supplier",
    11: "Vendor", 12: "Other",
}  # fmt: skip
_ACTIVE = {0: "Active", 1: "Inactive"}
_RATINGS = {1: "Hot", 2: "Warm", 3: "Cold"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        type: string memo int bigint decimal money bool datetime date guid option multi state status lookup virtual.
        options: value → label.
        states: of a status: value → the state it belongs to.
        targets: of a lookup: table → navigation property (case-sensitive).
        settable: can be given in a write; what else is given is ignored.
        virtual: is told by the metadata and cannot be read, as names of lookups.
    """

    type: str
    label: str
    options: Mapping[int, str] = field(default_factory=dict)
    states: Mapping[int, int] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    settable: bool = True
    length: int = 4000
    schema: str = ""

    @property
    def virtual(self) -> bool:
        return self.type == "virtual"


@dataclass(frozen=True, slots=True)
class Schema:
    """One table.

    Attributes:
        set: the entity set's name, which need not be the plural.
        columns: by logical name; a lookup `x` stands in rows as `_x_value`.
        keys: columns that an alternate key is defined on.
        collections: navigation property → (table, its lookup to this one).
    """

    logical: str
    set: str
    id: str
    name: str
    label: str
    columns: Mapping[str, Column]
    keys: frozenset[str] = frozenset()
    collections: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    code: int = 0

    @property
    def custom(self) -> bool:
        return self.logical.startswith("new_")

    def stored(self, name: str) -> str:
        """Return where a row has a column."""
        return f"_{name}_value" if self.columns[name].type == "lookup" else name

    def navigations(self) -> dict[str, tuple[str, str]]:
        """Return single-valued navigation property → (lookup column, table)."""
        return {
            navigation: (name, table) for name, column in self.columns.items() for table, navigation in column.targets.items()
        }


def _text(label: str, length: int = 100) -> Column:
    return Column("string", label, length=length)


def _lookup(label: str, settable: bool = True, **targets: str) -> Column:
    return Column("lookup", label, targets=targets, settable=settable)


def _option(label: str, options: Mapping[int, str]) -> Column:
    return Column("option", label, options=options)


def _common(
    table: str, states: Mapping[int, str], statuses: Mapping[int, tuple[str, int]], owned: bool = True
) -> dict[str, Column]:
    return {
        f"{table}id": Column("guid", table.removeprefix("new_").title()),
        "statecode": Column("state", "Status", options=states),
        "statuscode": Column(
            "status", "Status Reason", options={value: label for value, (label, _) in statuses.items()},
            states={value: state for value, (_, state) in statuses.items()},
        ),
        "createdon": Column("datetime", "Created On", settable=False), "modifiedon": Column("datetime", "Modified On", settable=False),
        "versionnumber": Column("bigint", "Version Number", settable=False),
        **({"ownerid": _lookup("Owner", systemuser="ownerid"), "owneridname": Column("virtual", "Owner Name")} if owned else {}),
    }  # fmt: skip


def _stamped(table: str) -> dict[str, Column]:
    return {
        f"{table}id": Column("guid", table), "createdon": Column("datetime", "Created On", settable=False),
        "modifiedon": Column("datetime", "Modified On", settable=False), "versionnumber": Column("bigint", "Version Number", settable=False),
    }  # fmt: skip


_PLAIN = {1: ("Active", 0), 2: ("Inactive", 1)}
_MONEY = {
    "transactioncurrencyid": _lookup("Currency", transactioncurrency="transactioncurrencyid"),
    "exchangerate": Column("decimal", "Exchange Rate", settable=False),
}


def _merges(table: str) -> dict[str, Column]:
    return {
        "merged": Column("bool", "Merged", settable=False),
        "masterid": _lookup("Master ID", settable=False, **{table: "masterid"}),
    }


_PERSON = {
    "fullname": Column("string", "Full Name", settable=False), "firstname": _text("First Name", 50), "lastname": _text("Last Name", 50),
    "emailaddress1": _text("Email"), "emailaddress2": _text("Email Address 2"), "emailaddress3": _text("Email Address 3"),
    "telephone1": _text("Business Phone", 50), "mobilephone": _text("Mobile Phone", 50), "jobtitle": _text("Job Title"),
    "description": Column("memo", "Description", length=2000), "donotemail": Column("bool", "Do not allow Emails"),
    "donotbulkemail": Column("bool", "Do not allow Bulk Emails"),
}  # fmt: skip

SCHEMAS: Mapping[str, Schema] = {
    each.logical: each
    for each in (
        Schema(
            "contact", "contacts", "contactid", "fullname", "Contact", code=2, keys=frozenset({"new_externalid"}),
            collections={"opportunity_customer_contacts": ("opportunity", "customerid")},
            columns={
                **_common("contact", _ACTIVE, _PLAIN), **_PERSON, **_merges("contact"), "department": _text("Department"),
                "address1_city": _text("Address 1: City", 80), "address1_country": _text("Address 1: Country/Region", 80),
                "birthdate": Column("date", "Birthday"),
                "parentcustomerid": _lookup("Company Name", account="parentcustomerid_account", contact="parentcustomerid_contact"),
                "parentcustomeridname": Column("virtual", "Company Name"),
                "new_loyaltytier": Column("option", "Loyalty Tier", options={100000000: "Gold", 100000001: "Silver", 100000002: "Bronze"}, schema="new_LoyaltyTier"),
                "new_newsletter": Column("bool", "Newsletter", schema="new_Newsletter"), "new_score": Column("decimal", "Score", schema="new_Score"),
                "new_interests": Column("multi", "Interests", options={1: "Widgets", 2: "Gadgets", 3: "Cables"}, schema="new_Interests"),
                "new_externalid": Column("string", "External Id", length=50, schema="new_ExternalId"),
            },
        ),
        Schema(
            "account", "accounts", "accountid", "name", "Account", code=1, keys=frozenset({"accountnumber"}),
            collections={
                "contact_customer_accounts": ("contact", "parentcustomerid"), "opportunity_customer_accounts": ("opportunity", "customerid"),
            },
            columns={
                **_common("account", _ACTIVE, _PLAIN), **_MONEY, **_merges("account"), "name": _text("Account Name", 160), "accountnumber": _text("Account Number", 20),
                "emailaddress1": _text("Email"), "telephone1": _text("Main Phone", 50), "websiteurl": _text("Website", 200), "address1_country": _text("Address 1: Country/Region", 80),
                "revenue": Column("money", "Annual Revenue"), "revenue_base": Column("money", "Annual Revenue (Base)", settable=False),
                "numberofemployees": Column("int", "Number of Employees"), "industrycode": _option("Industry", _INDUSTRIES),
                "customertypecode": _option("Relationship Type", _CUSTOMERS), "description": Column("memo", "Description", length=2000),
                "primarycontactid": _lookup("Primary Contact", contact="primarycontactid"), "parentaccountid": _lookup("Parent Account", account="parentaccountid"),
            },
        ),
        Schema(
            "lead", "leads", "leadid", "fullname", "Lead", code=4,
            columns={
                **_common("lead", {0: "Open", 1: "Qualified", 2: "Disqualified"}, {
                    1: ("New", 0), 2: ("Contacted", 0), 3: ("Qualified", 1), 4: ("Lost", 2), 5: ("Cannot Contact", 2), 6: ("No Longer Interested", 2),
                    7: ("Canceled", 2),
                }),
                **_PERSON, **_MONEY, **_merges("lead"), "subject": _text("Topic", 300), "companyname": _text("Company Name"),
                "leadsourcecode": _option("Lead Source", _SOURCES), "leadqualitycode": _option("Rating", _RATINGS),
                "revenue": Column("money", "Annual Revenue"), "revenue_base": Column("money", "Annual Revenue (Base)", settable=False),
                "parentaccountid": _lookup("Parent Account for lead", account="parentaccountid"),
                "parentcontactid": _lookup("Parent Contact for lead", contact="parentcontactid"),
                "qualifyingopportunityid": _lookup("Qualifying Opportunity", settable=False, opportunity="qualifyingopportunityid"),
                "new_leadscore": Column("decimal", "Lead Score", schema="new_LeadScore"),
            },
        ),
        Schema(
            "opportunity", "opportunities", "opportunityid", "name", "Opportunity", code=3,
            columns={
                **_common("opportunity", {0: "Open", 1: "Won", 2: "Lost"}, {
                    1: ("In Progress", 0), 2: ("On Hold", 0), 3: ("Won", 1), 4: ("Canceled", 2), 5: ("Out-Sold", 2),
                }),
                **_MONEY, "name": _text("Topic", 300), "description": Column("memo", "Description", length=2000),
                "estimatedvalue": Column("money", "Est. Revenue"), "estimatedvalue_base": Column("money", "Est. Revenue (Base)", settable=False),
                "actualvalue": Column("money", "Actual Revenue"), "actualvalue_base": Column("money", "Actual Revenue (Base)", settable=False),
                "isrevenuesystemcalculated": Column("bool", "Revenue"), "estimatedclosedate": Column("date", "Est. Close Date"),
                "actualclosedate": Column("date", "Actual Close Date"), "closeprobability": Column("int", "Probability"),
                "stepname": _text("Pipeline Phase", 200), "salesstage": _option("Sales Stage", {0: "Qualify", 1: "Develop", 2: "Propose", 3: "Close"}),
                "opportunityratingcode": _option("Rating", _RATINGS),
                "customerid": _lookup("Potential Customer", account="customerid_account", contact="customerid_contact"),
                "parentaccountid": _lookup("Account", account="parentaccountid"), "parentcontactid": _lookup("Contact", contact="parentcontactid"),
                "new_region": Column("option", "Region", options={100000000: "EMEA", 100000001: "AMER", 100000002: "APAC"}, schema="new_Region"),
            },
        ),
        Schema(
            "systemuser", "systemusers", "systemuserid", "fullname", "User", code=8,
            columns={
                "systemuserid": Column("guid", "User", settable=False), "fullname": Column("string", "Full Name", settable=False),
                "firstname": _text("First Name"), "lastname": _text("Last Name"), "internalemailaddress": _text("Primary Email"),
                "domainname": _text("User Name", 1024), "azureactivedirectoryobjectid": Column("guid", "Azure AD Object ID", settable=False),
                "isdisabled": Column("bool", "Status"), "createdon": Column("datetime", "Created On", settable=False),
                "modifiedon": Column("datetime", "Modified On", settable=False), "versionnumber": Column("bigint", "Version Number", settable=False),
            },
        ),
        Schema(
            "transactioncurrency", "transactioncurrencies", "transactioncurrencyid", "currencyname", "Currency", code=9105,
            columns={
                **_common("transactioncurrency", _ACTIVE, _PLAIN, owned=False), "isocurrencycode": _text("Currency Code", 5),
                "currencyname": _text("Currency Name"), "currencysymbol": _text("Currency Symbol", 13), "currencyprecision": Column("int", "Currency Precision"),
                "exchangerate": Column("decimal", "Exchange Rate"),
            },
        ),
        Schema(
            "connection", "connections", "connectionid", "name", "Connection", code=3234,
            columns={
                **_common("connection", _ACTIVE, _PLAIN), "name": Column("string", "Name", settable=False), "description": Column("memo", "Description"),
                "record1id": _lookup("Connected From", account="record1id_account", contact="record1id_contact", opportunity="record1id_opportunity"),
                "record2id": _lookup("Connected To", account="record2id_account", contact="record2id_contact", opportunity="record2id_opportunity"),
                "record1objecttypecode": Column("int", "Type (From)", settable=False), "record2objecttypecode": Column("int", "Type (To)", settable=False),
                "relatedconnectionid": _lookup("Reciprocal Connection", settable=False, connection="relatedconnectionid"),
            },
        ),
        Schema(
            "new_subscription", "new_subscriptionset", "new_subscriptionid", "new_name", "Subscription", code=10042,
            columns={
                **_common("new_subscription", _ACTIVE, _PLAIN), **_MONEY,
                "new_name": Column("string", "Name", length=100, schema="new_Name"),
                "new_plan": Column("option", "Plan", options={100000000: "Basic", 100000001: "Premium"}, schema="new_Plan"),
                "new_seats": Column("int", "Seats", schema="new_Seats"), "new_active": Column("bool", "Active", schema="new_Active"),
                "new_price": Column("money", "Price", schema="new_Price"), "new_price_base": Column("money", "Price (Base)", settable=False),
                "new_startedon": Column("date", "Started On", schema="new_StartedOn"),
                "new_features": Column("multi", "Features", options={1: "Reports", 2: "Export", 3: "API"}, schema="new_Features"),
                # The navigation property has the case of the schema name; the column does not.
                "new_contactid": Column("lookup", "Contact", targets={"contact": "new_ContactId"}, schema="new_ContactId"),
            },
        ),
        # What webhooks are made of; the messages and filters there are stand in `dynamics_hooks.py`.
        Schema(
            "serviceendpoint", "serviceendpoints", "serviceendpointid", "name", "Service Endpoint", code=4618,
            columns={
                **_stamped("serviceendpoint"), "name": _text("Name", 160), "description": _text("Description", 2000), "url": _text("Webhook URL", 2000),
                "contract": _option("Contract", {1: "OneWay", 2: "Queue", 3: "Rest", 4: "TwoWay", 5: "Topic", 6: "Queue(Persistent)", 7: "Event Hub", 8: "Webhook"}),
                "authtype": _option("Auth Type", {1: "ACS", 2: "SAS Key", 3: "SAS Token", 4: "Webhook Key", 5: "Http Header", 6: "Http Query String"}),
                "authvalue": _text("Auth Value", 2000), "messageformat": _option("Message Format", {1: "Binary XML", 2: "Json", 3: "Text XML"}),
            },
        ),
        Schema(
            "sdkmessage", "sdkmessages", "sdkmessageid", "name", "Sdk Message", code=4606,
            columns={**_stamped("sdkmessage"), "name": _text("Name", 256)},
        ),
        Schema(
            "sdkmessagefilter", "sdkmessagefilters", "sdkmessagefilterid", "name", "Sdk Message Filter", code=4607,
            columns={
                **_stamped("sdkmessagefilter"), "name": _text("Name", 256), "primaryobjecttypecode": _text("Primary Object Type Code"),
                "sdkmessageid": _lookup("SDK Message", sdkmessage="sdkmessageid"),
            },
        ),
        Schema(
            "sdkmessageprocessingstep", "sdkmessageprocessingsteps", "sdkmessageprocessingstepid", "name", "Sdk Message Processing Step", code=4608,
            columns={
                **_stamped("sdkmessageprocessingstep"), "name": _text("Name", 256), "description": _text("Description", 256),
                "statecode": Column("state", "Status", options={0: "Enabled", 1: "Disabled"}),
                "statuscode": Column("status", "Status Reason", options={1: "Enabled", 2: "Disabled"}, states={1: 0, 2: 1}),
                "mode": _option("Execution Mode", {0: "Synchronous", 1: "Asynchronous"}), "rank": Column("int", "Execution Order"),
                "stage": _option("Execution Stage", {10: "Pre-validation", 20: "Pre-operation", 40: "Post-operation"}),
                "supporteddeployment": _option("Deployment", {0: "Server Only"}), "asyncautodelete": Column("bool", "Asynchronous Automatic Delete"),
                "filteringattributes": _text("Filtering Attributes", 100_000), "sdkmessageid": _lookup("SDK Message", sdkmessage="sdkmessageid"),
                "sdkmessagefilterid": _lookup("SDK Message Filter", sdkmessagefilter="sdkmessagefilterid"),
                "eventhandler": _lookup("Event Handler", serviceendpoint="eventhandler_serviceendpoint"),
            },
        ),
    )
}  # fmt: skip
SETS: Mapping[str, Schema] = {each.set: each for each in SCHEMAS.values()}
RATES = {"USD": 1.0, "EUR": 0.92, "GBP": 0.79}  # units for one of the base currency
