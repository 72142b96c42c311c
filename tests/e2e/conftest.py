"""One world per module: starting it is quick, but not free."""

from collections.abc import Iterator

import pytest

from tests.world import World, world


@pytest.fixture(scope="module")
def four() -> Iterator[World]:
    """Four systems, 120 people, all well."""
    with world() as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[World]:
    """Four systems, 60 people, for this test alone."""
    with world(people=60, deadline=3.0) as running:
        yield running
