"""The sandbox's own time: quota windows, token lives and schedules move with it, without waiting."""

import time
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
