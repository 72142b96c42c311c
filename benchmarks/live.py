"""From a webhook to its subscribers: latency at a steady rate, and how many webhooks are accepted a second.

    make bench-live                                  (a minute on two cores)
    python -m benchmarks.live --rate 200 --seconds 20 --subscribers 1000

The gateway is a process of its own; this one is the vendor (its sandbox answers the reads), the sender of signed webhooks and all
subscribers. Each event is for ten of them: a hundred customers are followed by ten subscribers each. Latency is from `receivedAt`, the
moment the gateway had read the delivery, to the moment a subscriber has the event.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import uvloop
import websockets
from websockets.typing import Subprotocol

from sandbox.app import Sandbox, server

CUSTOMERS, EACH = 100, 10
SECRET = "of-the-benchmark"
ASKED = "subscription S($ids: [ID!]) { customerChanged(ids: $ids) { id op object ref { recordId } changed receivedAt } }"


class Vendor:
    """The vendor, and the webhooks of its contacts: a system without a quota by the second, for that is not what is measured."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(people=2000, systems=["salesforce"])
        self.dialect: Any = self.sandbox.dialects["salesforce"]
        self.ids = [
            each["id"]
            for person in self.sandbox.world.people
            for each in self.dialect.truth(person)
            if each["kind"] == "contact" and not each["deleted"]
        ]
        self.sent = 0

    def change(self, native_id: str) -> tuple[bytes, dict[str, str]]:
        """Change a contact; return the webhook that tells it."""
        self.sent += 1
        row = self.dialect.change("contact", native_id, {"Title": f"T{self.sent}"})
        body = {"object": "Contact", "id": native_id, "changedAt": row["SystemModstamp"], "run": f"r{self.sent}"}
        return orjson.dumps(body), {"content-type": "application/json", "x-webhook-secret": SECRET}


@contextlib.contextmanager
def gateway(address: str, folder: Path, database: str, auth: dict[str, str]) -> Iterator[str]:
    """Run `c360 serve`, and yield where it is."""
    port = _free()
    said = "\n".join(f"{name} = {json.dumps(value)}" for name, value in auth.items())
    (folder / "c360.toml").write_text(
        f'require_key = false\nfollow = false\ndata_dir = "{folder}"\ndatabase_url = "{database}"\nlog_level = "ERROR"\n'
        f'[[apps]]\nid = "flows"\nsystem = "salesforce"\nsecrets = ["{SECRET}"]\n'
        f'[[sources]]\nid = "crm"\nsystem = "salesforce"\nbase_url = "{address}"\n[sources.auth]\n{said}\n'
    )
    command = [str(Path(sys.executable).parent / "c360"), "serve", "--config", str(folder / "c360.toml"), "--port", str(port)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("C360_")}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/health/ready", timeout=2).status_code == 200:
                    break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(40)


@contextlib.asynccontextmanager
async def subscribed(url: str, groups: list[list[str]], latencies: list[float]) -> AsyncIterator[None]:
    """Let subscribers follow: one socket each."""

    async def follow(ids: list[str], ready: asyncio.Event) -> None:
        async with websockets.connect(
            f"{url.replace('http', 'ws')}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            compression=None,
            ping_interval=None,
        ) as socket:
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
            await socket.send(
                orjson.dumps({"id": "1", "type": "subscribe", "payload": {"query": ASKED, "variables": {"ids": ids}}}).decode()
            )
            ready.set()
            async for message in socket:
                now = time.time()
                said = orjson.loads(message)
                if said["type"] == "next":
                    at = datetime.fromisoformat(said["payload"]["data"]["customerChanged"]["receivedAt"]).timestamp()
                    latencies.append(now - at)

    waiting = [asyncio.Event() for _ in groups]
    tasks = [asyncio.create_task(follow(ids, ready)) for ids, ready in zip(groups, waiting, strict=True)]
    for ready in waiting:
        await asyncio.wait_for(ready.wait(), 60)
    await asyncio.sleep(2)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def send(http: aiohttp.ClientSession, url: str, vendor: Vendor, ids: list[str], *, rate: float, seconds: float) -> int:
    """Send webhooks at a rate; return how many were accepted."""
    began, accepted = time.monotonic(), 0
    running: set[asyncio.Task[None]] = set()

    async def one(native_id: str) -> None:
        nonlocal accepted
        body, headers = vendor.change(native_id)
        async with http.post(f"{url}/webhooks/flows", data=body, headers=headers) as answer:
            accepted += answer.status == 200

    for nth in range(int(rate * seconds)):
        pause = began + nth / rate - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(one(ids[nth % len(ids)]))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return accepted


