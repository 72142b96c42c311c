"""How Salesforce spells what all its resources share: ids, times, errors."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row

VERSION = "v60.0"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Refusal(Exception):
    """A refusal of one request, or of one record of a collection."""

    def __init__(self, status: int, code: str, message: str, fields: Sequence[str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.fields = status, code, message, fields

    @property
    def response(self) -> Response:
        fields = {} if self.fields is None else {"fields": list(self.fields)}
        return json_response([{"message": self.message, "errorCode": self.code, **fields}], status=self.status)

    @property
    def of_record(self) -> Row:
        """The answer for one record among many."""
        return {
            "success": False,
            "errors": [{"statusCode": self.code, "message": self.message, "fields": list(self.fields or ())}],
        }


def error(status: int, code: str, message: str) -> Response:
    return Refusal(status, code, message).response


def sf_id(prefix: str, number: int) -> str:
    """Return the 18-character id of a number: prefix, twelve digits of base 62, three characters of checksum."""
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    id = prefix + digits.rjust(12, "0")
    return id + checksum(id)


def checksum(id: str) -> str:
    """Return the three characters that make a 15-character id safe to compare without case."""
    found = ""
    for part in (id[:5], id[5:10], id[10:]):
        found += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[sum(1 << at for at, each in enumerate(part) if each.isupper())]
    return found


def whole_id(id: str) -> str:
    """Return the 18 characters of an id of 15 or 18; anything else as it is."""
    return id + checksum(id) if len(id) == 15 else id


def spelled(millis: float) -> str:
    """Spell milliseconds since 1970; the vendor keeps whole seconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis // 1000 * 1000)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", text))


def millis(value: Any) -> int:
    return round((value if isinstance(value, datetime) else moment(str(value))).timestamp() * 1000)
