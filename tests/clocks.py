"""A clock that tests move by hand."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    def __init__(self, start: datetime = datetime(2026, 11, 1, tzinfo=UTC)) -> None:
        self._start, self._gone = start, 0.0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._gone)

    def monotonic(self) -> float:
        return self._gone

    def advance(self, seconds: float) -> None:
        self._gone += seconds
