"""The clients people use: npm's graphql-ws, graphql-sse, and Apollo Client over multipart and over WebSocket."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.app import WORKSPACE, Runtime
from tests.happenings import cursor_at, event, happen, until_followed
from tests.tools import running_node
from tests.world import World, world

EVENTS = "subscription($since: EventCursor) { events(since: $since) { id cursor ref { recordId } } }"
CLIENTS = ("ws", "sse", "apollo", "apollo-ws")


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=2) as running:
        yield running


def client(running: World, name: str, **options: Any) -> Any:
    url = f"{running.http.base_url}".rstrip("/") + "/graphql"
    return running_node("subscribers.mjs", name, url, json.dumps({"query": EVENTS, **options}))


def lines(started: Any) -> list[Any]:
    out, problems = started.communicate(timeout=60)
    assert problems == ""
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_hears_events_as_they_happen(served: World, name: str) -> None:
    with client(served, name, total=3) as started:
        until_followed(served)
        made = happen(served, event("1"))
        first = json.loads(started.stdout.readline())
        made += happen(served, event("2"), event("3"))

        heard = [first, *lines(started)]

    assert [each["events"]["id"] for each in heard[:-1]] == [each.id for each in made]
    assert heard[-1] == "end"
    until_followed(served, 0)


@pytest.mark.parametrize("name", CLIENTS)
def test_50_reconnections_with_since_see_every_event_once(served: World, name: str) -> None:
    start = served.app.state.runtime.events.last
    happening = threading.Thread(target=_go_on_happening, args=(served, 500))
    with client(served, name, total=500, each=10, variables={"since": cursor_at(served, start)}) as started:
        happening.start()

        *heard, end = lines(started)

    happening.join()
    assert end == "end"
    assert [each["events"]["id"] for each in heard] == [f"event:{start + number}" for number in range(1, 501)]


def _go_on_happening(running: World, events: int) -> None:
    for number in range(0, events, 4):
        happen(running, *(event(str(number + each)) for each in range(4)))
        time.sleep(0.01)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_is_told_that_its_cursor_has_expired(served: World, name: str) -> None:
    with world(people=2) as running:
        happen(running, *(event(str(number)) for number in range(5)))
        running.within(_forget)

        with client(running, name, total=1, variables={"since": cursor_at(running, 1)}) as started:
            [told] = lines(started)

    if name in {"sse", "apollo"}:  # a refusal of the request, which these clients tell by its status
        assert told.get("status", 400) == 400
        assert "400" in json.dumps(told)
    else:
        assert told["errors"][0]["extensions"]["code"] == "CURSOR_EXPIRED"


async def _forget(runtime: Runtime) -> None:
    await runtime.events._rows.clear(WORKSPACE, before=runtime.clock.now(), most=1)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_is_ended_when_the_log_stops(name: str) -> None:
    with world(people=2) as running, client(running, name, total=5) as started:
        until_followed(running)
        happen(running, event("1"))
        started.stdout.readline()
        running.within(lambda runtime: runtime.events.stop())

        assert lines(started) == ["end"]


@pytest.mark.parametrize(
    ("name", "how"), [("ws", "payload"), ("ws", "headers"), ("apollo-ws", "payload"), ("sse", "headers"), ("apollo", "headers")]
)
def test_a_key_is_given_as_each_client_can(name: str, how: str) -> None:
    with world(people=2, require_key=True) as running:
        _, key = running.within(lambda runtime: runtime.callers.create(WORKSPACE, "test", ["read"], now=runtime.clock.now()))
        with client(running, name, total=1, **{how: {"authorization": f"Bearer {key}"}}) as started:
            until_followed(running)
            happen(running, event("1"))
            assert lines(started)[-1] == "end"

        with client(running, name, total=1, **{how: {"authorization": "Bearer c360_wrong"}}) as started:
            [told] = lines(started)
            assert ("4403" if "ws" in name else "401") in json.dumps(told)


@pytest.mark.parametrize("name", ["ws", "apollo-ws"])
def test_a_bad_document_is_told_to_a_socket_client_as_errors(served: World, name: str) -> None:
    with client(served, name, total=1, query="subscription { events { nothing } }") as started:
        [told] = lines(started)

    assert told["errors"][0]["extensions"]["code"] == "VALIDATION"
