"""How Zendesk refuses, and what its answers say of budgets."""

from typing import Any

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def invalid(field: str, **problem: str) -> dict[str, Any]:
    return {"error": "RecordInvalid", "description": "Record validation errors", "details": {field: [problem]}}


REFUSALS: Refusals = [
    (answer(422, invalid("email", description="Email: a@b.example is already being used by another user", error="DuplicateValue")), DuplicateError, None),
    (answer(422, invalid("status", description="Status: closed prevents ticket update")), RejectedError, None),
    (answer(422, invalid("requester", description="Requester: is suspended", error="…")), RejectedError, None),
    (answer(422, {"error": "RecordInvalid", "details": "none"}), RejectedError, None),
    (answer(409, {"error": "UpdateConflict", "description": "Safe Update prevented the update due to outdated ticket data."}), StaleVersionError, None),
    (answer(409, {"error": "Conflict"}), RejectedError, None),
    (answer(400, {"error": "IdempotentRequestError", "description": "Request parameters don't match the given idempotency key"}), RejectedError, None),
    (answer(429, b"You have exceeded the rate limit for updating a single unique user.", retry_after="41"), ThrottledError, 41.0),
    (answer(429, b"Number of allowed API requests per minute exceeded", retry_after="93"), ThrottledError, 93.0),
    (answer(401, {"error": "Couldn't authenticate you"}), TokenExpiredError, None),
    (answer(401, {"error": "invalid_token", "error_description": "expired"}), TokenExpiredError, None),
    (answer(403, {"error": "Forbidden", "description": "no"}), SourceForbiddenError, None),
    (answer(404, {"error": "RecordNotFound", "description": "Not found"}), RejectedError, None),
    (answer(422, {"error": {"title": "Insufficient Resource Error", "message": "…"}}), RejectedError, None),
    (answer(400, {"error": {"title": "Invalid attribute", "message": "…"}}), RejectedError, None),
    (answer(400, {"error": "invalid_grant", "error_description": "no"}), RejectedError, None),
    (answer(413, HTML), RejectedError, None),
    (answer(502, HTML), UnavailableError, None),
    (answer(503, HTML, retry_after="60"), UnavailableError, 60.0),
    (answer(404, HTML), ProtocolError, None),
]  # fmt: skip
HEARD: Heard = [
    (answer(200, {}, x_rate_limit="700", x_rate_limit_remaining="699"), [Learned(window="minute", limit=700.0, remaining=699.0)]),
    (answer(200, {}), []),
]  # fmt: skip
