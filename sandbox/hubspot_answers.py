"""How HubSpot spells what all its endpoints share: times, errors, pages, batches."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row


class Loose(BaseModel):
    """A body; what a vendor does not know it ignores."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class Refusal(Exception):
    """A refusal of one request, or of one record of a batch.

    Attributes:
        body: the vendor's error, without what only a whole answer has.
    """

    def __init__(self, status: int, category: str, message: str, **more: Any) -> None:
        super().__init__(category)
        self.status = status
        self.body: Row = {"status": "error", "category": category, "message": message, **more}

    @property
    def response(self) -> Response:
        return json_response({**self.body, "correlationId": correlation()}, status=self.status)

    def of_record(self, **context: Sequence[str]) -> Row:
        """Return the entry of `errors[]` in a multi-status answer."""
        return {"errors": [], "links": {}, **self.body, "context": {**self.body.get("context", {}), **context}}


def error(status: int, category: str, message: str) -> Response:
    return Refusal(status, category, message).response


def invalid(found: ValidationError) -> Response:
    first = found.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return error(400, "VALIDATION_ERROR", f"Invalid input JSON on line 1, column 1: {where}: {first['msg']}")


def batch(now: float, results: Sequence[Row], errors: Sequence[Row] = (), *, status: int = 200) -> Response:
    """Answer a batch: `status`, or 207 where some of it failed. `now` in seconds since 1970."""
    body: Row = {"status": "COMPLETE", "results": results, "startedAt": iso(now * 1000), "completedAt": iso(now * 1000)}
    if errors:
        return json_response({**body, "numErrors": len(errors), "errors": errors}, status=207)
    return json_response(body, status=status)


def paged(results: list[Row], after: str | None) -> Row:
    return (
        {"results": results, "paging": {"next": {"after": after, "link": f"?after={after}"}}} if after else {"results": results}
    )


def listed(request: Request, name: str) -> list[str]:
    return [each for given in request.query_params.getlist(name) for each in given.split(",") if each]


def correlation() -> str:
    raw = secrets.token_hex(16)
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def millis(value: Any) -> int:
    """Milliseconds from ISO text or from milliseconds in text; HubSpot takes both."""
    text = str(value)
    if text.lstrip("-").isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def iso(value: float) -> str:
    """Spell milliseconds since 1970."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=round(value))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def shuffled(id: str) -> int:
    """Return where an id stands in an order that says nothing."""
    return int(id) * 2_654_435_761 % 4_294_967_296
