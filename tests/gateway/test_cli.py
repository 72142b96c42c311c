"""The command line, as a process: what a newcomer types, and what goes wrong."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from adapters.registry import ADAPTERS
from sandbox.app import DIALECTS, Sandbox, server
from tests.programs import c360, free_port, started
from tests.world import served

ROOT = Path(__file__).parents[2]
DEMO_QUERY = '{ customer(by: {email: "%s"}) { name sources { source { id } state } } }'


@pytest.fixture
def vendors() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(people=40)
    with served(server(sandbox)) as address:
        yield sandbox, address


def configured(folder: Path, sandbox: Sandbox, address: str) -> str:
    """Write a c360.toml with all systems of the sandbox; return a person's e-mail address."""
    text = ""
    for name, dialect in sandbox.dialects.items():
        auth = ", ".join(f"{key} = {json.dumps(value)}" for key, value in dialect.demo_auth().items())
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in dialect.demo_options(address).items())
        text += f'[[sources]]\nid = "{name}"\nsystem = "{name}"\nbase_url = "{dialect.address(address)}"\nauth = {{ {auth} }}\noptions = {{ {options} }}\n'
    (folder / "c360.toml").write_text(text)
    return str(sandbox.world.people[0].email)


def test_demo_answers_from_four_systems_and_stops_clean_on_ctrl_c(tmp_path: Path) -> None:
    port, sandbox_port = free_port(), free_port()
    arguments = ["demo", "--port", str(port), "--sandbox-port", str(sandbox_port), "--people", "50", "--seed", "3"]
    with started(*arguments, cwd=tmp_path, url=f"http://127.0.0.1:{port}/health/ready") as process:
        people = httpx.get(f"http://127.0.0.1:{sandbox_port}/_control/people?limit=1").json()["people"]
        asked = c360("query", DEMO_QUERY % people[0]["email"], "--url", f"http://127.0.0.1:{port}/graphql", cwd=tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    customer = json.loads(asked.stdout)["data"]["customer"]
    assert {each["source"]["id"] for each in customer["sources"]} == set(DIALECTS)
    assert {each["state"] for each in customer["sources"]} == {"OK"}
    assert (process.returncode, err) == (0, "")
    assert f"http://127.0.0.1:{port}/graphql" in out
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with served(server(Sandbox(people=1))) as address:
        told = c360(
            "demo", "--people", "2", "--port", address.rsplit(":", 1)[1], "--sandbox-port", str(free_port()), cwd=tmp_path
        )

    assert told.returncode == 2
    assert "choose another --port" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_serve_needs_a_key_and_answers_with_one(tmp_path: Path, vendors: tuple[Sandbox, str]) -> None:
    email, port = configured(tmp_path, *vendors), free_port()
    made = c360("keys", "create", "web", "--scope", "read", cwd=tmp_path)
    key = made.stdout.splitlines()[0]
    url = f"http://127.0.0.1:{port}"

    with started("serve", "--port", str(port), cwd=tmp_path, url=f"{url}/health/ready"):
        refused = httpx.post(f"{url}/graphql", json={"query": "{ __typename }"})
        asked = c360("query", DEMO_QUERY % email, "--url", f"{url}/graphql", "--key", key, cwd=tmp_path)
        revoked = c360("keys", "revoke", c360("keys", "list", cwd=tmp_path).stdout.split()[0], cwd=tmp_path)
        after = httpx.post(f"{url}/graphql", json={"query": "{ __typename }"}, headers={"authorization": f"Bearer {key}"})

    assert refused.status_code == 401
    assert json.loads(asked.stdout)["data"]["customer"]["name"]
    assert revoked.returncode == 0
    assert after.status_code == 401


def test_a_rotated_token_outlives_kill_9(tmp_path: Path) -> None:
    sandbox = Sandbox(people=30)
    with served(server(sandbox)) as address:
        email = configured(tmp_path, sandbox, address)
        key = c360("keys", "create", "web", cwd=tmp_path).stdout.splitlines()[0]
        for _ in range(3):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            with started("serve", "--port", str(port), cwd=tmp_path, url=f"{url}/health/ready") as process:
                body = {"query": DEMO_QUERY % email}
                answer = httpx.post(f"{url}/graphql", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30).json()
                process.send_signal(signal.SIGKILL)
            sandbox.clock.advance(100_000)  # every token of this round is dead now; only what was stored renews

            assert {each["state"] for each in answer["data"]["customer"]["sources"]} == {"OK"}


def test_sigterm_lets_requests_under_way_finish(tmp_path: Path) -> None:
    sandbox = Sandbox(people=30)
    with served(server(sandbox)) as address:
        email, port = configured(tmp_path, sandbox, address), free_port()
        key = c360("keys", "create", "web", cwd=tmp_path).stdout.splitlines()[0]
        url = f"http://127.0.0.1:{port}"
        answers: list[httpx.Response] = []

        def ask() -> None:
            body = {"query": DEMO_QUERY % email}
            answers.append(httpx.post(f"{url}/graphql", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30))

        with (
            httpx.Client(base_url=address) as control,
            started("serve", "--port", str(port), cwd=tmp_path, url=f"{url}/health/ready") as process,
        ):
            control.post("/_control/faults", json={"system": "*", "fault": "latency", "seconds": 0.4})
            asking = threading.Thread(target=ask)
            asking.start()
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            asking.join(20)
            process.communicate(timeout=20)

    assert answers[0].json()["data"]["customer"]["name"]
    assert process.returncode in {0, -signal.SIGTERM}


def test_sigterm_breaks_subscriptions_off_at_once(tmp_path: Path) -> None:
    port = free_port()
    key = c360("keys", "create", "web", cwd=tmp_path).stdout.splitlines()[0]
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {key}"}
    query = {"query": "subscription { events { id } }"}
    with (
        started("serve", "--port", str(port), cwd=tmp_path, url=f"{url}/health/ready") as process,
        connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=["graphql-transport-ws"], additional_headers=headers) as socket,  # type: ignore[list-item]
        httpx.stream(
            "POST", f"{url}/graphql", json=query, headers={**headers, "accept": "text/event-stream"}, timeout=30
        ) as stream,
    ):
        assert stream.status_code == 200
        socket.send('{"type":"connection_init"}')
        assert socket.recv(10) == '{"type":"connection_ack"}'
        began = time.monotonic()

        process.send_signal(signal.SIGTERM)

        assert b"complete" not in b"".join(stream.iter_raw())
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        process.communicate(timeout=20)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012  # come again
        assert time.monotonic() - began < 5


