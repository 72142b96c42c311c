"""An event loop in which nobody waits: when there is nothing to do but wait for a timer, time jumps to it.

Server, client and clocks must live in the one loop. What waits for a thread (SQLite) is given a moment of real time first.
"""

import asyncio
import contextlib
import selectors
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from sandbox.app import Sandbox, server
from sources.source import Source
from tests.world import source_settings

T = TypeVar("T")
MOMENT = 0.025  # real seconds in which the loop must stand still before time jumps: what is on the wire must have come


class WarpClock:
    """Real time plus what was jumped; `jumped` is told of every jump."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.jumped: list[Callable[[float], None]] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.ahead, tz=UTC)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def jump(self, seconds: float) -> None:
        self.ahead += seconds
        for each in self.jumped:
            each(seconds)


class StillServer(uvicorn.Server):
    """A server that waits to be stopped: uvicorn's own looks ten times a second, and time could jump no further than that.

    It never ends an idle line: at a jump it would do so in the moment in which the client takes the line up again.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        config.timeout_keep_alive = 10**9
        super().__init__(config)

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self._stopped = asyncio.Event()
        await self._stopped.wait()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: WarpClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= MOMENT:
            return super().select(timeout)
        began = time.monotonic()
        if events := super().select(MOMENT):
            return events
        self._clock.jump(max(timeout - (time.monotonic() - began), 0.0))
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: WarpClock) -> None:
        self._warp = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._warp.monotonic()


def run(clock: WarpClock, work: Awaitable[T]) -> T:
    """Run `work` in a loop of its own on the clock."""
    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        return runner.run(work)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(
    system: str, folder: Path, clock: WarpClock, *, people: int, before: Callable[[Sandbox], ASGIApp] = lambda sandbox: sandbox
) -> AsyncIterator[tuple[Source, Runtime, Sandbox]]:
    """Serve one system's sandbox in the running loop, and connect a source to it; all of them are on the clock.

    Args:
        before: returns what stands before the sandbox.
    """
    sandbox = Sandbox(people=people, systems=(system,))
    clock.jumped.append(sandbox.clock.advance)
    serving = StillServer(server(before(sandbox)).config)
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(serving.serve(sockets=[listening]))
    while not serving.started:
        await asyncio.sleep(0.001)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    runtime = Runtime(Settings.model_validate({"data_dir": folder, "sources": source_settings(sandbox, address)}))
    runtime.clock = clock
    await runtime.start()
    try:
        [source] = runtime.registry.of(WORKSPACE)
        yield source, runtime, sandbox
    finally:
        await runtime.stop()
        serving.stop()
        await task
