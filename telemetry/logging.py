"""Logs: one JSON object a line, with the request id, without secrets or addresses of people."""

import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import orjson

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_SECRET = re.compile(
    r"(?i)(bearer\s+|basic\s+|c360_[0-9a-f]+_|shp(?:at|rt)_|pat-na1-|(?:access_token|refresh_token|client_secret|password)[\"'=: ]+)[^\s\"',;&]+"
)
_EMAIL = re.compile(r"[^\s@\"'<>]{1,64}@[^\s@\"'<>]+\.[A-Za-z]{2,}")


def redacted(text: str) -> str:
    """Return the text with secrets and e-mail addresses blotted out."""
    return _EMAIL.sub("[email]", _SECRET.sub(r"\1[redacted]", text))


class JsonLines(logging.Formatter):
    """A record as one JSON object: fixed event text, fields beside it."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": redacted(record.getMessage()),
        }
        if (current := request_id.get()) is not None:
            said["request_id"] = current
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                said[name] = value if isinstance(value, bool | int | float | type(None)) else redacted(str(value))
        if record.exc_info:
            said["exception"] = redacted(self.formatException(record.exc_info))
        return orjson.dumps(said).decode()


def configure(level: str) -> None:
    """Send all logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True  # one line of our own per request
    logging.getLogger("alembic").setLevel("WARNING")
