"""The way back: from target fields to a native row that can be written.

The rules are facts of an adapter (`KindFacts.writes`): target field → path in short form, or a `Spelling`.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from mapping.paths import steps
from model.money import Money, in_minor
from model.records import Row


class Amount(BaseModel):
    """Where an amount and its currency go.

    Attributes:
        minor: the amount counts the currency's smallest unit.
        text: the amount is written as text, not as a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: str
    currency: str | None = None
    minor: bool = False
    text: bool = False


class Spelling(BaseModel):
    """How one target value is written. Exactly one of `path` and `money` says where.

    Attributes:
        spell: how a time is written: "iso" (2026-07-01, 2026-07-01T12:00:00Z) or "epoch_ms".
        values: target value → native value; a value not in it goes as it is.
        empty: what clears the field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = None
    money: Amount | None = None
    spell: Literal["iso", "epoch_ms"] = "iso"
    values: dict[str, Any] | None = None
    empty: Any = None

    @model_validator(mode="after")
    def _one_place(self) -> "Spelling":
        if (self.path is None) == (self.money is None):
            raise ValueError("say exactly one of path, money")
        for path in self.native_paths():
            steps(path)
        return self

    def native_paths(self) -> tuple[str, ...]:
        if self.money is not None:
            return tuple(path for path in (self.money.amount, self.money.currency) if path)
        return (self.path,) if self.path else ()


def spellings(writes: Mapping[str, Any]) -> dict[str, Spelling]:
    """Return a kind's rules, short forms expanded.

    Raises:
        ValidationError: one of them is none.
    """
    return {target: Spelling.model_validate({"path": said} if isinstance(said, str) else said) for target, said in writes.items()}


def native(rules: Mapping[str, Spelling], values: Mapping[str, Any]) -> Row:
    """Return the row that says these target values; None clears a field. Fields without a rule are the caller's mistake."""
    row: Row = {}
    for target, value in values.items():
        rule = rules[target]
        if rule.money is not None:
            _plant_money(row, rule, value)
        else:
            assert rule.path is not None
            plant(row, rule.path, rule.empty if value is None else _spelled(rule, value))
    return row


def plant(row: Row, path: str, value: Any) -> None:
    """Put a value where `mapping.paths.pick` finds it; what is missing on the way is made."""
    place: Any = row
    found = steps(path)
    for at, (name, selector) in enumerate(found):
        last = at == len(found) - 1
        if selector is None:
            if last:
                place[name] = value
                return
            place = place.setdefault(name, {})
            continue
        key, wanted = selector
        entries = place.setdefault(name, [])
        entry = next((each for each in entries if str(each.get(key)) == wanted), None)
        if entry is None:
            entry = {key: int(wanted) if wanted.isdigit() else wanted}
            entries.append(entry)
        place = entry
    raise ValueError(f"nothing can be put at {path!r}: it ends with a selector")


def _plant_money(row: Row, rule: Spelling, value: Money | None) -> None:
    amount = rule.money
    assert amount is not None
    if value is None:
        plant(row, amount.amount, rule.empty)
        return
    number = in_minor(value) if amount.minor else value.amount
    plant(row, amount.amount, f"{number:f}" if amount.text else _number(number))
    if amount.currency is not None:
        plant(row, amount.currency, value.currency)


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _spelled(rule: Spelling, value: Any) -> Any:
    if rule.values is not None and isinstance(value, str):
        return rule.values.get(value, value)
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
        if rule.spell == "epoch_ms":
            return round(moment.timestamp() * 1000)
        return _iso(value) if isinstance(value, datetime) else value.isoformat()
    return _number(value) if isinstance(value, Decimal) else value
