"""Conditions on custom fields, tested on records at hand: no system is asked for what its search may not know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mapping.convert import instant
from model.money import decimal_of
from model.records import Record
from sources.reading import Reading
from sources.source import CustomValue, Source

Shape = Literal["string", "number", "date_time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One custom field's value passes all tests.

    Attributes:
        source: only records of this source can match; None for all.
        tests: (operator, operand) pairs of `StringFilter`, `DecimalFilter` or `DateTimeFilter`.
    """

    key: str
    source: str | None
    shape: Shape
    tests: tuple[tuple[str, Any], ...]

    def holds(self, value: Any) -> bool:
        """Tell whether a value passes; one that does not fit the shape never does."""
        tests = dict(self.tests)
        if "is_null" in tests and (value in (None, "", [])) is not tests.pop("is_null"):
            return False
        if not tests:
            return True
        if value in (None, "", []):
            return False
        try:
            found = _READ[self.shape](value)
            return all(_TESTS[name](found, operand) for name, operand in tests.items())
        except (ValueError, TypeError, ArithmeticError):  # no such number or time, on either side
            return False


_READ: Mapping[Shape, Callable[[Any], Any]] = {"string": str, "number": decimal_of, "date_time": instant}
_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, operand: value == operand,
    "in": lambda value, operand: value in operand,
    "contains": lambda value, operand: operand.casefold() in value.casefold(),
    "starts_with": lambda value, operand: value.casefold().startswith(operand.casefold()),
    "gt": lambda value, operand: value > operand,
    "gte": lambda value, operand: value >= operand,
    "lt": lambda value, operand: value < operand,
    "lte": lambda value, operand: value <= operand,
}


def needs(where: Sequence[Condition]) -> list[str]:
    """Return the target fields that the conditions read."""
    return [f"custom.{each.key}" for each in where]


async def matches(source: Source, record: Record, where: Sequence[Condition], reading: Reading) -> bool:
    """Tell whether a record passes every condition; a field its system does not have is null."""
    if not where:
        return True
    if any(each.source not in (None, record.source) for each in where):
        return False
    found: list[CustomValue] = await source.custom_values(record, [each.key for each in where], reading)
    values = {each.field.name: each.value for each in found}
    return all(each.holds(values.get(each.key)) for each in where)