async def flood(http: aiohttp.ClientSession, url: str, vendor: Vendor, *, many: int, at_once: int = 64) -> float:
    """Return how many webhooks a second are accepted, when as many as can are sent."""
    ready = [vendor.change(vendor.ids[nth % len(vendor.ids)]) for nth in range(many)]
    began = time.monotonic()

    async def some() -> None:
        while ready:
            body, headers = ready.pop()
            async with http.post(f"{url}/webhooks/flows", data=body, headers=headers) as answer:
                answer.raise_for_status()

    await asyncio.gather(*(some() for _ in range(at_once)))
    return many / (time.monotonic() - began)


async def customers(http: aiohttp.ClientSession, url: str, ids: list[str]) -> list[str]:
    """Return the customers of contacts, once the gateway knows them."""
    found = []
    for native_id in ids:
        asked = {"query": "query Q($id: ID!) { node(id: $id) { ... on Contact { customer { id } } } }",
                 "variables": {"id": f"contact:crm:{native_id}"}}  # fmt: skip
        async with http.post(f"{url}/graphql", json=asked) as answer:
            found.append((await answer.json())["data"]["node"]["customer"]["id"])
    return found


async def measured(database: str, folder: Path, *, rate: float, seconds: float, subscribers: int) -> None:
    vendor = Vendor()
    serving = server(vendor.sandbox)
    serving.config.load()
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(serving.serve(sockets=[listening]))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with aiohttp.ClientSession() as http:
        starting = gateway(vendor.dialect.address(address), folder, database, dict(vendor.dialect.demo_auth()))
        url = await asyncio.to_thread(starting.__enter__)  # the sandbox must answer meanwhile
        try:
            ids = vendor.ids[:CUSTOMERS]
            known = await customers(http, url, ids)
            groups = [[known[nth % CUSTOMERS]] for nth in range(subscribers)]
            latencies: list[float] = []
            async with subscribed(url, groups, latencies):
                await send(http, url, vendor, ids, rate=rate, seconds=3)
                latencies.clear()
                accepted = await send(http, url, vendor, ids, rate=rate, seconds=seconds)
                await asyncio.sleep(3)
                told = sorted(latencies)
                print(
                    f"{database.partition(':')[0]:<10} {rate:6.0f} webhooks/s sent, {accepted} accepted, {subscribers} subscribers: "
                    f"{len(told)} events given, p50 {1000 * told[len(told) // 2]:.1f} ms, p99 {1000 * told[int(len(told) * 0.99)]:.1f} ms"
                )
            print(
                f"{database.partition(':')[0]:<10} accepted at most: {await flood(http, url, vendor, many=4000):.0f} webhooks/s"
            )
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    serving.should_exit = True
    await task


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, action="append", help="webhooks a second; repeat")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--subscribers", type=int, default=CUSTOMERS * EACH)
    parser.add_argument("--postgresql", help="a database to measure as well: postgresql://…")
    said = parser.parse_args()
    for rate in said.rate or [200.0, 1000.0]:
        for database in ("sqlite", *((said.postgresql,) if said.postgresql else ())):
            with tempfile.TemporaryDirectory() as folder:
                url = database if database != "sqlite" else f"sqlite:///{folder}/c360.db"
                uvloop.run(measured(url, Path(folder), rate=rate, seconds=said.seconds, subscribers=said.subscribers))


if __name__ == "__main__":
    main()
