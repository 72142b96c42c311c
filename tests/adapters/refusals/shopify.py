"""How Shopify refuses, and what its answers say of budgets."""

from typing import Any

from adapters.base import Learned
from model.errors import ProtocolError, RejectedError, SourceForbiddenError, ThrottledError, TokenExpiredError, UnavailableError
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def shopify(code: str, **cost: Any) -> dict[str, Any]:
    return {"errors": [{"message": "no", "extensions": {"code": code}}], "extensions": {"cost": cost}}


REFUSALS: Refusals = [
    (
        answer(
            200, shopify("THROTTLED", requestedQueryCost=752, throttleStatus={"currentlyAvailable": 652, "restoreRate": 50.0})
        ),
        ThrottledError,
        2.0,
    ),
    (answer(200, shopify("MAX_COST_EXCEEDED")), RejectedError, None),
    (answer(200, shopify("ACCESS_DENIED")), SourceForbiddenError, None),
    (answer(200, shopify("SHOP_INACTIVE")), SourceForbiddenError, None),
    (answer(200, shopify("INTERNAL_SERVER_ERROR")), UnavailableError, None),
    (answer(200, {"errors": [{"message": "Field 'nonsense' doesn't exist"}]}), RejectedError, None),
    (answer(401, {"errors": "[API] Invalid API key or access token"}), TokenExpiredError, None),
    (answer(403, {"errors": "[API] This action requires merchant approval"}), SourceForbiddenError, None),
    (answer(404, {"errors": "Not Found"}), RejectedError, None),
    (answer(430, HTML), SourceForbiddenError, None),
    (answer(402, {"errors": "Unavailable Shop"}), SourceForbiddenError, None),
    (answer(423, {"errors": "Locked"}), SourceForbiddenError, None),
    (answer(429, {"errors": "Exceeded"}, retry_after="2.0"), ThrottledError, 2.0),
    (answer(502, HTML), UnavailableError, None),
    (answer(200, HTML), ProtocolError, None),
]
HEARD: Heard = [
    (answer(200, {"data": {}, "extensions": {"cost": {"throttleStatus": {"maximumAvailable": 1000.0, "currentlyAvailable": 666, "restoreRate": 50.0}}}}), [Learned(window="points", limit=1000.0, remaining=666.0, per_second=50.0)]),
    (answer(200, HTML), []),
]  # fmt: skip
