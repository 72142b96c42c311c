"""The world's people, companies and deals as an org's records: what its tables are made of."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from model.keys import normal_phone
from sandbox.salesforce_answers import millis, sf_id, spelled
from sandbox.salesforce_fields import PLANS, REGIONS, STAGES, SUBSCRIPTION, TIERS
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, User, World

_STAMPS = ("CreatedDate", "SystemModstamp", "LastModifiedDate")


class Subscription(Struct, gc=False):
    """A row of the org's custom object, one for every fourth contact."""

    id: int
    contact: int
    number: int
    owner: int
    created: int
    updated: int


class Rows:
    def __init__(self, world: World) -> None:
        self.world = world

    def tables(self) -> dict[str, Table[Any]]:
        """Return new tables by object name."""
        world = self.world
        profiles, leads, deals = world.profiles["salesforce"], world.leads["salesforce"], world.deals["salesforce"]
        used = {each.company for each in profiles} | {each.company for each in deals}
        roles = {
            sf_id("00K", deal.id * 4 + nth): (deal, contact, nth) for deal in deals for nth, contact in enumerate(deal.contacts)
        }
        return {
            "Contact": _table("003", profiles, self._contact, {**_person_indexes(), "External_Id__c": Column(lambda _: None, lambda row: row["External_Id__c"])}),
            "Account": _table("001", (each for each in world.companies if each.id in used), self._account, {}),
            "Opportunity": _table("006", deals, self._opportunity, {
                "AccountId": Column(lambda each: sf_id("001", each.company) if each.company else None, lambda row: row["AccountId"]),
            }),
            "Lead": _table("00Q", leads, self._lead, _person_indexes()),
            "User": Table({sf_id("005", each.id): each for each in world.users}, _user),
            "OpportunityContactRole": Table(roles, self._role, indexes={
                "ContactId": Column(lambda each: sf_id("003", each[1]), lambda row: row["ContactId"]),
                "OpportunityId": Column(lambda each: sf_id("006", each[0].id), lambda row: row["OpportunityId"]),
            }),
            SUBSCRIPTION: _table("a01", (_subscription(each) for each in profiles if not each.deleted and each.number % 4 == 0), self._row_of_subscription, {}),
            "OpportunityStage": Table({sf_id("01J", at): at for at in range(len(STAGES))}, _stage),
        }  # fmt: skip

    def _contact(self, each: Profile) -> Row:
        return {
            "Id": sf_id("003", each.id), "MasterRecordId": sf_id("003", each.merged_into) if each.merged_into else None, "AccountId": sf_id("001", each.company) if each.company else None,
            **_names(each), "Email": each.email, "Phone": each.phone, "MobilePhone": None, "HomePhone": None, "Title": each.title, "Department": None,
            "MailingCountry": each.country, "LeadSource": "Web", "HasOptedOutOfEmail": False, "Description": None, "External_Id__c": None,
            "Loyalty_Tier__c": TIERS[each.number % 3], "Newsletter__c": each.number % 2 == 0, "Score__c": float(each.number),
            **_stamps(each.owner, each.created, each.updated, each.country), "IsDeleted": each.deleted,
        }  # fmt: skip

    def _lead(self, each: Profile) -> Row:
        return {
            "Id": sf_id("00Q", each.id), "MasterRecordId": None, **_names(each), "Company": self.world.companies[each.company - 1].name if each.company else "Self-employed",
            "Email": each.email, "Phone": each.phone, "MobilePhone": None, "Title": each.title, "Status": ("Open - Not Contacted", "Working - Contacted")[each.number % 2],
            "LeadSource": "Web", "Rating": ("Hot", "Warm", "Cold")[each.number % 3], "IsConverted": False, "Lead_Score__c": float(each.number % 100),
            **_stamps(each.owner, each.created, each.updated, each.country), "IsDeleted": each.deleted,
        }  # fmt: skip

    def _account(self, each: Company) -> Row:
        return {
            "Id": sf_id("001", each.id), "MasterRecordId": None, "Name": each.name, "Type": "Customer", "ParentId": None, "Website": f"https://www.{each.domain}", "Phone": None,
            "Industry": each.industry, "AnnualRevenue": each.employees * 100_000.0, "NumberOfEmployees": each.employees, "BillingCountry": each.country, "Description": None,
            **_stamps(1, each.created, each.created, each.country), "IsDeleted": False,
        }  # fmt: skip

    def _opportunity(self, each: Deal) -> Row:
        stage, probability, closed, won = STAGES[each.stage]
        row: Row = {
            "Id": sf_id("006", each.id), "AccountId": sf_id("001", each.company) if each.company else None, "Name": each.name, "StageName": stage, "CloseDate": spelled(each.close)[:10],
            "Amount": each.cents / 100, "Probability": float(probability), "ForecastCategory": "Pipeline", "Type": "New Customer", "LeadSource": "Web", "NextStep": None,
            "IsClosed": closed, "IsWon": won, "Description": None, "Region__c": REGIONS[each.number % 3], **_stamps(each.owner, each.created, each.updated, "US"), "IsDeleted": each.deleted,
        }  # fmt: skip
        return {**row, "CurrencyIsoCode": each.currency}

    def _role(self, each: tuple[Deal, int, int]) -> Row:
        deal, contact, nth = each
        stamps = _stamps(1, deal.created, deal.created, "US")
        return {
            "Id": sf_id("00K", deal.id * 4 + nth), "OpportunityId": sf_id("006", deal.id), "ContactId": sf_id("003", contact), "Role": "Decision Maker" if nth == 0 else "Influencer",
            "IsPrimary": nth == 0, "IsDeleted": deal.deleted, **{name: stamps[name] for name in _STAMPS},
        }  # fmt: skip

    def _row_of_subscription(self, each: Subscription) -> Row:
        return {
            "Id": sf_id("a01", each.id), "Name": f"SUB-{each.id % 10_000:04d}", "Contact__c": sf_id("003", each.contact), "Plan__c": PLANS[each.number % 3],
            "Seats__c": float(1 + each.number % 40), "Monthly_Fee__c": 9.5 * (1 + each.number % 7), "Renews_On__c": spelled(each.created + 365 * 86_400_000)[:10],
            "Started_At__c": spelled(each.created), "Auto_Renew__c": each.number % 8 != 0, **_stamps(each.owner, each.created, each.updated, "US"), "IsDeleted": False,
        }  # fmt: skip


