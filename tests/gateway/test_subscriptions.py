"""What subscriptions tell: which events, of whom, from where on, and what becomes of a subscriber that is too slow."""

import asyncio
import json
import socket as network
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.app import WORKSPACE, Runtime
from identity.index import Observed
from model.records import Ref
from tests.happenings import DELIVERER, cursor_at, enter, event, happen, until_followed
from tests.sockets import Socket, address, ready
from tests.world import World, world

EVENTS = "subscription($since: EventCursor, $objects: [String!], $systems: [System!], $echoes: Boolean) { events(since: $since, objects: $objects, systems: $systems, includeEchoes: $echoes) { id cursor origin ref { recordId } } }"
CHANGED = "subscription($ids: [ID!], $since: EventCursor) { customerChanged(ids: $ids, since: $since) { id ref { recordId } } }"
BIG = "x" * 1000


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=20) as running:
        yield running


def following(client: Socket, query: str, running: World, **variables: Any) -> None:
    """Subscribe, and wait until that is followed."""
    before = running.app.state.runtime.events.followers - DELIVERER
    client.subscribe(query, variables=variables)
    until_followed(running, before + 1)


def heard(client: Socket, until: str) -> list[str]:
    """Return the record ids of what comes up to one."""
    found: list[str] = []
    while not found or found[-1] != until:
        found.append(client.event()["ref"]["recordId"])
    return found


def last(running: World) -> int:
    seq: int = running.app.state.runtime.events.last
    return seq


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["a", "b", "c", "end"]),
        ({"objects": ["contact"]}, ["a", "c", "end"]),
        ({"objects": ["contact", "deal"], "systems": ["salesforce"]}, ["b", "c", "end"]),
        ({"systems": ["salesforce"]}, ["b", "c", "end"]),
        ({"echoes": True}, ["a", "b", "echo", "c", "end"]),
    ],
)
def test_filters_choose_by_kind_and_system_and_leave_echoes_out(served: World, variables: Any, expected: list[str]) -> None:
    with ready(served) as client:
        following(client, EVENTS, served, **variables)

        happen(
            served, event("a"), event("b", kind="deal", source="salesforce"), event("echo", origin="LOCAL_WRITE"),
            event("c", source="salesforce"), event("end", source="salesforce"),
        )  # fmt: skip

        assert heard(client, "end") == expected


def test_an_event_tells_all_of_itself(served: World) -> None:
    query = "subscription { events { id cursor op object ref { sourceId system object recordId url } customer { id } changed at receivedAt origin } }"
    with ready(served) as client:
        following(client, query, served)

        [made] = happen(served, event("77", changed=("email", "custom.tier"), op="MERGED", into="78"))

        assert client.event() == {
            "id": f"event:{made.seq}", "cursor": cursor_at(served, made.seq), "op": "MERGED", "object": "contact",
            "ref": {"sourceId": "hubspot", "system": "hubspot", "object": "contacts", "recordId": "77", "url": None}, "customer": None,
            "changed": ["email", "custom.tier"], "at": "2026-03-01T12:00:00+00:00", "receivedAt": "2026-03-01T12:00:00+00:00", "origin": "WEBHOOK",
        }  # fmt: skip


def test_an_event_of_a_source_that_is_gone_is_still_told(served: World) -> None:
    with ready(served) as client:
        following(client, "subscription { events { changed ref { sourceId system object } customer { name } } }", served)

        happen(served, event("1", source="closed-long-ago", changed=None, customer="customer:gone"))

        ref = {"sourceId": "closed-long-ago", "system": "closed-long-ago", "object": "contact"}
        assert client.event() == {"changed": [], "ref": ref, "customer": None}


def test_since_goes_on_without_gap_or_double_while_events_come(served: World) -> None:
    start = last(served)
    happen(served, *(event(str(number)) for number in range(30)))
    with ready(served) as client:
        following(client, EVENTS, served, since=cursor_at(served, start + 10))
        happen(served, *(event(str(number)) for number in range(30, 40)))

        seen = [int(client.event()["id"].partition(":")[2]) for _ in range(30)]

    assert seen == list(range(start + 11, start + 41))


