"""How BigCommerce refuses, and what its answers say of budgets."""

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer

REFUSALS: Refusals = [
    (answer(429, {"status": 429, "title": "Too many requests"}, x_rate_limit_time_reset_ms="15000"), ThrottledError, 15.0),
    (answer(429, {"status": 429, "title": "Too many requests"}), ThrottledError, 60.0),
    (answer(401, {"error": "Your credentials are invalid or expired.", "status": 401}), TokenExpiredError, None),
    (answer(403, {"status": 403, "title": "You don't have a required scope"}), SourceForbiddenError, None),
    (answer(404, [{"status": 404, "message": "The requested resource was not found."}]), RejectedError, None),
    (answer(422, {"status": 422, "title": "Create customers failed.", "errors": {}}), RejectedError, None),
    (answer(413, {"status": 413, "title": "Too many items"}), RejectedError, None),
    (answer(423, [{"status": 423, "message": "Locked"}]), UnavailableError, None),
    (answer(406, [{"status": 406, "message": "Not acceptable"}]), RejectedError, None),
    (answer(409, {"status": 409, "title": "Conflict"}), RejectedError, None),
    (
        answer(422, {"status": 422, "title": "Create customers failed.", "errors": {".customer_create": "email already in use"}}),
        DuplicateError,
        None,
    ),
    (answer(499, {"status": 499, "title": "Request closed"}), UnavailableError, None),
    (answer(503, HTML), UnavailableError, None),
    (answer(507, {"status": 507, "title": "Plan limit"}), RejectedError, None),
    (answer(400, HTML), ProtocolError, None),
]
HEARD: Heard = [
    (answer(200, {}, x_rate_limit_requests_quota="450", x_rate_limit_requests_left="35", x_rate_limit_time_reset_ms="15000"), [Learned(window="window", limit=450.0, remaining=35.0, reset_after=15.0)]),
    (answer(200, {}), []),
]  # fmt: skip
