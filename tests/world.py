"""A whole world on loopback: the sandbox and the gateway, each on a real server in a thread of its own."""

import asyncio
import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from starlette.applications import Starlette

from gateway.app import Runtime, create
from gateway.settings import Settings
from sandbox.app import Sandbox, server

T = TypeVar("T")
SYSTEMS = ("hubspot", "salesforce", "shopify", "zendesk")


@contextlib.contextmanager
def served(made: uvicorn.Server) -> Iterator[str]:
    """Serve on a free loopback port; yield the base address."""
    made.config.timeout_graceful_shutdown = 1
    scheme = "https" if getattr(made.config, "ssl", None) else "http"
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not made.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        made.should_exit = True
        thread.join(10)


@dataclass(frozen=True, slots=True)
class World:
    """
    Attributes:
        sandbox: the vendor world, in this process: its truth can be read directly.
        http: a client of the gateway.
        control: a client of the sandbox.
        folder: where the gateway keeps its data.
        app: the gateway, whose parts live on its own loop: reach them by `within`.
        runtime: the gateway's parts, for tests in the same process; what they do runs in the gateway's loop (`run`).
    """

    sandbox: Sandbox
    http: httpx.Client
    control: httpx.Client
    folder: Path
    app: Starlette
    runtime: Runtime

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run something in the gateway's own loop, and return what it returns."""

        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self.runtime.loop).result(60)

    def ask(self, query: str, variables: Mapping[str, Any] | None = None, **headers: str) -> Any:
        """Return the answer's body."""
        return self.http.post("/graphql", json={"query": query, "variables": dict(variables or {})}, headers=headers).json()

    def data(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """Return `data` of an answer without errors."""
        body = self.ask(query, variables)
        assert "errors" not in body, body["errors"]
        return body["data"]

    def within(self, work: Callable[[Runtime], Coroutine[Any, Any, T]]) -> T:
        """Run something on the gateway's loop."""
        runtime: Runtime = self.app.state.runtime
        return asyncio.run_coroutine_threadsafe(work(runtime), self.app.state.loop).result(30)

    def fault(self, system: str, fault: str, **facts: Any) -> None:
        answer = self.control.post("/_control/faults", json={"system": system, "fault": fault, **facts})
        assert answer.status_code == 201, answer.text

    def heal(self) -> None:
        self.control.delete("/_control/faults")

    def calls(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = self.control.get("/_control/calls").json()
        return found

    def forget_calls(self) -> None:
        self.control.delete("/_control/calls")


def source_settings(sandbox: Sandbox, address: str) -> list[dict[str, Any]]:
    return [
        {
            "id": name,
            "system": name,
            "base_url": dialect.address(address),
            "auth": dict(dialect.demo_auth()),
            "options": dict(dialect.demo_options(address)),
        }
        for name, dialect in sandbox.dialects.items()
    ]


@contextlib.contextmanager
def world(*, people: int = 120, seed: int = 1, systems: Iterable[str] = SYSTEMS, **settings: Any) -> Iterator[World]:
    """Run sandbox and gateway; the gateway's data lives in a folder that is removed after."""
    sandbox = Sandbox(people=people, seed=seed, systems=systems)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(served(server(sandbox)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        values = {
            "require_key": False,
            "data_dir": folder,
            "follow": False,
            "sources": source_settings(sandbox, address),
            **settings,
        }
        app = create(Settings.model_validate(values))
        base = stack.enter_context(
            served(uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, ws_per_message_deflate=False)))
        )
        http = stack.enter_context(httpx.Client(base_url=base, timeout=30))
        control = stack.enter_context(httpx.Client(base_url=address, timeout=30))
        yield World(sandbox, http, control, folder, app, app.state.runtime)