def test_sources_are_added_checked_paused_and_removed(tmp_path: Path, vendors: tuple[Sandbox, str]) -> None:
    _, address = vendors
    add = ["sources", "add", "desk", "--system", "zendesk", "--base-url", f"{address}/zendesk", "--auth", "scheme=basic", "--auth", "username=ada@northwind.example"]  # fmt: skip

    wrong = c360(*add, "--auth", "password=nonsense", cwd=tmp_path)
    auth = dict(vendors[0].dialects["zendesk"].demo_auth())
    added = c360(
        "sources", "add", "desk", "--system", "zendesk", "--base-url", f"{address}/zendesk",
        *(part for name, value in auth.items() for part in ("--auth", f"{name}={value}")), cwd=tmp_path,
    )  # fmt: skip
    checked = c360("sources", "check", "desk", cwd=tmp_path)
    paused = c360("sources", "pause", "desk", cwd=tmp_path)
    removed = [c360("sources", "remove", "desk", cwd=tmp_path).returncode for _ in range(2)]

    assert wrong.returncode == 2
    assert "nonsense" not in wrong.stderr + wrong.stdout
    assert (added.returncode, checked.returncode, paused.returncode, removed) == (0, 0, 0, [0, 2])
    assert checked.stdout.startswith("desk: ok, zendesk account")


@pytest.mark.parametrize(
    ("arguments", "settings", "line"),
    [
        (["serve"], {"C360_TYPO": "1"}, "C360_TYPO is no setting"),
        (["serve", "--config", "none.toml"], {}, "none.toml does not exist"),
        (["serve"], {"C360_DATABASE_URL": "mysql://x"}, "database_url must be"),
        (
            ["serve"],
            {"C360_DATABASE_URL": "postgresql://ada:t0psecret@127.0.0.1:1/c360"},
            "database_url: the database cannot be opened",
        ),
        (["serve"], {"C360_REDIS_URL": "http://x"}, "redis_url must be"),
        (["serve"], {"C360_KEY": "short"}, "C360_KEY must be 32 bytes in base64"),
        (["serve", "--host", "0.0.0.0"], {"C360_REQUIRE_KEY": "false"}, "require_key: may be off on loopback only"),
        (["keys", "create", "web", "--scope", "everything"], {}, "--scope: there is no 'everything'"),
        (["keys", "revoke", "none"], {}, "there is no active key 'none'"),
        (["sources", "check", "none"], {}, "there is no source 'none'"),
        (["query", "{ __typename }", "--url", "http://127.0.0.1:1/graphql"], {}, "did not answer"),
        (["query", "{ __typename }", "--variables", "{"], {}, "not JSON"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], settings: dict[str, str], line: str) -> None:
    settings = {"C360_PORT": str(free_port()), **settings}

    told = c360(*arguments, cwd=tmp_path, **settings)

    assert told.returncode == 2
    assert line in told.stderr
    assert "Traceback" not in told.stderr
    assert "t0psecret" not in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_schema_prints_the_committed_sdl(tmp_path: Path) -> None:
    assert c360("schema", cwd=tmp_path).stdout == (ROOT / "schema" / "schema.graphql").read_text()


def test_systems_lists_every_adapter_with_its_evidence(tmp_path: Path) -> None:
    lines = c360("systems", cwd=tmp_path).stdout.splitlines()[1:]

    assert [line.split()[0] for line in lines] == sorted(ADAPTERS)
    assert {line.split()[2] for line in lines} <= {"E0", "E1", "E2", "E3", "E4"}
