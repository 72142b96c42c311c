"""How a Zoho org takes records: one verdict a record, validated field by field as the vendor documents it."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from sandbox.table import Row
from sandbox.world import User
from sandbox.zoho_modules import DISPLAY, Module, Spec, iso, lookup_of, millis, zoho_id

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NEW = 5_000_000_000  # numbers of records made here: above all of the population's
_DUPLICATES = {
    "Contacts": ("Email",),
    "Leads": ("Email",),
    "Accounts": ("Account_Name",),
    "Deals": ("Deal_Name",),
    "Subscriptions": ("Name",),
}


class Invalid(Exception):
    """One record is refused: the verdict."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.verdict = {"code": code, "details": details, "message": message, "status": "error"}


class Writer:
    """
    Args:
        now: milliseconds since 1970 on the org's clock.
    """

    def __init__(self, modules: Mapping[str, Module], users: Sequence[User], now: Callable[[], int]) -> None:
        self._modules, self._now = modules, now
        self._users = {zoho_id("users", each.id): lookup_of(each) for each in users}
        self._user = next(iter(self._users.values()))  # whose token it is
        self._made = 0

    def create(self, module: Module, said: Row, at: str) -> Row:
        """Return the verdict on a new record; `at` is its JSON path."""
        values = self._checked(module, said, at)
        for name, spec in module.specs.items():
            if spec.mandatory and values.get(name) in (None, ""):
                raise Invalid("MANDATORY_NOT_FOUND", "required field not found", api_name=name, json_path=f"{at}.{name}")
        self._unique(module, values, at, but=None)
        self._made += 1
        id = zoho_id(module.name, _NEW + self._made)
        stamp = iso(self._now())
        row: Row = {
            **{name: [] if spec.type == "multiselectpicklist" else None for name, spec in module.specs.items()}, **_defaults(module), "Owner": self._user, **values, "id": id,
            "Created_By": self._user, "Modified_By": self._user, "Created_Time": stamp, "Modified_Time": stamp, "$deleted": None, "$fresh": self._now(),
        }  # fmt: skip
        self._settle(module, row)
        module.table.put(id, row)
        return _success(row, "record added")

    def update(self, module: Module, id: str, said: Row, at: str) -> Row:
        """Return the verdict on a change."""
        row = live(module, id)
        if row is None:
            raise Invalid("INVALID_DATA", "the id given seems to be invalid", api_name="id", json_path=f"{at}.id")
        values = self._checked(module, said, at)
        for name, spec in module.specs.items():
            if spec.mandatory and name in values and values[name] in (None, ""):
                raise Invalid("MANDATORY_NOT_FOUND", "required field not found", api_name=name, json_path=f"{at}.{name}")
        self._unique(module, values, at, but=id)
        self.change(module, {**row, **values})
        return _success(live(module, id) or row, "record updated")

    def upsert(self, module: Module, said: Row, checks: list[str], at: str) -> Row:
        """Change the record that has the same value in one of the fields to check, else make one."""
        row, name = self.matching(module, said, checks)
        if row is None:
            return {**self.create(module, said, at), "action": "insert", "duplicate_field": None}
        return {**self.update(module, row["id"], said, at), "action": "update", "duplicate_field": name}

    def matching(self, module: Module, said: Row, checks: list[str]) -> tuple[Row | None, str | None]:
        """Return the oldest record that an upsert would change, and the field that matched."""
        for name in checks or _DUPLICATES[module.name]:
            value = said.get(name)
            if not isinstance(value, str) or not value:
                continue
            same = [row for row in self._having(module, name, value) if row["$deleted"] is None]
            if same:
                return min(same, key=lambda row: (millis(row["Created_Time"]), row["id"])), name
        return None, None

    def delete(self, module: Module, id: str) -> Row:
        row = live(module, id)
        if row is None:
            raise Invalid("INVALID_DATA", "the id given seems to be invalid", id=id)
        self.change(module, {**row, "$deleted": iso(self._now())})
        return {"code": "SUCCESS", "details": {"id": id}, "message": "record deleted", "status": "success"}

    def merge(self, module: Module, gone: Row, kept: Row) -> None:
        """Delete a record, give another what it lacks, and let what belonged to the one belong to the other."""
        taken = {name: gone[name] for name in module.specs if kept.get(name) in (None, "", []) and gone.get(name)}
        self.change(module, {**gone, "$deleted": iso(self._now())})
        kept = self.change(module, {**kept, **taken})
        lookup = {"name": kept[DISPLAY[module.name]], "id": kept["id"]}
        for other in self._modules.values():
            names = [
                name for name in other.table.indexed
                if (module.name == "Contacts" if name == "$contacts" else name in other.specs and other.specs[name].lookup == module.name)
            ]  # fmt: skip
            held = {row["id"]: row for name in names for row in other.table.having(name, [gone["id"]]) if row["$deleted"] is None}
            for row in held.values():
                self.change(other, {**row, **{name: _instead(row[name], gone["id"], lookup) for name in names}})

    def change(self, module: Module, row: Row) -> Row:
        """Put a row; its modified time moves on, by a second at least, so that each change can be told from the one before."""
        moved = max(self._now(), millis(row["Modified_Time"]) + 1000)
        row = {**row, "Modified_Time": iso(moved), "Modified_By": self._user}
        self._settle(module, row)
        module.table.put(row["id"], row)
        return row

    def _settle(self, module: Module, row: Row) -> None:
        """Fill what follows from other fields."""
        if "Full_Name" in module.specs:
            row["Full_Name"] = " ".join(each for each in (row["First_Name"], row["Last_Name"]) if each)
        if module.name == "Deals":
            contacts = row.get("$contacts") or []
            primary = row["Contact_Name"]
            row["$contacts"] = contacts if primary is None or primary["id"] in contacts else [primary["id"], *contacts]
            row["Expected_Revenue"] = round((row["Amount"] or 0) * (row["Probability"] or 0) / 100, 2)

    def _checked(self, module: Module, said: Row, at: str) -> Row:
        """Return the values that count: system keys, read-only and unknown fields are ignored, as the vendor does."""
        values: Row = {}
        for name, value in said.items():
            spec = module.specs.get(name)
            if spec is None or spec.read_only:
                continue
            values[name] = self._value(spec, name, value, f"{at}.{name}")
        return values

    def _value(self, spec: Spec, name: str, value: Any, at: str) -> Any:
        if value is None:
            return None
        if spec.type in {"lookup", "ownerlookup"}:
            return self._lookup(spec, name, value, at)
        expected = _misfit(spec, value)
        if expected is not None:
            raise Invalid("INVALID_DATA", "invalid data", expected_data_type=expected, api_name=name, json_path=at)
        if isinstance(value, str) and len(value) > (32_000 if spec.type == "textarea" else 255):
            raise Invalid("INVALID_DATA", "invalid data", maximum_length=255, api_name=name, json_path=at)
        if spec.mandatory and spec.options and value not in spec.options:
            raise Invalid("INVALID_DATA", "invalid data", api_name=name, json_path=at)
        return iso(millis(value)) if spec.type == "datetime" else value

    def _lookup(self, spec: Spec, name: str, value: Any, at: str) -> Row:
        if not isinstance(value, dict):
            raise Invalid("INVALID_DATA", "invalid data", expected_data_type="jsonobject", api_name=name, json_path=at)
        id = str(value.get("id"))
        if spec.lookup is None:
            if id not in self._users:
                raise Invalid("INVALID_DATA", "the id given seems to be invalid", api_name=name, json_path=f"{at}.id")
            return self._users[id]
        target = live(self._modules[spec.lookup], id)
        if target is None:
            raise Invalid("INVALID_DATA", "the id given seems to be invalid", api_name=name, json_path=f"{at}.id")
        return {"name": target[DISPLAY[spec.lookup]], "id": id}

    def _unique(self, module: Module, values: Row, at: str, *, but: str | None) -> None:
        for name, spec in module.specs.items():
            if not spec.unique or not values.get(name):
                continue
            for row in self._having(module, name, values[name]):
                if row["$deleted"] is None and row["id"] != but:
                    raise Invalid("DUPLICATE_DATA", "duplicate data", api_name=name, json_path=f"{at}.{name}", id=row["id"])

    def _having(self, module: Module, name: str, value: str) -> list[Row]:
        if name in module.table.indexed:
            return module.table.having(name, [value.lower()])
        return [row for row in module.table if str(row.get(name) or "").lower() == value.lower()]


