"""How BigCommerce spells times, pages and refusals, and reads what it is asked for."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row

PAGE, DEFAULT = 250, 50


def paged(rows: Sequence[Row], said: Mapping[str, str], *, default: int = DEFAULT) -> Response:
    """Return one page of V3's."""
    size, page = whole(said, "limit", default, most=PAGE), whole(said, "page", 1)
    part = rows[(page - 1) * size : page * size]
    paging = {
        "total": len(rows), "count": len(part), "per_page": size, "current_page": page, "total_pages": max(math.ceil(len(rows) / size), 1), "links": {},
    }  # fmt: skip
    return json_response({"data": list(part), "meta": {"pagination": paging}})


def whole(said: Mapping[str, str], name: str, default: int, *, most: int = 1_000_000) -> int:
    value = said.get(name, str(default))
    if not value.isdigit() or int(value) < 1:
        raise ValueError(f"The field '{name}' is invalid.")
    return min(int(value), most)


def millis(text: str) -> int:
    """Read ISO 8601 (UTC where no zone is said) or RFC 2822."""
    try:
        moment = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The date '{text}' is invalid.") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def iso(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def rfc2822(millis: float) -> str:
    return format_datetime(datetime.fromtimestamp(millis // 1000, tz=UTC))


def v2_error(status: int, message: str) -> Response:
    return json_response([{"status": status, "message": message}], status=status)


def v3_error(status: int, title: str, errors: Mapping[str, str] | None = None) -> Response:
    body = {
        "status": status,
        "title": title,
        "type": "https://developer.bigcommerce.com/api-docs/getting-started/api-status-codes",
        "errors": dict(errors or {}),
    }
    return json_response(body, status=status)
