"""What a caller sees of an error: a stable code, a bounded message, the request id; never a stack trace."""

import logging
from datetime import datetime
from typing import Any

from graphql import GraphQLError

from model.errors import C360Error
from telemetry.logging import request_id

log = logging.getLogger(__name__)

MAX_MESSAGE = 500  # characters; a hostile query must not be echoed whole


def shown(error: GraphQLError, *, suggest: bool) -> dict[str, Any]:
    """Return one entry of `errors[]`.

    Args:
        suggest: keep "Did you mean …", which tells names of the schema.
    """
    original = error.original_error
    extensions: dict[str, Any]
    if isinstance(original, C360Error):
        message, extensions = original.message, {"code": original.code, **_facts(original)}
    elif error.path is None and (original is None or isinstance(original, GraphQLError)):
        message = error.message if suggest else error.message.partition(" Did you mean ")[0]
        extensions = {"code": "VALIDATION"}
    else:
        # With a path it comes from a value that does not fit its type: the message would show the value.
        log.error(
            "unexpected error", exc_info=original or error, extra={"path": "/".join(str(step) for step in error.path or ())}
        )
        message, extensions = "Internal error. Tell us the request id.", {"code": "INTERNAL"}
    entry: dict[str, Any] = {"message": bounded(message), "extensions": {**extensions, "requestId": request_id.get()}}
    if error.locations:
        entry["locations"] = [{"line": each.line, "column": each.column} for each in error.locations]
    if error.path is not None:
        entry["path"] = error.path
    return entry


def refusal(code: str, message: str) -> dict[str, Any]:
    """Return the body of an answer to a request that was not executed."""
    return {"errors": [{"message": bounded(message), "extensions": {"code": code, "requestId": request_id.get()}}]}


def bounded(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _facts(error: C360Error) -> dict[str, Any]:
    found = {
        name: getattr(error, attribute, None)
        for name, attribute in (("source", "source"), ("system", "system"), ("retryAt", "retry_at"))
    }
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items() if value is not None
    }
