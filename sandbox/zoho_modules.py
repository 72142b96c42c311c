"""The modules of a Zoho CRM org: their fields, their stages, and their rows.

Field lists from the vendor's module pages and field metadata; one custom module, `Subscriptions`. Keys of a row that begin with "$"
are the sandbox's own and never leave it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, User, World

ORG_ZONE = timezone(timedelta(hours=5, minutes=30))  # the org's own time zone: no time here is UTC
ORG_ID, LAYOUT_ID = "554023000000000001", "554023000000091023"
_STAGES = (
    ("Qualification", 10, "Open"), ("Needs Analysis", 20, "Open"), ("Value Proposition", 40, "Open"), ("Proposal/Price Quote", 75, "Open"),
    ("Negotiation/Review", 90, "Open"), ("Closed Won", 100, "Closed Won"), ("Closed Lost", 0, "Closed Lost"),
)  # fmt: skip
ROLES = ("Decision Maker", "Influencer", "Executive Sponsor")
_LEVELS, _PLANS, _REGIONS = ("Gold", "Silver", "Bronze"), ("Basic", "Team", "Enterprise"), ("EMEA", "AMER", "APAC")
JSON_TYPES = {
    "boolean": "boolean", "integer": "integer", "percent": "integer", "currency": "double", "double": "double", "lookup": "jsonobject",
    "ownerlookup": "jsonobject", "multiselectpicklist": "jsonarray",
}  # fmt: skip


class Spec(NamedTuple):
    """One field. `lookup` names the module that a lookup points into."""

    type: str
    custom: bool = False
    read_only: bool = False
    mandatory: bool = False
    unique: bool = False
    lookup: str | None = None
    options: Sequence[str] = ()


_TEXT, _EMAIL, _PHONE, _AREA, _PICK, _DATE = (
    Spec("text"),
    Spec("email"),
    Spec("phone"),
    Spec("textarea"),
    Spec("picklist"),
    Spec("date"),
)
_NAME = Spec("text", mandatory=True)
_STAMPS = {
    "Owner": Spec("ownerlookup"), "Created_Time": Spec("datetime", read_only=True), "Modified_Time": Spec("datetime", read_only=True),
    "Created_By": Spec("ownerlookup", read_only=True), "Modified_By": Spec("ownerlookup", read_only=True),
}  # fmt: skip
_PERSON = {
    "id": Spec("bigint", read_only=True), "First_Name": _TEXT, "Last_Name": _NAME, "Full_Name": Spec("text", read_only=True), "Email": _EMAIL, "Secondary_Email": _EMAIL,
    "Phone": _PHONE, "Mobile": _PHONE, "Lead_Source": _PICK, "Email_Opt_Out": Spec("boolean"), "Description": _AREA, **_STAMPS,
}  # fmt: skip
FIELDS: Mapping[str, Mapping[str, Spec]] = {
    "Contacts": {
        **_PERSON, "Title": _TEXT, "Department": _TEXT, "Account_Name": Spec("lookup", lookup="Accounts"), "Mailing_Street": _TEXT, "Mailing_City": _TEXT,
        "Mailing_State": _TEXT, "Mailing_Zip": _TEXT, "Mailing_Country": _TEXT, "Date_of_Birth": _DATE, "Last_Activity_Time": Spec("datetime", read_only=True),
        "Loyalty_Level": Spec("picklist", custom=True, options=_LEVELS), "Score": Spec("integer", custom=True),
        "Member_Number": Spec("text", custom=True, unique=True), "Interests": Spec("multiselectpicklist", custom=True, options=("Lamps", "Cables", "Stands")),
    },
    "Accounts": {
        "id": Spec("bigint", read_only=True), "Account_Name": _NAME, "Website": Spec("website"), "Phone": _PHONE, "Industry": _PICK, "Annual_Revenue": Spec("currency"),
        "Employees": Spec("integer"), "Account_Type": _PICK, "Ownership": _PICK, "Rating": _PICK, "Parent_Account": Spec("lookup", lookup="Accounts"),
        "Billing_Street": _TEXT, "Billing_City": _TEXT, "Billing_Code": _TEXT, "Billing_Country": _TEXT, "Account_Number": _TEXT, "Description": _AREA, **_STAMPS,
        "Region": Spec("picklist", custom=True, options=_REGIONS),
    },
    "Deals": {
        "id": Spec("bigint", read_only=True), "Deal_Name": _NAME, "Stage": Spec("picklist", mandatory=True, options=[each[0] for each in _STAGES]), "Amount": Spec("currency"),
        "Closing_Date": _DATE, "Probability": Spec("percent"), "Expected_Revenue": Spec("currency", read_only=True), "Pipeline": _PICK,
        "Account_Name": Spec("lookup", lookup="Accounts"), "Contact_Name": Spec("lookup", lookup="Contacts"), "Type": _PICK, "Lead_Source": _PICK, "Next_Step": _TEXT,
        "Currency": Spec("picklist", options=("USD", "EUR", "GBP")), "Exchange_Rate": Spec("double"), "Description": _AREA, **_STAMPS,
        "Region": Spec("picklist", custom=True, options=_REGIONS),
    },
    "Leads": {
        **_PERSON, "Company": _NAME, "Lead_Status": _PICK, "Industry": _PICK, "Annual_Revenue": Spec("currency"), "No_of_Employees": Spec("integer"), "Website": Spec("website"),
        "Converted__s": Spec("boolean", read_only=True), "Lead_Score": Spec("integer", custom=True),
    },
    "Subscriptions": {
        "id": Spec("bigint", read_only=True), "Name": _NAME, "Seats": Spec("integer", custom=True), "Plan": Spec("picklist", custom=True, options=_PLANS),
        "Subscriber": Spec("lookup", custom=True, lookup="Contacts"), "Renews_At": Spec("datetime", custom=True), **_STAMPS,
    },
}  # fmt: skip
LABELS = {
    "Contacts": ("Contact", "Contacts"), "Accounts": ("Account", "Accounts"), "Deals": ("Deal", "Deals"), "Leads": ("Lead", "Leads"),
    "Subscriptions": ("Subscription", "Subscriptions"),
}  # fmt: skip
DISPLAY = {
    "Contacts": "Full_Name",
    "Leads": "Full_Name",
    "Accounts": "Account_Name",
    "Deals": "Deal_Name",
    "Subscriptions": "Name",
}
_PREFIX = {"Contacts": 101, "Accounts": 102, "Deals": 103, "Leads": 104, "Subscriptions": 190, "users": 100}


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    table: Table[Any]

    @property
    def specs(self) -> Mapping[str, Spec]:
        return FIELDS[self.name]

    @property
    def custom(self) -> bool:
        return self.name == "Subscriptions"


def zoho_id(module: str, number: int) -> str:
    """Return the 19 digits of a record."""
    return f"554023{_PREFIX[module]}{number:010d}"


def modules(world: World, system: str) -> dict[str, Module]:
    """Return the org's modules with the population in them."""
    return _Rendering(world, system).modules()


