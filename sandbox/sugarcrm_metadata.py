"""What a Sugar instance says of itself: fields, dropdowns, links, currencies, and the hash by which clients tell that these changed.

The stock vocabulary, and a few custom fields as administrators add them in Studio. How `/metadata` and `/lang/{language}` lay these out is the
product's general shape; the documents show parts of it only.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

_COMMON = "id:id date_entered:datetime date_modified:datetime modified_user_id:id modified_by_name:relate created_by:id created_by_name:relate description:text deleted:bool assigned_user_id:id assigned_user_name:relate team_name:teamset tag:tag following:bool my_favorite:bool sync_key:varchar last_activity_date:datetime"  # fmt: skip


def _address(*names: str) -> str:
    return " ".join(
        f"{name}_address_{part}:varchar" for name in names for part in ("street", "city", "state", "postalcode", "country")
    )


def _fields(said: str) -> dict[str, str]:
    return dict(each.split(":", 1) for each in said.split())


FIELDS: Mapping[str, Mapping[str, str]] = {  # module → field → type; "*" marks what a record cannot be without
    "Contacts": _fields(
        f"{_COMMON} name:name salutation:enum first_name:varchar last_name:varchar* full_name:fullname title:varchar department:varchar do_not_call:bool "
        "phone_home:phone phone_mobile:phone phone_work:phone phone_other:phone phone_fax:phone email:email[] email1:varchar(legacy) lead_source:enum "
        f"birthdate:date account_id:id account_name:relate reports_to_id:id opportunity_role:enum {_address('primary', 'alt')}"
    ),
    "Accounts": _fields(
        f"{_COMMON} name:name* account_type:enum industry:enum annual_revenue:varchar employees:varchar phone_office:phone phone_fax:phone "
        "phone_alternate:phone website:url email:email[] ownership:varchar rating:varchar sic_code:varchar ticker_symbol:varchar parent_id:id "
        f"parent_name:relate {_address('billing', 'shipping')}"
    ),
    "Opportunities": _fields(
        f"{_COMMON} name:name* opportunity_type:enum account_id:id account_name:relate campaign_id:id campaign_name:relate lead_source:enum "
        "amount:currency(string) base_rate:decimal(string) amount_usdollar:currency(string) currency_id:id currency_name:relate currency_symbol:relate "
        "date_closed:date date_closed_timestamp:ulong next_step:varchar sales_stage:enum sales_status:enum(readonly) probability:int(string) "
        "best_case:currency(string) worst_case:currency(string) commit_stage:enum"
    ),
    "Leads": _fields(
        f"{_COMMON} name:name salutation:enum first_name:varchar last_name:varchar* title:varchar account_name:varchar status:enum status_description:text "
        "lead_source:enum converted:bool contact_id:id account_id:id opportunity_id:id phone_work:phone phone_mobile:phone email:email[] website:url "
        f"birthdate:date {_address('primary', 'alt')}"
    ),
    "Users": _fields(
        "id:id user_name:username first_name:varchar last_name:varchar full_name:fullname email:email[] status:enum is_admin:bool title:varchar "
        "department:varchar phone_work:phone reports_to_id:id date_modified:datetime"
    ),
}  # fmt: skip
CUSTOM: Mapping[str, Mapping[str, str]] = {
    "Contacts": {"loyalty_level_c": "enum", "visits_c": "int", "newsletter_c": "bool"},
    "Opportunities": {"region_c": "enum"}, "Leads": {"score_c": "int"}, "Accounts": {"tier_c": "enum"}, "Users": {},
}  # fmt: skip
LINKS: Mapping[str, Mapping[str, str]] = {  # module → link field → module at its other end
    "Contacts": {"accounts": "Accounts", "opportunities": "Opportunities"},
    "Accounts": {"contacts": "Contacts", "opportunities": "Opportunities"},
    "Opportunities": {"accounts": "Accounts", "contacts": "Contacts"}, "Leads": {}, "Users": {},
}  # fmt: skip
_STAGES: Mapping[str, int] = {  # with the probability, in percent, that a deal gets by reaching it
    "Prospecting": 10, "Qualification": 20, "Needs Analysis": 25, "Value Proposition": 30, "Id. Decision Makers": 40, "Perception Analysis": 50,
    "Proposal/Price Quote": 65, "Negotiation/Review": 80, "Closed Won": 100, "Closed Lost": 0,
}  # fmt: skip
WON, LOST = ("Closed Won",), ("Closed Lost",)
_SOURCES = (
    "Cold Call", "Existing Customer", "Self Generated", "Employee", "Partner", "Public Relations", "Direct Mail", "Conference", "Trade Show", "Web Site",
    "Word of mouth", "Email", "Campaign", "Support Portal User Registration", "Other",
)  # fmt: skip
_INDUSTRIES = (
    "Apparel", "Banking", "Biotechnology", "Chemicals", "Communications", "Construction", "Consulting", "Education", "Electronics", "Energy",
    "Engineering", "Entertainment", "Environmental", "Finance", "Government", "Healthcare", "Hospitality", "Insurance", "Machinery", "Manufacturing",
    "Media", "Not For Profit", "Other", "Recreation", "Retail", "Shipping", "Technology", "Telecommunications", "Transportation", "Utilities",
)  # fmt: skip
_TYPES = ("Analyst", "Competitor", "Customer", "Integrator", "Investor", "Partner", "Press", "Prospect", "Reseller", "Other")


def _same(words: Sequence[str]) -> dict[str, str]:
    return {"": "", **{word: word for word in words}}


DROPDOWNS: Mapping[str, Mapping[str, str]] = {  # list → key → label
    "sales_stage_dom": _same(tuple(_STAGES)), "sales_probability_dom": {stage: str(percent) for stage, percent in _STAGES.items()},
    "sales_status_dom": _same(("New", "In Progress", "Closed Won", "Closed Lost")), "opportunity_type_dom": _same(("Existing Business", "New Business")),
    "lead_status_dom": _same(("New", "Assigned", "In Process", "Converted", "Recycled", "Dead")), "lead_source_dom": _same(_SOURCES),
    "account_type_dom": _same(_TYPES), "industry_dom": _same(_INDUSTRIES),
    "loyalty_level_list": {"": "", "gold": "Gold level", "silver": "Silver level", "bronze": "Bronze level"},
    "region_list": {"": "", "emea": "Europe and Africa", "amer": "Americas", "apac": "Asia and Pacific"}, "tier_list": {"": "", "1": "First", "2": "Second"},
}  # fmt: skip
_OPTIONS: Mapping[tuple[str, str], str] = {
    ("Opportunities", "sales_stage"): "sales_stage_dom", ("Opportunities", "sales_status"): "sales_status_dom",
    ("Opportunities", "opportunity_type"): "opportunity_type_dom", ("Opportunities", "region_c"): "region_list", ("Leads", "status"): "lead_status_dom",
    ("Contacts", "lead_source"): "lead_source_dom", ("Leads", "lead_source"): "lead_source_dom", ("Opportunities", "lead_source"): "lead_source_dom",
    ("Accounts", "account_type"): "account_type_dom", ("Accounts", "industry"): "industry_dom", ("Accounts", "tier_c"): "tier_list",
    ("Contacts", "loyalty_level_c"): "loyalty_level_list",
}  # fmt: skip
CURRENCIES: Mapping[str, Mapping[str, str]] = {  # "-99" is the instance's base currency
    "-99": {"name": "US Dollars", "symbol": "$", "iso4217": "USD", "conversion_rate": "1.000000", "status": "Active"},
    "b9a5ac6e-0f58-11f0-8c1d-0242ac120002": {"name": "Euro", "symbol": "€", "iso4217": "EUR", "conversion_rate": "0.900000", "status": "Active"},
    "c7d2b1f4-0f58-11f0-8c1d-0242ac120002": {"name": "Pounds", "symbol": "£", "iso4217": "GBP", "conversion_rate": "0.800000", "status": "Active"},
}  # fmt: skip
READ_ONLY = frozenset({
    "date_entered", "date_modified", "modified_user_id", "modified_by_name", "created_by", "created_by_name", "assigned_user_name", "full_name",
    "last_activity_date", "amount_usdollar", "sales_status", "date_closed_timestamp", "currency_name", "currency_symbol", "account_name", "parent_name",
    "campaign_name", "deleted", "following",
})  # fmt: skip
_PEOPLE = frozenset({"Contacts", "Leads", "Users"})


def types(module: str) -> dict[str, str]:
    """Return the module's fields with their types, custom ones included."""
    return {**FIELDS[module], **CUSTOM[module]}


