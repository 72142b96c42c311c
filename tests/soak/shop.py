"""A shop whose customers change, and `c360 serve` processes that are told of it by its webhooks: what soaks of the live part share."""

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import httpx
import uvicorn
from sqlalchemy import create_engine, text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.app import Sandbox, server
from tests.programs import C360, environment
from tests.world import served

SMALL = os.environ.get("C360_SOAK") == "small"
SECONDS = 900  # for everything
log = logging.getLogger(__name__)


class Process:
    """One `c360 serve` that is killed and started again."""

    def __init__(self, folder: Path, config: Path, port: int) -> None:
        self.folder, self.config, self.port = folder, config, port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [str(C360), "serve", "--config", str(self.config), "--port", str(self.port)]
        log = (self.folder / f"{self.port}.log").open("ab")
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment(), stdout=log, stderr=log)
        for _ in range(1200):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health/ready", timeout=2).status_code == 200:
                    return
            assert self.process.poll() is None, (self.folder / f"{self.port}.log").read_text()[-2000:]
            time.sleep(0.05)
        raise AssertionError("it does not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


@contextlib.contextmanager
def shop(people: int) -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox(people=people, systems=["shopify"])
    with served(server(sandbox)) as address:
        for fault, how in (("webhook_duplicate", {"rate": 0.1}), ("webhook_reorder", {"rate": 0.3, "seconds": 0.5})):
            httpx.post(f"{address}/_control/faults", json={"system": "shopify", "fault": fault, **how}).raise_for_status()
        yield sandbox, address


def configured(folder: Path, sandbox: Sandbox, address: str, database: str, public: str, *, redis: str | None = None) -> Path:
    shopify = sandbox.dialects["shopify"]
    said = [f"{name} = {json.dumps(value)}" for name, value in shopify.demo_auth().items()]
    config = folder / "c360.toml"
    config.write_text(
        f'require_key = false\ndata_dir = "{folder}"\ndatabase_url = "{database}"\npublic_url = "{public}"\nlog_level = "ERROR"\n'
        + (f'redis_url = "{redis}"\n' if redis else "")
        + f'[[sources]]\nid = "shop"\nsystem = "shopify"\nbase_url = "{shopify.address(address)}"\n[sources.auth]\n'
        + "\n".join(said)
    )
    return config


def edit(sandbox: Sandbox, rng: random.Random, many: int) -> None:
    """Change contacts, a few of them again and again, as fast as two cores allow."""
    shopify = sandbox.dialects["shopify"]
    known = [each["id"] for person in sandbox.world.people for each in shopify.truth(person) if not each["deleted"]]
    often = known[:20]
    for nth in range(many):
        native_id = rng.choice(often if nth % 4 == 0 else known)
        assert shopify.change("contact", native_id, {"firstName": f"Name{nth}"}) is not None
        if nth % 10 == 9:
            time.sleep(0.05 if SMALL else 0.25)


def settle(sandbox: Sandbox, database: str) -> None:
    """Let the vendor send what failed once more, and wait until nothing waits to be applied."""
    for _ in range(60):
        if not sandbox.dialects["shopify"].outbox.busy():
            break
        sandbox.clock.advance(900)
        time.sleep(0.5)
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with engine.connect() as connection:
            waiting = connection.execute(text("select count(*) from inbox where state in ('NEW', 'TAKEN')")).scalar()
        if not waiting:
            engine.dispose()
            return
        time.sleep(0.3)
    raise AssertionError(f"{waiting} events still wait")


def proved(sandbox: Sandbox, database: str, living: Process, many: int) -> None:
    """Hold what the store has against what the vendor was answered, and what the graph says against what the vendor has."""
    shopify = sandbox.dialects["shopify"]
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        rows = connection.execute(text("select event, state, deliveries, native_id, origin from inbox")).all()
        events = connection.execute(text("select seq, native_id, op, at, changed, origin from events order by seq")).all()
        versions = dict(connection.execute(text("select native_id, updated_at from versions where kind = 'contact'")).all())
    engine.dispose()
    pushed = {row.event: row for row in rows if row.origin == "WEBHOOK"}
    accepted = Counter[str]()
    for told in list(shopify.outbox.log):
        accepted[told.key] += sum(1 for _, status in told.attempts if status is not None and 200 <= status < 300)
    lost = [key for key, times in accepted.items() if times and key not in pushed]
    assert not lost, f"{len(lost)} webhooks were answered 2xx and are not there"
    assert sum(accepted.values()) >= many * 0.9, f"only {sum(accepted.values())} deliveries were answered 2xx"
    assert {row.state for row in rows} <= {"APPLIED", "SUPERSEDED", "PARKED"}
    assert all(row.deliveries >= min(accepted[key], 1) for key, row in pushed.items())
    assert sum(row.deliveries for row in pushed.values()) >= sum(accepted.values())
    # Each applied change is one event, and none is there twice.
    assert [row.seq for row in events] == list(range(1, len(events) + 1))
    seen = Counter((row.native_id, row.op, str(row.at), str(row.changed)) for row in events)
    assert [key for key, times in seen.items() if times > 1 and key[3] in {"None", "null"}] == []
    applied = sum(row.state == "APPLIED" for row in pushed.values())
    assert sum(row.origin == "WEBHOOK" for row in events) == applied
    touched = [told for told in versions if told in {row.native_id for row in events}]
    for native_id in touched:
        row, known = shopify.tables["contact"].get(native_id), versions[native_id]
        at = known if isinstance(known, datetime) else datetime.fromisoformat(known)
        assert row is not None
        assert datetime.fromisoformat(row["updatedAt"]).replace(tzinfo=None) == at.replace(tzinfo=None), native_id
    asked = "query Q($id: ID!) { node(id: $id) { ... on Contact { name } } }"
    for native_id in touched[:30]:
        said = {"query": asked, "variables": {"id": f"contact:shop:{native_id}"}}
        answer = httpx.post(f"{living.url}/graphql", json=said, timeout=30).json()
        row = shopify.tables["contact"].get(native_id)
        assert row is not None
        assert "data" in answer, answer
        assert answer["data"]["node"]["name"].startswith(row["firstName"])
    log.info(
        "%d deliveries answered 2xx, %d events, %d applied, %d in the log",
        sum(accepted.values()),
        len(pushed),
        applied,
        len(events),
    )


def wait(enough: Callable[[], bool], told: str) -> None:
    until = time.monotonic() + 60
    while not enough():
        assert time.monotonic() < until, told
        time.sleep(0.1)


@contextlib.contextmanager
def spread(port: int, behind: list[int]) -> Iterator[None]:
    """Stand before several processes as a load balancer does: each delivery goes to one of them, and to another where that is down."""
    turn = iter(range(10**9))
    client = httpx.AsyncClient(timeout=10)

    async def pass_on(request: Request) -> Response:
        body, first = await request.body(), next(turn)
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        for nth in range(len(behind)):
            target = behind[(first + nth) % len(behind)]
            try:
                answer = await client.request(
                    request.method, f"http://127.0.0.1:{target}{request.url.path}", content=body, headers=headers
                )
            except httpx.ConnectError:
                continue
            except httpx.HTTPError:
                return Response(status_code=502)  # it may have been taken: the vendor sends it again
            return Response(answer.content, status_code=answer.status_code)
        return Response(status_code=502)

    app = Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])
    made = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        made.should_exit = True
        thread.join(10)
