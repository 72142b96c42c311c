"""The sandbox's own time: quota windows, token lives and schedules move with it, without waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class SandboxClock:
    """Real time plus whatever was advanced."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def time(self) -> float:
        """Return seconds since 1970."""
        return time.time() + self._ahead

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), tz=UTC)

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    @contextmanager
    def behind(self, seconds: float) -> Iterator[None]:
        """Let what is done meanwhile bear a time of `seconds` ago, as a transaction does that is committed late."""
        self._ahead -= seconds
        try:
            yield
        finally:
            self._ahead += seconds
