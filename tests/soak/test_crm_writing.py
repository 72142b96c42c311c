"""Each CRM, read and written whole while it throttles and fails: nothing lost, nothing doubled, no wait cut short."""

import os
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.base import Adapter, Config, Response, Scan
from adapters.registry import ADAPTERS
from gateway.app import WORKSPACE, Runtime
from model.errors import ThrottledError
from sandbox.app import Sandbox
from sandbox.faults import Fault
from sandbox.world import PRESENCE
from sources.reading import Reading
from sources.source import Source
from sources.writer import Written
from sources.writing import RecordWrite
from tests.warp import WarpClock, opened, run

CRMS = sorted(name for name, each in ADAPTERS.items() if {"contact", "deal"} <= each.kinds.keys() and each.kinds["contact"].verbs)
SMALL = os.environ.get("C360_SOAK") == "small"
READ, UPSERTED, DELETED = (500, 60, 10) if SMALL else (10_000, 1_000, 100)
STEPS = 100  # under one key
ON_THE_WIRE = 0.05  # seconds
ROUNDS = 40  # how often the same key asks again; each is minutes apart
FAULTS = (
    Fault(system="*", fault="throttle", seconds=3, times=1),  # the odds below may spare a system that needs few calls
    Fault(system="*", fault="throttle", seconds=3, rate=0.02),
    Fault(system="*", fault="throttle", seconds=3, times=1),  # large batches make few calls: one of them at least
    Fault(system="*", fault="status", status=503, rate=0.01),
    Fault(system="*", fault="reset", rate=0.01),
    Fault(system="*", fault="truncate", rate=0.01),
)


class Watch:
    """Stands before the sandbox: counts calls that came before a wait that an answer asked for was over."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox, adapter: Adapter) -> None:
        self.app, self.sandbox, self.adapter = app, sandbox, adapter
        self.told, self.until = 0.0, 0.0
        self.calls = self.throttled = self.early = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        # What was on the wire already when the answer left could not know.
        self.early += self.told + ON_THE_WIRE < self.sandbox.clock.time() < self.until - 0.001
        status, headers, body = 0, {}, b""

        async def watched(message: Message) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            elif message["type"] == "http.response.body":
                body += message.get("body", b"")
                fault = self.adapter.classify(Response(status=status, headers=headers, body=body))
                heard = len(body) == int(headers.get("content-length", len(body)))  # else it was cut off on its way
                if heard and isinstance(fault, ThrottledError) and fault.retry_after:
                    self.throttled += 1
                    self.told = self.sandbox.clock.time()
                    self.until = max(self.until, self.sandbox.clock.time() + fault.retry_after)
            await send(message)

        await self.app(scope, receive, watched)


@pytest.mark.soak
@pytest.mark.parametrize("system", CRMS)
def test_a_crm_that_throttles_and_fails_loses_and_doubles_nothing(system: str, tmp_path: Path) -> None:
    clock = WarpClock()
    run(clock, soak(system, tmp_path, clock))


async def soak(system: str, folder: Path, clock: WarpClock) -> None:
    adapter = ADAPTERS[system](Config(source=system, base_url="http://127.0.0.1"))
    watched: list[Watch] = []

    def before(sandbox: Sandbox) -> Watch:
        watched.append(Watch(sandbox, sandbox, adapter))
        return watched[0]

    people = READ * 105 // PRESENCE[system] + 20
    async with opened(system, folder, clock, people=people, before=before) as (source, runtime, sandbox):
        [watch] = watched
        await source.check(reading(clock))
        for fault in FAULTS:
            sandbox.faults.add(fault)
        sandbox.faults.add(Fault(system="*", fault="throttle", seconds=3, times=2))  # systems with big batches are called seldom

        everyone = await read_all(source, clock)
        assert len(everyone) == len(set(everyone)) >= READ, "every contact is read, and once"

        new = [f"soak{n}@brandnew.example" for n in range(UPSERTED // 2)]
        known = everyone[: UPSERTED // 2]
        creates = {
            f"create/{email}": RecordWrite(
                verb="upsert" if "email" in source.adapter.kinds["contact"].upsert_by else "create",
                match="email" if "email" in source.adapter.kinds["contact"].upsert_by else None,
                values={"email": email, "given_name": "Soak", "family_name": f"Test{n}"},
            )
            for n, email in enumerate(new)
        }  # fmt: skip
        updates = {f"update/{id}": RecordWrite(verb="update", native_id=id, values={"family_name": "Soaked"}) for id in known}
        before = sandbox.dialects[system].live("contact")
        done = await carried_out(runtime, source, {**creates, **updates}, clock)
        assert {(each.state, each.code) for each in done.values()} == {("APPLIED", None)}
        made = {email: done[f"create/{email}"].native_id for email in new}

        gone = known[:DELETED]
        dropped = await carried_out(
            runtime, source, {f"delete/{id}": RecordWrite(verb="delete", native_id=id) for id in gone}, clock
        )
        assert {each.state for each in dropped.values()} <= {"APPLIED", "UNCHANGED"}

        sandbox.faults.clear()
        clock.jump(120 + source.adapter.kinds["contact"].lag)
        found = (await source.find("contact", "email", new, fields=["email"], reading=reading(clock))).value
        assert {email: [each.native_id for each in records] for email, records in found.items()} == {
            email: [id] for email, id in made.items()
        }, "each new one is there, and once"
        after = set(await read_all(source, clock))
        assert after == (set(everyone) | set(made.values())) - set(gone), "nothing else came or went"
        assert sandbox.dialects[system].live("contact") == before + len(new) - len(gone)
        named = (await source.read("contact", known[DELETED:], fields=["family_name"], reading=reading(clock))).value
        assert {record.family_name for record in named.values() if record is not None} == {"Soaked"}  # type: ignore[attr-defined]
        assert watch.throttled > 0 or source.adapter.pause_when_cut is not None
        assert watch.early == 0, f"{watch.early} of {watch.calls} calls came before a stated wait was over"


def reading(clock: WarpClock) -> Reading:
    return Reading(deadline=clock.monotonic() + 50_000, policy="LIVE", lane="write")


async def read_all(source: Source, clock: WarpClock) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        scan = Scan(order="created", after=after, size=source.adapter.kinds["contact"].page)
        page = (await source.scan("contact", scan, fields=["email"], reading=reading(clock))).value
        found += [place.native_id for place, _ in page.rows]
        if page.end:
            return found
        after = page.rows[-1][0]


async def carried_out(runtime: Runtime, source: Source, writes: dict[str, RecordWrite], clock: WarpClock) -> dict[str, Written]:
    """Ask for everything under keys, and ask again with the same keys for what has not ended."""
    writer = runtime.writer(WORKSPACE)
    names = list(writes)
    done: dict[str, Written] = {}
    for at in range(0, len(names), STEPS):
        some = {name: writes[name] for name in names[at : at + STEPS]}
        key = f"soak-{names[at]}"
        for _ in range(ROUNDS):
            answers: dict[str, Any] = await writer.once(source, "contact", key, "soak", some, reading(clock))
            done |= answers
            if not any(each.retryable for each in answers.values()):
                break
            clock.jump(180)
    return done