def _subscription(each: Profile) -> Subscription:
    return Subscription(each.id, each.id, each.number, each.owner, each.created, each.updated)


def _table(prefix: str, entries: Iterable[Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "id": Column(lambda entry: sf_id(prefix, entry.id), lambda row: row["Id"]),
        "created": Column(lambda entry: entry.created, lambda row: millis(row["CreatedDate"])),
        "updated": Column(lambda entry: getattr(entry, "updated", entry.created), lambda row: millis(row["SystemModstamp"])),
    }
    return Table({sf_id(prefix, each.id): each for each in entries}, render, indexes=indexes, orders=orders)


def _person_indexes() -> Mapping[str, Column[Profile]]:
    return {
        "Email": Column(
            lambda each: each.email.lower() if each.email else None, lambda row: (row["Email"] or "").lower() or None
        ),
        "digits": Column(lambda each: _digits(each.phone), lambda row: _digits(row["Phone"])),
        "AccountId": Column(lambda each: sf_id("001", each.company) if each.company else None, lambda row: row.get("AccountId")),
    }


def _digits(phone: str | None) -> tuple[str, ...] | None:
    """Return the digits a number can be searched by: all of them, and without the country code."""
    if not phone:
        return None
    bare = re.sub(r"\D", "", phone)
    normal = normal_phone(phone, "US")
    return (bare, *({normal[1:], normal[2:], normal[3:]} - {bare} if normal else ()))


def _names(each: Profile) -> Row:
    return {"FirstName": each.given, "LastName": each.family, "Name": f"{each.given} {each.family}"}


def _stamps(owner: int, created: int, updated: int, country: str) -> Row:
    changed = spelled(updated)
    return {
        "OwnerId": sf_id("005", owner), "CurrencyIsoCode": {"US": "USD", "DE": "EUR", "GB": "GBP"}[country],
        "CreatedDate": spelled(created), "LastModifiedDate": changed, "SystemModstamp": changed,
    }  # fmt: skip


def _user(each: User) -> Row:
    stamp = "2023-01-01T00:00:00.000+0000"
    return {
        "Id": sf_id("005", each.id), "Username": each.email, "Email": each.email, "Name": f"{each.given} {each.family}", "FirstName": each.given, "LastName": each.family,
        "IsActive": each.active, "TimeZoneSidKey": "America/New_York", "CreatedDate": stamp, "LastModifiedDate": stamp, "SystemModstamp": stamp,
    }  # fmt: skip


def _stage(at: int) -> Row:
    label, probability, closed, won = STAGES[at]
    return {
        "Id": sf_id("01J", at), "MasterLabel": label, "ApiName": label, "IsActive": True, "IsClosed": closed, "IsWon": won,
        "DefaultProbability": float(probability), "SortOrder": at + 1, "ForecastCategoryName": "Closed" if closed else "Pipeline",
    }  # fmt: skip
