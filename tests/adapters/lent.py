"""One system's adapter with a real source's wire under it: what tests of unusual verbs talk to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from adapters.base import Adapter, Api, Outcome, Write
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.records import Kind
from sandbox.app import Sandbox, server
from sources.reading import Reading
from sources.source import _Api
from tests.world import served, source_settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lent:
    """
    Attributes:
        sandbox: the vendor world, in this process.
    """

    sandbox: Sandbox
    system: str
    address: str
    folder: Path

    def run(self, work: Callable[[Adapter, Api], Awaitable[T]]) -> T:
        """Run `work(adapter, api)`, budgets full again."""
        self.sandbox.clock.advance(120)

        async def run() -> T:
            async with self._opened() as runtime:
                source = next(iter(runtime.registry.of(WORKSPACE)))
                deadline = asyncio.get_running_loop().time() + 30
                return await work(source.adapter, _Api(source, Reading(deadline=deadline, policy="LIVE")))

        return asyncio.run(run())

    def write(self, kind: Kind, *writes: Write) -> list[Outcome]:
        return self.run(lambda adapter, api: adapter.write(api, kind, writes))

    def read(self, kind: Kind, *ids: str, fields: tuple[str, ...] = ()) -> list[Any]:
        return self.run(lambda adapter, api: adapter.read(api, kind, ids, fields))

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Runtime]:
        values = {"data_dir": self.folder, "sources": source_settings(self.sandbox, self.address)}
        runtime = Runtime(Settings.model_validate(values))
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()


@contextmanager
def lent(system: str, *, people: int = 60) -> Iterator[Lent]:
    sandbox = Sandbox(people=people, systems=[system])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Lent(sandbox, system, address, Path(folder))
