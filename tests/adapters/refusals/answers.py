"""What the corpora of vendor errors are written with: one module per system, `REFUSALS` and `HEARD`."""

from typing import Any

import orjson

from adapters.base import Learned, Response
from model.errors import SourceError

HTML = b"<!DOCTYPE html><html><body>Down for maintenance</body></html>"
Refusals = list[tuple[Response, type[SourceError], float | None]]  # answer, what it is, seconds to wait
Heard = list[tuple[Response, list[Learned]]]


def answer(status: int, body: Any = b"", **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=raw)
