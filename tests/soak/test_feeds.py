"""Change feeds against listing everything: at most a fifth of the calls, and nothing missed."""

import logging
import math
import os
import random
from pathlib import Path

import pytest

from adapters.base import Scan
from adapters.registry import ADAPTERS
from sandbox.app import Sandbox
from sandbox.living import EDITED
from sandbox.world import PRESENCE
from sources.reading import Reading
from sources.source import Source
from tests.warp import WarpClock, opened, run

log = logging.getLogger(__name__)
SMALL = os.environ.get("C360_SOAK") == "small"
RECORDS = 1_500 if SMALL else 20_000
PASSES = 4  # of one hour
SYSTEMS = sorted(name for name, each in ADAPTERS.items() if each.kinds["contact"].feed is not None)


@pytest.mark.soak
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_feed_costs_a_fifth_of_listing_everything_at_most_and_misses_nothing(system: str, tmp_path: Path) -> None:
    clock = WarpClock()
    run(clock, followed(system, tmp_path, clock))


async def followed(system: str, folder: Path, clock: WarpClock) -> None:
    rng = random.Random(system)
    async with opened(system, folder, clock, people=RECORDS * 100 // PRESENCE[system] + 20) as (source, _, sandbox):
        dialect = sandbox.dialects[system]
        live = [each["id"] for person in sandbox.world.people for each in dialect.truth(person)
                if each["kind"] == "contact" and not each["deleted"]]  # fmt: skip
        listing = await listed(source, clock, sandbox, len(live))
        cursor = None
        for _ in range(3):  # a feed that can only begin by listing everything needs its pages
            cursor, _ = await passed(source, clock, cursor)
        clock.jump(840)
        cursor, _ = await passed(source, clock, cursor)
        missed: set[str] = set()
        changed_in_all = calls = 0
        late: set[str] = set()  # systems that hold back the youngest changes tell them with the next pass
        for _ in range(PASSES):
            changed = set(rng.sample(live, len(live) // 100 // PASSES))
            for id in changed:
                assert dialect.change("contact", id, {EDITED[system]: rng.choice(("A", "B", "C"))}) is not None
            changed_in_all += len(changed)
            clock.jump(840)
            await source.described(
                "contact", terms(clock)
            )  # not counted, as in a listing: it is asked every quarter of an hour, whatever the pace
            dialect.calls.clear()
            cursor, told = await passed(source, clock, cursor)
            calls += sum(count for path, count in dialect.calls.items() if "token" not in path)
            missed |= late - told
            late = changed - told
        cursor, told = await passed(source, clock, cursor)
        missed |= late - told
        log.info(
            "%s: %d calls for %d changes; listing everything %d times: %d",
            system,
            calls,
            changed_in_all,
            PASSES,
            PASSES * listing,
        )
        assert missed == set()
        assert SMALL or calls <= 0.2 * PASSES * listing  # a small world is listed in a call or two


async def passed(source: Source, clock: WarpClock, cursor: str | None) -> tuple[str, set[str]]:
    told: set[str] = set()
    while True:
        said, _ = await source.changes("contact", cursor, terms(clock))
        told |= {each.native_id for each in said.changes}
        if not said.more:
            return said.cursor, told
        cursor = said.cursor


async def listed(source: Source, clock: WarpClock, sandbox: Sandbox, many: int) -> int:
    """Return how many calls it takes to list every contact."""
    facts, calls = source.adapter.kinds["contact"], sandbox.dialects[source.system].calls
    order = next((each for each in ("created", "updated") if source.orders("contact", each)), None)  # type: ignore[arg-type]
    if order is None:  # it is listed in no order that can be gone on with; by pages it takes so many
        return math.ceil(many / facts.page)
    await source.described("contact", terms(clock))
    calls.clear()
    after, found = None, 0
    while True:
        walked = await source.everything("contact", Scan(order=order, after=after, size=facts.page), terms(clock))  # type: ignore[arg-type]
        found += len(walked.rows)
        if walked.end:
            break
        after = walked.rows[-1][0]
    assert found >= many * 0.95
    return sum(count for path, count in calls.items() if "token" not in path)


def terms(clock: WarpClock) -> Reading:
    return Reading(deadline=clock.monotonic() + 50_000, policy="SURE", lane="sync")
