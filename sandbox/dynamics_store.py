"""The rows of the environment: the world's people, companies and deals as Dataverse keeps them, with versions and deletions.

Every change gets the organisation's next version number, which is also the row's ETag. What was deleted is gone from its
table and remembered by its version; what was merged away is an inactive row that points to its master.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.clock import SandboxClock
from sandbox.dynamics_services import service_tables
from sandbox.dynamics_tables import RATES, SCHEMAS, Schema
from sandbox.odata import fold
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import CURRENCY, Company, Deal, Profile, User, World, mix, tag

_FIRST_VERSION = 300_000_000  # of what is changed; the world's own are smaller
_INDUSTRY = {"Technology": 6, "Retail": 22, "Healthcare": 7, "Finance": 16, "Education": 7, "Manufacturing": 12}
_STEPS = ("Qualify", "Develop", "Propose", "Close")
_STATES = {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}


@dataclass(frozen=True, slots=True)
class _Tie:
    """A deal and a further contact of it, and from which side the connection is seen."""

    deal: Deal
    contact: int
    from_deal: bool

    @property
    def created(self) -> int:
        return self.deal.created

    updated = created


class Store:
    """All rows, by table's logical name.

    Attributes:
        gone: table → id → the version at which it was deleted.
    """

    def __init__(self, world: World, clock: SandboxClock, system: str) -> None:
        self.world, self._clock = world, clock
        self._version = _FIRST_VERSION
        self._before: list[tuple[Schema, str, Row | None]] | None = None  # rows as they were before a change set
        profiles, leads, deals = world.profiles[system], world.leads[system], world.deals[system]
        used = {each.company for each in profiles} | {each.company for each in deals}
        there = [each for each in profiles if not each.deleted or each.merged_into]
        live = [each for each in deals if not each.deleted]
        ties = [_Tie(deal, other, side) for deal in live for other in deal.contacts[1:] for side in (True, False)]
        self.gone: dict[str, dict[str, int]] = {
            "contact": {
                guid("contact", each.id): version(each.updated) for each in profiles if each.deleted and not each.merged_into
            },
            "opportunity": {guid("opportunity", each.id): version(each.updated) for each in deals if each.deleted},
        }
        self.tables: dict[str, Table[Any]] = {
            "contact": self._table("contact", {guid("contact", each.id): each for each in there}, self._contact, {
                **_emails(), "_parentcustomerid_value": Column(lambda each: guid("account", each.company), _at("_parentcustomerid_value")),
                "new_externalid": Column(lambda _: None, _folded("new_externalid")),
            }),
            "account": self._table("account", {guid("account", each.id): each for each in world.companies if each.id in used}, self._account, {
                "accountnumber": Column(lambda each: fold(f"A-{each.id}"), _folded("accountnumber")),
                "_parentaccountid_value": Column(lambda _: None, _at("_parentaccountid_value")),
            }),
            "lead": self._table("lead", {guid("lead", each.id): each for each in leads}, self._lead, _emails()),
            "opportunity": self._table("opportunity", {guid("opportunity", each.id): each for each in live}, self._opportunity, {
                "_parentcontactid_value": Column(lambda each: guid("contact", each.contacts[0]), _at("_parentcontactid_value")),
                "_parentaccountid_value": Column(lambda each: guid("account", each.company), _at("_parentaccountid_value")),
                "_customerid_value": Column(lambda each: guid(*_customer(each)), _at("_customerid_value")),
            }),
            "systemuser": Table({guid("systemuser", each.id): each for each in world.users}, _user),
            "transactioncurrency": Table({currency(code): code for code in RATES}, _currency),
            "connection": self._table("connection", {_tie_id(each): each for each in ties}, self._connection, {
                "_record1id_value": Column(lambda each: _ends(each)[0][1], _at("_record1id_value")),
                "_record2id_value": Column(lambda each: _ends(each)[1][1], _at("_record2id_value")),
            }),
            "new_subscription": self._table(
                "new_subscription", {guid("subscription", each.id): each for each in there if each.number % 3 == 0 and not each.deleted},
                self._subscription, {"_new_contactid_value": Column(lambda each: guid("contact", each.id), _at("_new_contactid_value"))},
            ),
            **service_tables(),
        }  # fmt: skip

    def _table(
        self, logical: str, entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]
    ) -> Table[Any]:
        orders: dict[str, Column[Any]] = {
            "createdon": Column(lambda each: each.created, lambda row: millis(row["createdon"])),
            "modifiedon": Column(lambda each: getattr(each, "updated", each.created), lambda row: millis(row["modifiedon"])),
            "versionnumber": Column(
                lambda each: version(getattr(each, "updated", each.created)), lambda row: row["versionnumber"]
            ),
        }
        return Table(entries, render, indexes=indexes, orders=orders)

    @property
    def version(self) -> int:
        """The number of the latest change."""
        return self._version

    def now(self) -> float:
        """Return milliseconds since 1970."""
        return self._clock.time() * 1000

    def get(self, logical: str, id: str) -> Row | None:
        return self.tables[logical].get(id.lower())

    def put(self, schema: Schema, row: Row) -> Row:
        """Keep a row as changed just now, with what the platform works out itself."""
        now = iso(self.now())
        self._version += 1
        whole: Row = {"createdon": now, **row, "modifiedon": now, "versionnumber": self._version}
        self._remember(schema, whole[schema.id])
        self.tables[schema.logical].put(whole[schema.id], self._worked_out(schema, whole))
        self.gone.get(schema.logical, {}).pop(whole[schema.id], None)
        return whole

    def remove(self, schema: Schema, id: str) -> bool:
        """Delete a row and its connections, and clear the lookups of rows that point to it."""
        if self.get(schema.logical, id) is None:
            return False
        for other in SCHEMAS.values():
            for name, column in other.columns.items():
                stored = other.stored(name)
                if schema.logical in column.targets and stored in self.tables[other.logical].indexed:
                    for row in self.tables[other.logical].having(stored, [id]):
                        if other.logical == "connection":
                            self._remember(other, row["connectionid"])
                            self.tables["connection"].remove(row["connectionid"])
                        else:
                            self.put(other, {**row, stored: None})
        self._remember(schema, id)
        self.tables[schema.logical].remove(id)
        self._version += 1
        self.gone.setdefault(schema.logical, {})[id] = self._version
        return True

    def repoint(self, schema: Schema, gone: str, kept: str) -> None:
        """Let what points to one row point to another, as after a merge."""
        for other in SCHEMAS.values():
            for name, column in other.columns.items():
                stored = other.stored(name)
                if schema.logical in column.targets and stored in self.tables[other.logical].indexed:
                    for row in self.tables[other.logical].having(stored, [gone]):
                        self.put(other, {**row, stored: kept})

    @contextmanager
    def transaction(self) -> Iterator[Callable[[], None]]:
        """Give what undoes all changes since."""
        self._before = []
        try:
            yield self._rolled_back
        finally:
            self._before = None

    def _remember(self, schema: Schema, id: str) -> None:
        if self._before is not None:
            self._before.append((schema, id, self.get(schema.logical, id)))

    def _rolled_back(self) -> None:
        for schema, id, row in reversed(self._before or []):
            if row is None:
                self.tables[schema.logical].remove(id)
            else:
                self.tables[schema.logical].put(id, row)
                self.gone.get(schema.logical, {}).pop(id, None)

    def target(self, schema: Schema, name: str, row: Row) -> str | None:
        """Return which table a row's lookup points to, None where it is empty."""
        id = row.get(schema.stored(name))
        if id is None:
            return None
        targets = list(schema.columns[name].targets)
        return next((table for table in targets if len(targets) == 1 or self.get(table, id) is not None), None)

    def _worked_out(self, schema: Schema, row: Row) -> Row:
        if {"firstname", "lastname", "fullname"} <= schema.columns.keys():
            row["fullname"] = " ".join(part for part in (row.get("firstname"), row.get("lastname")) if part) or None
        if "exchangerate" in schema.columns and "transactioncurrencyid" in schema.columns:
            held = self.get("transactioncurrency", row.get("_transactioncurrencyid_value") or currency("USD"))
            rate = held["exchangerate"] if held else 1.0
            row["exchangerate"] = rate
            for name, column in schema.columns.items():
                if column.type == "money" and not name.endswith("_base") and f"{name}_base" in schema.columns:
                    row[f"{name}_base"] = None if row.get(name) is None else round(row[name] / rate, 4)
        return row

    # ---- rendering ----

    def _contact(self, each: Profile) -> Row:
        return {
            "contactid": guid("contact", each.id), **_names(each), "emailaddress1": each.email, "emailaddress2": None, "emailaddress3": None,
            "telephone1": each.phone, "mobilephone": None, "jobtitle": each.title, "department": None, "description": None, "donotemail": False,
            "donotbulkemail": False, "address1_city": None, "address1_country": each.country, "birthdate": None,
            "_parentcustomerid_value": guid("account", each.company), **_stamps(each.owner, each.created, each.updated),
            "statecode": int(bool(each.merged_into)), "statuscode": 1 + bool(each.merged_into), "merged": bool(each.merged_into),
            "_masterid_value": guid("contact", each.merged_into), "new_loyaltytier": 100_000_000 + each.number % 3, "new_newsletter": each.number % 2 == 0,
            "new_score": float(each.number), "new_interests": ("1,3", "2", None)[each.number % 3], "new_externalid": None,
        }  # fmt: skip

    def _lead(self, each: Profile) -> Row:
        company = self.world.companies[each.company - 1].name if each.company else "Self-employed"
        row = {
            "leadid": guid("lead", each.id), **_names(each), "subject": f"{company}: interest", "companyname": company, "emailaddress1": each.email,
            "emailaddress2": None, "emailaddress3": None, "telephone1": each.phone, "mobilephone": None, "jobtitle": each.title, "description": None,
            "donotemail": False, "donotbulkemail": False, "leadsourcecode": 8, "leadqualitycode": 1 + each.number % 3, "revenue": None,
            "_parentaccountid_value": None, "_parentcontactid_value": None, "_qualifyingopportunityid_value": None,
            **_stamps(each.owner, each.created, each.updated), "statecode": 0, "statuscode": 1 + each.number % 2, "merged": False, "_masterid_value": None,
            "_transactioncurrencyid_value": currency(CURRENCY[each.country]), "new_leadscore": float(each.number % 100),
        }  # fmt: skip
        return self._worked_out(SCHEMAS["lead"], row)

    def _account(self, each: Company) -> Row:
        row = {
            "accountid": guid("account", each.id), "name": each.name, "accountnumber": f"A-{each.id}", "emailaddress1": f"info@{each.domain}", "telephone1": None,
            "websiteurl": f"https://www.{each.domain}", "address1_country": each.country, "revenue": each.employees * 100_000.0, "numberofemployees": each.employees,
            "industrycode": _INDUSTRY[each.industry], "customertypecode": 3, "description": None, "_primarycontactid_value": None, "_parentaccountid_value": None,
            **_stamps(1, each.created, each.created), "statecode": 0, "statuscode": 1, "merged": False, "_masterid_value": None,
            "_transactioncurrencyid_value": currency(CURRENCY[each.country]),
        }  # fmt: skip
        return self._worked_out(SCHEMAS["account"], row)

    def _opportunity(self, each: Deal) -> Row:
        status = (1, 1, 1, 1, 2, 3, 4 + each.number % 2)[each.stage]
        closed, step, amount = _STATES[status] != 0, min(each.stage, 3), each.cents / 100
        kind, customer = _customer(each)
        row = {
            "opportunityid": guid("opportunity", each.id), "name": each.name, "description": None, "estimatedvalue": amount,
            "actualvalue": amount if status == 3 else 0.0 if closed else None, "isrevenuesystemcalculated": False, "estimatedclosedate": iso(each.close)[:10],
            "actualclosedate": iso(each.close)[:10] if closed else None, "closeprobability": (10, 30, 60, 80, 50, 100, 0)[each.stage],
            "stepname": f"{step + 1}-{_STEPS[step]}", "salesstage": step, "opportunityratingcode": 1 + each.number % 3,
            "_customerid_value": guid(kind, customer), "_parentaccountid_value": guid("account", each.company),
            "_parentcontactid_value": guid("contact", each.contacts[0]), **_stamps(each.owner, each.created, each.updated),
            "statecode": _STATES[status], "statuscode": status, "_transactioncurrencyid_value": currency(each.currency), "new_region": 100_000_000 + each.number % 3,
        }  # fmt: skip
        return self._worked_out(SCHEMAS["opportunity"], row)

    def _connection(self, each: _Tie) -> Row:
        (first, first_id), (second, second_id) = _ends(each)
        return {
            "connectionid": _tie_id(each), "name": "Stakeholder", "description": None, "_record1id_value": first_id, "_record2id_value": second_id,
            "record1objecttypecode": SCHEMAS[first].code, "record2objecttypecode": SCHEMAS[second].code,
            "_relatedconnectionid_value": _tie_id(_Tie(each.deal, each.contact, not each.from_deal)),
            **_stamps(each.deal.owner, each.created, each.created), "statecode": 0, "statuscode": 1,
        }  # fmt: skip

    def _subscription(self, each: Profile) -> Row:
        row = {
            "new_subscriptionid": guid("subscription", each.id), "new_name": f"S-{each.number:03d}", "new_plan": 100_000_000 + each.number % 2,
            "new_seats": 1 + each.number % 20, "new_active": each.number % 4 != 0, "new_price": 9.5 * (1 + each.number % 20),
            "new_startedon": iso(each.created)[:10], "new_features": ("1,3", "2", None)[each.number % 3], "_new_contactid_value": guid("contact", each.id),
            **_stamps(each.owner, each.created, each.updated), "statecode": 0, "statuscode": 1,
            "_transactioncurrencyid_value": currency(CURRENCY[each.country]),
        }  # fmt: skip
        return self._worked_out(SCHEMAS["new_subscription"], row)


