"""One system and a source of it, whose adapter can be asked directly: what it sends is noted."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from adapters.base import Outcome, Request, Response, Write
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.records import Kind, ObjectType, Row
from sandbox.app import Sandbox, server
from sandbox.dialect import Dialect
from sandbox.faults import Fault
from sources.reading import Reading
from sources.source import Source, _Api
from tests.world import served, source_settings

T = TypeVar("T")
Sent = list[tuple[Request, Response]]


@dataclass(slots=True)
class Noted:
    """The real api of a source, that notes what is sent through it."""

    inner: _Api
    sent: Sent = field(default_factory=list)

    async def send(self, request: Request) -> Response:
        response = await self.inner.send(request)
        self.sent.append((request, response))
        return response

    async def described(self, kind: Kind) -> ObjectType:
        return await self.inner.described(kind)

    def place(self, kind: Kind, row: Row) -> tuple[str, datetime | None, datetime | None]:
        return self.inner.place(kind, row)


@dataclass(frozen=True, slots=True)
class System:
    sandbox: Sandbox
    address: str
    folder: Path

    @property
    def dialect(self) -> Dialect:
        [found] = self.sandbox.dialects.values()
        return found

    def run(self, work: Callable[[Source, Noted], Awaitable[T]], *, seconds: float = 30.0) -> T:
        """Run `work` with the source, its budgets full again and the calls forgotten."""
        self.sandbox.clock.advance(60)
        self.dialect.calls.clear()

        async def run() -> T:
            values = {"data_dir": self.folder, "sources": source_settings(self.sandbox, self.address)}
            runtime = Runtime(Settings.model_validate(values))
            await runtime.start()
            try:
                [source] = runtime.registry.of(WORKSPACE)
                return await work(source, Noted(_Api(source, reading(seconds))))
            finally:
                await runtime.stop()

        return asyncio.run(run())

    def write(self, kind: Kind, *writes: Write, seconds: float = 30.0) -> list[Outcome]:
        return self.run(lambda source, api: source.adapter.write(api, kind, writes), seconds=seconds)

    def row(self, kind: Kind, native_id: str | None) -> dict[str, Any] | None:
        return self.dialect.tables[kind].get(str(native_id))

    def broken(self, fault: str, **facts: Any) -> None:
        self.sandbox.faults.add(Fault.model_validate({"system": self.dialect.name, "fault": fault, **facts}))


S = TypeVar("S", bound=System)


def reading(seconds: float = 30.0) -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + seconds, policy="LIVE")


@contextlib.contextmanager
def system(name: str, *, people: int = 60, made: type[S] = System) -> Iterator[S]:  # type: ignore[assignment]
    sandbox = Sandbox(people=people, systems=[name])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield made(sandbox, address, Path(folder))
