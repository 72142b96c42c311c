"""How Freshdesk refuses, and what its answers say of budgets."""

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
    (answer(429, {"message": "You have exceeded the limit of requests per hour"}, retry_after="23"), ThrottledError, 23.0),
    (answer(429, b"slow down"), ThrottledError, None),
    (answer(401, {"code": "invalid_credentials", "message": "You have to be logged in"}), TokenExpiredError, None),
    (answer(403, {"code": "access_denied", "message": "no"}), SourceForbiddenError, None),
    (
        answer(400, {"description": "Validation failed", "errors": [{"field": "page", "code": "invalid_value"}]}),
        RejectedError,
        None,
    ),
    (answer(401, {"code": "access_denied", "message": "no"}), SourceForbiddenError, None),
    (answer(403, {"code": "require_feature", "message": "no"}), SourceForbiddenError, None),
    (answer(400, {"code": "account_suspended", "message": "no"}), SourceForbiddenError, None),
    (answer(400, {"code": "invalid_credentials", "message": "no"}), TokenExpiredError, None),
    (answer(400, {"code": "invalid_json", "message": "Request body has invalid json format"}), RejectedError, None),
    (
        answer(400, {"description": "Validation failed", "errors": [{"field": "email", "code": "duplicate_value"}]}),
        DuplicateError,
        None,
    ),
    (answer(405, {"code": "method_not_allowed", "message": "no"}), RejectedError, None),
    (answer(415, {"code": "invalid_content_type", "message": "no"}), RejectedError, None),
    (answer(409, {"description": "Validation failed", "errors": [{"code": "duplicate_value"}]}), DuplicateError, None),
    (answer(404), RejectedError, None),
    (answer(404, HTML), ProtocolError, None),
    (answer(500, HTML), UnavailableError, None),
]
HEARD: Heard = [
    (answer(200, [], x_ratelimit_total="400", x_ratelimit_remaining="12"), [Learned(window="minute", limit=400.0, remaining=12.0)]),
    (answer(200, []), []),
]  # fmt: skip
