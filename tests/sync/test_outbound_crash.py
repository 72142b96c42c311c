"""Deliverers as processes of their own: killed at the worst moment, and two over one database."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from model.clock import SystemClock
from store.events import EventRows
from tests.programs import environment
from tests.sync.hooks import Delivering, Got, Hooks, delivering

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def deliverer(url: str, owner: str, *, lease: float = 1.5) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sync.deliver", url, owner, str(lease)], cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


async def test_killed_between_send_and_note_it_sends_once_more_under_the_same_id(database_url: str, hook: Hooks) -> None:
    async with delivering(database_url, SystemClock()) as parts:
        id, _ = await parts.endpoints.add("default", hook.url, ["*"])
        with deliverer(database_url, "first") as process:

            def kill(got: Got) -> None:
                if got.id == "event:3" and process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    process.wait(10)

            hook.before = kill
            await parts.happened(6)
            await asyncio.to_thread(hook.wait, lambda got: len(got) >= 3, seconds=30)
            await asyncio.to_thread(process.wait, 10)
        with deliverer(database_url, "second"):
            await asyncio.to_thread(hook.wait, lambda got: len(got) >= 7, seconds=30)
            delivered = await _all_done(parts, id, 6)

    assert Counter(hook.ids) == {f"event:{seq}": 2 if seq == 3 else 1 for seq in range(1, 7)}
    [first, again] = [got.body for got in hook.got if got.id == "event:3"]
    assert first == again
    assert delivered == 6


async def test_killed_while_it_works_nothing_is_lost(database_url: str, hook: Hooks) -> None:
    async with delivering(database_url, SystemClock()) as parts:
        id, _ = await parts.endpoints.add("default", hook.url, ["contact.*"], {"parallel": 4, "first": 0.05, "maxAttempts": 50})
        hook.answers += [(500, {}) if n % 4 == 0 else (204, {}) for n in range(200)]
        for round_ in range(4):
            with deliverer(database_url, f"owner {round_}", lease=0.6) as process:
                await parts.happened(30)
                await asyncio.to_thread(hook.wait, lambda got, least=15 * (round_ + 1): len(got) >= least, seconds=30)
                process.send_signal(signal.SIGKILL)
                process.wait(10)
        with deliverer(database_url, "last", lease=0.6):
            done = await _all_done(parts, id, 120)
        _, last = await EventRows(parts.database).bounds("default")

    assert (done, last) == (120, 120)
    assert set(hook.ids) == {f"event:{seq}" for seq in range(1, 121)}


async def test_of_two_processes_one_delivers_and_the_other_follows_it(postgresql_url: str, hook: Hooks) -> None:
    async with delivering(postgresql_url, SystemClock()) as parts:
        id, _ = await parts.endpoints.add("default", hook.url, ["*"])
        with deliverer(postgresql_url, "one") as one, deliverer(postgresql_url, "two") as two:
            await parts.happened(100)
            done = await _all_done(parts, id, 100)
            owner = await _owner(parts, id)
            (one if owner == "one" else two).send_signal(signal.SIGKILL)
            await parts.happened(20)
            both = await _all_done(parts, id, 120)
            follower = await _owner(parts, id)

    assert (done, both) == (100, 120)
    assert set(Counter(hook.ids[:100]).values()) == {1}
    assert {owner, follower} == {"one", "two"}


async def test_one_who_slept_through_its_lease_undoes_nothing(postgresql_url: str, hook: Hooks) -> None:
    async with delivering(postgresql_url, SystemClock()) as parts:
        id, _ = await parts.endpoints.add("default", hook.url, ["*"])
        with deliverer(postgresql_url, "one") as one:
            await parts.happened(5)
            before = await _all_done(parts, id, 5)
            one.send_signal(signal.SIGSTOP)
            with deliverer(postgresql_url, "two"):
                await parts.happened(20)
                meanwhile = await _all_done(parts, id, 25)
                one.send_signal(signal.SIGCONT)
                await parts.happened(20)
                done = await _all_done(parts, id, 45)
                owner = await _owner(parts, id)

    sends = Counter(hook.ids)
    assert (before, meanwhile, done, owner) == (5, 25, 45, "two")
    assert set(sends) == {f"event:{seq}" for seq in range(1, 46)}
    assert sum(sends.values()) <= 45 + 5  # what was on its way when it fell asleep, at the most


async def _all_done(parts: Delivering, id: str, count: int) -> int:
    """Return how many deliveries are done once they are `count`, or after a while."""
    done = 0
    for _ in range(300):
        done = len(await parts.rows.deliveries("default", id, states=["DONE"], limit=1000))
        if done >= count:
            break
        await asyncio.sleep(0.1)
    return done


async def _owner(parts: Delivering, id: str) -> str:
    async with parts.database.read() as connection:
        found = await connection.exec_driver_sql(f"select owner from leases where name = 'outbound:{id}'")
        return str(found.scalar_one())
