"""Conditions on values that are no sensible number or time."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from resolvers.filters import Condition, Shape

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("shape", "operand", "value"),
    [("number", Decimal("NaN"), 5), ("number", Decimal("sNaN"), 5), ("date_time", NOW, 1e300), ("date_time", NOW, float("inf"))],
)
def test_what_cannot_be_compared_does_not_match(shape: Shape, operand: Any, value: Any) -> None:
    condition = Condition(key="score", source=None, shape=shape, tests=(("gt", operand),))

    assert not condition.holds(value)
