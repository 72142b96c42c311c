"""Events made by hand: entered in the log and published, as intake does."""

import time
from datetime import UTC, datetime
from typing import Any

from gateway.app import WORKSPACE, Runtime
from model.events import Event
from model.records import Kind, Ref
from store.events import append
from tests.world import World

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(native_id: str = "1", *, kind: Kind = "contact", source: str = "hubspot", **facts: Any) -> Event:
    return Event(**{
        "workspace": WORKSPACE, "seq": 0, "op": "UPDATED", "ref": Ref(source, kind, native_id), "system": source, "changed": ("email",),
        "at": AT, "received_at": AT, "origin": "WEBHOOK", **facts,
    })  # fmt: skip


async def enter(runtime: Runtime, *events: Event) -> list[Event]:
    async with runtime.database.write() as connection:
        numbered = await append(connection, WORKSPACE, events, now=runtime.clock.now())
    await runtime.events.publish(numbered)
    return numbered


def happen(world: World, *events: Event) -> list[Event]:
    """Let events happen in a running gateway; return them as numbered."""
    return world.within(lambda runtime: enter(runtime, *events))


def cursor_at(world: World, seq: int) -> str:
    """Return the cursor of the event of that number; 0 is before the first."""
    return world.within(lambda runtime: _cursor(runtime, seq))


async def _cursor(runtime: Runtime, seq: int) -> str:
    return runtime.signer.seal(seq, workspace=WORKSPACE, query="events")


DELIVERER = 1  # who sends webhooks to our users' systems follows all the time


def until_followed(world: World, followers: int = 1) -> None:
    """Wait until exactly so many follow the log."""
    log = world.app.state.runtime.events
    for _ in range(500):
        if log.followers - DELIVERER == followers:
            return
        time.sleep(0.01)
    raise AssertionError(f"{log.followers - DELIVERER} follow, not {followers}")
