"""Sugar's filter expressions: a list of tests, each a field with a value or operators, joined by `$and` and `$or`.

From the Sugar Developer Guide ("How to Filter a List of Records", `/<module>/filter`). Text is compared without regard to case, as the
usual database collations do. Macros ($owner, $favorite, $tracker, $following) and relative dates are not held.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

Take = Callable[[str], Any]  # a field's value in the row at hand; several values of a link as a tuple
Tests = Sequence[Mapping[str, Any]]
_OPERATORS = frozenset({
    "$equals", "$not_equals", "$starts", "$ends", "$contains", "$not_contains", "$in", "$not_in", "$is_null", "$not_null", "$lt", "$lte", "$gt",
    "$gte", "$between",
})  # fmt: skip
_KEY = re.compile(r"\[([^\]]*)\]")


class FilterError(Exception):
    """The expression is none; the text is what Sugar would say."""


def fields_of(tests: Any) -> Iterable[str]:
    """Walk the fields that tests name.

    Raises:
        FilterError: they are not tests, or an operator is none.
    """
    for test in _listed(tests):
        for name, said in test.items():
            if name in {"$and", "$or"}:
                yield from fields_of(said)
                continue
            if name.startswith("$"):
                raise FilterError(f"Invalid macro or operator {name}")
            unknown = set(said) - _OPERATORS if isinstance(said, Mapping) else ()
            if unknown:
                raise FilterError(f"Did not recognize the operand: {min(unknown)}")
            yield name


def holds(tests: Tests, take: Take) -> bool:
    """Tell whether all tests hold for a row."""
    return all(_holds(name, said, take) for test in _listed(tests) for name, said in test.items())


def equals(tests: Tests, fields: Iterable[str]) -> list[Any] | None:
    """Return the values that one of these fields must have for all tests to hold; None when nothing limits it."""
    for test in _listed(tests):
        for name in fields:
            if name not in test:
                continue
            said = test[name]
            if not isinstance(said, Mapping):
                return [said]
            if "$in" in said:
                return list(said["$in"])
            if "$equals" in said:
                return [said["$equals"]]
    return None


def bounds(tests: Tests, field: str) -> tuple[datetime | None, datetime | None]:
    """Return the span, edges included, outside of which no row holds."""
    found: dict[str, list[datetime]] = {"low": [], "high": []}
    for test in _listed(tests):
        said = test.get(field)
        for operator, value in said.items() if isinstance(said, Mapping) else ():
            if operator in {"$gte", "$gt", "$lte", "$lt"}:
                found["low" if operator.startswith("$g") else "high"].append(moment(value))
    return max(found["low"], default=None), min(found["high"], default=None)


def moment(text: Any) -> datetime:
    """Read an ISO time; without an offset it is in UTC.

    Raises:
        FilterError: it is none.
    """
    try:
        parsed = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise FilterError(f"Invalid date value: {text}") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def from_query(pairs: Iterable[tuple[str, str]], name: str) -> list[Any]:
    """Return what `filter[0][last_name][$starts]=Do` means, as PHP reads it."""
    root: dict[str, Any] = {}
    for key, value in pairs:
        if key == name or key.startswith(f"{name}["):
            place = root
            *way, last = [name, *_KEY.findall(key[len(name) :])]
            for step in way:
                place = place.setdefault(step, {})
            place[last or str(len(place))] = value
    return list(_lists(root.get(name, {})))


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    made = {key: _lists(each) for key, each in value.items()}
    return list(made.values()) if all(key.isdigit() for key in made) else made


def _listed(tests: Any) -> Tests:
    if not isinstance(tests, list | tuple) or not all(isinstance(each, Mapping) for each in tests):
        raise FilterError("Unexpected filter type")
    return tests


def _holds(name: str, said: Any, take: Take) -> bool:
    if name == "$and":
        return holds(said, take)
    if name == "$or":
        return any(holds([each], take) for each in said)
    values = take(name)
    if not isinstance(values, tuple):
        values = (values,)
    operators = said if isinstance(said, Mapping) else {"$equals": said}
    return all(_compares(operator, values, wanted, dated=name.startswith("date_")) for operator, wanted in operators.items())


def _compares(operator: str, values: tuple[Any, ...], wanted: Any, *, dated: bool) -> bool:
    if operator in {"$is_null", "$not_null"}:
        return all(value in (None, "") for value in values) == (operator == "$is_null")
    if operator.startswith("$not_"):
        return not _compares(f"${operator.removeprefix('$not_')}", values, wanted, dated=dated)
    if operator == "$in":
        among = {_plain(each) for each in wanted}
        return any(_plain(value) in among for value in values)
    if operator in {"$starts", "$ends", "$contains"}:
        text = _plain(wanted)
        return any(
            {"$starts": found.startswith, "$ends": found.endswith, "$contains": found.__contains__}[operator](text)
            for value in values
            if (found := _plain(value))
        )
    if operator == "$between":
        return _compares("$gte", values, wanted[0], dated=dated) and _compares("$lte", values, wanted[1], dated=dated)
    return any(_ordered(operator, value, wanted, dated=dated) for value in values if value not in (None, ""))


def _ordered(operator: str, value: Any, wanted: Any, *, dated: bool) -> bool:
    one: Any
    two: Any
    if dated:
        one, two = moment(value), moment(wanted)
    elif (numbers := (_number(value), _number(wanted))) and None not in numbers:
        one, two = numbers
    else:
        one, two = _plain(value), _plain(wanted)
    return bool({"$equals": one == two, "$lt": one < two, "$lte": one <= two, "$gt": one > two, "$gte": one >= two}[operator])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value).lower()


def _number(value: Any) -> Decimal | None:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
