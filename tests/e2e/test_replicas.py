"""Two replicas over one PostgreSQL and one Redis: one budget, one grant, one identity."""

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
import uvicorn

from gateway.app import create
from gateway.settings import Settings
from sandbox.app import Sandbox, server
from tests.world import SYSTEMS, served, source_settings

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
CUSTOMER = '{ customer(by: {email: "%s"}) { id refs { system recordId } sources { source { id } state calls } } }'
PAGE = """query($after: String) { customers(first: 20, after: $after) {
  nodes { id } pageInfo { hasNextPage endCursor } sources { source { id } state } } }"""


@pytest.fixture
def replicas(
    postgresql_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Sandbox, list[httpx.Client]]]:
    sandbox = Sandbox(people=60, systems=SYSTEMS)
    with ExitStack() as stack:
        address = stack.enter_context(served(server(sandbox)))
        clients = []
        for name in ("one", "two"):
            settings = Settings.model_validate({
                "require_key": False, "data_dir": tmp_path_factory.mktemp(name), "database_url": postgresql_url, "redis_url": redis_url, "key": KEY,
                "sources": source_settings(sandbox, address), "deadline": 20,
            })  # fmt: skip
            url = stack.enter_context(
                served(uvicorn.Server(uvicorn.Config(create(settings), log_level="error", access_log=False)))
            )
            clients.append(stack.enter_context(httpx.Client(base_url=url, timeout=30)))
        yield sandbox, clients


def test_either_replica_answers_the_same_customer(replicas: tuple[Sandbox, list[httpx.Client]]) -> None:
    sandbox, clients = replicas
    query = CUSTOMER % sandbox.world.people[0].email

    first, second = (client.post("/graphql", json={"query": query}).json()["data"]["customer"] for client in clients)

    assert (first["id"], first["refs"]) == (second["id"], second["refs"])
    assert {each["state"] for each in second["sources"]} == {"CACHED"}, "what one has read the other has in Redis"


def test_a_token_renewed_by_one_is_used_by_the_other(replicas: tuple[Sandbox, list[httpx.Client]]) -> None:
    sandbox, clients = replicas
    for number, client in enumerate(clients):
        body = {"query": CUSTOMER % sandbox.world.people[number].email}
        assert "errors" not in client.post("/graphql", json=body).json()

    renewals = {
        name: sum(count for path, count in dialect.calls.items() if "token" in path) for name, dialect in sandbox.dialects.items()
    }

    assert renewals == {"hubspot": 1, "salesforce": 1, "shopify": 1, "zendesk": 1}


def test_a_list_begun_at_one_goes_on_at_the_other(replicas: tuple[Sandbox, list[httpx.Client]]) -> None:
    _, clients = replicas
    found: list[str] = []
    after, turn, more = None, 0, True
    while more:
        page = clients[turn % 2].post("/graphql", json={"query": PAGE, "variables": {"after": after}}).json()["data"]["customers"]
        found += [each["id"] for each in page["nodes"]]
        after, more, turn = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"], turn + 1

    assert len(found) == len(set(found)) > 40
    assert turn > 2


def test_they_share_one_budget(replicas: tuple[Sandbox, list[httpx.Client]]) -> None:
    sandbox, clients = replicas
    query = '{ contacts(first: 5, read: {policy: LIVE, sources: ["hubspot"]}) { sources { state retryAt } } }'

    states = [
        each["state"]
        for number in range(16)
        for each in clients[number % 2].post("/graphql", json={"query": query}).json()["data"]["contacts"]["sources"]
    ]

    throttled = sum(count for path, count in sandbox.dialects["hubspot"].calls.items() if "search" in path)
    assert set(states) == {"OK"}, "the budget waits its turn; nobody runs into the vendor's limit of five searches a second"
    assert throttled >= 16
