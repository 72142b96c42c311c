"""What Zoho's answers say went wrong: the API's envelopes with a code, and the token endpoint's own errors, which come under HTTP 200."""

from typing import Any

from adapters.base import Response, code_in, undocumented
from model.errors import (
    DuplicateError,
    ExhaustedError,
    GrantLostError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
)

_BLOCKED = 600.0  # seconds: ten renewals of a grant in ten minutes, then none for the rest of them
_CROWDED = 2.0  # seconds; no answer says how long to wait, and a call that is in the way has mostly ended by then


def fault(response: Response) -> SourceError | None:
    """Return what an answer says went wrong, None when nothing did."""
    body = response.body.lstrip()
    if response.status == 304:
        return RejectedError("nothing was modified since", status=304)
    if response.status < 300:
        # The token endpoint says its errors under HTTP 200.
        return _token_fault(response) if body.startswith(b'{"error') else None
    said = response.json_or_none()
    said = said if isinstance(said, dict) else {}
    if "error" in said and "code" not in said:
        return _token_fault(response)
    data = said.get("data", said.get("watch"))
    verdicts = (
        [each for each in data if isinstance(each, dict) and isinstance(each.get("code"), str)] if isinstance(data, list) else []
    )
    if response.status == 400 and verdicts and "code" not in said:
        return None  # a verdict for each record or channel: `write` and `watch` read them
    code = code_in(said.get("code") or (verdicts[0]["code"] if verdicts else ""))
    facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
    if response.status == 429 or code == "TOO_MANY_REQUESTS":
        # Credits of the day or calls at once: only the count of what is left tells which.
        if response.headers.get("x-api-credits-remaining") == "0":
            return ExhaustedError("the credits of the day are used up", retry_after=3600.0, **facts)
        return ThrottledError("too many calls at once", retry_after=_CROWDED, **facts)
    if response.status == 412 or code in {"ALREADY_MODIFIED", "RECORD_MODIFIED"}:
        return StaleVersionError("changed since that version", **facts)
    if code == "OAUTH_SCOPE_MISMATCH" or response.status == 403 or code in {"NO_PERMISSION", "AUTHORIZATION_FAILED"}:
        return SourceForbiddenError("the account lacks a scope or a permission", **facts)
    if response.status == 401 or code in {"INVALID_TOKEN", "AUTHENTICATION_FAILURE"}:
        return TokenExpiredError("the token is not accepted", **facts)
    if response.status >= 500:
        return UnavailableError("not available", **facts)
    if code == "DUPLICATE_DATA":
        return DuplicateError("another record has this value", **facts)
    if not code:
        return undocumented(response)
    return RejectedError(f"refused: {code}", **facts)


def _token_fault(response: Response) -> SourceError:
    said = response.json_or_none()
    if not isinstance(said, dict):
        return ProtocolError(f"answered {response.status} with broken JSON", status=response.status)
    if "too many requests" in str(said.get("error_description", "")).lower():
        return ThrottledError("the grant was renewed too often", status=response.status, retry_after=_BLOCKED)
    if response.status >= 500:
        return UnavailableError("not available", status=response.status)
    code = code_in(said.get("error"))
    return GrantLostError("the grant is not accepted", status=response.status, upstream_code=code or None)
