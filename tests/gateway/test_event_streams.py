"""Subscriptions over plain HTTP: server-sent events and Apollo's multipart protocol, byte for byte."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import callers, streaming
from gateway.app import WORKSPACE
from tests.happenings import cursor_at, event, happen, until_followed
from tests.world import World, world

EVENTS = "subscription($since: EventCursor) { events(since: $since) { id cursor } }"
SSE, MULTIPART = "text/event-stream", 'multipart/mixed;boundary="graphql";subscriptionSpec="1.0"'


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=2) as running:
        yield running


def stream(running: World, accept: str = SSE, **options: Any) -> Any:
    return running.http.stream("POST", "/graphql", json={"query": EVENTS}, headers={"accept": accept, **options})


def read(chunks: Iterator[bytes], until: bytes) -> bytes:
    got = b""
    while until not in got:
        got += next(chunks)
    return got


def last(running: World) -> int:
    seq: int = running.app.state.runtime.events.last
    return seq


def test_events_come_as_server_sent_events_with_lf_lines_and_the_cursor_as_id(served: World) -> None:
    with stream(served) as answer:
        [made] = happen(served, event("1"))
        cursor = cursor_at(served, made.seq)

        got = read(answer.iter_raw(), b"event:")

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-request-id"]
    data = json.dumps({"data": {"events": {"id": f"event:{made.seq}", "cursor": cursor}}}, separators=(",", ":"))
    assert got.decode() == f":\n\nid: {cursor}\nevent: next\ndata: {data}\n\n"
    until_followed(served, 0)


def test_the_answer_begins_once_the_subscription_follows(served: World) -> None:
    """So whoever has seen the headers misses nothing that happens after."""
    for _ in range(20):
        with stream(served) as answer:
            [made] = happen(served, event("1"))
            assert f"event:{made.seq}".encode() in read(answer.iter_raw(), b"event:")


def test_a_browser_that_reconnects_goes_on_where_it_was(served: World) -> None:
    start = last(served)
    happen(served, event("1"), event("2"), event("3"))

    with served.http.stream(
        "GET", "/graphql", params={"query": EVENTS}, headers={"accept": SSE, "last-event-id": cursor_at(served, start + 1)}
    ) as answer:
        got = read(answer.iter_raw(), f"event:{start + 3}".encode())

    assert f"event:{start + 2}".encode() in got
    assert f'"event:{start + 1}"'.encode() not in got


def test_the_last_event_id_is_newer_than_the_argument_it_comes_with(served: World) -> None:
    start = last(served)
    happen(served, event("1"), event("2"))
    params = {"query": EVENTS, "variables": json.dumps({"since": cursor_at(served, start)})}

    with served.http.stream(
        "GET", "/graphql", params=params, headers={"accept": SSE, "last-event-id": cursor_at(served, start + 1)}
    ) as answer:
        got = read(answer.iter_raw(), b"event: next")

    assert f'"event:{start + 1}"'.encode() not in got


def test_a_silent_stream_is_kept_open_by_comments(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streaming.SSE_HEARTBEAT == 12
    monkeypatch.setattr(streaming.EventStream, "idle", (0.05, ":\n\n"))

    with stream(served) as answer:
        assert read(answer.iter_raw(), b":\n\n:\n\n:\n\n").strip(b":\n") == b""


def test_a_query_is_answered_as_one_event_and_the_end(served: World) -> None:
    for method in ("GET", "POST"):
        said: Any = {"params": {"query": "{ __typename }"}} if method == "GET" else {"json": {"query": "{ __typename }"}}
        answer = served.http.request(method, "/graphql", headers={"accept": SSE}, **said)

        assert answer.text == ':\n\nevent: next\ndata: {"data":{"__typename":"Query"}}\n\nevent: complete\ndata:\n\n'


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed", "application/graphql-response+json"),
        ("application/json;q=0.9, text/event-stream;q=1", SSE), ("text/event-stream;q=0.5, application/json", "application/json"), ("text/event-stream, application/json", SSE),
        (f"{MULTIPART}, application/json", "application/json"), ("multipart/mixed;deferSpec=20220824, application/json", "application/json"), ("*/*", "application/json"),
        ("text/*, application/json;q=0.1", "application/json"),
    ],
)  # fmt: skip
def test_a_query_is_answered_by_order_and_quality(served: World, accept: str, kind: str) -> None:
    answer = served.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": accept})

    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/graphql-response+json, application/json, text/event-stream, multipart/mixed", SSE), (f"{MULTIPART}, application/json", "multipart/mixed"),
        (f"{MULTIPART};q=0.5, text/event-stream", SSE), (f"text/event-stream;q=0.5, {MULTIPART}", "multipart/mixed"), ("multipart/mixed;subscriptionSpec=1.0", "multipart/mixed"),
    ],
)  # fmt: skip
def test_a_subscription_takes_the_best_stream_that_is_accepted(served: World, accept: str, kind: str) -> None:
    with stream(served, accept) as answer:
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)


@pytest.mark.parametrize(
    "accept",
    ["application/json", "application/graphql-response+json", "*/*", "multipart/mixed;deferSpec=20220824, application/json"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_subscription_that_asks_for_one_json_answer_is_told_what_to_accept(served: World, method: str, accept: str) -> None:
    said: Any = {"params": {"query": EVENTS}} if method == "GET" else {"json": {"query": EVENTS}}

    answer = served.http.request(method, "/graphql", headers={"accept": accept}, **said)

    assert answer.status_code == 406
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "VALIDATION"
    assert SSE in error["message"]


@pytest.mark.parametrize("accept", [SSE, MULTIPART])
@pytest.mark.parametrize(
    "body",
    [
        {"query": "subscription { nothing }"}, {"query": "subscription {"}, {"query": EVENTS, "variables": {"since": "no cursor"}}, {"query": EVENTS, "variables": {"since": 5}},
        {"query": "subscription { events { id } } subscription Other { events { id } }"}, {"query": "subscription { " + "a: events { id } " * 40 + "}"},
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_with_400_and_json(served: World, accept: str, body: Any) -> None:
    answer = served.http.post("/graphql", json=body, headers={"accept": accept})

    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["extensions"]["code"] == "VALIDATION"
    assert "data" not in answer.json()


def test_a_mutation_by_get_is_refused_whatever_is_accepted(served: World) -> None:
    answer = served.http.get("/graphql", params={"query": "mutation { __typename }"}, headers={"accept": SSE})

    assert answer.status_code == 405


def test_a_key_is_needed_and_a_foreign_page_is_refused() -> None:
    with world(people=2, require_key=True) as running:
        assert running.http.post("/graphql", json={"query": EVENTS}, headers={"accept": SSE}).status_code == 401
        assert (
            running.http.get(
                "/graphql", params={"query": EVENTS}, headers={"accept": SSE, "origin": "https://evil.example"}
            ).status_code
            == 403
        )


@pytest.mark.parametrize("accept", [SSE, MULTIPART])
def test_a_revoked_key_ends_its_streams(accept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REVIEW", 0.1)
    with world(people=2, require_key=True) as running:
        row, key = running.within(lambda runtime: runtime.callers.create(WORKSPACE, "test", ["read"], now=runtime.clock.now()))
        with stream(running, accept, **{"x-api-key": key}) as answer:
            running.within(lambda runtime: runtime.callers.revoke(WORKSPACE, row.id, now=runtime.clock.now()))

            assert b"UNAUTHENTICATED" in b"".join(answer.iter_raw())


def test_multipart_parts_are_complete_as_they_come(served: World) -> None:
    with stream(served, MULTIPART) as answer:
        [made] = happen(served, event("1"))
        chunks = answer.iter_raw()
        got = read(chunks, b"payload")

    data = json.dumps(
        {"payload": {"data": {"events": {"id": f"event:{made.seq}", "cursor": cursor_at(served, made.seq)}}}},
        separators=(",", ":"),
    )
    assert answer.headers["content-type"] == 'multipart/mixed;boundary="graphql";subscriptionSpec="1.0"'
    assert got.decode() == f"--graphql\r\ncontent-type: application/json\r\n\r\n{data}\r\n--graphql"


def test_a_silent_multipart_stream_is_kept_open_by_empty_parts(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.Multipart, "idle", (0.05, streaming.Multipart.idle[1]))

    with stream(served, MULTIPART) as answer:
        part = b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql"
        assert read(answer.iter_raw(), part * 2).startswith(b"--graphql" + part)


@pytest.mark.parametrize(("accept", "end"), [(SSE, "event: complete\ndata:\n\n"), (MULTIPART, "\r\n--graphql--\r\n")])
def test_a_stream_ends_as_its_protocol_says(accept: str, end: str) -> None:
    with world(people=2) as running, stream(running, accept) as answer:
        happen(running, event("1"))
        running.within(lambda runtime: runtime.events.stop())

        assert b"".join(answer.iter_raw()).decode().endswith(end)


def test_a_multipart_query_is_one_part_where_nothing_else_is_accepted(served: World) -> None:
    answer = served.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": MULTIPART})

    assert (
        answer.text
        == '--graphql\r\ncontent-type: application/json\r\n\r\n{"payload":{"data":{"__typename":"Query"}}}\r\n--graphql--\r\n'
    )


@pytest.mark.parametrize("accept", [SSE, MULTIPART])
def test_200_streams_that_come_and_go_leave_no_follower(served: World, accept: str) -> None:
    for number in range(200):
        if number % 2:
            with stream(served, accept):
                pass
        else:
            _drop(served, accept)

    until_followed(served, 0)
    assert served.app.state.runtime.metrics.subscribers._value.get() == 0


def _drop(running: World, accept: str) -> None:
    """Ask, and hang up at once, perhaps before the answer begins."""
    body = json.dumps({"query": EVENTS}).encode()
    with socket.create_connection((running.http.base_url.host, running.http.base_url.port)) as raw:
        raw.sendall(
            b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (accept.encode(), len(body), body)
        )


def test_a_slow_reader_is_told_where_to_resume() -> None:
    query = "subscription { events { cursor changed } }"
    with world(people=2, subscriber_queue=10) as running, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.connect((running.http.base_url.host, running.http.base_url.port))
        body = json.dumps({"query": query}).encode()
        raw.sendall(
            b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: text/event-stream\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        until_followed(running)
        for _ in range(30):
            happen(running, *(event(str(number), changed=("x" * 1000,) * 100) for number in range(10)))

        got = b""
        while b"event: complete" not in got:
            got += raw.recv(1 << 20)

        *_, before, told, _end = [each for each in got.decode().split("\n\n") if "event: " in each]
        assert "SLOW_SUBSCRIBER" in told
        resume = json.loads(told.partition("data: ")[2].splitlines()[0])["errors"][0]["extensions"]["resumeFrom"]
        assert f"id: {resume}\n" in before
        until_followed(running, 0)


def test_a_process_that_is_to_stop_breaks_streams_off_so_that_clients_come_back() -> None:
    with world(people=2) as running, stream(running) as answer:
        threading.Timer(0.2, lambda: running.app.state.loop.call_soon_threadsafe(running.app.state.stop)).start()
        began = time.monotonic()

        got = b"".join(answer.iter_raw())

    assert b"complete" not in got
    assert time.monotonic() - began < 3
