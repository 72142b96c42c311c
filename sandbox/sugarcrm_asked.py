"""Reads what a caller of Sugar asked: bodies, lists of names, numbers, flags."""

from typing import Any

import orjson
from starlette.requests import Request

from sandbox.sugarcrm_records import Refusal
from sandbox.table import Row


async def json_body(request: Request) -> Row:
    try:
        said = orjson.loads(await request.body() or b"{}")
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_request", "The body is not JSON") from error
    if not isinstance(said, dict):
        raise Refusal(400, "invalid_request", "The body is no object")
    return said


def names_in(said: Any) -> list[str] | None:
    """Read a list of names, joined by commas or not; None where nothing is said."""
    names = [each.strip() for each in said.split(",")] if isinstance(said, str) else said
    return [each for each in names if each] if names else None


def whole(said: Any, default: int) -> int:
    return int(said) if str(said).isdigit() else default


def true(said: Any) -> bool:
    return said in (True, 1, "1", "true")
