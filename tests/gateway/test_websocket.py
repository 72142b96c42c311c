"""graphql-transport-ws, to the letter: close codes, errors per operation, who may connect."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from websockets.exceptions import InvalidStatus

from gateway import callers, websocket
from gateway.app import WORKSPACE, Runtime
from tests.happenings import event, happen, until_followed
from tests.sockets import ready, socket
from tests.world import World, world

EVENTS = "subscription { events { id op object ref { system recordId } } }"


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=2, max_operations=5) as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[World]:
    with world(people=2, require_key=True) as running:
        yield running


def new_key(running: World) -> tuple[str, str]:
    async def make(runtime: Runtime) -> tuple[str, str]:
        row, key = await runtime.callers.create(WORKSPACE, "test", ["read"], now=datetime.now(UTC))
        return row.id, key

    return running.within(make)


def test_a_subscriber_gets_each_event_as_it_happens(served: World) -> None:
    with ready(served) as client:
        client.subscribe(EVENTS)
        until_followed(served)

        happen(served, event("7"), event("8", kind="deal", source="salesforce", op="CREATED"))

        first, second = client.event(), client.event()
    assert (first["op"], first["object"], first["ref"]) == ("UPDATED", "contact", {"system": "hubspot", "recordId": "7"})
    assert (second["op"], second["object"], second["ref"]) == ("CREATED", "deal", {"system": "salesforce", "recordId": "8"})


def test_queries_and_mutations_are_answered_over_the_same_socket(served: World) -> None:
    with ready(served) as client:
        client.subscribe("query($n: Int!) { customers(first: $n) { nodes { name } } }", "q", variables={"n": 1})

        answer, end = client.hear(), client.hear()

        client.subscribe(
            'mutation { customerUpsert(input: {emails: ["ada.king@northwind.example"], familyName: "New"}, '
            'options: {idempotencyKey: "k", dryRun: true, targets: ["hubspot"]}) { writes { state } userErrors { code } } }',
            "m",
        )
        written = client.hear()["payload"]["data"]["customerUpsert"]
    assert written["writes"]
    assert written["userErrors"] == []
    assert (answer["type"], answer["id"], len(answer["payload"]["data"]["customers"]["nodes"])) == ("next", "q", 1)
    assert end == {"id": "q", "type": "complete"}


@pytest.mark.parametrize(
    "payload",
    [
        {"query": "{"}, {"query": "{ nothing }"}, {"query": "query A { __typename } query B { __typename }"}, {"query": 5}, {},
        {"query": "{ __typename }", "operationName": "Other"}, {"query": "{ __typename }", "operationName": 5}, {"query": "{ __typename }", "variables": []},
        {"query": "{ __typename }", "variables": "x"}, {"query": "{ __typename }", "extensions": []}, {"query": "{ " + "a: __typename " * 50 + "}"},
        {"query": "subscription { events(objects: [\"spaceship\"]) { id } }"}, {"query": "subscription { events(objects: []) { id } }"},
        {"query": "subscription($since: EventCursor) { events(since: $since) { id } }", "variables": {"since": "no cursor"}},
        {"query": "subscription($since: EventCursor) { events(since: $since) { id } }", "variables": {"since": 5}},
        {"query": "subscription { events { id } sourceHealth { id } }"}, {"query": "subscription { sourceHealth(ids: [\"nobody\"]) { id } }"},
        "text", None, [],
    ],
)  # fmt: skip
def test_a_bad_operation_gets_an_error_and_the_others_go_on(served: World, payload: object) -> None:
    with ready(served) as client:
        client.subscribe(EVENTS, "good")
        until_followed(served)
        client.say({"type": "subscribe", "id": "bad", "payload": payload})

        message = client.hear()
        happen(served, event("9"))

        assert (message["type"], message["id"]) == ("error", "bad")
        assert message["payload"][0]["extensions"]["code"] == "VALIDATION"
        assert client.event()["ref"]["recordId"] == "9"


@pytest.mark.parametrize(
    "said",
    [
        "no json", "[]", "null", "5", "{}", '{"type": "dance"}', '{"type": 5}', b"\x00\x01", "[" * 5000, {"type": "subscribe", "payload": {}},
        {"type": "subscribe", "id": "", "payload": {}}, {"type": "subscribe", "id": 5, "payload": {}}, {"type": "complete"},
    ],
)  # fmt: skip
def test_what_is_no_message_closes_the_socket(served: World, said: object) -> None:
    with ready(served) as client:
        client.say(said)

        assert client.closed() == 4400


def test_an_init_that_is_no_object_closes_the_socket(served: World) -> None:
    with socket(served) as client:
        client.say({"type": "connection_init", "payload": "secret"})

        assert client.closed() == 4400


def test_an_operation_before_the_greeting_closes_the_socket(served: World) -> None:
    with socket(served) as client:
        client.subscribe("{ __typename }")

        assert client.closed() == 4401


def test_a_second_greeting_closes_the_socket(served: World) -> None:
    with ready(served) as client:
        client.say({"type": "connection_init"})

        assert client.closed() == 4429


def test_an_id_in_use_closes_the_socket(served: World) -> None:
    with ready(served) as client:
        client.subscribe(EVENTS, "1")
        client.subscribe(EVENTS, "1")

        assert client.closed() == 4409


def test_who_does_not_greet_is_closed(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert websocket.INIT_WAIT == 5.0
    monkeypatch.setattr(websocket, "INIT_WAIT", 0.2)
    with socket(served) as client:
        client.say({"type": "ping"})
        assert client.hear() == {"type": "pong"}

        assert client.closed() == 4408


def test_another_subprotocol_is_not_served(served: World) -> None:
    for protocols in (None, ("graphql-ws",)):
        with socket(served, protocols=protocols) as client:
            assert client.closed() == 4406


def test_pings_are_answered_with_their_payload_and_pongs_are_not(served: World) -> None:
    with ready(served) as client:
        client.say({"type": "pong"})
        client.say({"type": "ping", "payload": {"n": 1}})

        assert client.hear() == {"type": "pong", "payload": {"n": 1}}


def test_a_socket_runs_so_many_operations_and_no_more(served: World) -> None:
    with ready(served) as client:
        for number in range(6):
            client.subscribe(EVENTS, str(number))

        assert client.error("5")["extensions"]["code"] == "COST_EXCEEDED"

        client.say({"type": "complete", "id": "0"})
        client.subscribe(EVENTS, "5")
        until_followed(served)
        happen(served, event("7"))
        assert {client.hear()["id"] for _ in range(5)} == {"1", "2", "3", "4", "5"}


def test_a_completed_operation_says_nothing_more_and_its_id_is_free(served: World) -> None:
    with ready(served) as client:
        client.subscribe(EVENTS)
        until_followed(served, 1)
        client.say({"type": "complete", "id": "1"})
        until_followed(served, 0)

        client.subscribe("{ __typename }")

        assert client.hear()["payload"] == {"data": {"__typename": "Query"}}


def test_a_message_larger_than_the_limit_closes_the_socket(served: World) -> None:
    with ready(served) as client:
        client.subscribe("{ __typename }" + " " * 300_000)

        assert client.closed() == 1009


@pytest.mark.parametrize("how", ["header", "header x", "payload", "payload x", "payload odd case"])
def test_a_key_is_taken_from_a_header_or_from_the_greeting(guarded: World, how: str) -> None:
    _, key = new_key(guarded)
    headers = {"header": {"authorization": f"Bearer {key}"}, "header x": {"x-api-key": key}}.get(how)
    payload = {
        "payload": {"authorization": f"Bearer {key}"}, "payload x": {"x-api-key": key}, "payload odd case": {"Authorization": f"bearer {key}"},
    }.get(how)  # fmt: skip
    with socket(guarded, headers=headers) as client:
        client.init(payload)
        client.subscribe("{ __typename }")

        assert client.hear()["payload"] == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("payload", [None, {}, {"authorization": "Bearer c360_wrong"}, {"authorization": 5}, {"x-api-key": ""}])
def test_who_has_no_key_is_closed(guarded: World, payload: object) -> None:
    with socket(guarded) as client:
        client.say({"type": "connection_init", "payload": payload})

        assert client.closed() == 4403


def test_a_wrong_key_in_the_greeting_is_not_helped_by_a_header(guarded: World) -> None:
    _, key = new_key(guarded)
    with socket(guarded, headers={"x-api-key": key}) as client:
        client.say({"type": "connection_init", "payload": {"authorization": "Bearer c360_wrong"}})

        assert client.closed() == 4403


def test_a_revoked_key_closes_its_sockets(guarded: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REVIEW", 0.1)
    id, key = new_key(guarded)
    with socket(guarded) as client:
        client.init({"x-api-key": key})
        client.subscribe(EVENTS)
        until_followed(guarded)

        guarded.within(lambda runtime: runtime.callers.revoke(WORKSPACE, id, now=datetime.now(UTC)))

        assert client.closed() == 4403
    until_followed(guarded, 0)


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"origin": "null"}])
def test_a_page_of_another_site_may_not_connect(served: World, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused, socket(served, headers=headers):
        pass

    assert refused.value.response.status_code == 403


def test_our_own_page_may_connect(served: World) -> None:
    with socket(served, headers={"origin": str(served.http.base_url).rstrip("/")}) as client:
        client.init()


def test_200_connections_that_come_and_go_leave_no_follower(served: World) -> None:
    for number in range(200):
        with ready(served) as client:
            client.subscribe(EVENTS if number % 2 else 'subscription { customerChanged(ids: ["customer:1"]) { id } }')
            if number % 3 == 0:
                client.connection.socket.close()  # without a goodbye

    until_followed(served, 0)
    assert served.app.state.runtime.metrics.subscribers._value.get() == 0
    tasks = served.within(_tasks)
    assert not [
        name
        for name in tasks
        if ("_run" in name and not name.startswith("Intake.")) or "_guarded" in name or ("_look" in name and "Followed" in name)
    ], tasks


async def _tasks(_: Runtime) -> list[str]:
    await asyncio.sleep(0.2)
    return [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]


def test_a_subscription_that_is_dropped_while_it_starts_leaves_nothing(served: World) -> None:
    with ready(served) as client:
        for _ in range(50):
            client.subscribe(EVENTS)
            client.say({"type": "complete", "id": "1"})
        time.sleep(0.1)
        client.say({"type": "ping"})
        while client.hear()["type"] != "pong":
            pass

    until_followed(served, 0)
