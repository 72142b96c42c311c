"""Whatever an answer holds, an adapter says what it means: no body and no header makes it fail in a way of its own.

A gateway in front of a system, a version nobody has seen and half a body are all answered like this one day.
"""

from collections.abc import Iterator

import orjson
import pytest

from adapters.base import Adapter, Config, Learned, Response
from adapters.registry import ADAPTERS
from model.errors import SourceError
from tests.adapters.refusals.answers import HTML

STATUSES = [
    *(200, 201, 202, 204, 207, 299, 300, 301, 302, 304, 400, 401, 402, 403, 404, 405, 406, 409, 410, 412, 413, 414, 415, 418, 422, 423, 424),
    *(426, 428, 429, 430, 431, 433, 451, 477, 499, 500, 501, 502, 503, 504, 507, 520, 524, 599),
]  # fmt: skip
# Where one vendor or another says what is wrong, and what may stand there in its place.
PLACES = [
    *(
        "error",
        "errors",
        "data",
        "code",
        "category",
        "extensions",
        "details",
        "message",
        "title",
        "detail",
        "status",
        "policyName",
    ),
    *("error_description", "errorCode", "success", "field_code", "result", "reasons", "parameters"),
]
JUNK: list[object] = [
    None, 1, True, "x", [], {}, [None], [1], ["x"], [[]], [{}], {"x": None}, {"code": 1}, {"code": ["x"]}, {"title": [1]}, {"cost": 1},
    {"cost": {"throttleStatus": 1}}, {"cost": {"throttleStatus": {"maximumAvailable": "x"}}}, [{"extensions": {"code": [1]}}],
    [{"code": {"x": 1}, "message": [1], "extensions": "x", "path": 1, "errorCode": [1], "parameters": [1], "error": {}}],
]  # fmt: skip
BARE = [
    b"",
    HTML,
    b"[]",
    b"{}",
    b"null",
    b"0",
    b"1.5",
    b'""',
    b'"x"',
    b"true",
    b"[null]",
    b"[[]]",
    b"[1]",
    b"[{}]",
    b'{"error":',
    b"\xff\xfe",
]
BUSY = {"errors": [{"extensions": {"code": "THROTTLED"}}]}
BODIES = [
    *BARE,
    *(
        orjson.dumps(body)
        for place in PLACES
        for junk in JUNK
        for body in ({place: junk}, [{place: junk}], {"success": False, place: junk})
    ),
    *(orjson.dumps({**BUSY, "extensions": junk}) for junk in JUNK),
]
HEADERS = [
    *(
        "retry-after",
        "date",
        "x-rate-limit",
        "x-rate-limit-remaining",
        "x-rate-limit-requests-quota",
        "x-rate-limit-requests-left",
    ),
    *("x-rate-limit-time-reset-ms", "x-ratelimit-total", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    *(
        "x-daily-ratelimit-token-limit",
        "x-daily-ratelimit-token-remaining",
        "x-hubspot-ratelimit-max",
        "x-hubspot-ratelimit-remaining",
    ),
    *("x-hubspot-ratelimit-interval-milliseconds", "x-hubspot-ratelimit-daily", "x-hubspot-ratelimit-daily-remaining"),
    *("x-ms-ratelimit-burst-remaining-xrm-requests", "x-ms-ratelimit-time-remaining-xrm-requests", "x-api-credits-remaining"),
    "sforce-limit-info",
]
COUNTS = ["", "x", "-1", "1.", "0", "1.5", "²", "1,000", "inf", "nan", "1e9", "Wed, 21 Oct 2026 07:28:00 GMT", "api-usage=1/0"]


def answers() -> Iterator[Response]:
    yield from (Response(status=status, headers={}, body=body) for status in STATUSES for body in BODIES)
    yield from (
        Response(status=status, headers=dict.fromkeys(HEADERS, count), body=body)
        for status in (200, 403, 429, 503)
        for count in COUNTS
        for body in (b"{}", orjson.dumps({"success": False, "errors": [{"code": "607"}]}), orjson.dumps(BUSY))
    )


def adapter(system: str) -> Adapter:
    return ADAPTERS[system](Config(source=system, base_url="https://vendor.example"))


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_any_answer_is_told_to_be_a_fault_or_none_and_only_below_300_none(system: str) -> None:
    ours = adapter(system)

    for answer in answers():
        told = ours.classify(answer)

        assert isinstance(told, SourceError) or (told is None and answer.status < 300), answer


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_any_answer_teaches_numbers_or_nothing(system: str) -> None:
    ours = adapter(system)

    for answer in answers():
        assert all(isinstance(each, Learned) for each in ours.learn(answer)), answer


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "41"}, 41.0),
        ({"retry-after": "2.0"}, 2.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_told_in_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert Response(status=429, headers=headers, body=b"").retry_after == seconds
