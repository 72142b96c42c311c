"""How Zendesk refuses, and what its answers say of budgets."""

from adapters.base import Learned
from model.errors import ProtocolError, RejectedError, SourceForbiddenError, ThrottledError, TokenExpiredError, UnavailableError
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer

REFUSALS: Refusals = [
    (answer(429, b"Number of allowed API requests per minute exceeded", retry_after="93"), ThrottledError, 93.0),
    (answer(401, {"error": "Couldn't authenticate you"}), TokenExpiredError, None),
    (answer(401, {"error": "invalid_token", "error_description": "expired"}), TokenExpiredError, None),
    (answer(403, {"error": "Forbidden", "description": "no"}), SourceForbiddenError, None),
    (answer(404, {"error": "RecordNotFound", "description": "Not found"}), RejectedError, None),
    (answer(422, {"error": {"title": "Insufficient Resource Error", "message": "…"}}), RejectedError, None),
    (answer(400, {"error": {"title": "Invalid attribute", "message": "…"}}), RejectedError, None),
    (answer(503, HTML, retry_after="60"), UnavailableError, 60.0),
    (answer(404, HTML), ProtocolError, None),
]
HEARD: Heard = [
    (answer(200, {}, x_rate_limit="700", x_rate_limit_remaining="699"), [Learned(window="minute", limit=700.0, remaining=699.0)]),
    (answer(200, {}), []),
]  # fmt: skip