def _instead(held: Any, gone: str, lookup: Row) -> Any:
    """Return a lookup, or a list of ids, with another record in the place of the one that is gone."""
    if isinstance(held, list):
        return list(dict.fromkeys(lookup["id"] if id == gone else id for id in held))
    return lookup if held and held["id"] == gone else held


def live(module: Module, id: str) -> Row | None:
    row = module.table.get(id)
    return row if row is not None and row["$deleted"] is None else None


def _misfit(spec: Spec, value: Any) -> str | None:
    """Return the type that was expected where the value has another one."""
    match spec.type:
        case "integer" | "percent":
            fits = isinstance(value, int) and not isinstance(value, bool)
        case "double" | "currency":
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            fits = isinstance(value, bool)
        case "multiselectpicklist":
            fits = isinstance(value, list) and all(isinstance(each, str) for each in value)
        case "email":
            fits = isinstance(value, str) and _EMAIL.fullmatch(value) is not None
        case "date":
            fits = isinstance(value, str) and len(value) == 10 and _parses(date.fromisoformat, value)
        case "datetime":  # with an offset and without fractions
            fits = (
                isinstance(value, str)
                and re.fullmatch(r"[^.]+([+-]\d\d:\d\d)", value) is not None
                and _parses(datetime.fromisoformat, value)
            )
        case _:
            fits = isinstance(value, str)
    return (
        None
        if fits
        else {"percent": "integer", "currency": "double", "multiselectpicklist": "jsonarray"}.get(spec.type, spec.type)
    )


def _parses(read: Callable[[str], Any], value: str) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


def _defaults(module: Module) -> Row:
    if module.name == "Deals":
        return {"Currency": "USD", "Exchange_Rate": 1, "Pipeline": "Standard (Standard)", "Probability": None}
    return {"Converted__s": False} if module.name == "Leads" else {}


def _success(row: Row, message: str) -> Row:
    names = ("Modified_Time", "Modified_By", "Created_Time", "id", "Created_By")
    details = {name: {"name": row[name]["name"], "id": row[name]["id"]} if name.endswith("_By") else row[name] for name in names}
    return {"code": "SUCCESS", "details": details, "message": message, "status": "success"}
