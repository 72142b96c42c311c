"""The endpoint against the audit suite of npm's graphql-http, and what a browser or a hostile client sends."""

import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.tools import node
from tests.world import World, world

JSON, GRAPHQL = "application/json", "application/graphql-response+json"


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=5) as running:
        yield running


def refused(answer: httpx.Response, status: int) -> str:
    """Check that it is a coded refusal without a stack trace; return its message."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert "data" not in body
    [error] = body["errors"]
    assert error["extensions"]["code"] in {"VALIDATION", "FORBIDDEN", "UNAUTHENTICATED"}
    assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert len(error["message"]) <= 500
    return str(error["message"])


def test_the_audit_suite_passes_whole(served: World) -> None:
    result = node("audit.mjs", f"{served.http.base_url}/graphql".replace("//graphql", "/graphql"))

    assert result.stdout.strip().splitlines()[-1] == "passed 61 of 61", result.stdout + result.stderr


def test_a_body_of_a_megabyte_is_refused_before_it_is_read(served: World) -> None:
    answer = served.http.post("/graphql", json={"query": "{ __typename }" + " " * 1_000_000})

    assert "bytes" in refused(answer, 413)


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(served: World) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"query": "'
        for _ in range(100):
            yield b" " * 10_000

    answer = served.http.post("/graphql", content=endless(), headers={"content-type": JSON})

    refused(answer, 413)


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"null", b"5", b'"text"', b"[]", b'{"query": 1}', b"{}", b'{"query": "{ __typename }", "variables": []}', b"\xff\xfe",
     b'{"query": "{ __typename }", "operationName": 7}', b"9" * 5000, b"[" * 5000, b'{"query":"{ __typename }","variables":' + b'{"a":' * 300 + b"1" + b"}" * 301],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_with_a_code(served: World, body: bytes) -> None:
    refused(served.http.post("/graphql", content=body, headers={"content-type": JSON}), 400)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x-application/json-x", ""]
)
def test_another_content_type_is_refused(served: World, kind: str) -> None:
    refused(served.http.post("/graphql", content=b'{"query": "{ __typename }"}', headers={"content-type": kind}), 415)


@pytest.mark.parametrize("accept", ["text/plain", "application/json;q=0", "application/json;q=0, */*;q=0.1"])
def test_an_answer_that_nobody_accepts_is_refused(served: World, accept: str) -> None:
    refused(served.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": accept}), 406)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [(GRAPHQL, GRAPHQL), (JSON, JSON), ("*/*", JSON), (f"{JSON};q=0.5, {GRAPHQL}", GRAPHQL), (f"{GRAPHQL};q=0.1, {JSON}", JSON)],
)
def test_the_media_type_follows_quality_then_order(served: World, accept: str, kind: str) -> None:
    answer = served.http.post("/graphql", json={"query": "{ __typename }"}, headers={"accept": accept})

    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"


def test_a_document_error_is_400_without_data_for_the_new_media_type(served: World) -> None:
    answer = served.http.post("/graphql", json={"query": "{ nothing }"}, headers={"accept": GRAPHQL})

    refused(answer, 400)


def test_unknown_arguments_are_refused_with_a_code(served: World) -> None:
    answer = served.http.post(
        "/graphql", json={"query": "{ customers(first: 5, foo: 1) { nodes { id } } }"}, headers={"accept": GRAPHQL}
    )

    assert "foo" in refused(answer, 400)


def test_a_name_of_200_kilobytes_is_not_echoed_whole(served: World) -> None:
    answer = served.http.post("/graphql", json={"query": "{ %s }" % ("x" * 200_000)}, headers={"accept": GRAPHQL})

    refused(answer, 400)


DEEP = '{ customer(by: {id: "x"}) { contacts %s } }' % ("{ customer { contacts " * 12 + "{ id }" + "} }" * 12)
BOMB = (
    "query { ...f0 } "
    + " ".join("fragment f%d on Query { ...f%d ...f%d }" % (n, n + 1, n + 1) for n in range(40))
    + " fragment f40 on Query { __typename }"
)
GHOST = (
    "query { ...f0 } "
    + " ".join("fragment f%d on Query { ...f%d ...f%d }" % (n, n + 1, n + 1) for n in range(40))
    + " fragment f40 on Query { ...nobody }"
)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (DEEP, "levels deep"),
        ("{ %s }" % " ".join("a%d: __typename" % n for n in range(31)), "aliases"),
        ("{ %s }" % " ".join(f"customers(first: {n}) {{ nodes {{ id }} }}" for n in range(1, 25)), "root fields"),
        (" ".join("query q%d { __typename }" % n for n in range(6)), "operations"),
        ("{ %s }" % ("__typename " * 5000), "tokens"),
        (BOMB, "fields"),
    ],
    ids=["depth", "aliases", "root-fields", "operations", "tokens", "fragment-bomb"],
)
def test_a_greedy_document_is_refused_before_it_runs(served: World, query: str, says: str) -> None:
    began = time.monotonic()

    message = refused(
        served.http.post("/graphql", json={"query": query, "operationName": "q0"} if "q0" in query else {"query": query}), 400
    )

    assert says in message
    assert time.monotonic() - began < 2


def test_doubling_fragments_that_lead_nowhere_do_not_hang(served: World) -> None:
    began = time.monotonic()

    answer = served.http.post("/graphql", json={"query": GHOST}, headers={"accept": GRAPHQL})

    assert answer.status_code == 400
    assert time.monotonic() - began < 2


CURSOR = "query($after: String) { customers(first: 5, after: $after) { nodes { id } pageInfo { endCursor } } }"


@pytest.mark.parametrize(
    ("query", "variables", "says"),
    [
        ("{ customers(first: -1) { nodes { id } } }", {}, "first"),
        ("{ customers(first: 10000) { nodes { id } } }", {}, "first"),
        (CURSOR, {"after": "forged"}, "cursor"),
        ("{ customer(by: {email: \"nonsense\"}) { id } }", {}, "email"),
        ("{ customer(by: {phone: \"12\"}) { id } }", {}, "phone"),
        ("{ customer(by: {ref: {sourceId: \"nowhere\", object: \"contact\", recordId: \"1\"}}) { id } }", {}, "source"),
        ("{ customers(first: 5, read: {deadline: \"PT999S\"}) { nodes { id } } }", {}, "deadline"),
    ],
)  # fmt: skip
def test_bad_arguments_get_a_clear_coded_error(served: World, query: str, variables: dict[str, str], says: str) -> None:
    body = served.ask(query, variables)

    [error] = body["errors"]
    assert error["extensions"]["code"] == "VALIDATION"
    assert says in error["message"]


def test_a_cursor_of_another_query_is_refused(served: World) -> None:
    cursor = served.data(CURSOR)["customers"]["pageInfo"]["endCursor"]

    body = served.ask("query($after: String) { contacts(first: 5, after: $after) { nodes { id } } }", {"after": cursor})

    assert body["errors"][0]["extensions"]["code"] == "VALIDATION"


def test_a_nested_cursor_is_good_for_one_parent_only(served: World) -> None:
    body = served.ask('{ customers(first: 3) { nodes { deals(first: 2, after: "x") { nodes { id } } } } }')

    assert {error["extensions"]["code"] for error in body["errors"]} == {"VALIDATION"}


@pytest.mark.parametrize(
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "http://["}, {"origin": "null"}]
)
def test_no_web_page_reaches_the_demo_by_another_name(served: World, headers: dict[str, str]) -> None:
    refused(served.http.post("/graphql", json={"query": "{ __typename }"}, headers=headers), 403)


def test_a_request_id_is_kept_when_well_formed_and_made_when_not(served: World) -> None:
    kept = served.http.get("/health/live", headers={"x-request-id": "abcdefgh-1"})
    made = served.http.get("/health/live", headers={"x-request-id": "no spaces allowed"})

    assert kept.headers["x-request-id"] == "abcdefgh-1"
    assert made.headers["x-request-id"] != "no spaces allowed"


def test_a_client_that_hangs_up_cancels_its_work(served: World) -> None:
    for system in ("hubspot", "salesforce", "shopify", "zendesk"):
        served.fault(system, "hang", seconds=30)
    body = json.dumps({"query": '{ customer(by: {email: "nobody.new@nowhere.example"}) { id } }'}).encode()
    with socket.create_connection((served.http.base_url.host, served.http.base_url.port or 80)) as line:
        line.sendall(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        time.sleep(0.3)
    time.sleep(0.3)

    metrics = served.http.get("/metrics").text
    served.heal()

    assert 'c360_requests_total{outcome="gone"} 1.0' in metrics
    assert "c360_requests_in_flight 0.0" in metrics


def test_health_and_figures(served: World) -> None:
    assert served.http.get("/health/live").json() == {"status": "ok"}
    assert served.http.get("/health/ready").json() == {"status": "ok", "missing": []}
    assert "c360_request_duration_seconds_bucket" in served.http.get("/metrics").text


def test_introspection_can_be_switched_off() -> None:
    with world(people=2, introspection=False) as running:
        schema = running.ask("{ __schema { types { name } } }")
        typo = running.ask("{ custmers { id } }")

    assert schema["errors"][0]["extensions"]["code"] == "VALIDATION"
    assert "Did you mean" not in typo["errors"][0]["message"]


def test_callers_need_a_key_that_is_ours() -> None:
    with world(people=2, require_key=True) as running:
        without = running.http.post("/graphql", json={"query": "{ __typename }"})
        wrong = running.http.post("/graphql", json={"query": "{ __typename }"}, headers={"authorization": "Bearer c360_x_y"})
        figures = running.http.get("/metrics")

    refused(without, 401)
    refused(wrong, 401)
    assert figures.status_code == 401


def test_pages_of_a_configured_origin_may_call_and_others_may_not() -> None:
    with world(people=2, cors_origins=["https://app.example"]) as running:
        asking = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
        allowed = running.http.options("/graphql", headers={"origin": "https://app.example", **asking})
        refused = running.http.options("/graphql", headers={"origin": "https://evil.example", **asking})
        answer = running.http.post("/graphql", json={"query": "{ __typename }"}, headers={"origin": "https://app.example"})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert refused.status_code == 403
    assert answer.json()["data"] == {"__typename": "Query"}
    assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_head_is_get_without_a_body(served: World) -> None:
    asked = {"query": "{ __typename }"}

    head, get = served.http.head("/graphql", params=asked), served.http.get("/graphql", params=asked)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_of_several_operations_none_is_run_unless_it_is_named(served: World, method: str) -> None:
    query = "mutation M { __typename } query Q { __typename }"
    said = {"params": {"query": query}} if method == "GET" else {"json": {"query": query}}

    refused(served.http.request(method, "/graphql", **said), 400)  # type: ignore[arg-type]