class _Rendering:
    def __init__(self, world: World, system: str) -> None:
        self._world = world
        self._profiles = {each.id: each for each in world.profiles[system]}
        self._leads, self._deals = world.leads[system], world.deals[system]

    def modules(self) -> dict[str, Module]:
        profiles = self._profiles.values()
        used = {each.company for each in profiles} | {each.company for each in self._deals}
        person = {
            "Email": _text("email", "Email"),
            "Secondary_Email": Column(lambda _: None, lambda row: _lower(row["Secondary_Email"])),
        }
        account = Column[Any](
            lambda each: zoho_id("Accounts", each.company) if each.company else None, lambda row: _id(row["Account_Name"])
        )
        by_contact = Column[Any](
            lambda each: tuple(zoho_id("Contacts", id) for id in each.contacts), lambda row: tuple(row["$contacts"])
        )
        found = {
            "Contacts": _table("Contacts", profiles, self._contact, {
                **person, "Account_Name": account, "Member_Number": Column(lambda each: f"m-{each.id}", lambda row: _lower(row["Member_Number"])),
            }),
            "Accounts": _table("Accounts", [each for each in self._world.companies if each.id in used], self._account, {}),
            "Deals": _table("Deals", self._deals, self._deal, {
                "Account_Name": account, "$contacts": by_contact,
                "Contact_Name": Column(lambda each: zoho_id("Contacts", each.contacts[0]), lambda row: _id(row["Contact_Name"])),
            }),
            "Leads": _table("Leads", self._leads, self._lead, person),
            "Subscriptions": _table("Subscriptions", [each for each in profiles if each.number % 3 == 0 and not each.deleted], self._subscription, {}),
        }  # fmt: skip
        return {name: Module(name, table) for name, table in found.items()}

    def _contact(self, each: Profile) -> Row:
        return {
            "id": zoho_id("Contacts", each.id), **_person(each), "Title": each.title, "Department": None, "Account_Name": self._company(each.company),
            "Mailing_Street": None, "Mailing_City": None, "Mailing_State": None, "Mailing_Zip": None, "Mailing_Country": each.country, "Date_of_Birth": None,
            "Last_Activity_Time": None, "Loyalty_Level": _LEVELS[each.number % 3], "Score": each.number, "Member_Number": f"M-{each.id}",
            "Interests": ["Lamps", "Cables"] if each.number % 2 else [], **self._stamps(each),
        }  # fmt: skip

    def _lead(self, each: Profile) -> Row:
        return {
            "id": zoho_id("Leads", each.id), **_person(each), "Company": self._world.companies[each.company - 1].name if each.company else "Self-employed",
            "Lead_Status": ("Not Contacted", "Attempted to Contact")[each.number % 2], "Industry": None, "Annual_Revenue": None, "No_of_Employees": None, "Website": None,
            "Converted__s": False, "Lead_Score": each.number % 100, **self._stamps(each),
        }  # fmt: skip

    def _account(self, each: Company) -> Row:
        return {
            "id": zoho_id("Accounts", each.id), "Account_Name": each.name, "Website": f"https://www.{each.domain}", "Phone": None, "Industry": each.industry,
            "Annual_Revenue": each.employees * 100_000, "Employees": each.employees, "Account_Type": "Customer", "Ownership": "Private", "Rating": "Active", "Parent_Account": None,
            "Billing_Street": None, "Billing_City": None, "Billing_Code": None, "Billing_Country": each.country, "Account_Number": "0", "Description": None,
            "Region": _REGIONS[each.employees % 3], **self._stamps(each),
        }  # fmt: skip

    def _deal(self, each: Deal) -> Row:
        stage, probability, _ = _STAGES[each.stage]
        primary = self._profiles[each.contacts[0]]
        return {
            "id": zoho_id("Deals", each.id), "Deal_Name": each.name, "Stage": stage, "Amount": each.cents / 100, "Closing_Date": iso(each.close)[:10], "Probability": probability,
            "Expected_Revenue": round(each.cents * probability / 10_000, 2), "Pipeline": "Standard (Standard)", "Account_Name": self._company(each.company),
            "Contact_Name": {"name": f"{primary.given} {primary.family}", "id": zoho_id("Contacts", primary.id)}, "Type": "New Business", "Lead_Source": None, "Next_Step": None,
            "Currency": each.currency, "Exchange_Rate": 1, "Description": None, "Region": _REGIONS[each.number % 3],
            "$contacts": [zoho_id("Contacts", id) for id in each.contacts], **self._stamps(each),
        }  # fmt: skip

    def _subscription(self, each: Profile) -> Row:
        contact = {"name": f"{each.given} {each.family}", "id": zoho_id("Contacts", each.id)}
        return {
            "id": zoho_id("Subscriptions", each.id), "Name": f"SUB-{each.id}", "Seats": each.number % 50 + 1, "Plan": _PLANS[each.number % 9 // 3], "Subscriber": contact,
            "Renews_At": iso(each.created + 365 * 86_400_000), **self._stamps(each),
        }  # fmt: skip

    def _company(self, number: int) -> Row | None:
        return {"name": self._world.companies[number - 1].name, "id": zoho_id("Accounts", number)} if number else None

    def _stamps(self, each: Profile | Company | Deal) -> Row:
        user = lookup_of(self._world.users[getattr(each, "owner", 1) - 1])
        updated = getattr(each, "updated", each.created)
        return {
            "Owner": user, "Created_By": user, "Modified_By": user, "Created_Time": iso(each.created), "Modified_Time": iso(updated),
            "$deleted": iso(updated) if getattr(each, "deleted", False) else None,
        }  # fmt: skip


def lookup_of(user: User) -> Row:
    return {"name": f"{user.given} {user.family}", "id": zoho_id("users", user.id), "email": user.email}


def user_row(each: User) -> Row:
    return {
        "id": zoho_id("users", each.id), "first_name": each.given, "last_name": each.family, "full_name": f"{each.given} {each.family}", "email": each.email,
        "role": {"name": "CEO", "id": "554023000000015969"}, "profile": {"name": "Standard", "id": "554023000000015972"}, "status": "active" if each.active else "disabled",
        "zuid": str(600_000_000 + each.id), "time_zone": "Asia/Kolkata", "locale": "en_US", "country": "US", "confirm": True, "category": "regular_user",
        "created_time": "2023-01-01T00:00:00+05:30", "Modified_Time": "2023-01-01T00:00:00+05:30",
    }  # fmt: skip


def described(name: str, spec: Spec, number: int) -> Row:
    """Return a field as the metadata API tells it."""
    probabilities = {stage: (share, forecast) for stage, share, forecast in _STAGES} if name == "Stage" else {}
    values = [
        {
            "display_value": each, "actual_value": each, "sequence_number": at + 1, "id": f"55402300000{number:04d}{at:03d}", "type": "used", "colour_code": None,
            **({"probability": probabilities[each][0], "forecast_type": probabilities[each][1]} if each in probabilities else {}),
        }
        for at, each in enumerate(spec.options)
    ]  # fmt: skip
    lookup = (
        {"module": {"api_name": spec.lookup, "id": f"554023000000{_PREFIX[spec.lookup]:06d}"}, "display_label": spec.lookup}
        if spec.lookup
        else {}
    )
    return {
        "api_name": name, "field_label": name.replace("_", " "), "display_label": name.replace("_", " "), "data_type": spec.type, "json_type": JSON_TYPES.get(spec.type, "string"),
        "custom_field": spec.custom, "system_mandatory": spec.mandatory, "read_only": spec.read_only, "field_read_only": spec.read_only, "length": 255 if spec.type != "textarea" else 32_000,
        "unique": {"casesensitive": "false"} if spec.unique else {}, "lookup": lookup, "pick_list_values": values, "currency": {}, "formula": {}, "auto_number": {}, "visible": True,
        "filterable": True, "sortable": True, "searchable": True, "id": f"554023000000{number:06d}",
    }  # fmt: skip


def pipeline() -> list[Row]:
    maps = [
        {
            "display_value": stage, "actual_value": stage, "sequence_number": at + 1, "id": f"5540230000000068{at:02d}", "forecast_type": forecast,
            "forecast_category": {"name": "Pipeline" if forecast == "Open" else forecast.removeprefix("Closed "), "id": f"5540230000000069{at:02d}"},
        }
        for at, (stage, _, forecast) in enumerate(_STAGES)
    ]  # fmt: skip
    return [
        {
            "display_value": "Standard (Standard)",
            "actual_value": "Standard (Standard)",
            "default": True,
            "id": "554023000000095023",
            "maps": maps,
        }
    ]


def iso(millis: float) -> str:
    return datetime.fromtimestamp(millis // 1000, tz=UTC).astimezone(ORG_ZONE).isoformat(timespec="seconds")


def millis(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _person(each: Profile) -> Row:
    return {
        "First_Name": each.given, "Last_Name": each.family, "Full_Name": f"{each.given} {each.family}", "Email": each.email,
        "Secondary_Email": each.more_emails[0] if each.more_emails else None, "Phone": each.phone, "Mobile": None, "Lead_Source": "Web", "Email_Opt_Out": False, "Description": None,
    }  # fmt: skip


def _table(name: str, entries: Any, render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    deleted = Column[Any](lambda each: getattr(each, "deleted", False) or None, lambda row: True if row.get("$deleted") else None)
    orders: dict[str, Column[Any]] = {
        "id": Column(lambda each: int(zoho_id(name, each.id)), lambda row: int(row["id"])),
        "Created_Time": Column(lambda each: each.created, lambda row: millis(row["Created_Time"])),
        "Modified_Time": Column(lambda each: getattr(each, "updated", each.created), lambda row: millis(row["Modified_Time"])),
    }
    return Table(
        {zoho_id(name, each.id): each for each in entries}, render, indexes={**indexes, "$deleted": deleted}, orders=orders
    )


def _text(entry: str, row: str) -> Column[Any]:
    return Column(lambda each: _lower(getattr(each, entry)), lambda found: _lower(found[row]))


def _lower(value: str | None) -> str | None:
    return value.lower() if value else None


def _id(lookup: Row | None) -> str | None:
    return lookup["id"] if lookup else None
