"""The database, or Redis, gone for a while under load: nothing accepted is lost, and everything recovers by itself."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import make_url

from tests.programs import free_port
from tests.soak.shop import SECONDS, SMALL, Process, configured, edit, proved, settle, shop, wait

WEBHOOKS, GONE = (150, 2.0) if SMALL else (2000, 30.0)
QUESTION = "{ customers(first: 1) { nodes { name } } }"


Joined = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """A line to a server that can be cut, and mended. `join` reaches the server."""

    def __init__(self, join: Callable[[], Awaitable[Joined]]) -> None:
        self._join, self.port, self.cut = join, free_port(), False
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()

    def start(self) -> None:
        threading.Thread(target=self._loop.run_until_complete, args=(self.serve(),), daemon=True).start()

    def sever(self) -> None:
        self.cut = True
        self._loop.call_soon_threadsafe(lambda: [each.transport.abort() for each in self._open])

    def mend(self) -> None:
        self.cut = False

    async def serve(self) -> None:
        async with await asyncio.start_server(self._joined, "127.0.0.1", self.port) as serving:
            await serving.serve_forever()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        there, back = await self._join()
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            self._open -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


def tcp(host: str, port: int) -> Line:
    return Line(lambda: asyncio.open_connection(host, port))


@pytest.fixture
def tcp_postgresql(postgresql_url: str) -> Iterator[tuple[str, Line]]:
    """A database behind a line that can be cut."""
    url = make_url(postgresql_url)
    folder = url.query.get("host")
    made = tcp(str(url.host), url.port or 5432)
    if folder:  # it listens on a socket in a folder
        path = next(each for each in Path(str(folder)).glob(".s.PGSQL.*") if each.suffix != ".lock")
        made = Line(lambda: asyncio.open_unix_connection(str(path)))
    made.start()
    through = url.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=made.port)
    yield through.render_as_string(hide_password=False), made
    made.sever()


@pytest.mark.soak
@pytest.mark.parametrize("gone", ["postgresql", "redis"])
def test_an_outage_under_load_loses_nothing_and_ends_by_itself(
    gone: str, tmp_path: Path, tcp_postgresql: tuple[str, Line], postgresql_url: str, redis_url: str
) -> None:
    database, to_database = tcp_postgresql
    address_of_redis = urlsplit(redis_url)
    to_redis = tcp(str(address_of_redis.hostname), address_of_redis.port or 6379)
    to_redis.start()
    with shop(people=300) as (sandbox, address):
        port = free_port()
        config = configured(
            tmp_path, sandbox, address, database, f"http://127.0.0.1:{port}", redis=f"redis://127.0.0.1:{to_redis.port}/0"
        )
        process = Process(tmp_path, config, port)
        try:
            process.start()
            wait(lambda: len(sandbox.dialects["shopify"].subscriptions()) > 0, "nobody subscribed")
            editing = threading.Thread(target=edit, args=(sandbox, random.Random(2), WEBHOOKS), daemon=True)
            editing.start()
            time.sleep(0.3)
            cut = to_database if gone == "postgresql" else to_redis
            cut.sever()
            until = time.monotonic() + GONE
            while time.monotonic() < until:
                if gone == "redis":
                    answer = httpx.post(f"{process.url}/graphql", json={"query": QUESTION}, timeout=20).json()
                    assert answer["data"]["customers"]["nodes"], "without Redis everything is still answered"
                time.sleep(0.5)
            if gone == "postgresql":
                assert httpx.get(f"{process.url}/health/ready", timeout=30).status_code == 503
            cut.mend()
            editing.join(SECONDS)
            wait(lambda: httpx.get(f"{process.url}/health/ready", timeout=30).status_code == 200, "it does not recover")
            settle(sandbox, postgresql_url)
            proved(sandbox, postgresql_url, process, WEBHOOKS)
        finally:
            process.kill()
