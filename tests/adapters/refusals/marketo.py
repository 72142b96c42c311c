"""How Marketo refuses: nearly always with 200, a code in the body, and no word on budgets."""

from typing import Any

from adapters.marketo_errors import TooManyError
from model.errors import (
    DuplicateError,
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
    UpstreamTimeoutError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def marketo(code: str, message: str = "no") -> dict[str, Any]:
    return {"requestId": "e42b#14272d07d78", "success": False, "errors": [{"code": code, "message": message}]}


REFUSALS: Refusals = [
    (answer(200, marketo("601", "Access token invalid")), TokenExpiredError, None),
    (answer(200, marketo("602", "Access token expired")), TokenExpiredError, None),
    (answer(200, marketo("603", "Access denied")), SourceForbiddenError, None),
    (answer(200, marketo("604", "Request timed out")), UpstreamTimeoutError, None),
    (answer(200, marketo("606", "Max rate limit '100' exceeded with in '20' secs")), ThrottledError, 5.0),
    (answer(200, marketo("607", "Daily API quota reached")), ExhaustedError, 3600.0),
    (answer(200, marketo("607"), date="Wed, 01 Jul 2026 05:59:00 GMT"), ExhaustedError, 60.0),
    (answer(200, marketo("607"), date="Wed, 01 Jul 2026 06:00:00 GMT"), ExhaustedError, 86_400.0),
    (answer(200, marketo("608", "API Temporarily Unavailable")), UnavailableError, None),
    (answer(200, marketo("610", "Requested resource not found")), RejectedError, None),
    (answer(200, marketo("611", "System error")), UnavailableError, None),
    (answer(200, marketo("614", "Invalid Subscription")), UnavailableError, 60.0),
    (answer(200, marketo("615", "Concurrent access limit reached")), ThrottledError, 2.0),
    (answer(200, marketo("702", "No data found")), RejectedError, None),
    (answer(200, marketo("713", "Transient Error")), UnavailableError, None),
    (answer(200, marketo("719", "Lock wait timeout exception")), UnavailableError, None),
    (answer(200, marketo("1003", "Too many results match the filter")), TooManyError, None),
    (answer(200, marketo("1003", "Invalid data")), RejectedError, None),
    (answer(200, marketo("1004", "Lead not found")), RejectedError, None),
    (answer(200, marketo("1005", "Lead already exists")), DuplicateError, None),
    (answer(200, marketo("1007", "Multiple leads match the lookup criteria")), DuplicateError, None),
    (answer(200, marketo("1018", "CRM Enabled")), UnsupportedError, None),
    (answer(200, marketo("1029", "Too many jobs in queue")), UnavailableError, 60.0),
    (answer(200, marketo("1035", "Unsupported filter type")), UnsupportedError, None),
    (answer(200, marketo("799", "what nobody has documented")), RejectedError, None),
    *(
        (answer(200, marketo(code)), RejectedError, None)
        for code in ("609", "612", "613", "701", "704", "709", "710", "711", "712", "718")
    ),
    *(
        (answer(200, marketo(code)), RejectedError, None)
        for code in ("1001", "1002", "1006", "1009", "1010", "1011", "1013", "1022")
    ),
    (answer(200, marketo("502")), UnavailableError, None),
    (answer(200, marketo("703")), UnsupportedError, None),
    (answer(200, marketo("1008")), SourceForbiddenError, None),
    (answer(200, marketo("1017")), DuplicateError, None),
    (answer(401, {"error": "unauthorized", "error_description": "No client with requested id"}), TokenExpiredError, None),
    (answer(413, b"Request Entity Too Large"), RejectedError, None),
    (answer(414, b"Request-URI Too Long"), RejectedError, None),
    (answer(502, HTML), UnavailableError, None),
    (answer(200, HTML), ProtocolError, None),
]
HEARD: Heard = [(answer(200, {"requestId": "e42b#14272d07d78", "success": True, "result": []}), [])]
