"""Each vendor's own way to refuse becomes the class that says what to do; and what answers say of budgets is heard.

Bodies are the vendors', from their documents: status, body code and body kind together decide.
"""

from typing import Any

import orjson
import pytest

from adapters.base import Adapter, Config, Learned, Response
from adapters.registry import ADAPTERS
from model.errors import (
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)

HTML = b"<!DOCTYPE html><html><body>Down for maintenance</body></html>"


def adapter(system: str) -> Adapter:
    return ADAPTERS[system](Config(source=system, base_url="https://vendor.example"))


def answer(status: int, body: Any = b"", **headers: str) -> Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=raw)


def hubspot(category: str, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, "category": category, "correlationId": "c033cdaa", **more}


def limit(policy: str) -> dict[str, Any]:
    return {"status": "error", "message": "You have reached your limit.", "errorType": "RATE_LIMIT", "policyName": policy}


def salesforce(code: str, message: str = "no") -> list[dict[str, str]]:
    return [{"message": message, "errorCode": code}]


def shopify(code: str, **cost: Any) -> dict[str, Any]:
    return {"errors": [{"message": "no", "extensions": {"code": code}}], "extensions": {"cost": cost}}


CASES: list[tuple[str, Response, type[SourceError], float | None]] = [
    (
        "bigcommerce",
        answer(429, {"status": 429, "title": "Too many requests"}, x_rate_limit_time_reset_ms="15000"),
        ThrottledError,
        15.0,
    ),
    ("bigcommerce", answer(429, {"status": 429, "title": "Too many requests"}), ThrottledError, 60.0),  # platform protection
    ("bigcommerce", answer(401, {"error": "Your credentials are invalid or expired.", "status": 401}), TokenExpiredError, None),
    ("bigcommerce", answer(403, {"status": 403, "title": "You don't have a required scope"}), SourceForbiddenError, None),
    ("bigcommerce", answer(404, [{"status": 404, "message": "The requested resource was not found."}]), RejectedError, None),
    ("bigcommerce", answer(422, {"status": 422, "title": "Create customers failed.", "errors": {}}), RejectedError, None),
    ("bigcommerce", answer(413, {"status": 413, "title": "Too many items"}), RejectedError, None),
    ("bigcommerce", answer(423, [{"status": 423, "message": "Locked"}]), UnavailableError, None),
    ("bigcommerce", answer(503, HTML), UnavailableError, None),
    ("bigcommerce", answer(507, {"status": 507, "title": "Plan limit"}), RejectedError, None),
    ("bigcommerce", answer(400, HTML), ProtocolError, None),
    (
        "freshdesk",
        answer(429, {"message": "You have exceeded the limit of requests per hour"}, retry_after="23"),
        ThrottledError,
        23.0,
    ),
    ("freshdesk", answer(429, b"slow down"), ThrottledError, None),
    ("freshdesk", answer(401, {"code": "invalid_credentials", "message": "You have to be logged in"}), TokenExpiredError, None),
    ("freshdesk", answer(403, {"code": "access_denied", "message": "no"}), SourceForbiddenError, None),
    (
        "freshdesk",
        answer(400, {"description": "Validation failed", "errors": [{"field": "page", "code": "invalid_value"}]}),
        RejectedError,
        None,
    ),
    (
        "freshdesk",
        answer(409, {"description": "Validation failed", "errors": [{"code": "duplicate_value"}]}),
        RejectedError,
        None,
    ),
    ("freshdesk", answer(404), RejectedError, None),
    ("freshdesk", answer(404, HTML), ProtocolError, None),
    ("freshdesk", answer(500, HTML), UnavailableError, None),
    ("hubspot", answer(429, limit("TEN_SECONDLY_ROLLING")), ThrottledError, 10.0),
    ("hubspot", answer(429, limit("SECONDLY")), ThrottledError, 1.0),
    ("hubspot", answer(429, limit("DAILY")), ExhaustedError, 3600.0),
    ("hubspot", answer(401, hubspot("EXPIRED_AUTHENTICATION")), TokenExpiredError, None),
    ("hubspot", answer(403, hubspot("MISSING_SCOPES")), SourceForbiddenError, None),
    ("hubspot", answer(400, hubspot("VALIDATION_ERROR")), RejectedError, None),
    ("hubspot", answer(404, hubspot("OBJECT_NOT_FOUND")), RejectedError, None),
    ("hubspot", answer(404), RejectedError, None),
    ("hubspot", answer(409, hubspot("CONFLICT")), RejectedError, None),
    ("hubspot", answer(423, hubspot("LOCKED")), UnavailableError, 2.0),
    ("hubspot", answer(477, hubspot("MIGRATION_IN_PROGRESS"), retry_after="86"), UnavailableError, 86.0),
    ("hubspot", answer(524, HTML), UnavailableError, None),
    ("hubspot", answer(400, HTML), ProtocolError, None),
    ("salesforce", answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")), ExhaustedError, 3600.0),
    ("salesforce", answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded.")), ThrottledError, 2.0),
    (
        "salesforce",
        answer(403, salesforce("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.")),
        ThrottledError,
        2.0,
    ),
    ("salesforce", answer(403, salesforce("INSUFFICIENT_ACCESS")), SourceForbiddenError, None),
    ("salesforce", answer(401, salesforce("INVALID_SESSION_ID", "Session expired or invalid")), TokenExpiredError, None),
    ("salesforce", answer(400, salesforce("MALFORMED_QUERY")), RejectedError, None),
    ("salesforce", answer(400, salesforce("INVALID_FIELD")), RejectedError, None),
    ("salesforce", answer(400, salesforce("UNABLE_TO_LOCK_ROW")), UnavailableError, None),
    ("salesforce", answer(404, salesforce("NOT_FOUND")), RejectedError, None),
    ("salesforce", answer(503, salesforce("SERVER_UNAVAILABLE")), UnavailableError, None),
    ("salesforce", answer(500, salesforce("UNKNOWN_EXCEPTION")), UnavailableError, None),
    ("salesforce", answer(404, HTML), ProtocolError, None),
    (
        "shopify",
        answer(
            200, shopify("THROTTLED", requestedQueryCost=752, throttleStatus={"currentlyAvailable": 652, "restoreRate": 50.0})
        ),
        ThrottledError,
        2.0,
    ),
    ("shopify", answer(200, shopify("MAX_COST_EXCEEDED")), RejectedError, None),
    ("shopify", answer(200, shopify("ACCESS_DENIED")), SourceForbiddenError, None),
    ("shopify", answer(200, shopify("SHOP_INACTIVE")), SourceForbiddenError, None),
    ("shopify", answer(200, shopify("INTERNAL_SERVER_ERROR")), UnavailableError, None),
    ("shopify", answer(200, {"errors": [{"message": "Field 'nonsense' doesn't exist"}]}), RejectedError, None),
    ("shopify", answer(401, {"errors": "[API] Invalid API key or access token"}), TokenExpiredError, None),
    ("shopify", answer(402, {"errors": "Unavailable Shop"}), SourceForbiddenError, None),
    ("shopify", answer(423, {"errors": "Locked"}), SourceForbiddenError, None),
    ("shopify", answer(429, {"errors": "Exceeded"}, retry_after="2.0"), ThrottledError, 2.0),
    ("shopify", answer(502, HTML), UnavailableError, None),
    ("shopify", answer(200, HTML), ProtocolError, None),
    ("zendesk", answer(429, b"Number of allowed API requests per minute exceeded", retry_after="93"), ThrottledError, 93.0),
    ("zendesk", answer(401, {"error": "Couldn't authenticate you"}), TokenExpiredError, None),
    ("zendesk", answer(401, {"error": "invalid_token", "error_description": "expired"}), TokenExpiredError, None),
    ("zendesk", answer(403, {"error": "Forbidden", "description": "no"}), SourceForbiddenError, None),
    ("zendesk", answer(404, {"error": "RecordNotFound", "description": "Not found"}), RejectedError, None),
    ("zendesk", answer(422, {"error": {"title": "Insufficient Resource Error", "message": "…"}}), RejectedError, None),
    ("zendesk", answer(400, {"error": {"title": "Invalid attribute", "message": "…"}}), RejectedError, None),
    ("zendesk", answer(503, HTML, retry_after="60"), UnavailableError, 60.0),
    ("zendesk", answer(404, HTML), ProtocolError, None),
]


@pytest.mark.parametrize(("system", "response", "error", "retry_after"), CASES)
def test_a_refusal_becomes_the_class_that_says_what_to_do(
    system: str, response: Response, error: type[SourceError], retry_after: float | None
) -> None:
    found = adapter(system).classify(response)

    assert type(found) is error
    assert found.retry_after == retry_after


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_every_system_has_eight_ways_to_refuse_under_test(system: str) -> None:
    assert len([each for each in CASES if each[0] == system]) >= 8


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_a_message_never_repeats_what_the_vendor_echoed(system: str) -> None:
    echo = {
        "message": "Contact ada@example.com",
        "error": "RecordInvalid",
        "description": "ada@example.com",
        "errors": [{"message": "ada@example.com"}],
    }

    found = adapter(system).classify(answer(400, [echo] if system == "salesforce" else echo))

    assert found is not None
    assert "ada@" not in found.message


HEARD: list[tuple[str, Response, list[Learned]]] = [
    (
        "bigcommerce",
        answer(200, {}, x_rate_limit_requests_quota="450", x_rate_limit_requests_left="35", x_rate_limit_time_reset_ms="15000"),
        [Learned(window="window", limit=450.0, remaining=35.0, reset_after=15.0)],
    ),
    ("bigcommerce", answer(200, {}), []),
    (
        "hubspot",
        answer(200, {}, x_hubspot_ratelimit_max="110", x_hubspot_ratelimit_remaining="7", x_hubspot_ratelimit_interval_milliseconds="10000"),
        [Learned(window="burst", limit=110.0, remaining=7.0, per_second=11.0)],
    ),
    (
        "hubspot",
        answer(200, {}, x_hubspot_ratelimit_daily="250000", x_hubspot_ratelimit_daily_remaining="12"),
        [Learned(window="daily", limit=250_000.0, remaining=12.0)],
    ),
    ("freshdesk", answer(200, [], x_ratelimit_total="400", x_ratelimit_remaining="12"), [Learned(window="minute", limit=400.0, remaining=12.0)]),
    ("freshdesk", answer(200, []), []),
    ("hubspot", answer(200, {}), []),  # searches carry no such headers
    ("salesforce", answer(200, {}, sforce_limit_info="api-usage=18/5000"), [Learned(window="daily", limit=5000.0, remaining=4982.0)]),
    (
        "salesforce",
        answer(200, {}, sforce_limit_info="api-usage=18/5000, per-app-api-usage=17/250(appName=sample)"),
        [Learned(window="daily", limit=5000.0, remaining=4982.0)],
    ),
    ("salesforce", answer(200, {}), []),
    (
        "shopify",
        answer(200, {"data": {}, "extensions": {"cost": {"throttleStatus": {"maximumAvailable": 1000.0, "currentlyAvailable": 666, "restoreRate": 50.0}}}}),
        [Learned(window="points", limit=1000.0, remaining=666.0, per_second=50.0)],
    ),
    ("shopify", answer(200, HTML), []),
    ("zendesk", answer(200, {}, x_rate_limit="700", x_rate_limit_remaining="699"), [Learned(window="minute", limit=700.0, remaining=699.0)]),
    ("zendesk", answer(200, {}), []),
]  # fmt: skip


@pytest.mark.parametrize(("system", "response", "heard"), HEARD)
def test_what_an_answer_says_of_the_budget_is_heard(system: str, response: Response, heard: list[Learned]) -> None:
    assert list(adapter(system).learn(response)) == heard