def test_an_expired_cursor_is_told_as_such() -> None:
    with world(people=2) as running:
        happen(running, *(event(str(number)) for number in range(5)))

        async def clear(runtime: Runtime) -> None:
            await runtime.events._rows.clear(WORKSPACE, before=datetime.now(UTC) - timedelta(days=1), most=2)

        running.within(clear)
        with ready(running) as client:
            client.subscribe(EVENTS, variables={"since": cursor_at(running, 2)})
            assert client.error()["extensions"]["code"] == "CURSOR_EXPIRED"
            client.subscribe(EVENTS, variables={"since": cursor_at(running, 3)})
            assert [client.event()["ref"]["recordId"] for _ in range(2)] == ["3", "4"]
        answer = running.http.post(
            "/graphql", json={"query": "subscription { events { id } }"},
            headers={"accept": "text/event-stream", "last-event-id": cursor_at(running, 1)},
        )  # fmt: skip
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "CURSOR_EXPIRED")


def test_a_cursor_of_another_deployment_workspace_or_list_is_refused(served: World) -> None:
    with world(people=2) as other:
        happen(other, event("1"))
        foreign = cursor_at(other, 1)

    async def seal(runtime: Runtime) -> list[str]:
        signer = runtime.signer
        return [signer.seal(1, workspace="other", query="events"), signer.seal(1, workspace=WORKSPACE, query="contact")]

    for cursor in (foreign, cursor_at(served, 10**9), cursor_at(served, 1)[:-2], "é", *served.within(seal)):
        with ready(served) as client:
            client.subscribe(EVENTS, variables={"since": cursor})
            error = client.error()
            assert error["extensions"]["code"] == "VALIDATION"
            assert cursor not in error["message"]


def test_a_customer_is_followed_and_others_are_not(served: World) -> None:
    with ready(served) as client:
        following(client, CHANGED, served, ids=["customer:a", "customer:b"])

        happen(
            served, event("1", customer="customer:a"), event("2", customer="customer:c"), event("3"), event("4", customer="customer:b"),
            event("5", customer="customer:a", origin="LOCAL_WRITE"), event("end", customer="customer:a"),
        )  # fmt: skip

        assert heard(client, "end") == ["1", "4", "end"]


def test_without_ids_every_customers_changes_come_and_those_of_nobody_do_not(served: World) -> None:
    with ready(served) as client:
        following(client, CHANGED, served)

        happen(served, event("1", customer="customer:a"), event("2"), event("end", customer="customer:c"))

        assert heard(client, "end") == ["1", "end"]


def person(native_id: str, *emails: str) -> Observed:
    return Observed(ref=Ref("hubspot", "contact", native_id), emails=emails, phones=(), family_name=None, created_at=None)


async def observe(runtime: Runtime, *people: Observed) -> list[str]:
    found = await runtime.index.observe(WORKSPACE, people)
    return [found[each.ref] for each in people]


def test_an_id_that_was_merged_is_followed_under_the_one_that_stayed(served: World) -> None:
    first, second = served.within(
        lambda runtime: observe(runtime, person("m1", "m1@merged.example"), person("m2", "m2@merged.example"))
    )
    served.within(lambda runtime: observe(runtime, person("m2", "m1@merged.example", "m2@merged.example")))
    gone, stayed = (first, second) if second < first else (second, first)

    with ready(served) as client:
        following(client, CHANGED, served, ids=[gone])
        happen(served, event("m1", customer=stayed), event("other", customer="customer:z"), event("end", customer=stayed))

        assert heard(client, "end") == ["m1", "end"]


