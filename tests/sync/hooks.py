"""Someone whom we send webhooks: a real server on loopback whose answers a test chooses; and the parts that deliver to them."""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from credentials.vault import Vault
from model.clock import Clock
from model.events import Event
from model.records import Ref
from sources.client import network
from store.database import Database
from store.endpoints import EndpointRows
from store.events import EventRows, append
from store.ledger import LedgerRows
from sync.destinations import Destinations
from sync.endpoints import Endpoints
from sync.outbound import Outbound
from tests.world import served

LOOPBACK = ("127.0.0.1",)
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Got:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found


@dataclass(slots=True)
class Hooks:
    """
    Attributes:
        got: what came, in the order in which it came.
        answers: (status, headers) of the next answers; 204 when there are none.
        before: called with each delivery before it is answered.
    """

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    before: Callable[[Got], None] = lambda _: None
    _came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.got]

    def wait(self, enough: Callable[[list[Got]], bool], *, seconds: float = 10.0) -> None:
        until = time.monotonic() + seconds
        with self._came:
            while not enough(self.got):
                left = until - time.monotonic()
                assert left > 0, f"only {len(self.got)} deliveries came"
                self._came.wait(left)

    async def take(self, request: Request) -> Response:
        got = Got(request.url.path, dict(request.headers), await request.body())
        with self._came:
            self.got.append(got)
            self._came.notify_all()
        self.before(got)
        status, headers = self.answers.popleft() if self.answers else (204, {})
        return Response(status_code=status, headers=headers)


@contextlib.contextmanager
def hooks() -> Iterator[Hooks]:
    made = Hooks()
    app = Starlette(routes=[Route("/{path:path}", made.take, methods=["GET", "POST"])])
    with served(
        uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", date_header=False))
    ) as address:
        made.url = f"{address}/hook"
        yield made


@dataclass(frozen=True, slots=True)
class Delivering:
    """The parts of one process that delivers."""

    database: Database
    rows: EndpointRows
    endpoints: Endpoints
    outbound: Outbound

    async def happened(self, count: int = 1, *, kind: Any = "contact", op: Any = "UPDATED", **facts: Any) -> None:
        await happened(self.database, count, kind=kind, op=op, **facts)

    async def send(self, id: str) -> None:
        """Enter and send all that is due by now."""
        while await self.outbound.enter(id) or await self.outbound.send_first(id) or await self.outbound.send_again(id):
            pass


async def happened(database: Database, count: int = 1, *, kind: Any = "contact", op: Any = "UPDATED", **facts: Any) -> None:
    """Append events to the log."""
    said: dict[str, Any] = {
        "at": NOW,
        "received_at": NOW,
        "origin": "WEBHOOK",
        "customer": "c360_1",
        "changed": ("phones",),
        **facts,
    }
    ref: Ref | None = said.pop("ref", None)
    found = [
        Event(workspace="default", seq=0, op=op, ref=ref or Ref("crm", kind, str(number)), system="acme", **said) for number in range(count)
    ]  # fmt: skip
    async with database.write() as connection:
        await append(connection, "default", found, now=NOW)


@contextlib.asynccontextmanager
async def delivering(
    url: str, clock: Clock, *, owner: str = "one", lease: float = 15.0, allowed: tuple[str, ...] = LOOPBACK, **more: Any
) -> AsyncIterator[Delivering]:
    """Open the parts over a database; the vault's key is the same for all."""
    database, transport = await Database.open(url), network(idle=1.0)
    rows, events = EndpointRows(database), EventRows(database)
    destinations = more.pop("destinations", None) or Destinations(allowed)
    endpoints = Endpoints(rows, events, Vault([b"k" * 32]), destinations, clock=clock)
    outbound = Outbound(
        rows, endpoints, events, LedgerRows(database), "default", network=transport, destinations=destinations, owner=owner, clock=clock,
        rng=random.Random(7), lease=lease, **more,
    )  # fmt: skip
    try:
        yield Delivering(database, rows, endpoints, outbound)
    finally:
        await outbound.stop()
        await transport.aclose()
        await database.close()
