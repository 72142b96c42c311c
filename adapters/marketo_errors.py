"""What Marketo's codes mean: for a whole call (with HTTP 200), and for one record of it. From Adobe's page of error codes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from adapters.wire import Response, code_in, undocumented
from model.errors import (
    DuplicateError,
    ExhaustedError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
    UpstreamTimeoutError,
)

_DAY, _SIX_HOURS, _HOUR = 86_400.0, 21_600.0, 3600.0
_ROLLS = 5.0  # of 20: the window rolls, and a call that is refused again costs little
_MISSING = 404  # makes a RejectedError a NOT_FOUND, whatever the HTTP status was
# code → class, our words, seconds to wait
_CODES: Mapping[str, tuple[type[SourceError], str, float | None]] = {
    "500": (UnavailableError, "not available", None), "502": (UnavailableError, "not available", None),
    "601": (TokenExpiredError, "the token is not valid", None), "602": (TokenExpiredError, "the token has expired", None),
    "603": (SourceForbiddenError, "not allowed, or not from this address", None), "604": (UpstreamTimeoutError, "ran for too long", None),
    "605": (RejectedError, "refused the HTTP method", None), "606": (ThrottledError, "too many calls in 20 seconds", _ROLLS),
    "607": (ExhaustedError, "the day's quota is used up", _HOUR), "608": (UnavailableError, "not available", None),
    "609": (RejectedError, "found no JSON in our request", None), "610": (RejectedError, "does not know this path", None),
    "611": (UnavailableError, "failed inside", None), "612": (RejectedError, "refused the content type", None),
    "613": (RejectedError, "refused the body", None), "614": (UnavailableError, "the instance cannot be reached", 60.0),
    "615": (ThrottledError, "too many calls at once", 2.0), "616": (UnsupportedError, "the subscription does not have this", None),
    "701": (RejectedError, "misses a value", None), "703": (UnsupportedError, "the subscription does not have this", None),
    "704": (RejectedError, "refused a date", None), "709": (RejectedError, "a rule of the instance forbids it", None),
    "710": (RejectedError, "misses a folder", None), "711": (RejectedError, "refused a folder", None),
    "712": (RejectedError, "cannot merge person accounts", None), "713": (UnavailableError, "not available for a moment", None),
    "714": (RejectedError, "misses a record type", None), "718": (RejectedError, "misses a sales person", None),
    "719": (UnavailableError, "waited for a lock in vain", None),
    "1001": (RejectedError, "a value has the wrong type", None), "1002": (RejectedError, "misses a value", None),
    "1003": (RejectedError, "refused the data", None), "1005": (DuplicateError, "another lead has this key", None),
    "1006": (RejectedError, "does not know a field", None), "1007": (DuplicateError, "several leads have this key", None),
    "1008": (SourceForbiddenError, "no access to the lead's partition", None), "1009": (RejectedError, "wants a partition", None),
    "1010": (RejectedError, "the lead is in another partition", None), "1011": (RejectedError, "does not support a field here", None),
    "1014": (RejectedError, "could not create it", None), "1016": (UnavailableError, "too many imports", 60.0),
    "1017": (DuplicateError, "there is one already", None), "1018": (UnsupportedError, "its CRM integration manages these", None),
    "1019": (UnavailableError, "an import is under way", 60.0), "1021": (RejectedError, "companies are not written through leads", None),
    "1022": (RejectedError, "is in use", None), "1026": (UnsupportedError, "the subscription does not have this", None),
    "1029": (UnavailableError, "the queue of exports is full", 60.0), "1035": (UnsupportedError, "the subscription does not have this filter", None),
    "1036": (DuplicateError, "one key came twice", None),
}  # fmt: skip
_NOT_FOUND = frozenset({"702", "1004", "1013"})


class TooManyError(RejectedError):
    """More than 1,000 leads match: fewer values must be asked for at once."""


def fault_of(response: Response) -> SourceError | None:
    """Tell what went wrong from the body's code; only 401 (of the token endpoint), 413, 414 and 5xx are HTTP's own."""
    body = response.json_or_none()
    said = body if isinstance(body, dict) else None
    if said is not None and said.get("success") is False:
        errors = said.get("errors")
        reason = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
        fault = record_fault(reason, status=response.status)
        if isinstance(fault, ExhaustedError):
            fault.retry_after = _until_midnight(response.headers.get("date", ""))
        return fault
    if response.status < 300:
        known = said is not None and ("success" in said or "access_token" in said)
        return None if known else ProtocolError(f"answered {response.status} without its envelope", status=response.status)
    facts: dict[str, Any] = {"status": response.status}
    if response.status == 401:
        return TokenExpiredError(
            "the credentials are not accepted", upstream_code=code_in(said.get("error")) or None if said else None, **facts
        )
    if response.status == 429:
        return ThrottledError("too many calls", **facts)
    if response.status >= 500:
        return UnavailableError("not available", **facts)
    if said is None:
        return undocumented(response)
    return RejectedError(f"refused with {response.status}", **facts)


def record_fault(reason: Mapping[str, Any], *, status: int = 200) -> SourceError:
    """Return the error of an entry {"code": "1005", "message": …} of `errors` or `reasons`."""
    code = code_in(reason.get("code"))
    if code in _NOT_FOUND:
        return RejectedError("not found", status=_MISSING, upstream_code=code)
    if code == "1003" and "too many results" in str(reason.get("message")).lower():
        return TooManyError("more than 1,000 records match", status=status, upstream_code=code)
    kind, words, wait = _CODES.get(code, (RejectedError, "refused it", None))
    return kind(words, status=status, upstream_code=code or None, retry_after=wait)


def _until_midnight(date: str) -> float:
    """Return the seconds until the quota is full again, by the answer's own clock.

    The page says 12:00 AM CST. In summer that may mean an hour earlier: then we come an hour late.
    """
    try:
        now = parsedate_to_datetime(date)
    except ValueError:
        return _HOUR
    since = (now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() - _SIX_HOURS
    return _DAY - since % _DAY
