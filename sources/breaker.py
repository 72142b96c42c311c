"""Stop asking a failing operation for a while, then let one call try."""

from dataclasses import dataclass

from model.clock import Clock
from model.errors import CircuitOpenError

THRESHOLD = 12  # failures in a row: a system that fails every fourth call still answers, and must not be cut off
FIRST_PAUSE = 5.0  # seconds, doubled up to the longest
LONGEST_PAUSE = 60.0


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    pause: float = FIRST_PAUSE
    open_until: float = 0.0
    trying: bool = False


class Breaker:
    """One circuit per operation of one source."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def enter(self, operation: str) -> None:
        """Let a call through.

        Raises:
            CircuitOpenError: the operation failed too often just now; `retry_after` says when one call may try.
        """
        circuit = self._circuits.get(operation)
        if circuit is None or circuit.failures < THRESHOLD:
            return
        wait = circuit.open_until - self._clock.monotonic()
        if wait > 0 or circuit.trying:
            raise CircuitOpenError("not asked: it failed too often just now", retry_after=max(wait, 0.1))
        circuit.trying = True

    def succeeded(self, operation: str) -> None:
        self._circuits.pop(operation, None)

    def abandoned(self, operation: str) -> None:
        """The call ended without telling whether the system works (cancelled, refused by the budget)."""
        if circuit := self._circuits.get(operation):
            circuit.trying = False

    def failed(self, operation: str) -> None:
        circuit = self._circuits.setdefault(operation, _Circuit())
        circuit.failures += 1
        if circuit.failures < THRESHOLD:
            return
        circuit.open_until = self._clock.monotonic() + circuit.pause
        circuit.pause = min(circuit.pause * 2, LONGEST_PAUSE)
        circuit.trying = False
