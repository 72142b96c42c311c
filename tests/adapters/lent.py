"""One system's adapter with a real source's wire under it: what tests of unusual verbs talk to."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from adapters.base import Adapter, Api, Outcome, Write
from model.records import Kind
from sandbox.app import Sandbox, server
from sources.source import _Api
from tests.adapters.test_contract import Vendors, reading
from tests.world import served

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lent:
    """
    Attributes:
        sandbox: the vendor world, in this process.
        address: where it is.
    """

    sandbox: Sandbox
    system: str
    address: str
    vendors: Vendors

    def run(self, work: Callable[[Adapter, Api], Awaitable[T]]) -> T:
        """Run `work(adapter, api)`, budgets full again."""
        return self.vendors.run(self.system, lambda source: work(source.adapter, _Api(source, reading())))

    def write(self, kind: Kind, *writes: Write) -> list[Outcome]:
        return self.run(lambda adapter, api: adapter.write(api, kind, writes))

    def read(self, kind: Kind, *ids: str, fields: tuple[str, ...] = ()) -> list[Any]:
        return self.run(lambda adapter, api: adapter.read(api, kind, ids, fields))


@contextmanager
def lent(system: str, *, people: int = 60) -> Iterator[Lent]:
    sandbox = Sandbox(people=people, systems=[system])
    with served(server(sandbox)) as address, TemporaryDirectory() as folder:
        yield Lent(sandbox, system, address, Vendors(sandbox, address, Path(folder)))
