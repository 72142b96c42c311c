"""How Pipedrive answers: what it shows of a row, envelopes, errors."""

from typing import Any

from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row


def public(row: Row) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("_")}


def data_of(data: Any, *, status: int = 200, **additional: Any) -> Response:
    return json_response(
        {"success": True, "data": data, **({"additional_data": additional} if additional else {})}, status=status
    )


def error_of(status: int, message: str, *, code: str | None = None, field: str | None = None) -> Response:
    extra = {**({"code": code} if code else {}), **({"field_code": field} if field else {})}
    body = {
        "success": False,
        "error": message,
        "error_info": "Please check developers.pipedrive.com for more information.",
        **extra,
    }
    return json_response({**body, "data": None, "additional_data": None}, status=status)


def grant_error(error: str, message: str) -> Response:
    return json_response({"success": False, "message": message, "error": error}, status=400)
