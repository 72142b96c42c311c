"""The world's people, companies, deals and tickets as HubSpot's records: what tables are made of, and who belongs to whom at first."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from sandbox.hubspot_answers import iso, millis
from sandbox.hubspot_links import Pair
from sandbox.hubspot_properties import COLORS, PLANS, STAGES, SUBSCRIPTION
from sandbox.hubspot_values import searchable
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, Ticket, User, World

_SUBSCRIPTIONS = 20_000_000_000  # added to a contact's id


class Subscription(Struct, gc=False):
    """A row of the portal's custom object, one for every fourth contact."""

    id: int
    contact: int
    number: int
    created: int
    updated: int


class Rows:
    """
    Args:
        merged: ids that were merged away → the id that swallowed them.
    """

    def __init__(self, world: World, merged: Mapping[str, str]) -> None:
        self.world = world
        self._swallowed: dict[str, list[str]] = {}
        for loser, winner in merged.items():
            self._swallowed.setdefault(winner, []).append(loser)

    def tables(self) -> dict[str, Table[Any]]:
        """Return new tables by object name."""
        world = self.world
        profiles, deals, tickets = world.profiles["hubspot"], world.deals["hubspot"], world.tickets["hubspot"]
        used = {each.company for each in profiles} | {each.company for each in deals}
        live = (each for each in profiles if not each.deleted and each.number % 4 == 0)
        return {
            "contacts": _table(
                {str(each.id): each for each in profiles if not each.merged_into}, self._contact, _contact_indexes()
            ),
            "companies": _table({company_id(each.id): each for each in world.companies if each.id in used}, self._company, {}),
            "deals": _table({str(each.id): each for each in deals}, self._deal, {}),
            "tickets": _table({str(each.id): each for each in tickets}, self._ticket, {}),
            SUBSCRIPTION: _table(
                {str(each.id + _SUBSCRIPTIONS): _subscription(each) for each in live}, self._row_of_subscription, {}
            ),
        }

    def _contact(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1] if each.company else None
        properties = {
            "email": each.email.lower() if each.email else None,  # HubSpot lower-cases addresses
            "hs_additional_emails": ";".join(each.more_emails) or None,
            "firstname": each.given, "lastname": each.family, "phone": each.phone, "mobilephone": None, "jobtitle": each.title,
            "company": company.name if company else None, "country": each.country, "hs_language": "en", "lifecyclestage": "customer" if each.number % 2 else "lead",
            "hubspot_owner_id": str(each.owner), "associatedcompanyid": company_id(each.company) if each.company else None,
            "hs_searchable_calculated_phone_number": searchable(each.phone), "hs_merged_object_ids": ";".join(self._swallowed.get(str(each.id), ())) or None,
            "favorite_color": COLORS[each.number % 3], "loyalty_points": str(each.number),
            "createdate": iso(each.created), "lastmodifieddate": iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated, archived=each.deleted)

    def _company(self, each: Company) -> Row:
        id = company_id(each.id)
        properties = {
            "name": each.name, "domain": each.domain, "industry": each.industry.upper(), "country": each.country,
            "numberofemployees": str(each.employees), "hubspot_owner_id": "1", "hs_parent_company_id": None,
            "createdate": iso(each.created), "hs_lastmodifieddate": iso(each.created), "hs_object_id": id,
        }  # fmt: skip
        return _record(id, properties, each.created, each.created)

    def _deal(self, each: Deal) -> Row:
        id, _, probability, _ = STAGES[each.stage]
        properties = {
            "dealname": each.name, "amount": f"{each.cents / 100:.2f}", "deal_currency_code": each.currency, "pipeline": "default", "dealstage": id,
            "closedate": iso(each.close), "hs_deal_stage_probability": probability, "hubspot_owner_id": str(each.owner),
            "region": ("emea", "amer", "apac")[each.number % 3], "createdate": iso(each.created), "hs_lastmodifieddate": iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated, archived=each.deleted)

    def _ticket(self, each: Ticket) -> Row:
        properties = {
            "subject": each.subject, "content": each.subject, "hs_pipeline": "0", "hs_pipeline_stage": str(1 + min(each.status, 3)),
            "hs_ticket_priority": (None, "LOW", "MEDIUM", "HIGH", "URGENT")[each.priority], "hubspot_owner_id": "1",
            "createdate": iso(each.created), "hs_lastmodifieddate": iso(each.updated), "hs_object_id": str(each.id),
        }  # fmt: skip
        return _record(str(each.id), properties, each.created, each.updated)

    def _row_of_subscription(self, each: Subscription) -> Row:
        id = str(each.id)
        started = each.created // 86_400_000 * 86_400_000
        properties = {
            "reference": f"SUB-{each.number}-{each.contact % 1000}", "plan": PLANS[each.number % 3], "seats": str(1 + each.number % 40), "monthly_fee": f"{9.5 * (1 + each.number % 7):.2f}",
            "renews_on": iso(started + 365 * 86_400_000)[:10], "started_at": iso(started), "auto_renew": "true" if each.number % 8 else "false",
            "hs_createdate": iso(each.created), "hs_lastmodifieddate": iso(each.updated), "hs_object_id": id,
        }  # fmt: skip
        return _record(id, properties, each.created, each.updated)


def _subscription(each: Profile) -> Subscription:
    return Subscription(each.id + _SUBSCRIPTIONS, each.id, each.number, each.created, each.updated)


def _record(id: str, properties: Row, created: int, updated: int, *, archived: bool = False) -> Row:
    row: Row = {"id": id, "properties": properties, "createdAt": iso(created), "updatedAt": iso(updated), "archived": archived}
    return {**row, "archivedAt": iso(updated)} if archived else row


def owner(user: User) -> Row:
    return {
        "id": str(user.id), "email": user.email, "type": "PERSON", "firstName": user.given, "lastName": user.family, "userId": 9000 + user.id,
        "userIdIncludingInactive": 9000 + user.id, "createdAt": "2023-01-01T00:00:00.000Z", "updatedAt": "2023-01-01T00:00:00.000Z", "archived": not user.active,
    }  # fmt: skip


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "id": Column(_entry_id, lambda row: int(row["id"])),
        "created": Column(lambda entry: entry.created, lambda row: millis(row["createdAt"])),
        "updated": Column(lambda entry: getattr(entry, "updated", entry.created), lambda row: millis(row["updatedAt"])),
    }
    return Table(entries, render, indexes=indexes, orders=orders)


def _entry_id(entry: Any) -> int:
    return int(company_id(entry.id)) if isinstance(entry, Company) else int(entry.id)


def _contact_indexes() -> Mapping[str, Column[Profile]]:
    return {
        "email": Column(lambda each: each.email.lower() if each.email else None, lambda row: row["properties"].get("email")),
        "more": Column(
            lambda each: each.more_emails, lambda row: tuple((row["properties"].get("hs_additional_emails") or "").split(";"))
        ),
        "phone": Column(lambda each: searchable(each.phone), lambda row: searchable(row["properties"].get("phone"))),
    }


def company_id(number: int) -> str:
    return str(9_000_000_000 + number)


HELD: Mapping[Pair, Callable[[Any], tuple[str, ...]]] = {
    **dict.fromkeys(
        [("contacts", "companies"), ("deals", "companies"), ("tickets", "companies")],
        lambda each: (company_id(each.company),) if each.company else (),
    ),
    ("deals", "contacts"): lambda each: tuple(map(str, each.contacts)), ("tickets", "contacts"): lambda each: (str(each.contact),),
    (SUBSCRIPTION, "contacts"): lambda each: (str(each.contact),),
}  # fmt: skip
