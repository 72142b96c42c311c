"""How Zoho refuses, and what its answers say of budgets."""

from typing import Any

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ExhaustedError,
    GrantLostError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def zoho(code: str, message: str = "no", **details: Any) -> dict[str, Any]:
    return {"code": code, "details": details, "message": message, "status": "error"}


TOO_MANY = "You have made too many requests continuously. Please try again after some time."
REFUSALS: Refusals = [
    (answer(200, {"error": "invalid_code"}), GrantLostError, None),
    (answer(200, {"error": "invalid_client"}), GrantLostError, None),
    (answer(400, {"error_description": TOO_MANY, "error": "Access Denied", "status": "failure"}), ThrottledError, 600.0),
    (answer(200, {"error_description": TOO_MANY, "error": "Access Denied", "status": "failure"}), ThrottledError, 600.0),
    (answer(429, zoho("TOO_MANY_REQUESTS", TOO_MANY)), ThrottledError, 2.0),
    (answer(429, zoho("TOO_MANY_REQUESTS", TOO_MANY), x_api_credits_remaining="0"), ExhaustedError, 3600.0),
    (answer(401, zoho("INVALID_TOKEN", "invalid oauth token")), TokenExpiredError, None),
    (answer(401, zoho("AUTHENTICATION_FAILURE", "Authentication failed")), TokenExpiredError, None),
    (answer(401, zoho("OAUTH_SCOPE_MISMATCH", "invalid oauth scope to access this URL")), SourceForbiddenError, None),
    (answer(403, zoho("NO_PERMISSION", "permission denied")), SourceForbiddenError, None),
    (answer(400, zoho("INVALID_QUERY", "column given seems to be invalid", column_name="Nonsense")), RejectedError, None),
    (answer(400, zoho("REQUIRED_PARAM_MISSING", param_name="fields")), RejectedError, None),
    (answer(400, zoho("INVALID_DATA", expected_data_type="email", api_name="Email")), RejectedError, None),
    (answer(400, zoho("MANDATORY_NOT_FOUND", api_name="Last_Name")), RejectedError, None),
    (answer(400, zoho("INVALID_MODULE")), RejectedError, None),
    (answer(400, zoho("LIMIT_EXCEEDED")), RejectedError, None),
    (answer(400, zoho("EXPIRED_VALUE")), RejectedError, None),
    (answer(405, zoho("INVALID_REQUEST_METHOD")), RejectedError, None),
    (answer(413, HTML), RejectedError, None),
    (answer(200, {"error": "access_denied"}), GrantLostError, None),
    (answer(200, {"error": "invalid_client_secret"}), GrantLostError, None),
    (answer(404, zoho("INVALID_URL_PATTERN")), RejectedError, None),
    (answer(400, zoho("DUPLICATE_DATA", "duplicate data", api_name="Email", id="554023000000527002")), DuplicateError, None),
    (answer(412, zoho("ALREADY_MODIFIED")), StaleVersionError, None),
    (answer(412, {"data": [zoho("RECORD_MODIFIED")]}), StaleVersionError, None),
    (answer(500, zoho("INTERNAL_ERROR")), UnavailableError, None),
    (answer(503, HTML), UnavailableError, None),
    (answer(400, HTML), ProtocolError, None),
]
HEARD: Heard = [
    (answer(200, {}, x_api_credits_remaining="21000"), [Learned(window="credits", remaining=21000.0)]),
    (answer(200, {}), []),
]
