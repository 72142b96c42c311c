"""A receiver, a clock and the parts that deliver, for tests of outbound webhooks."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.clocks import ManualClock
from tests.sync.hooks import Delivering, Hooks, delivering, hooks


class Now(ManualClock):
    """A clock that a test moves, from the real time on: the receivers' library compares with it."""

    def __init__(self) -> None:
        super().__init__(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def hook() -> Iterator[Hooks]:
    with hooks() as made:
        yield made


@pytest.fixture
def clock() -> Now:
    return Now()


@pytest.fixture
async def parts(tmp_path: Path, clock: Now) -> AsyncIterator[Delivering]:
    async with delivering(f"sqlite:///{tmp_path / 'c360.db'}", clock) as opened:
        yield opened
