"""How Zoho's sandbox reads the parameters of a call and writes its answers: an envelope with a code, an empty 204 for nothing."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row
from sandbox.zoho_modules import millis

PAGE, FIELDS_ASKED = 200, 50


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        self.response = error(status, code, message, **details)


def error(status: int, code: str, message: str, **details: Any) -> Response:
    return json_response({"code": code, "details": details, "message": message, "status": "error"}, status=status)


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.response
        except ValueError:
            return error(400, "INVALID_DATA", "invalid data")

    return handle


def needed(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise Refusal(400, "REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", param_name=name)
    return value


def named(request: Request) -> list[str]:
    names = needed(request, "fields").split(",")
    if len(names) > FIELDS_ASKED:
        raise Refusal(400, "LIMIT_EXCEEDED", "Fields limit exceeded.", param_name="fields", limit=FIELDS_ASKED)
    return names


def size_of(said: Mapping[str, str]) -> int:
    size = int(said.get("per_page", str(PAGE)))
    if not 1 <= size <= PAGE:
        raise Refusal(400, "INVALID_DATA", "invalid data", param_name="per_page", maximum=PAGE)
    return size


def since_of(request: Request) -> int | None:
    said = request.headers.get("if-modified-since")
    return moment_of(said) if said is not None else None


def moment_of(text: str) -> int:
    """Read ISO 8601 or an HTTP date, as milliseconds."""
    moment = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def place_of(row: Row, sort: str) -> int:
    return int(row["id"]) if sort == "id" else millis(row[sort])


def is_beyond(row: Row, sort: str, start: int | None, id: str | None, descending: bool) -> bool:
    if start is None or id is None:
        return True
    here, edge = (place_of(row, sort), row["id"]), (start, id)
    return here < edge if descending else here > edge


def picked(row: Row, names: list[str]) -> Row:
    """Return the fields asked for that there are, and the id."""
    return {**{name: row[name] for name in names if name in row and not name.startswith("$")}, "id": row["id"]}


def rows_response(rows: list[Row], names: list[str], info: Row) -> Response:
    if not rows:
        return Response(status_code=204)
    return json_response({"data": [picked(row, names) for row in rows], "info": info})
