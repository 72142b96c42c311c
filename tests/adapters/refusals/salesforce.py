"""How Salesforce refuses, and what its answers say of budgets."""

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def salesforce(code: str, message: str = "no") -> list[dict[str, str]]:
    return [{"message": message, "errorCode": code}]


REFUSALS: Refusals = [
    (answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")), ExhaustedError, 3600.0),
    (answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded.")), ThrottledError, 2.0),
    (answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.")), ThrottledError, 2.0),
    (answer(403, salesforce("INSUFFICIENT_ACCESS")), SourceForbiddenError, None),
    (answer(401, salesforce("INVALID_SESSION_ID", "Session expired or invalid")), TokenExpiredError, None),
    (answer(400, salesforce("MALFORMED_QUERY")), RejectedError, None),
    (answer(400, salesforce("INVALID_FIELD")), RejectedError, None),
    (answer(400, salesforce("UNABLE_TO_LOCK_ROW")), UnavailableError, None),
    (answer(404, salesforce("NOT_FOUND")), RejectedError, None),
    (answer(404, salesforce("ENTITY_IS_DELETED", "entity is deleted")), RejectedError, None),
    (answer(400, salesforce("DUPLICATE_VALUE", "duplicate value found: External_Id__c duplicates value on record with id: 003")), DuplicateError, None),
    (answer(400, salesforce("DUPLICATES_DETECTED", "Use one of these records?")), DuplicateError, None),
    (answer(400, salesforce("REQUIRED_FIELD_MISSING")), RejectedError, None),
    (answer(400, salesforce("FIELD_CUSTOM_VALIDATION_EXCEPTION")), RejectedError, None),
    (answer(403, salesforce("INSUFFICIENT_ACCESS_OR_READONLY")), SourceForbiddenError, None),
    (answer(412, salesforce("PRECONDITION_FAILED")), StaleVersionError, None),
    (answer(412), StaleVersionError, None),
    (answer(400, {"error": "invalid_grant", "error_description": "login rate exceeded"}), ThrottledError, 60.0),
    (answer(400, {"error": "invalid_grant", "error_description": "expired access/refresh token"}), RejectedError, None),
    (answer(401, {"error": "invalid_client", "error_description": "invalid client credentials"}), RejectedError, None),
    (answer(414, b"URI Too Long"), RejectedError, None),
    (answer(431, HTML), RejectedError, None),
    (answer(415, salesforce("UNSUPPORTED_MEDIA_TYPE")), RejectedError, None),
    (answer(403, salesforce("API_DISABLED_FOR_ORG")), SourceForbiddenError, None),
    (answer(400, salesforce("INVALID_QUERY_LOCATOR")), RejectedError, None),
    (answer(400, salesforce("QUERY_TIMEOUT")), UnavailableError, None),
    (answer(300, ["/services/data/v60.0/sobjects/Contact/003xx000004TmiQAAS"]), ProtocolError, None),
    (answer(503, salesforce("SERVER_UNAVAILABLE")), UnavailableError, None),
    (answer(500, salesforce("UNKNOWN_EXCEPTION")), UnavailableError, None),
    (answer(404, HTML), ProtocolError, None),
]  # fmt: skip
HEARD: Heard = [
    (answer(200, {}, sforce_limit_info="api-usage=18/5000"), [Learned(window="daily", limit=5000.0, remaining=4982.0)]),
    (answer(200, {}, sforce_limit_info="api-usage=18/5000, per-app-api-usage=17/250(appName=sample)"), [Learned(window="daily", limit=5000.0, remaining=4982.0)]),
    (answer(200, {}), []),
]  # fmt: skip
