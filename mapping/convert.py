"""Named conversions of one value. Each takes a value that is not null and returns the converted one, or None.

A conversion that cannot do its work raises ValueError; the mapping then names the field.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from model.keys import normal_email, normal_phone
from model.money import decimal_of

Converter = Callable[[Any], Any]

_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")  # Salesforce writes +0000, which ISO parsers refuse


def text(value: Any) -> str | None:
    return str(value).strip() or None


def identifier(value: Any) -> str | None:
    return str(value) if value != "" else None


def last_segment(value: Any) -> str:
    """gid://shopify/Customer/544365967 → 544365967"""
    return str(value).rsplit("/", 1)[-1]


def lower(value: Any) -> str:
    return str(value).lower()


def upper(value: Any) -> str:
    return str(value).upper()


def instant(value: Any) -> datetime | None:
    """ISO 8601 text, or milliseconds since 1970 as a number, to an aware UTC time. Text without offset is UTC."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, tz=UTC)
    if value == "":
        return None
    parsed = datetime.fromisoformat(_OFFSET.sub(r"\1:\2", value))
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def rfc2822(value: Any) -> datetime | None:
    """Tue, 05 Mar 2019 21:40:11 +0000 → an aware UTC time."""
    return parsedate_to_datetime(value).astimezone(UTC) if value else None


def day(value: Any) -> date | None:
    if value == "":
        return None
    return date.fromisoformat(value) if len(value) == 10 else instant(value).date()  # type: ignore[union-attr]


def decimal(value: Any) -> Decimal | None:
    return None if value == "" else decimal_of(value)


def number(value: Any) -> float | None:
    return None if value == "" else float(value)


def percent(value: Any) -> float | None:
    """0–100 → 0–1"""
    return None if value == "" else float(value) / 100


def integer(value: Any) -> int | None:
    return None if value == "" else int(decimal_of(value))


def boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in {"true", "1", "yes"}


def domain(value: Any) -> str | None:
    """A web address or bare host → its host, without "www."."""
    host = re.sub(r"^[a-z]+://", "", str(value).strip().lower()).split("/", 1)[0].split("?", 1)[0]
    return host.removeprefix("www.") or None


def first(values: Any) -> Any:
    return next((value for value in _flat(values) if value not in (None, "")), None)


def joined(values: Any) -> str | None:
    return " ".join(str(value).strip() for value in _flat(values) if value not in (None, "")) or None


def first_word(value: Any) -> str | None:
    return next(iter(str(value).split()), None)


def rest_of_words(value: Any) -> str | None:
    return " ".join(str(value).split()[1:]) or None


def emails(values: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found for value in _flat(values) if (found := normal_email(str(value)))))


def _flat(values: Any) -> Iterable[Any]:
    if not isinstance(values, list | tuple):
        return (values,)
    return (inner for value in values for inner in _flat(value))


def _entries(argument: str) -> Converter:
    """entries:a,main of [{"a": 1}, {"a": 2, "main": true}] → [2, 1]: one value of each entry, those of flagged entries first."""
    name, _, flag = argument.partition(",")

    def entries(value: Any) -> list[Any]:
        found = [each for each in _flat(value) if isinstance(each, Mapping) and each.get(name) not in (None, "")]
        return [each[name] for each in sorted(found, key=lambda each: not (flag and boolean(each.get(flag))))]

    return entries


def _split(separator: str) -> Converter:
    def split(value: Any) -> list[str]:
        return [part.strip() for piece in _flat(value) for part in str(piece).split(separator) if part.strip()]

    return split


def converter(name: str, *, region: str) -> Converter:
    """Return the conversion of that name ("split:;" carries an argument).

    Args:
        region: ISO country by which phone numbers written nationally are read.
    """
    base, _, argument = name.partition(":")
    return CONVERTERS[base](argument, region)


def _phone(_: str, region: str) -> Converter:
    return lambda value: normal_phone(str(value), region)


def _phones(_: str, region: str) -> Converter:
    def phones(values: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(found for value in _flat(values) if (found := normal_phone(str(value), region))))

    return phones


def _plain(function: Converter) -> Callable[[str, str], Converter]:
    return lambda _argument, _region: function


CONVERTERS: Mapping[str, Callable[[str, str], Converter]] = {
    "text": _plain(text),
    "id": _plain(identifier),
    "last_segment": _plain(last_segment),
    "lower": _plain(lower),
    "upper": _plain(upper),
    "datetime": _plain(instant),
    "rfc2822": _plain(rfc2822),
    "date": _plain(day),
    "decimal": _plain(decimal),
    "number": _plain(number),
    "percent": _plain(percent),
    "integer": _plain(integer),
    "boolean": _plain(boolean),
    "domain": _plain(domain),
    "nonzero": _plain(lambda value: value or None),
    "first": _plain(first),
    "first_word": _plain(first_word),
    "rest_of_words": _plain(rest_of_words),
    "join": _plain(joined),
    "entries": lambda argument, _region: _entries(argument),
    "split": lambda argument, _region: _split(argument or ";"),
    "email": _plain(lambda value: normal_email(str(value))),
    "emails": _plain(emails),
    "phone": _phone,
    "phones": _phones,
    "stage": _plain(lambda value: value),  # looked up in the object's metadata by the compiled function
}