def options(module: str, field: str) -> Mapping[str, str] | None:
    """Return the field's choices by key, None where it has none."""
    dropdown = _OPTIONS.get((module, field))
    return DROPDOWNS[dropdown] if dropdown else None


def read_only(module: str, field: str) -> bool:
    """A lead's account is text of its own; the name of a person is made of its parts."""
    if module == "Leads" and field == "account_name":
        return False
    return field in READ_ONLY or (field == "name" and module in _PEOPLE)


def metadata(kinds: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
    """Return what `/metadata` answers for these sections and modules; all of them where none is named."""
    found: dict[str, Any] = {}
    if not kinds or "modules" in kinds:
        known = {name: {"fields": _described(name), "_hash": _digest(name)} for name in FIELDS if not modules or name in modules}
        if not modules or "Forecasts" in modules:
            known["Forecasts"] = {
                "fields": {},
                "config": {"sales_stage_won": list(WON), "sales_stage_lost": list(LOST), "is_setup": 1},
                "_hash": _digest("F"),
            }
        found["modules"] = known
    if not kinds or "currencies" in kinds:
        found["currencies"] = CURRENCIES
    if not kinds or "relationships" in kinds:
        found["relationships"] = {
            f"{one.lower()}_{link}": {"lhs_module": one, "rhs_module": other} for one, each in LINKS.items() for link, other in each.items()
        }  # fmt: skip
    return {**found, "_hash": HASH}


def language() -> dict[str, Any]:
    """Return what `/lang/{language}` answers: dropdowns and labels."""
    labels = {
        module: {_label_key(name): f"{_label(name)}:" for name in types(module)} for module in FIELDS
    }  # fmt: skip
    return {"app_list_strings": DROPDOWNS, "app_strings": {}, "mod_strings": labels, "_hash": _digest("language")}


def _described(module: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, type in types(module).items():
        bare = type.removesuffix("*").split("(")[0].split("[")[0]
        fields[name] = {
            "name": name, "type": bare, "vname": _label_key(name), "required": type.endswith("*"), "readonly": read_only(module, name),
            **({"options": _OPTIONS[module, name]} if (module, name) in _OPTIONS else {}), **({"source": "custom_fields"} if name in CUSTOM[module] else {}),
        }  # fmt: skip
    for link in LINKS[module]:
        fields[link] = {
            "name": link,
            "type": "link",
            "vname": _label_key(link),
            "relationship": f"{module.lower()}_{link}",
            "source": "non-db",
        }
    return fields


def _label_key(name: str) -> str:
    return f"LBL_{name.upper()}"


def _label(name: str) -> str:
    return name.removesuffix("_c").replace("_", " ").title()


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


HASH = _digest(repr((FIELDS, CUSTOM, DROPDOWNS, LINKS)))
