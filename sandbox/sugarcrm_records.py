"""The records of a Sugar instance: rows by module, what links them, and what a change does to them.

From the vendor's field lists and examples; what they leave open is answered so: what is missing is `missing_parameter`, a value that does not fit
`invalid_parameter`, fields nobody knows are passed over, an account that is not there ties nothing. A change moves `date_modified` by a second at
least, so that two changes can be told apart.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

from sandbox.sugarcrm_metadata import CURRENCIES, DROPDOWNS, LINKS, LOST, WON, options, read_only, types
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import Company, Deal, Profile, User, World, mix, tag

ZONE = timezone(timedelta(hours=5, minutes=30))  # the user's: times are told in it
ADMIN = "1"
_SEEDS = {1: ADMIN, 2: "seed_sally_id", 3: "seed_max_id", 4: "seed_will_id"}
_STAGES = (
    "Prospecting",
    "Qualification",
    "Needs Analysis",
    "Proposal/Price Quote",
    "Negotiation/Review",
    "Closed Won",
    "Closed Lost",
)
_LEVELS, _REGIONS = ("gold", "silver", "bronze"), ("emea", "amer", "apac")
_CODES = {each["iso4217"]: id for id, each in CURRENCIES.items()}
_EMPTY: Mapping[str, Any] = {
    "bool": False,
    "email": [],
    "teamset": [],
    "tag": [],
    "datetime": None,
    "date": None,
    "currency": None,
    "id": "",
}
_MONEY = frozenset({"amount", "best_case", "worst_case"})


class Refusal(Exception):
    """What Sugar answers in place of a record; `extra` stands beside its error."""

    def __init__(self, status: int, error: str, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": error, "error_message": message, **extra}


class Records:
    """
    Args:
        clock: seconds since 1970.
    """

    def __init__(self, world: World, system: str, clock: Callable[[], float]) -> None:
        self._world, self._clock = world, clock
        self._deals: list[Deal] = world.deals[system]
        self._linked: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._blank = {module: {name: _EMPTY.get(_bare(type), "") for name, type in types(module).items()} for module in LINKS}
        profiles, leads = world.profiles[system], world.leads[system]
        used = {each.company for each in profiles} | {each.company for each in self._deals}
        account: dict[str, Column[Any]] = {
            "account_id": Column(lambda each: _account(each.company), lambda row: row["account_id"] or None)
        }
        self.tables: dict[str, Table[Any]] = {
            "Contacts": _table({native("Contacts", each.id): each for each in profiles}, self._contact, {**_addresses(), **account}),
            "Accounts": _table({native("Accounts", each.id): each for each in world.companies if each.id in used}, self._company, {}),
            "Opportunities": _table({native("Opportunities", each.id): each for each in self._deals}, self._deal, account),
            "Leads": _table({native("Leads", each.id): each for each in leads}, self._lead, _addresses()),
            "Users": _table({native("Users", each.id): each for each in world.users}, self._user, {}),
        }  # fmt: skip

    # ---- reading ----

    def live(self, module: str, id: str) -> Row:
        """Return a row that was not deleted.

        Raises:
            Refusal: there is none.
        """
        row = self.tables[module].get(id)
        if row is None or row["deleted"]:
            raise Refusal(404, "not_found", f"Could not find record: {id} in module: {module}")
        return row

    def shown(self, module: str, row: Row, names: Sequence[str] | None = None) -> Row:
        """Return a row as it is answered: always with id and time of change, a deleted one with nothing else."""
        extras = {"_acl": {"fields": {}}, "_module": module}
        if row["deleted"]:
            return {"id": row["id"], "date_modified": row["date_modified"], "deleted": True, **extras}
        chosen = row if names is None else {name: row[name] for name in ("id", "date_modified", *names) if name in row}
        if "account_name" in chosen and module in {"Contacts", "Opportunities"}:
            account = self.tables["Accounts"].get(row["account_id"])
            chosen = {**chosen, "account_name": account["name"] if account else ""}
        if "assigned_user_name" in chosen:
            user = self.tables["Users"].get(row["assigned_user_id"])
            chosen = {**chosen, "assigned_user_name": user["full_name"] if user else ""}
        known = {name: value for name, value in chosen.items() if module != "Users" or name in types(module)}
        return {**known, **extras}

    def linked(self, module: str, id: str, link: str) -> list[str]:
        """Return the ids behind a link field, deleted ones among them.

        Raises:
            Refusal: the module has no such link.
        """
        if link not in LINKS[module]:
            raise Refusal(404, "not_found", f"Could not find a relationship named: {link}")
        if link == "accounts":
            account = (self.tables[module].get(id) or {}).get("account_id")
            return [account] if account else []
        if module == "Accounts":
            return [row["id"] for row in self.tables[LINKS[module][link]].having("account_id", [id])]
        return self._ties(module).get(id, [])

    # ---- writing ----

    def create(self, module: str, said: Mapping[str, Any]) -> Row:
        id = str(said.get("id") or uuid.uuid4())
        if self.tables[module].get(id) is not None:
            raise Refusal(422, "invalid_parameter", f"Record already exists: {id} in module: {module}")
        fields = self._checked(module, said, {})
        needed = [name for name, type in types(module).items() if type.endswith("*") and not fields.get(name)]
        if needed:
            raise Refusal(400, "missing_parameter", f"Missing required field(s): {', '.join(needed)}")
        now = moment(self._clock() * 1000)
        stamps = {"id": id, "date_entered": now, "date_modified": now, "created_by": ADMIN, "modified_user_id": ADMIN}
        usual = {
            "assigned_user_id": ADMIN,
            **({"sales_stage": _STAGES[0], "currency_id": "-99"} if module == "Opportunities" else {}),
        }
        row = {**self._blank[module], **usual, **fields, **stamps}
        self.tables[module].put(id, _derived(module, row, fields))
        return self.live(module, id)

    def update(self, module: str, id: str, said: Mapping[str, Any], *, seen: datetime | None = None) -> Row:
        """Change a row, only when it was not changed after `seen`."""
        row = self.live(module, id)
        if seen is not None and datetime.fromisoformat(row["date_modified"]) > seen:
            raise Refusal(409, "edit_conflict", "Edit conflict, please reload the record data.", record=self.shown(module, row))
        return self.put(module, row, self._checked(module, said, row))

    def put(self, module: str, row: Row, fields: Mapping[str, Any]) -> Row:
        """Store a changed row under a later time."""
        later = max(self._clock(), datetime.fromisoformat(row["date_modified"]).timestamp() + 1)
        row = {**row, **fields, "date_modified": moment(later * 1000), "modified_user_id": ADMIN}
        self.tables[module].put(row["id"], _derived(module, row, fields))
        return row

    def delete(self, module: str, id: str) -> None:
        """Mark as deleted; what belonged to an account belongs to none from then on."""
        row = self.live(module, id)
        if module == "Accounts":
            for child in ("Contacts", "Opportunities"):
                for each in self.tables[child].having("account_id", [id]):
                    self.tables[child].put(each["id"], {**each, "account_id": ""})
        self.put(module, row, {"deleted": True})

    def merge(self, module: str, loser_id: str, winner_id: str) -> bool:
        """Let a record go into another, if both are there."""
        loser, winner = self.tables[module].get(loser_id), self.tables[module].get(winner_id)
        if loser is None or winner is None or loser["deleted"] or winner["deleted"]:
            return False
        taken = {name: value for name, value in loser.items() if value and not winner.get(name) and not read_only(module, name)}
        for link, other in LINKS[module].items():
            if link == "accounts":
                continue
            for id in list(self.linked(module, loser_id, link)):
                row = self.tables[other].get(id)
                if row is not None and not row["deleted"]:
                    self.tie(module, winner_id, link, id)
        self.put(module, self.live(module, winner_id), taken)
        self.delete(module, loser_id)
        return True

    def tie(self, module: str, id: str, link: str, other: str) -> None:
        """Tie two records; doing it again changes nothing."""
        self.linked(module, id, link)
        there = LINKS[module][link]
        one, two = self.live(module, id), self.live(there, other)
        if link == "accounts":
            self.put(module, one, {"account_id": other})
        elif module == "Accounts":
            self.put(there, two, {"account_id": id})
        else:
            for table, key, value in ((self._ties(module), id, other), (self._ties(there), other, id)):
                if value not in table.setdefault(key, []):
                    table[key].append(value)

    def untie(self, module: str, id: str, link: str, other: str) -> None:
        if other not in self.linked(module, id, link):
            raise Refusal(404, "not_found", f"Could not find related record: {other}")
        there = LINKS[module][link]
        if link == "accounts":
            self.put(module, self.live(module, id), {"account_id": ""})
        elif module == "Accounts":
            self.put(there, self.live(there, other), {"account_id": ""})
        else:
            self._ties(module)[id].remove(other)
            self._ties(there)[other].remove(id)

    def _ties(self, module: str) -> dict[str, list[str]]:
        """Contacts of opportunities and the other way round, made when first asked for."""
        if not self._linked:
            contacts: dict[str, list[str]] = {}
            deals: dict[str, list[str]] = {}
            for each in self._deals:
                deal = native("Opportunities", each.id)
                contacts[deal] = [native("Contacts", contact) for contact in each.contacts]
                for contact in contacts[deal]:
                    deals.setdefault(contact, []).append(deal)
            self._linked = {("Opportunities", "contacts"): contacts, ("Contacts", "opportunities"): deals}
        return self._linked[module, "contacts" if module == "Opportunities" else "opportunities"]

    def _checked(self, module: str, said: Mapping[str, Any], before: Mapping[str, Any]) -> Row:
        """Return the values that are kept.

        Raises:
            Refusal: one does not fit.
        """
        known = types(module)
        kept: Row = {}
        for name, value in said.items():
            if name not in known or name == "id" or read_only(module, name):
                continue
            if known[name].endswith("*") and value in (None, ""):
                raise Refusal(400, "missing_parameter", f"Missing required field(s): {name}")
            kept[name] = self._fitting(module, name, _bare(known[name]), value)
        if "email1" in kept and "email" not in kept:
            kept["email"] = _list([{"email_address": kept["email1"], "primary_address": True}])
        if "email" in kept:
            kept["email1"] = next((each["email_address"] for each in kept["email"] if each["primary_address"]), "")
        return {name: value for name, value in kept.items() if name != "email1" or "email1" in before or name in known}

    def _fitting(self, module: str, name: str, type: str, value: Any) -> Any:
        wrong = Refusal(422, "invalid_parameter", f"Invalid field value: {name} in module: {module}")
        choices = options(module, name)
        if choices is not None and value not in (None, "") and value not in choices:
            raise wrong
        try:
            if type == "email":
                return _list(value)
            if name in _MONEY and value not in (None, ""):
                return f"{Decimal(str(value)):.6f}"
            if type == "date" and value not in (None, ""):
                return date.fromisoformat(value).isoformat()
        except (ValueError, TypeError, KeyError, InvalidOperation) as error:
            raise wrong from error
        if name == "currency_id" and value not in CURRENCIES:
            raise wrong
        if name in {"account_id", "parent_id"} and module != "Leads" and value and self.tables["Accounts"].get(value) is None:
            return ""
        return str(value) if type == "int" and value is not None and name == "probability" else value

    # ---- rendering ----

    def _contact(self, each: Profile) -> Row:
        return {
            **self._blank["Contacts"], **self._person("Contacts", each), "account_id": _account(each.company) or "", "department": "Sales",
            "phone_work" if each.number % 4 else "phone_mobile": each.phone or "", "loyalty_level_c": _LEVELS[each.number % 3], "visits_c": each.number,
            "newsletter_c": each.number % 2 == 0,
        }  # fmt: skip

    def _lead(self, each: Profile) -> Row:
        return {
            **self._blank["Leads"], **self._person("Leads", each), "account_name": self._world.companies[each.company - 1].name if each.company else "",
            "status": ("New", "Assigned", "In Process")[each.number % 3], "phone_work": each.phone or "", "score_c": each.number % 100,
        }  # fmt: skip

    def _person(self, module: str, each: Profile) -> Row:
        addresses = [address for address in (each.email, *each.more_emails) if address]
        emails = _list([{"email_address": address, "primary_address": not at} for at, address in enumerate(addresses)])
        full = f"{each.given} {each.family}"
        row = {
            "id": native(module, each.id), "first_name": each.given, "last_name": each.family, "name": full, "full_name": full, "title": each.title,
            # The list has no order: the primary address need not be its first.
            "email": emails[::-1] if each.id % 2 else emails, "email1": addresses[0] if addresses else "", "lead_source": "Web Site",
            "primary_address_country": each.country, "deleted": each.deleted, **_stamps(each.created, each.updated, each.owner),
        }  # fmt: skip
        return {name: value for name, value in row.items() if name in types(module)}

    def _company(self, each: Company) -> Row:
        return {
            **self._blank["Accounts"], "id": native("Accounts", each.id), "name": each.name, "website": f"http://www.{each.domain}", "industry": each.industry,
            "account_type": "Customer", "employees": str(each.employees), "annual_revenue": str(each.employees * 100_000), "email": _list([]),
            "billing_address_country": each.country, "tier_c": str(1 + each.id % 2), **_stamps(each.created, each.created, 1),
        }  # fmt: skip

    def _deal(self, each: Deal) -> Row:
        amount, closes = f"{each.cents / 100:.6f}", datetime.fromtimestamp(each.close / 1000, tz=UTC).date()
        row = {
            **self._blank["Opportunities"], "id": native("Opportunities", each.id), "name": each.name, "account_id": _account(each.company) or "", "amount": amount,
            "best_case": amount, "worst_case": amount, "currency_id": _CODES[each.currency], "date_closed": closes.isoformat(), "sales_stage": _STAGES[each.stage],
            "lead_source": "Web Site", "commit_stage": "include", "region_c": _REGIONS[each.number % 3], "deleted": each.deleted,
            **_stamps(each.created, each.updated, each.owner),
        }  # fmt: skip
        return _derived("Opportunities", row, row)

    def _user(self, each: User) -> Row:
        name = f"{each.given} {each.family}"
        return {
            **self._blank["Users"], "id": native("Users", each.id), "user_name": each.email.partition("@")[0], "first_name": each.given, "last_name": each.family,
            "full_name": name, "email": _list([{"email_address": each.email, "primary_address": True}]), "status": "Active" if each.active else "Inactive",
            "is_admin": each.id == 1, "date_modified": moment(1_672_531_200_000), "date_entered": moment(1_672_531_200_000), "deleted": False,
        }  # fmt: skip


def native(module: str, number: int) -> str:
    """Return the id of a world record: a GUID, but for seeded users and for contacts that came with ids of their own."""
    if module == "Users" and number in _SEEDS:
        return _SEEDS[number]
    if module == "Contacts" and number % 10 == 3:
        return f"import-{number}"
    bits = f"{mix(tag(module), number):016x}{mix(tag(module), number, 7):016x}"
    return f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"


def moment(millis: float) -> str:
    """Spell a time in the user's zone, in whole seconds."""
    return datetime.fromtimestamp(millis // 1000, tz=ZONE).isoformat()


def millis(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _bare(type: str) -> str:
    return type.removesuffix("*").split("(")[0].split("[")[0]


def _account(company: int) -> str | None:
    return native("Accounts", company) if company else None


def _stamps(created: int, updated: int, owner: int) -> Row:
    return {
        "date_entered": moment(created), "date_modified": moment(updated), "created_by": ADMIN, "modified_user_id": ADMIN, "assigned_user_id": native("Users", owner),
    }  # fmt: skip


def _list(said: Any) -> list[Row]:
    """Return addresses as they are kept: one of them is the primary one.

    Raises:
        ValueError: it is no list, or one of them no address.
    """
    if not isinstance(said, list) or not all(isinstance(each, dict) and "@" in str(each.get("email_address")) for each in said):
        raise ValueError("no addresses")
    flags = [each.get("primary_address") in (True, 1, "1") for each in said]
    primary = flags.index(True) if True in flags else 0
    return [
        {
            "email_address": each["email_address"], "primary_address": at == primary, "reply_to_address": False, "invalid_email": bool(each.get("invalid_email")),
            "opt_out": bool(each.get("opt_out")), "email_address_id": str(uuid.uuid5(uuid.NAMESPACE_URL, each["email_address"].lower())),
        }
        for at, each in enumerate(said)
    ]  # fmt: skip


def _derived(module: str, row: Row, changed: Mapping[str, Any]) -> Row:
    """Fill in what the instance works out by itself."""
    if module in {"Contacts", "Leads"}:
        name = f"{row['first_name'] or ''} {row['last_name']}".strip()
        return {**row, "name": name, **({"full_name": name} if module == "Contacts" else {})}
    if module != "Opportunities":
        return row
    stage, currency = row["sales_stage"], CURRENCIES[row["currency_id"] or "-99"]
    rate = currency["conversion_rate"]
    status = stage if stage in (*WON, *LOST) else "New" if stage == _STAGES[0] else "In Progress"
    moved = "sales_stage" in changed and not changed.get("probability")
    likely = DROPDOWNS["sales_probability_dom"].get(stage, "") if moved else row["probability"]
    dollars = f"{Decimal(row['amount']) / Decimal(rate):.6f}" if row["amount"] else None
    closes = str(round(datetime.fromisoformat(f"{row['date_closed']}T00:00:00Z").timestamp())) if row["date_closed"] else ""
    return {
        **row, "sales_status": status, "probability": likely, "base_rate": rate, "amount_usdollar": dollars, "date_closed_timestamp": closes,
        "currency_name": currency["name"], "currency_symbol": currency["symbol"],
    }  # fmt: skip


def _table(entries: Mapping[str, Any], render: Callable[[Any], Row], indexes: Mapping[str, Column[Any]]) -> Table[Any]:
    orders: dict[str, Column[Any]] = {
        "date_entered": Column(lambda entry: entry.created // 1000 * 1000, lambda row: millis(row["date_entered"])),
        "date_modified": Column(
            lambda entry: getattr(entry, "updated", entry.created) // 1000 * 1000, lambda row: millis(row["date_modified"])
        ),
    }
    keyed: Mapping[str, Column[Any]] = {"sync_key": Column(lambda _: None, lambda row: row.get("sync_key") or None)}
    return Table(entries, render, indexes={**indexes, **keyed}, orders=orders)


def _addresses() -> Mapping[str, Column[Profile]]:
    return {
        "email": Column(
            lambda each: tuple(address.lower() for address in (each.email, *each.more_emails) if address),
            lambda row: tuple(each["email_address"].lower() for each in row["email"]),
        )
    }
