"""How HubSpot refuses, and what its answers say of budgets."""

from typing import Any

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def hubspot(category: str, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, "category": category, "correlationId": "c033cdaa", **more}


def limit(policy: str) -> dict[str, Any]:
    return {"status": "error", "message": "You have reached your limit.", "errorType": "RATE_LIMIT", "policyName": policy}


REFUSALS: Refusals = [
    (answer(429, limit("TEN_SECONDLY_ROLLING")), ThrottledError, 10.0),
    (answer(429, limit("SECONDLY")), ThrottledError, 1.0),
    (answer(429, limit("DAILY")), ExhaustedError, 3600.0),
    (answer(401, hubspot("EXPIRED_AUTHENTICATION")), TokenExpiredError, None),
    (answer(403, hubspot("MISSING_SCOPES")), SourceForbiddenError, None),
    (answer(400, hubspot("VALIDATION_ERROR")), RejectedError, None),
    (answer(404, hubspot("OBJECT_NOT_FOUND")), RejectedError, None),
    (answer(404), RejectedError, None),
    (answer(409, hubspot("CONFLICT", "Contact already exists. Existing ID: 512")), DuplicateError, None),
    (answer(400, hubspot("VALIDATION_ERROR", 'Property values were not valid: [{"isValid":false,"message":"taken","error":"CONFLICTING_UNIQUE_VALUE","name":"code"}]')), DuplicateError, None),
    (answer(400, hubspot("VALIDATION_ERROR", "Property values were not valid: [{", errors=[{"message": "no", "code": "INVALID_EMAIL"}])), RejectedError, None),
    (answer(400, hubspot("VALIDATION_ERROR", errors=[{"message": "no", "code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["x"]}}])), RejectedError, None),
    (answer(401, hubspot("INVALID_AUTHENTICATION")), TokenExpiredError, None),
    (answer(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown refresh token"}), RejectedError, None),
    (answer(414, HTML), RejectedError, None),
    (answer(502, HTML), UnavailableError, None),
    (answer(423, hubspot("LOCKED")), UnavailableError, 2.0),
    (answer(477, hubspot("MIGRATION_IN_PROGRESS"), retry_after="86"), UnavailableError, 86.0),
    (answer(524, HTML), UnavailableError, None),
    (answer(400, HTML), ProtocolError, None),
]  # fmt: skip
HEARD: Heard = [
    (answer(200, {}, x_hubspot_ratelimit_max="110", x_hubspot_ratelimit_remaining="7", x_hubspot_ratelimit_interval_milliseconds="10000"), [Learned(window="burst", limit=110.0, remaining=7.0, per_second=11.0)]),
    (answer(200, {}, x_hubspot_ratelimit_daily="250000", x_hubspot_ratelimit_daily_remaining="12"), [Learned(window="daily", limit=250_000.0, remaining=12.0)]),
    (answer(200, {}), []),
]  # fmt: skip
