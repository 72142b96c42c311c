"""Endpoints as administrators handle them, through the graph and the command line, and the deliveries of a gateway that serves."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from store.database import Database
from tests.programs import c360, free_port, started
from tests.sync.hooks import Hooks, happened, hooks
from tests.world import World, world

T = TypeVar("T")
SAVE = """mutation($id: ID, $url: String!, $events: [String!]!, $retry: JSON) {
  webhookEndpointSave(id: $id, url: $url, events: $events, retry: $retry) {
    endpoint { id url events state secretFingerprint retry } secret userErrors { code message } } }"""
SHOWN = """{ webhookEndpoints { id url events secretFingerprint state reason failureRate waiting parked missed
  deliveries(first: 5) { event state dueAt attempts { status code payloadBytes backoff } } } }"""
REPLAY = """mutation($id: ID!, $parked: Boolean! = false, $since: String, $event: ID) {
  webhookEndpointReplay(id: $id, parked: $parked, since: $since, event: $event) {
    affected endpoint { parked } userErrors { code message } } }"""


@pytest.fixture
def hook() -> Iterator[Hooks]:
    with hooks() as made:
        yield made


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world(people=5, systems=("hubspot",), webhook_private_hosts=("127.0.0.1",), follow=False) as made:
        yield made


def happen(folder: Path, count: int = 1, **facts: Any) -> None:
    async def write() -> None:
        database = await Database.open(f"sqlite:///{folder / 'c360.db'}")
        await happened(database, count, **facts)
        await database.close()

    asyncio.run(write())


def until(look: Callable[[], T], enough: Callable[[T], bool]) -> T:
    """Look until it is enough, a hundred times at the most."""
    for _ in range(100):
        if enough(found := look()):
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_an_endpoint_is_made_delivers_parks_replays_rotates_and_goes(served: World, hook: Hooks) -> None:
    made = served.data(SAVE, {"url": hook.url, "events": ["contact.*"], "retry": {"first": 0.05, "maxAttempts": 2}})
    saved = made["webhookEndpointSave"]
    id, secret = saved["endpoint"]["id"], saved["secret"]
    hook.answers += [(500, {})] * 2

    happen(served.folder, kind="deal")
    happen(served.folder)
    hook.wait(lambda got: len(got) == 2)
    shown = until(lambda: served.data(SHOWN)["webhookEndpoints"][0], lambda found: found["parked"] == 1)
    replayed = served.data(REPLAY, {"id": id, "parked": True})["webhookEndpointReplay"]
    hook.wait(lambda got: len(got) == 3)
    rotated = served.data(
        'mutation { webhookEndpointRotate(id: "%s", overlap: "PT1H") { secret endpoint { secretFingerprint } } }' % id
    )
    happen(served.folder)
    hook.wait(lambda got: len(got) == 4)
    removed = served.data('mutation { webhookEndpointRemove(id: "%s") { endpoint { id } userErrors { code } } }' % id)

    assert saved["endpoint"]["retry"]["maxAttempts"] == 2
    assert (shown["state"], shown["failureRate"], shown["waiting"]) == ("FAILING", 1.0, 0)
    assert [(each["status"], each["code"]) for each in shown["deliveries"][0]["attempts"]] == [(500, "UPSTREAM")] * 2
    assert (shown["deliveries"][0]["state"], shown["deliveries"][0]["event"]) == ("PARKED", hook.ids[0])
    assert secret not in json.dumps(shown)
    assert replayed["affected"] == 1
    assert len(set(hook.ids[:3])) == 1
    assert rotated["webhookEndpointRotate"]["endpoint"]["secretFingerprint"] != saved["endpoint"]["secretFingerprint"]
    for known in (secret, rotated["webhookEndpointRotate"]["secret"]):
        assert Webhook(known).verify(hook.got[3].body, dict(hook.got[3].headers))["data"]["object"] == "contact"
    assert removed["webhookEndpointRemove"] == {"endpoint": None, "userErrors": []}
    assert served.data(SHOWN)["webhookEndpoints"] == []
    assert 'c360_outbound_webhooks_total{outcome="parked"} 1.0' in served.http.get("/metrics").text


def test_a_secret_is_told_once(served: World, hook: Hooks) -> None:
    saved = served.data(SAVE, {"url": hook.url, "events": ["*"]})["webhookEndpointSave"]
    again = served.data(SAVE, {"id": saved["endpoint"]["id"], "url": hook.url, "events": ["deal.*"]})["webhookEndpointSave"]

    assert saved["secret"].startswith("whsec_")
    assert again["secret"] is None
    assert again["endpoint"] | {"events": ["*"]} == saved["endpoint"]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"url": "https://10.0.0.1/hook"}, "FORBIDDEN"),
        ({"url": "https://[::ffff:127.0.0.1]/hook"}, "FORBIDDEN"),
        ({"url": "http://127.0.0.2/hook"}, "FORBIDDEN"),
        ({"url": "ftp://hooks.example"}, "VALIDATION"),
        ({"events": ["people.*"]}, "VALIDATION"),
        ({"retry": {"maxAttempts": 0}}, "VALIDATION"),
        ({"id": "whe_0"}, "NOT_FOUND"),
    ],
    ids=str,
)
def test_mistakes_are_data(served: World, hook: Hooks, said: dict[str, Any], code: str) -> None:
    saved = served.data(SAVE, {"url": hook.url, "events": ["*"], **said})["webhookEndpointSave"]

    assert (saved["endpoint"], saved["secret"]) == (None, None)
    assert [each["code"] for each in saved["userErrors"]] == [code]


@pytest.mark.parametrize(
    ("said", "code"), [({}, "VALIDATION"), ({"parked": True, "since": "1"}, "VALIDATION"), ({"since": "x"}, "VALIDATION"), ({"since": "99"}, "VALIDATION")]
)  # fmt: skip
def test_a_replay_says_what(served: World, hook: Hooks, said: dict[str, Any], code: str) -> None:
    id = served.data(SAVE, {"url": hook.url, "events": ["*"]})["webhookEndpointSave"]["endpoint"]["id"]

    assert [each["code"] for each in served.data(REPLAY, {"id": id, **said})["webhookEndpointReplay"]["userErrors"]] == [code]


def test_endpoints_are_for_administrators_and_the_command_line_handles_them_beside_a_gateway(tmp_path: Path, hook: Hooks) -> None:
    port, settings = free_port(), {"C360_WEBHOOK_PRIVATE_HOSTS": "127.0.0.0/8"}
    url = f"http://127.0.0.1:{port}"
    key = c360("keys", "create", "web", "--scope", "read", "--scope", "write", cwd=tmp_path).stdout.split()[0]
    admin = c360("keys", "create", "root", "--scope", "admin", cwd=tmp_path).stdout.split()[0]

    with started("serve", "--port", str(port), cwd=tmp_path, url=f"{url}/health/ready", settings=settings):
        asked = [
            httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, headers={"x-api-key": each}).json()
            for query, variables in ((SHOWN, {}), (SAVE, {"url": hook.url, "events": ["*"]}))
            for each in (key, admin)
        ]
        added = c360(
            "endpoints",
            "add",
            hook.url,
            "--events",
            "deal.*",
            "--retry",
            '{"first": 0.05, "maxAttempts": 1}',
            cwd=tmp_path,
            **settings,
        )
        refused = c360("endpoints", "add", "https://127.0.0.1/x", cwd=tmp_path)
        id = added.stdout.split("(id ")[1].split(";")[0]
        hook.answers += [(500, {}), (500, {})]
        happen(tmp_path / ".c360", kind="deal")
        hook.wait(lambda got: len(got) == 2)
        listed = until(lambda: c360("endpoints", "list", cwd=tmp_path).stdout, lambda found: "parked 1" in found)
        replayed = c360("endpoints", "replay", id, "--parked", cwd=tmp_path)
        hook.wait(lambda got: len(got) >= 3)
        rotated = c360("endpoints", "rotate", id, cwd=tmp_path)
        removed = [c360("endpoints", "remove", id, cwd=tmp_path).returncode for _ in range(2)]

    assert [body["errors"][0]["extensions"]["code"] if "errors" in body else "ok" for body in asked] == [
        "FORBIDDEN",
        "ok",
        "FORBIDDEN",
        "ok",
    ]
    assert added.stdout.startswith("whsec_")
    assert (refused.returncode, "FORBIDDEN" in refused.stderr) == (2, True)
    assert id in listed
    assert replayed.stdout == "1 to be sent again\n"
    assert rotated.stdout.startswith("whsec_")
    assert removed == [0, 2]
