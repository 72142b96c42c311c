"""A Zoho org of a sandbox on a real server, with a source to reach it: for the tests of all that is unusual about Zoho."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx

from adapters.base import Request, Response
from adapters.writing import Outcome
from adapters.zoho import Zoho
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.errors import SourceError
from model.records import Kind, ObjectType
from sandbox.app import Sandbox, server
from sandbox.zoho import CLIENT_ID
from sandbox.zoho import Zoho as Dialect
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite
from tests.world import served, source_settings

T = TypeVar("T")
TOKENS = "POST /accounts/oauth/v2/token"


class Org:
    """A sandbox with one org on a real server.

    Attributes:
        address: of the org's API domain.
    """

    def __init__(self, sandbox: Sandbox, address: str, folder: Path) -> None:
        self.sandbox, self.address, self.folder = sandbox, f"{address}/zoho", folder
        self.settings = source_settings(sandbox, address)

    @property
    def dialect(self) -> Dialect:
        found = self.sandbox.dialects["zoho"]
        assert isinstance(found, Dialect)
        return found

    @property
    def calls(self) -> dict[str, int]:
        return dict(self.dialect.calls)

    def client(self) -> httpx.Client:
        assert self.dialect.tokens is not None
        headers = {"authorization": f"Zoho-oauthtoken {self.dialect.tokens.issue(CLIENT_ID)}"}
        return httpx.Client(base_url=f"{self.address}/crm/v8", headers=headers)

    def run(self, work: Callable[[Source], Awaitable[T]], **settings: Any) -> T:
        async def run() -> T:
            async with self._opened(settings) as source:
                return await work(source)

        return asyncio.run(run())

    @asynccontextmanager
    async def _opened(self, settings: dict[str, Any]) -> AsyncIterator[Source]:
        sources = [{**each, **settings} for each in self.settings]
        runtime = Runtime(Settings.model_validate({"data_dir": self.folder, "sources": sources}))
        await runtime.start()
        try:
            yield runtime.registry.of(WORKSPACE)[0]
        finally:
            await runtime.stop()


@contextmanager
def served_org(*, people: int = 150) -> Iterator[Org]:
    sandbox = Sandbox(people=people, systems=["zoho"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Org(sandbox, address, Path(folder))


def reading(seconds: float = 30) -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + seconds, policy="LIVE", lane="write")


async def written(source: Source, kind: Kind, *writes: RecordWrite) -> list[Outcome]:
    return await source.write(kind, writes, reading())


async def made(source: Source, kind: Kind, **more: Any) -> str:
    [outcome] = await written(source, kind, RecordWrite(verb="create", **more))
    assert outcome.state == "APPLIED", outcome.error
    assert outcome.native_id
    return outcome.native_id


class Recorded:
    """An `Api` that keeps what was sent."""

    def __init__(self, answer: Callable[[Request], Response], adapter: Zoho | None = None) -> None:
        self._answer, self._adapter = answer, adapter
        self.requests: list[Request] = []
        self.responses: list[Response] = []

    async def send(self, request: Request) -> Response:
        response = self._answer(request)
        self.requests.append(request)
        self.responses.append(response)
        fault: SourceError | None = self._adapter.classify(response) if self._adapter else None
        if fault is not None:
            raise fault
        return response

    async def described(self, kind: Kind) -> ObjectType:
        assert self._adapter is not None
        return await self._adapter.describe(self, kind)
