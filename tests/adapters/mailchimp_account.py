"""Mailchimp's sandbox and ways to ask it: through a source, and through the adapter alone."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import orjson

from adapters.base import Config, Outcome, Request, Response
from adapters.mailchimp import Mailchimp
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.records import Contact, Kind, ObjectType
from sandbox.app import Sandbox, server
from sandbox.mailchimp import API_KEY
from sandbox.mailchimp import Mailchimp as Dialect
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite
from tests.world import served, source_settings

T = TypeVar("T")
KEY = {"authorization": f"Bearer {API_KEY}"}


@dataclass(frozen=True, slots=True)
class Account:
    sandbox: Sandbox
    address: str
    folder: Path

    @property
    def dialect(self) -> Dialect:
        found = self.sandbox.dialects["mailchimp"]
        assert isinstance(found, Dialect)
        return found

    def run(self, work: Callable[[Source], Awaitable[T]], **options: str) -> T:
        """Run `work(source)` with a source under these options."""

        async def run() -> T:
            [said] = source_settings(self.sandbox, self.address)
            runtime = Runtime(Settings.model_validate({"data_dir": self.folder, "sources": [{**said, "options": options}]}))
            await runtime.start()
            try:
                return await work(next(iter(runtime.registry.of(WORKSPACE))))
            finally:
                await runtime.stop()

        return asyncio.run(run())

    def someone(self, status: str = "subscribed") -> dict[str, Any]:
        """Return the row of a member with that status."""
        return next(row for row in self.dialect.tables["contact"] if row["status"] == status)


@contextmanager
def opened() -> Iterator[Account]:
    sandbox = Sandbox(people=120, systems=["mailchimp"])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Account(sandbox, address, Path(folder))


def reading(seconds: float = 30) -> Reading:
    return Reading(deadline=asyncio.get_running_loop().time() + seconds, policy="LIVE")


async def read(source: Source, id: str) -> Contact | None:
    fields = [*source.adapter.kinds["contact"].mapping, "custom.*"]
    found = (await source.read("contact", [id], fields=fields, reading=reading())).value[id]
    assert found is None or isinstance(found, Contact)
    return found


async def written(source: Source, *writes: RecordWrite) -> list[Outcome]:
    return await source.write("contact", writes, reading())


@dataclass(slots=True)
class Wire:
    """An adapter's line to the sandbox with nothing between them: what is sent is kept, and things may happen before a call.

    Attributes:
        before: number of a call (from 1) → what happens just before it.
    """

    address: str
    options: dict[str, str] = field(default_factory=dict)
    adapter: Mailchimp = field(init=False)
    sent: list[tuple[Request, Response]] = field(default_factory=list)
    before: dict[int, Callable[[], None]] = field(default_factory=dict)
    _http: httpx.AsyncClient = field(init=False)

    async def __aenter__(self) -> "Wire":
        base = f"{self.address}/mailchimp/3.0"
        self.adapter = Mailchimp(Config(source="mailchimp", base_url=base, options=self.options))
        self._http = httpx.AsyncClient(base_url=base, headers=KEY)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, request: Request) -> Response:
        self.before.get(len(self.sent) + 1, lambda: None)()
        content = orjson.dumps(request.json) if request.json is not None else None
        answer = await self._http.request(request.method, request.path, params=list(request.params), content=content)
        response = Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)
        self.sent.append((request, response))
        if (fault := self.adapter.classify(response)) is not None:
            raise fault
        return response

    async def described(self, kind: Kind) -> ObjectType:
        return await self.adapter.describe(self, kind)
