"""How Magento refuses. It says nothing of budgets: it has none."""

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


def magento(message: str, **parameters: Any) -> dict[str, Any]:
    return {"message": message, **({"parameters": parameters} if parameters else {})}


REFUSALS: Refusals = [
    (answer(401, magento("The consumer isn't authorized to access %resources.", resources="Magento_Customer::customer")), TokenExpiredError, None),
    (answer(401, magento("The signature is invalid. Verify and try again.")), TokenExpiredError, None),
    (answer(403, HTML), SourceForbiddenError, None),
    (answer(404, magento("No such entity with %fieldName = %fieldValue", fieldName="customerId", fieldValue=999)), RejectedError, None),
    (answer(404, magento("Request does not match any route.")), RejectedError, None),
    (answer(404, HTML), ProtocolError, None),
    (answer(400, magento('"%fieldName" is required. Enter and try again.', fieldName="searchCriteria")), RejectedError, None),
    (answer(400, {"message": "Maximum SearchCriteria pageSize is %1", "parameters": [300]}), RejectedError, None),
    (answer(400, magento("A customer with the same email address already exists in an associated website.")), DuplicateError, None),
    (answer(400, HTML), ProtocolError, None),
    (answer(406, magento("Server cannot match any of the given Accept HTTP header media type(s).")), RejectedError, None),
    (answer(414, HTML), RejectedError, None),
    (answer(405, magento("Method Not Allowed")), RejectedError, None),
    (answer(429, HTML), ThrottledError, None),
    (answer(429, HTML, retry_after="7"), ThrottledError, 7.0),
    (answer(500, magento("Internal Error. Details are available in Magento log file. Report ID: webapi-66a1f0c3b2d4e")), UnavailableError, None),
    (answer(503, HTML, retry_after="120"), UnavailableError, 120.0),
]  # fmt: skip
HEARD: Heard = [(answer(200, {}), [])]
