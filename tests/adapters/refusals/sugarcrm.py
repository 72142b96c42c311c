"""How SugarCRM refuses, and what its answers say of budgets: nothing."""

from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from tests.adapters.refusals.answers import HTML, Heard, Refusals, answer


def sugar(error: str, message: str = "no") -> dict[str, str]:
    return {"error": error, "error_message": message}


REFUSALS: Refusals = [
    (answer(401, sugar("need_login", "You must specify a valid username and password.")), TokenExpiredError, None),
    (answer(401, sugar("invalid_grant", "The access token provided is invalid.")), TokenExpiredError, None),
    (answer(403, sugar("not_authorized")), SourceForbiddenError, None),
    (answer(404, sugar("not_found", "Could not find record: x in module: Contacts")), RejectedError, None),
    (answer(404, sugar("no_method")), RejectedError, None),
    (answer(409, {**sugar("edit_conflict"), "record": {"id": "x"}}), StaleVersionError, None),
    (answer(400, sugar("invalid_parameter")), RejectedError, None),
    (answer(409, sugar("conflict")), StaleVersionError, None),
    (answer(422, sugar("request_method_failure")), RejectedError, None),
    (answer(424, sugar("missing_dependency")), RejectedError, None),
    (answer(500, sugar("internal_server_error")), UnavailableError, None),
    (answer(412, sugar("metadata_out_of_date")), RejectedError, None),
    (answer(413, sugar("request_too_large")), RejectedError, None),
    (answer(400, sugar("missing_parameter")), RejectedError, None),
    (answer(422, sugar("invalid_parameter", "Invalid field value: email in module: Contacts")), RejectedError, None),
    (answer(422, sugar("invalid_parameter", "Record already exists: x in module: Contacts")), DuplicateError, None),
    (answer(433, sugar("client_outdated")), UnsupportedError, None),
    (answer(301, sugar("incorrect_version")), UnsupportedError, None),
    (answer(429, b"slow down"), ThrottledError, None),
    (answer(500, sugar("fatal_error")), UnavailableError, None),
    (answer(502, sugar("connection error")), UnavailableError, None),
    (answer(503, sugar("maintenance")), UnavailableError, None),
    (answer(404, HTML), ProtocolError, None),
    (answer(302, b""), ProtocolError, None),
]
HEARD: Heard = [(answer(200, {}), [])]
