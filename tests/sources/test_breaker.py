"""A failing operation is left alone for a while."""

import pytest

from model.errors import CircuitOpenError
from sources.breaker import FIRST_PAUSE, THRESHOLD, Breaker
from tests.clocks import ManualClock


def broken(clock: ManualClock) -> Breaker:
    breaker = Breaker(clock)
    for _ in range(THRESHOLD):
        breaker.enter("contact.read")
        breaker.failed("contact.read")
    return breaker


def test_it_opens_after_failures_in_a_row_and_says_until_when() -> None:
    breaker = broken(ManualClock())

    with pytest.raises(CircuitOpenError) as refused:
        breaker.enter("contact.read")

    assert refused.value.retry_after == FIRST_PAUSE


def test_other_operations_are_not_touched() -> None:
    breaker = broken(ManualClock())

    breaker.enter("deal.read")


def test_after_the_pause_one_call_may_try_and_success_closes_it() -> None:
    clock = ManualClock()
    breaker = broken(clock)
    clock.advance(FIRST_PAUSE)
    breaker.enter("contact.read")

    with pytest.raises(CircuitOpenError):
        breaker.enter("contact.read")
    breaker.succeeded("contact.read")

    breaker.enter("contact.read")


def test_a_try_that_fails_doubles_the_pause() -> None:
    clock = ManualClock()
    breaker = broken(clock)
    clock.advance(FIRST_PAUSE)
    breaker.enter("contact.read")
    breaker.failed("contact.read")

    with pytest.raises(CircuitOpenError) as refused:
        breaker.enter("contact.read")

    assert refused.value.retry_after == 2 * FIRST_PAUSE


def test_a_try_that_told_nothing_leaves_room_for_the_next() -> None:
    clock = ManualClock()
    breaker = broken(clock)
    clock.advance(FIRST_PAUSE)
    breaker.enter("contact.read")

    breaker.abandoned("contact.read")

    breaker.enter("contact.read")
