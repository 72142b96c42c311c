"""How Dataverse and Microsoft Entra refuse, and what answers say of budgets."""

from adapters.base import Learned
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def dataverse(code: str, message: str = "no") -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}


REFUSALS: Refusals = [
    (answer(429, dataverse("0x80072322", "Number of requests exceeded the limit of 6000 over time window of 300 seconds."), retry_after="25"), ThrottledError, 25.0),
    (answer(429, dataverse("0x80072321", "Combined execution time of incoming requests exceeded limit."), retry_after="300"), ThrottledError, 300.0),
    (answer(429, dataverse("0x80072326", "Number of concurrent requests exceeded the limit of 52."), retry_after="2"), ThrottledError, 2.0),
    (answer(429, HTML), ThrottledError, None),
    (answer(401, b"", www_authenticate='Bearer error="invalid_token", error_description="The token is expired"'), TokenExpiredError, None),
    (answer(403, dataverse("0x80040220", "Principal user is missing prvReadContact privilege")), SourceForbiddenError, None),
    (answer(403, dataverse("0x80072560", "The user is not a member of the organization.")), SourceForbiddenError, None),
    (answer(404, dataverse("0x80040217", "contact With Id = 1 Does Not Exist")), RejectedError, None),
    (answer(404, dataverse("0x8006088a", "Resource not found for the segment 'contactz'.")), RejectedError, None),
    (answer(400, dataverse("0x80048d19", "Error identified in Payload provided by the user for Entity :'contacts'")), RejectedError, None),
    (answer(400, dataverse("", "An undeclared property 'foo' which only has property annotations")), RejectedError, None),
    (answer(400, dataverse("0x80040265", "A plug-in refused")), RejectedError, None),
    (answer(412, dataverse("0x80060882", "The version of the existing record doesn't match the RowVersion property provided.")), StaleVersionError, None),
    (answer(412, dataverse("0x80040237", "A record with matching key values already exists.")), DuplicateError, None),
    (answer(412, dataverse("0x80060892", "The entity key requires unique values")), DuplicateError, None),
    (answer(412, dataverse("0x80040333", "A duplicate of the current record already exists.")), DuplicateError, None),
    (answer(400, dataverse("0x80060891", "A record with the specified key values does not exist")), RejectedError, None),
    (answer(405, dataverse("0x8006088a", "Method not allowed")), RejectedError, None),
    (answer(413, HTML), RejectedError, None),
    (answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215", "error_codes": [7000215]}), TokenExpiredError, None),
    (answer(501, dataverse("0x80060888", "Not implemented")), RejectedError, None),
    (answer(503, HTML), UnavailableError, None),
    (answer(500, dataverse("0x80040216", "An unexpected error occurred.")), UnavailableError, None),
    (answer(400, {"error": "invalid_scope", "error_description": "AADSTS70011", "error_codes": [70011]}), RejectedError, None),
    (answer(404, HTML), ProtocolError, None),
    (answer(302, HTML), ProtocolError, None),
]  # fmt: skip
_LEFT = {"x_ms_ratelimit_burst_remaining_xrm_requests": "5989", "x_ms_ratelimit_time_remaining_xrm_requests": "1,199.97"}
HEARD: Heard = [
    (answer(200, {}, **_LEFT), [Learned(window="requests", remaining=5989.0), Learned(window="execution", remaining=1199.97)]),
    (answer(200, {}, x_ms_ratelimit_burst_remaining_xrm_requests="soon"), []),
    (answer(200, {}), []),
]