def test_a_merge_while_one_follows_loses_nothing_and_doubles_nothing(served: World) -> None:
    first, second = served.within(
        lambda runtime: observe(runtime, person("n1", "n1@merging.example"), person("n2", "n2@merging.example"))
    )
    gone, stayed = (first, second) if second < first else (second, first)

    async def merge_and_tell(runtime: Runtime) -> None:
        await enter(runtime, event("before", customer=gone), event("not yet", customer=stayed))
        await observe(runtime, person("n2", "n1@merging.example", "n2@merging.example"))
        await enter(runtime, event("at once", customer=stayed))  # before anyone can have looked what became of the id

    with ready(served) as client:
        following(client, CHANGED, served, ids=[gone])
        time.sleep(0.3)
        served.within(merge_and_tell)
        time.sleep(0.5)
        happen(served, event("end", customer=stayed))

        seen = heard(client, "end")

    assert [each for each in seen if each != "not yet"] == ["before", "at once", "end"]
    assert seen.count("not yet") <= 1  # told only where the look back reaches before the merge


def looked_up(running: World, number: int) -> Any:
    """Return one customer, who was just read by id."""
    id = running.data("{ customers(first: 9) { nodes { id } } }")["customers"]["nodes"][number]["id"]
    return running.data(
        "query($id: ID!) { customer(by: {id: $id}) { id name contacts { id account { id } customFields { key } } } }", {"id": id}
    )["customer"]


def test_a_customer_is_shown_from_what_is_kept_and_no_system_is_called(served: World) -> None:
    query = "subscription { events { ref { recordId } customer { id name deals(first: 5) { nodes { id name } } contacts { id account { name } customFields { key } } } } }"
    somebody = looked_up(served, 0)
    with ready(served) as client:
        following(client, query, served)
        served.forget_calls()

        happen(served, event("1", customer=somebody["id"]), event("2", customer="customer:never-seen"), event("3"))

        shown = [client.hear()["payload"]["data"]["events"] for _ in range(3)]
    assert not any(served.calls().values()), served.calls()
    assert shown[0]["customer"]["id"] == somebody["id"]
    assert shown[0]["customer"]["name"] == somebody["name"]
    assert [each["customer"] for each in shown[1:]] == [None, None]


def test_a_customer_who_was_found_by_address_is_shown_as_well(served: World) -> None:
    email = served.sandbox.world.people[3].email
    found = served.data("query($email: String!) { customer(by: {email: $email}) { id name } }", {"email": email})["customer"]
    with ready(served) as client:
        following(client, "subscription { events { customer { id name } } }", served)
        served.forget_calls()

        happen(served, event("1", customer=found["id"]))

        assert client.event()["customer"] == found
    assert not any(served.calls().values())


def test_what_is_not_kept_is_not_taken_for_gone(served: World) -> None:
    [id] = served.within(lambda runtime: observe(runtime, person("kept-1", "kept@index.example")))
    served.within(lambda runtime: observe(runtime, person("kept-2", "kept@index.example")))
    with ready(served) as client:
        following(client, "subscription { events { customer { id } } }", served)
        happen(served, event("kept-1", customer=id))
        assert client.event() == {"customer": None}

    async def members(runtime: Runtime) -> int:
        return len((await runtime.index.members(WORKSPACE, [id]))[id].refs)

    assert served.within(members) == 2


def test_each_event_is_shown_as_things_are_then(served: World) -> None:
    """Nothing that was loaded for one event is there for the next."""
    query = "subscription { events { customer { id } } }"
    somebody = looked_up(served, 8)["id"]
    with ready(served) as client:
        following(client, query, served)
        happen(served, event("1", customer=somebody))
        assert client.event()["customer"] == {"id": somebody}

        served.within(_empty_cache)
        happen(served, event("1", customer=somebody))

        assert client.event()["customer"] is None


async def _empty_cache(runtime: Runtime) -> None:
    for source in runtime.registry.of(WORKSPACE):
        source._cache._entries.clear()


