"""How Mailchimp refuses; its answers say nothing of budgets."""

from typing import Any

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


def problem(status: int, title: str) -> Any:
    return {
        "type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": title, "status": status,
        "detail": "ada@example.com is refused", "instance": "995c5cb0-3280-4a6e-808b-3b096d0bb219",
    }  # fmt: skip


REFUSALS: Refusals = [
    (answer(429, problem(429, "Too Many Requests")), ThrottledError, None),
    (answer(403), ThrottledError, None),  # exceptionally high volumes: no body
    (answer(403, HTML), ThrottledError, None),
    (answer(403, problem(403, "Forbidden")), SourceForbiddenError, None),
    (answer(403, problem(403, "Wrong Datacenter")), SourceForbiddenError, None),
    (answer(403, problem(403, "User Disabled")), SourceForbiddenError, None),
    (answer(401, problem(401, "API Key Invalid")), TokenExpiredError, None),
    (answer(400, problem(400, "Member Exists")), DuplicateError, None),
    (answer(400, problem(400, "Member In Compliance State")), RejectedError, None),
    (answer(400, problem(400, "Forgotten Email Not Subscribed")), RejectedError, None),
    (answer(400, problem(400, "Invalid Resource")), RejectedError, None),
    (answer(400, problem(400, "JSON Parse Error")), RejectedError, None),
    (answer(404, problem(404, "Resource Not Found")), RejectedError, None),
    (answer(414, problem(414, "Request-URI Too Long")), RejectedError, None),
    (answer(422, problem(422, "Method Not Allowed")), RejectedError, None),
    (answer(426, problem(426, "TLS Required")), RejectedError, None),
    (answer(504, HTML), UnavailableError, None),
    (answer(405, problem(405, "Method Not Allowed")), RejectedError, None),
    (answer(400, HTML), ProtocolError, None),
    (answer(500, problem(500, "Internal Server Error")), UnavailableError, None),
    (answer(503, HTML), UnavailableError, None),
]
HEARD: Heard = [(answer(200, {}), [])]
