"""An answer from the cache is never further behind its source than the source says, also when no webhook comes."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import sync.log
from model.records import Kind
from sandbox.living import EDITED
from sources.reading import Reading
from sync import feeds, intake
from tests.warp import WarpClock, opened, run

SYSTEMS = ("hubspot", "magento")


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_changed_longer_ago_than_the_bound_is_seen(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((feeds, "_SOON"), (intake, "LOOK"), (sync.log, "_LOOK")):
        monkeypatch.setattr(module, name, 20.0)  # each wait costs a real moment here
    clock = WarpClock()
    run(clock, followed(system, tmp_path, clock))


async def followed(system: str, folder: Path, clock: WarpClock) -> None:
    async with opened(system, folder, clock, people=30) as (source, runtime, sandbox):
        dialect = sandbox.dialects[system]
        ada = next(
            each["id"] for each in dialect.truth(sandbox.world.people[0]) if each["kind"] == "contact" and not each["deleted"]
        )
        bound = feeds.bound(source)
        await runtime.events.start()
        runtime.intake.start()
        runtime.feeds.start()
        try:
            await asyncio.sleep(60)
            stamps = set()
            for nth in range(2):
                before = await asked(clock, source, ada)
                assert dialect.change("contact", ada, {EDITED[system]: f"Title {nth}"}) is not None
                changed = clock.now() - timedelta(seconds=2)  # some tell whole seconds only
                await asyncio.sleep(bound)
                after = await asked(clock, source, ada)
                stamps.add(after)
                assert after is not None
                assert after != before
                assert after >= changed, "what was seen is from before the change"
            assert len(stamps) == 2
            calls = sum(dialect.calls.values())
            for _ in range(20):
                await asked(clock, source, ada)
            assert sum(dialect.calls.values()) == calls, "and it is answered from the cache"
        finally:
            await runtime.feeds.stop()
            await runtime.intake.stop()
            await runtime.events.stop()


async def asked(clock: WarpClock, source: object, id: str) -> object:
    kind: Kind = "contact"
    terms = Reading(deadline=clock.monotonic() + 600)
    found = (await source.read(kind, [id], fields=["name", "updated_at"], reading=terms)).value[id]  # type: ignore[attr-defined]
    return found.updated_at if found is not None else None
