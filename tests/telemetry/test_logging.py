"""Logs are one JSON object a line, and hold no secret and no address of a person."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from telemetry.logging import JsonLines, request_id


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the logger "x" writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("x")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield written
    logger.removeHandler(handler)


def test_a_line_is_an_event_with_its_fields_and_the_request(lines: io.StringIO) -> None:
    token = request_id.set("abcdef12")
    logging.getLogger("x").info("batch committed", extra={"rows": 3, "source": "hubspot"})
    request_id.reset(token)

    said = json.loads(lines.getvalue())

    assert said["event"] == "batch committed"
    assert (said["rows"], said["source"], said["request_id"], said["level"]) == (3, "hubspot", "abcdef12", "info")


@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer eyJhbGciOi.abc",
        "c360_0123456789ab_topsecrettopsecret",
        "access_token=topsecret",
        '{"refresh_token": "topsecret"}',
        "shpat_topsecret",
        "pat-na1-topsecret",
        "customer ada.king@northwind.example wrote",
    ],
)
def test_secrets_and_addresses_are_blotted_out_everywhere(lines: io.StringIO, secret: str) -> None:
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("x").exception("failed: %s", secret, extra={"detail": secret})

    written = lines.getvalue()

    assert "topsecret" not in written
    assert "eyJhbGciOi" not in written
    assert "ada.king" not in written
    assert len(written.splitlines()) == 1
