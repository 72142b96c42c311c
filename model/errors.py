"""Everything that can go wrong, grouped by what the catcher does.

C360Error                       .code is stable and one of the graph's ErrorCode
├── ConfigurationError          stop, say which key, let the operator fix it
├── RequestError                tell the caller
│   ├── InvalidRequestError     VALIDATION
│   │   └── ExpiredEventError   CURSOR_EXPIRED: events since then are not kept any more
│   ├── NotFoundError           NOT_FOUND
│   ├── ConflictError           CONFLICT
│   ├── CallerForbiddenError    FORBIDDEN
│   ├── DestinationError        FORBIDDEN: we were told to send where we may not
│   ├── CallerUnknownError      UNAUTHENTICATED
│   └── CostExceededError       COST_EXCEEDED
├── SignatureError              UNAUTHENTICATED: a webhook that nobody can have sent who may
├── SlowSubscriberError         SLOW_SUBSCRIBER: cut off, may resume
├── MappingError                isolate the record, name the field
└── SourceError                 one system failed: data in `sources[]`, not a lost answer
    ├── RetriableError          may be sent again when safe; `retry_after` in seconds
    │   ├── ThrottledError      RATE_LIMITED: wait, then go on
    │   ├── UnavailableError    UPSTREAM: 5xx, maintenance
    │   ├── UpstreamTimeoutError TIMEOUT
    │   └── NetworkError        NETWORK: refused, reset, cut off
    ├── ExhaustedError          QUOTA_EXHAUSTED: park until `retry_after`; retrying is useless
    ├── CircuitOpenError        UPSTREAM: not asked, it failed too often just now
    ├── TokenExpiredError       UNAUTHENTICATED: refresh once
    ├── GrantLostError          UNAUTHENTICATED: a person must reconnect the source
    ├── SourceForbiddenError    FORBIDDEN
    ├── RejectedError           VALIDATION: the system refused what we asked; NOT_FOUND when it has no such thing (404)
    │   ├── DuplicateError      DUPLICATE: it has another record with this key
    │   └── StaleVersionError   STALE_VERSION: the record changed since the version that was named
    ├── CursorExpiredError      UPSTREAM: it has forgotten where its change feed was left
    ├── UnsupportedError        UNSUPPORTED: the system has no such thing
    └── ProtocolError           UPSTREAM: it answered off its documents (HTML, broken JSON)
"""

from typing import ClassVar, Literal, get_args

ErrorCode = Literal[
    "VALIDATION", "NOT_FOUND", "CONFLICT", "DUPLICATE", "STALE_VERSION", "UNAUTHENTICATED", "FORBIDDEN",
    "RATE_LIMITED", "QUOTA_EXHAUSTED", "TIMEOUT", "NETWORK", "UPSTREAM", "UNSUPPORTED", "MAPPING",
    "COST_EXCEEDED", "INTERNAL", "CURSOR_EXPIRED", "SLOW_SUBSCRIBER",
]  # fmt: skip
ERROR_CODES: tuple[ErrorCode, ...] = get_args(ErrorCode)


class C360Error(Exception):
    """The root; `str(error)` is safe to show to a caller: no secret, no personal data."""

    code: ClassVar[ErrorCode] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(C360Error):
    """A setting is missing or wrong. The message names the key."""


class RequestError(C360Error):
    code: ClassVar[ErrorCode] = "VALIDATION"


class InvalidRequestError(RequestError):
    code: ClassVar[ErrorCode] = "VALIDATION"


class NotFoundError(RequestError):
    code: ClassVar[ErrorCode] = "NOT_FOUND"


class ConflictError(RequestError):
    code: ClassVar[ErrorCode] = "CONFLICT"


class CallerForbiddenError(RequestError):
    code: ClassVar[ErrorCode] = "FORBIDDEN"


class DestinationError(RequestError):
    """An address that a caller wants us to send to is none that we may be sent to."""

    code: ClassVar[ErrorCode] = "FORBIDDEN"


