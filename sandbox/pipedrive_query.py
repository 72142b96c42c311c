"""How Pipedrive reads a query: numbers, times, cursors, and when a record matches a search term."""

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from sandbox.pipedrive_fields import Refused

Row = dict[str, Any]
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")  # a fraction of a second is refused


def matches(object: str, row: Row, term: str, fields: frozenset[str] | None, *, exact: bool) -> bool:
    """Tell whether one of the fields is the term (`exact`) or has it in it; None looks in all of them."""
    texts = {"name" if object != "deal" else "title": [row["title" if object == "deal" else "name"]]}
    if object == "person":
        texts |= {"email": [each["value"] for each in row["emails"]], "phone": [each["value"] for each in row["phones"]]}
    wanted, folded = texts.keys() if fields is None else fields & texts.keys(), term.casefold()
    found = (text.casefold() for name in wanted for text in texts[name])
    return any(text == folded if exact else folded in text for text in found)


@lru_cache(maxsize=1024)
def stamp(text: str) -> float:
    """Return seconds since 1970.

    Raises:
        Refused: it is not RFC 3339 to the second.
    """
    if not _MOMENT.fullmatch(text):
        raise Refused(400, "Validation failed: not a valid datetime", code="ERR_SCHEMA_VALIDATION_FAILED")
    return datetime.fromisoformat(text).timestamp()


def whole(said: Mapping[str, str], name: str, default: int, *, most: int | None = None) -> int:
    """Return a whole number of a query.

    Raises:
        Refused: it is none, or larger than `most`.
    """
    value = said.get(name, str(default))
    if not value.isdigit() or (most is not None and not 1 <= int(value) <= most):
        raise Refused(400, f"Validation failed: {name}", code="ERR_SCHEMA_VALIDATION_FAILED")
    return int(value)


def coded(place: Row) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def place_of(cursor: str, field: str, way: str) -> tuple[Any, int]:
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "==="))
        if (place["field"], place["sortDirection"]) != (field, way):
            raise ValueError("of another list")
        return place["fieldValue"], int(place["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "Invalid cursor") from error


def start_of(said: Mapping[str, str]) -> int:
    cursor = said.get("cursor")
    try:
        return int(orjson.loads(base64.urlsafe_b64decode(cursor + "==="))["start"]) if cursor else 0
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "Invalid cursor") from error
