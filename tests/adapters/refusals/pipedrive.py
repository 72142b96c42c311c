"""How Pipedrive refuses, and what its answers say of budgets."""

from typing import Any

from adapters.base import Learned
from adapters.pipedrive_writing import FieldRejectedError
from model.errors import (
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def pipedrive(error: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "error": error, "error_info": "…", "data": None, "additional_data": None, **more}


BUSY = pipedrive("Rate limit exceeded", errorCode=429)
INVALID = "ERR_SCHEMA_VALIDATION_FAILED"
REFUSALS: Refusals = [
    (answer(429, BUSY, x_ratelimit_remaining="0", x_ratelimit_reset="2"), ThrottledError, 2.0),
    (answer(429, BUSY), ThrottledError, 2.0),
    (answer(429, BUSY, x_ratelimit_reset="2", x_daily_ratelimit_token_remaining="0"), ExhaustedError, 3600.0),
    (answer(403, HTML), ThrottledError, 60.0),
    (answer(403, pipedrive("Scope and URL mismatch", errorCode=403)), SourceForbiddenError, None),
    (answer(403, pipedrive("Limit reached", code="feature_capping_deals_limit")), RejectedError, None),
    (answer(402, pipedrive("Company account is not open (possible reason: trial expired, payment details not entered)")), SourceForbiddenError, None),
    (answer(401, pipedrive("unauthorized access", errorCode=401), x_401_by_gw="true"), TokenExpiredError, None),
    (answer(400, pipedrive("Parameter 'title' is required", code=INVALID)), RejectedError, None),
    (answer(400, pipedrive("Validation failed", code=INVALID, field_code="d4de1c1518b4531717c676029a45911c340390a6")), FieldRejectedError, None),
    (answer(400, {"success": False, "message": "Invalid grant: refresh_token is invalid", "error": "invalid_grant"}), RejectedError, None),
    (answer(404, pipedrive("Deal not found")), RejectedError, None),
    (answer(410, pipedrive("Gone")), RejectedError, None),
    (answer(415, pipedrive("The feature is not enabled")), RejectedError, None),
    (answer(400, {"success": False, "message": "Invalid client: client is invalid", "error": "invalid_client"}), RejectedError, None),
    (answer(422, pipedrive("Unprocessable")), RejectedError, None),
    (answer(500, pipedrive("Internal error")), UnavailableError, None),
    (answer(501, pipedrive("Not implemented")), RejectedError, None),
    (answer(503, HTML), UnavailableError, None),
    (answer(400, HTML), ProtocolError, None),
]  # fmt: skip
HEARD: Heard = [
    (answer(200, {}, x_ratelimit_limit="80", x_ratelimit_remaining="79", x_ratelimit_reset="2"), [Learned(window="burst", limit=80.0, remaining=79.0)]),
    (answer(200, {}, x_daily_ratelimit_token_limit="210000", x_daily_ratelimit_token_remaining="12"), [Learned(window="daily", limit=210_000.0, remaining=12.0)]),
    (answer(200, {}), []),
]  # fmt: skip