def guid(kind: str, number: int) -> str | Any:
    """Return the id of a world record, None for number 0. Its order says nothing about anything."""
    if not number:
        return None
    high, low = mix(tag(kind), number), mix(number, tag(kind))
    return f"{high >> 32:08x}-{(high >> 16) & 0xFFFF:04x}-4{high & 0xFFF:03x}-a{low & 0xFFF:03x}-{(low >> 48) & 0xFFFF:04x}{number:08x}"


def currency(code: str) -> str:
    return str(guid("currency", sorted(RATES).index(code) + 1))


def version(updated: int) -> int:
    return updated // 1000 - 1_500_000_000


def iso(millis: float) -> str:
    """Whole seconds, as the vendor keeps times."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=millis // 1000):%Y-%m-%dT%H:%M:%SZ}"


def millis(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _customer(deal: Deal) -> tuple[str, int]:
    """The potential customer is an account where there is one, else a contact."""
    return ("account", deal.company) if deal.company else ("contact", deal.contacts[0])


def _tie_id(each: _Tie) -> str:
    return str(guid("connection", each.deal.id * 2 + each.from_deal))


def _ends(each: _Tie) -> tuple[tuple[str, str], tuple[str, str]]:
    deal, contact = ("opportunity", str(guid("opportunity", each.deal.id))), ("contact", str(guid("contact", each.contact)))
    return (deal, contact) if each.from_deal else (contact, deal)


def _emails() -> dict[str, Column[Any]]:
    return {
        "emailaddress1": Column(lambda each: fold(each.email) if each.email else None, _folded("emailaddress1")),
        "emailaddress2": Column(lambda _: None, _folded("emailaddress2")),
        "emailaddress3": Column(lambda _: None, _folded("emailaddress3")),
    }


def _at(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name)


def _folded(name: str) -> Callable[[Row], Any]:
    return lambda row: fold(row[name]) if row.get(name) else None


def _names(each: Profile) -> Row:
    return {"fullname": f"{each.given} {each.family}", "firstname": each.given, "lastname": each.family}


def _stamps(owner: int, created: int, updated: int) -> Row:
    return {
        "_ownerid_value": guid("systemuser", owner), "createdon": iso(created), "modifiedon": iso(updated), "versionnumber": version(updated),
    }  # fmt: skip


def _user(each: User) -> Row:
    return {
        "systemuserid": guid("systemuser", each.id), "fullname": f"{each.given} {each.family}", "firstname": each.given, "lastname": each.family,
        "internalemailaddress": each.email, "domainname": each.email, "azureactivedirectoryobjectid": guid("entra", each.id), "isdisabled": not each.active,
        "createdon": "2023-01-01T00:00:00Z", "modifiedon": "2023-01-01T00:00:00Z", "versionnumber": 1000 + each.id,
    }  # fmt: skip


def _currency(code: str) -> Row:
    return {
        "transactioncurrencyid": currency(code), "isocurrencycode": code, "currencyname": code, "currencysymbol": _SYMBOLS[code], "currencyprecision": 2,
        "exchangerate": RATES[code], "createdon": "2023-01-01T00:00:00Z", "modifiedon": "2023-01-01T00:00:00Z", "versionnumber": 900, "statecode": 0, "statuscode": 1,
    }  # fmt: skip
