"""The address systems deliver to: proved, kept, answered; whatever is hostile is refused, counted and nowhere written down."""

import base64
import gzip
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.world import World, world

SECRET = "app-secret-of-the-test"
MAX = 4096


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    apps = [{"id": "portals", "system": "hubspot", "secrets": [SECRET, "the-one-before"]}]
    with world(people=30, systems=("hubspot",), apps=apps, max_webhook=MAX) as found:
        yield found


def event(portal: int, **said: Any) -> dict[str, Any]:
    return {
        "eventId": 1, "subscriptionId": 2, "portalId": portal, "appId": 3, "occurredAt": 1770110127000, "attemptNumber": 0, "objectId": 512,
        "subscriptionType": "contact.propertyChange", "propertyName": "email", "propertyValue": "new@secret.example", "changeSource": "CRM",
        **said,
    }  # fmt: skip


def signed(url: str, body: bytes, *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    stamp = str(int((time.time() if at is None else at) * 1000))
    digest = hmac.new(secret.encode(), f"POST{url}".encode() + body + stamp.encode(), hashlib.sha256).digest()
    return {
        "content-type": "application/json", "x-hubspot-request-timestamp": stamp,
        "x-hubspot-signature-v3": base64.b64encode(digest).decode(),
    }  # fmt: skip


def send(world: World, body: bytes, *, app: str = "portals", headers: dict[str, str] | None = None, **how: Any) -> httpx.Response:
    url = f"{world.http.base_url}/webhooks/{app}"
    return world.http.post(f"/webhooks/{app}", content=body, headers=headers if headers is not None else signed(url, body, **how))


def portal(world: World) -> int:
    """Return the account of the one source, once it is known."""
    [source] = world.runtime.registry.of("default")
    if source.account is None:
        world.run(lambda: world.runtime.hooks.look_after(source))
    assert source.account is not None
    return int(source.account)


def rows(world: World) -> int:
    return sum(world.run(lambda: world.runtime.inbox.counted("default")).values()) + sum(
        world.run(lambda: world.runtime.inbox.waiting("default")).values()
    )


def figure(world: World, outcome: str) -> float:
    return world.runtime.metrics.webhooks.labels(outcome)._value.get()


def test_a_proved_delivery_is_kept_before_it_is_answered_and_twice_is_once(made: World) -> None:
    body = json.dumps([event(portal(made), objectId=900001)]).encode()

    assert send(made, body).status_code == 200
    assert send(made, body).status_code == 200

    counted = made.run(lambda: made.runtime.inbox.counted("default"))
    assert counted["DUPLICATE"] == 1


def test_the_secret_before_a_rotation_still_proves(made: World) -> None:
    body = json.dumps([event(portal(made), objectId=900002, eventId=7)]).encode()

    assert send(made, body, secret="the-one-before").status_code == 200


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("forged", 401), ("unsigned", 401), ("replayed", 401), ("cut", 401), ("other_account", 404), ("other_app", 404), ("too_large", 413),
        ("bomb", 413), ("cut_gzip", 400), ("unknown_encoding", 400), ("wrong_charset", 401),
    ],
)  # fmt: skip
def test_what_is_hostile_is_refused_and_nothing_of_it_is_kept_or_written_down(
    made: World, caplog: pytest.LogCaptureFixture, what: str, status: int
) -> None:
    url = f"{made.http.base_url}/webhooks/portals"
    body = json.dumps([event(portal(made), objectId=900003)]).encode()
    before = rows(made)
    caplog.set_level("DEBUG")
    match what:
        case "forged":
            answer = send(made, body, secret="somebody-else")
        case "unsigned":
            answer = send(made, body, headers={})
        case "replayed":
            answer = send(made, body, at=time.time() - 301)
        case "cut":
            answer = send(made, body[:-3], headers=signed(url, body))
        case "other_account":
            answer = send(made, json.dumps([event(1)]).encode())
        case "other_app":
            answer = send(made, body, app="nobody")
        case "too_large":
            answer = send(made, b"[" + b" " * MAX + b"]")
        case "bomb":
            answer = send(made, gzip.compress(b"[" * 50_000_000), headers={"content-encoding": "gzip"})
        case "cut_gzip":
            answer = send(made, gzip.compress(body)[:20], headers={"content-encoding": "gzip"})
        case "unknown_encoding":
            answer = send(made, zlib.compress(body), headers={"content-encoding": "br"})
        case _:
            answer = send(made, body.decode().encode("utf-16"), headers=signed(url, body))

    assert answer.status_code == status, answer.text
    assert rows(made) == before
    assert "secret.example" not in caplog.text
    assert "secret.example" not in answer.text


def test_refusals_are_counted(made: World) -> None:
    before = figure(made, "signature"), figure(made, "unknown_account"), figure(made, "unknown_app")

    send(made, b"[]", secret="wrong")
    send(made, json.dumps([event(2)]).encode())
    send(made, b"[]", app="nobody")

    assert (figure(made, "signature"), figure(made, "unknown_account"), figure(made, "unknown_app")) == tuple(
        each + 1 for each in before
    )


def test_what_is_proved_and_cannot_be_understood_is_parked_and_not_asked_for_again(made: World) -> None:
    assert send(made, b'{"this is": "no list of events"').status_code == 200

    [letter] = [each for each in made.run(lambda: made.runtime.letters.all("default")) if each.operation == "webhook"]
    assert letter.sealed is not None
    assert b"no list" not in letter.sealed


def test_a_store_that_cannot_write_makes_the_system_send_again(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Any) -> int:
        raise ConnectionError

    body = json.dumps([event(portal(made), objectId=900004)]).encode()
    monkeypatch.setattr(made.runtime.inbox, "accept", broken)
    assert send(made, body).status_code == 503
    monkeypatch.undo()

    assert send(made, body).status_code == 200