class CallerUnknownError(RequestError):
    code: ClassVar[ErrorCode] = "UNAUTHENTICATED"


class CostExceededError(RequestError):
    code: ClassVar[ErrorCode] = "COST_EXCEEDED"


class MappingError(C360Error):
    """One row does not fit its mapping.

    Attributes:
        field: the target field that failed, such as "amount".
    """

    code: ClassVar[ErrorCode] = "MAPPING"

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class SourceError(C360Error):
    """One source could not answer.

    Attributes:
        status: the HTTP status it answered with, None when it did not answer.
        upstream_code: the system's own code, such as "REQUEST_LIMIT_EXCEEDED".
        retry_after: seconds until asking again makes sense, None when unknown.
    """

    code: ClassVar[ErrorCode] = "UPSTREAM"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        upstream_code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.upstream_code = upstream_code
        self.retry_after = retry_after


class RetriableError(SourceError):
    pass


class ThrottledError(RetriableError):
    """
    Attributes:
        shared: the limit is one that other calls meet as well, so they wait too; else it is that of one record.
    """

    code: ClassVar[ErrorCode] = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        upstream_code: str | None = None,
        retry_after: float | None = None,
        shared: bool = True,
    ) -> None:
        super().__init__(message, status=status, upstream_code=upstream_code, retry_after=retry_after)
        self.shared = shared


class UnavailableError(RetriableError):
    code: ClassVar[ErrorCode] = "UPSTREAM"


class UpstreamTimeoutError(RetriableError):
    code: ClassVar[ErrorCode] = "TIMEOUT"


class NetworkError(RetriableError):
    """
    Attributes:
        unsent: no connection came about, so nothing was carried out.
    """

    code: ClassVar[ErrorCode] = "NETWORK"

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class ExhaustedError(SourceError):
    code: ClassVar[ErrorCode] = "QUOTA_EXHAUSTED"


class CircuitOpenError(SourceError):
    code: ClassVar[ErrorCode] = "UPSTREAM"


class TokenExpiredError(SourceError):
    code: ClassVar[ErrorCode] = "UNAUTHENTICATED"


class GrantLostError(SourceError):
    code: ClassVar[ErrorCode] = "UNAUTHENTICATED"


class SourceForbiddenError(SourceError):
    code: ClassVar[ErrorCode] = "FORBIDDEN"


class RejectedError(SourceError):
    code: ClassVar[ErrorCode] = "VALIDATION"

    def __init__(
        self, message: str, *, status: int | None = None, upstream_code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, upstream_code=upstream_code, retry_after=retry_after)
        if status == 404:
            self.code = "NOT_FOUND"  # type: ignore[misc]


class DuplicateError(RejectedError):
    code: ClassVar[ErrorCode] = "DUPLICATE"


class StaleVersionError(RejectedError):
    code: ClassVar[ErrorCode] = "STALE_VERSION"


class UnsupportedError(SourceError):
    code: ClassVar[ErrorCode] = "UNSUPPORTED"


class ProtocolError(SourceError):
    code: ClassVar[ErrorCode] = "UPSTREAM"


class CursorExpiredError(SourceError):
    """The system has forgotten where its change feed was left: begin anew, and look for what is missing."""


class SignatureError(C360Error):
    """A webhook is not proved to come from who it says."""

    code: ClassVar[ErrorCode] = "UNAUTHENTICATED"


class ExpiredEventError(InvalidRequestError):
    """Events since then are not kept any more: read anew, and follow from now on."""

    code: ClassVar[ErrorCode] = "CURSOR_EXPIRED"


class SlowSubscriberError(C360Error):
    """A subscriber did not take its events in time and is cut off.

    Attributes:
        resume_from: the number of the last event it was given.
    """

    code: ClassVar[ErrorCode] = "SLOW_SUBSCRIBER"

    def __init__(self, message: str, *, resume_from: int) -> None:
        super().__init__(message)
        self.resume_from = resume_from
