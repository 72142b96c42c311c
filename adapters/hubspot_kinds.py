"""What HubSpot can do with each kind: where its values stand, and where they are written."""

from collections.abc import Mapping
from typing import Any

from adapters.base import KindFacts, OrderField
from adapters.hubspot_live import FEED
from model.records import Kind

_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_LISTED: Mapping[str, Any] = {"custom_prefix": "properties.", "read_batch": 100, "page": 200, "orders": _BOTH, "feed": FEED}
# Search shows a write after "a few moments"; connectors that poll keep 30 to 60 s of overlap.
_WRITTEN: Mapping[str, Any] = {"verbs": frozenset({"create", "update", "delete"}), "write_batch": 100, "lag": 30.0}
_TIMES: Mapping[str, Any] = {
    "native_id": "id", "created_at": {"path": "createdAt", "convert": "datetime"}, "updated_at": {"path": "updatedAt", "convert": "datetime"},
}  # fmt: skip
# The four stages of the default support pipeline; a team's own ones are UNKNOWN until mapped, and are written by their id.
_TICKET_STATES = {"1": "NEW", "2": "PENDING", "3": "OPEN", "4": "CLOSED"}
_PRIORITIES = {"LOW": "LOW", "MEDIUM": "NORMAL", "HIGH": "HIGH", "URGENT": "URGENT"}


def _property(name: str, convert: str = "text") -> Mapping[str, Any]:
    return {"path": f"properties.{name}", "convert": convert}


def _back(path: str, values: Mapping[str, str]) -> Mapping[str, Any]:
    return {"path": path, "values": {target: native for native, target in values.items()}}


KINDS: Mapping[Kind, KindFacts] = {
    "contact": KindFacts(
        object="contacts", find=frozenset({"email", "phone"}), find_batch=100, unique=frozenset({"email"}), **_LISTED,
        mapping={
            **_TIMES,
            "email": _property("email", "email"),
            "emails": {"paths": ["properties.email", "properties.hs_additional_emails"], "convert": ["split:;", "emails"]},
            "phone": _property("phone", "phone"),
            "phones": {"paths": ["properties.phone", "properties.mobilephone"], "convert": "phones"},
            "given_name": _property("firstname"), "family_name": _property("lastname"), "title": _property("jobtitle"),
            "locale": _property("hs_language"), "account_id": _property("associatedcompanyid"), "owner_id": _property("hubspot_owner_id"),
        },
        writes={
            "email": "properties.email", "phone": "properties.phone", "given_name": "properties.firstname", "family_name": "properties.lastname",
            "title": "properties.jobtitle", "locale": "properties.hs_language", "owner_id": "properties.hubspot_owner_id",
        },
        links={"account": None}, upsert_by=frozenset({"email"}), **{**_WRITTEN, "verbs": _WRITTEN["verbs"] | {"upsert"}},
    ),
    "account": KindFacts(
        object="companies", find=frozenset({"domain"}), find_batch=100, **_LISTED,
        mapping={
            **_TIMES,
            "name": _property("name"), "domain": _property("domain", "domain"), "industry": _property("industry"),
            "parent_id": _property("hs_parent_company_id"), "owner_id": _property("hubspot_owner_id"),
        },
        writes={
            "name": "properties.name", "domain": "properties.domain", "industry": "properties.industry", "owner_id": "properties.hubspot_owner_id",
        },
        **_WRITTEN,
    ),
    "deal": KindFacts(
        object="deals", **_LISTED,
        mapping={
            **_TIMES,
            "name": _property("dealname"),
            "amount": {"money": {"amount": "properties.amount", "currency": "properties.deal_currency_code"}},
            "stage": _property("dealstage", "stage"), "probability": _property("hs_deal_stage_probability", "number"),
            "close_date": _property("closedate", "date"), "owner_id": _property("hubspot_owner_id"),
        },
        writes={
            "name": "properties.dealname", "stage": "properties.dealstage",
            "amount": {"money": {"amount": "properties.amount", "currency": "properties.deal_currency_code", "text": True}, "empty": ""},
            "close_date": {"path": "properties.closedate", "spell": "epoch_ms"}, "owner_id": "properties.hubspot_owner_id",
        },
        links={"contact": None, "account": None}, **_WRITTEN,
    ),
    "ticket": KindFacts(
        object="tickets", **_LISTED,
        mapping={
            **_TIMES,
            "subject": _property("subject"), "raw_status": _property("hs_pipeline_stage"),
            "status": {"path": "properties.hs_pipeline_stage", "values": _TICKET_STATES, "default": "UNKNOWN"},
            "priority": {"path": "properties.hs_ticket_priority", "values": _PRIORITIES},
        },
        writes={
            "subject": "properties.subject", "status": _back("properties.hs_pipeline_stage", _TICKET_STATES),
            "priority": _back("properties.hs_ticket_priority", _PRIORITIES),
        },
        links={"contact": None}, **_WRITTEN,
    ),
    "owner": KindFacts(
        object="owners", read_batch=1,
        mapping={**_TIMES, "name": {"paths": ["firstName", "lastName"], "convert": "join"}, "email": {"path": "email", "convert": "email"}},
    ),
}  # fmt: skip