def test_who_asks_the_same_is_served_by_one_execution(served: World) -> None:
    with ready(served) as one, ready(served) as two, ready(served) as three:
        following(one, EVENTS, served, objects=["contact"])
        following(three, EVENTS, served, objects=["deal"])
        two.subscribe(EVENTS, "other", variables={"objects": ["contact"]})
        two.say({"type": "ping"})
        assert two.hear() == {"type": "pong"}
        until_followed(served, 2)

        happen(served, event("a"), event("b", kind="deal"))

        assert [one.event()["ref"], two.event()["ref"], three.event()["ref"]] == [
            {"recordId": "a"},
            {"recordId": "a"},
            {"recordId": "b"},
        ]
        one.connection.close()
        until_followed(served, 2)
        happen(served, event("c"))
        assert two.event()["ref"] == {"recordId": "c"}


def test_a_source_is_told_as_it_is_and_whenever_it_changes(served: World) -> None:
    [source, *_] = served.app.state.runtime.registry.of(WORKSPACE)
    with ready(served) as client:
        client.subscribe(
            "subscription($ids: [ID!]) { sourceHealth(ids: $ids) { id state reason } }", variables={"ids": [source.id]}
        )
        assert client.event() == {"id": source.id, "state": "CONNECTED", "reason": None}

        source.state, source.reason = "PAUSED", "tested"
        try:
            assert client.event() == {"id": source.id, "state": "PAUSED", "reason": "tested"}
        finally:
            source.state, source.reason = "CONNECTED", None
        assert client.event()["state"] == "CONNECTED"


def test_a_slow_subscriber_is_told_where_to_resume_and_gets_the_rest_from_there() -> None:
    query = "subscription($since: EventCursor) { events(since: $since) { id cursor changed } }"
    with world(people=2, subscriber_queue=20) as running, ready(running) as quick:

        async def stalled() -> list[Any]:
            with network.socket() as few:
                few.setsockopt(network.SOL_SOCKET, network.SO_RCVBUF, 65_536)
                few.connect((running.http.base_url.host, running.http.base_url.port))
                async with connect(address(running), sock=few, subprotocols=["graphql-transport-ws"], max_queue=1) as client:  # type: ignore[list-item]
                    await client.send('{"type":"connection_init"}')
                    await client.recv()
                    await client.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}))
                    await asyncio.to_thread(until_followed, running, 2)
                    for _ in range(40):  # 40 MB: more than every buffer between holds
                        await asyncio.to_thread(happen, running, *(event(str(each), changed=(BIG,) * 100) for each in range(10)))
                    heard: list[Any] = []
                    while not heard or heard[-1]["type"] == "next":
                        heard.append(json.loads(await asyncio.wait_for(client.recv(), 10)))
                    return heard

        following(quick, "subscription { events { id } }", running)
        *results, end = asyncio.run(stalled())
        seen = [each["payload"]["data"]["events"] for each in results]
        [error] = end["payload"]
        assert (end["type"], error["extensions"]["code"]) == ("error", "SLOW_SUBSCRIBER")
        assert 20 <= len(seen) < 400
        assert error["extensions"]["resumeFrom"] == seen[-1]["cursor"]

        with ready(running) as client:
            client.subscribe(query, variables={"since": error["extensions"]["resumeFrom"]})
            seen += [client.event() for _ in range(400 - len(seen))]
        assert [each["id"] for each in seen] == [f"event:{number}" for number in range(1, 401)]
        assert [quick.event()["id"] for _ in range(400)] == [f"event:{number}" for number in range(1, 401)]
        assert "c360_subscriptions_cut_off_total 1.0" in running.http.get("/metrics").text


def test_a_burst_cuts_nobody_off_who_reads(served: World) -> None:
    start = last(served)
    with ready(served) as client:
        following(client, EVENTS, served)

        happen(served, *(event(str(number)) for number in range(5000)))

        assert [client.event()["id"] for _ in range(5000)] == [f"event:{start + number}" for number in range(1, 5001)]


def test_subscribers_are_ended_when_the_log_stops() -> None:
    with world(people=2) as running, ready(running) as client:
        following(client, EVENTS, running)
        running.within(lambda runtime: asyncio.wait_for(runtime.events.stop(), 5))

        assert client.hear() == {"id": "1", "type": "complete"}
