"""Inbox, log of events, versions and cursors, on SQLite and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from model.errors import ExpiredEventError, InvalidRequestError, SlowSubscriberError
from model.events import Event
from model.records import Ref
from store.database import Database
from store.events import EventRows, append
from store.inbox import Arrived, InboxRows
from sync.log import EventLog

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


def arrived(event: str, **said: Any) -> Arrived:
    facts = {
        "workspace": "default",
        "source": "hubspot",
        "kind": "contact",
        "native_id": "1",
        "op": "CHANGED",
        "origin": "WEBHOOK",
    }
    return Arrived(**{**facts, "event": event, "received_at": NOW, **said})


def changed(native_id: str = "1") -> Event:
    return Event(
        workspace="default", seq=0, op="UPDATED", ref=Ref("hubspot", "contact", native_id), system="hubspot", changed=("email",), at=NOW,
        received_at=NOW, origin="WEBHOOK",
    )  # fmt: skip


async def added(database: Database, many: int) -> list[Event]:
    async with database.write() as connection:
        return await append(connection, "default", [changed(str(n)) for n in range(many)], now=NOW)


async def test_an_event_that_comes_again_is_kept_once_and_counted(database: Database) -> None:
    inbox = InboxRows(database)

    assert await inbox.accept([arrived("a"), arrived("b"), arrived("a")]) == 2
    assert await inbox.accept([arrived("a"), arrived("c")]) == 1

    assert await inbox.counted("default") == {"NEW": 3, "DUPLICATE": 2}


async def test_many_who_accept_at_once_share_commits_and_each_hears_of_its_own(database: Database) -> None:
    inbox = InboxRows(database)

    heard = await asyncio.gather(*(inbox.accept([arrived(f"e{n % 40}")]) for n in range(80)))

    assert sum(heard) == 40
    assert await inbox.waiting("default") == {"hubspot": 40}


async def test_no_two_take_the_same_and_what_was_taken_by_the_dead_is_taken_again(database: Database) -> None:
    inbox = InboxRows(database)
    await inbox.accept([arrived(str(n)) for n in range(10)])

    taken = await asyncio.gather(*(inbox.claim(f"p{n}", now=NOW, until=LATER, limit=5) for n in range(4)))

    ids = [each.id for some in taken for each in some]
    assert len(ids) == len(set(ids)) == 10
    assert await inbox.claim("p9", now=NOW, until=LATER, limit=50) == []
    again = await inbox.claim("p9", now=LATER, until=LATER + timedelta(seconds=60), limit=50)
    assert len(again) == 10


async def test_what_is_put_back_waits_until_it_is_due_and_only_its_owner_puts_it_back(database: Database) -> None:
    inbox = InboxRows(database)
    await inbox.accept([arrived("a")])
    [taken] = await inbox.claim("mine", now=NOW, until=LATER, limit=1)

    await inbox.put_back([taken.id], "another", due_at=NOW, tried=True)
    assert await inbox.claim("mine", now=NOW, until=LATER, limit=1) == []
    await inbox.put_back([taken.id], "mine", due_at=LATER, tried=True)

    assert await inbox.claim("mine", now=NOW, until=LATER, limit=1) == []
    [again] = await inbox.claim("mine", now=LATER, until=LATER, limit=1)
    assert again.attempts == 1


async def test_numbers_have_no_gaps_and_what_is_undone_leaves_none(database: Database) -> None:
    await added(database, 2)

    async def undone() -> None:
        async with database.write() as connection:
            await append(connection, "default", [changed()], now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()

    async def one() -> None:
        await added(database, 3)

    await asyncio.gather(*(one() for _ in range(8)))

    found = await EventRows(database).since("default", 0)
    assert [each.seq for each in found] == list(range(1, 27))


async def test_following_from_any_number_gives_each_event_once(database: Database) -> None:
    await added(database, 5)
    log = EventLog(EventRows(database), "default")
    await log.start()
    got: list[int] = []

    async def follow() -> None:
        async for event in log.follow(since=2):
            got.append(event.seq)
            if event.seq == 12:
                return

    following = asyncio.create_task(follow())
    for _ in range(7):
        await log.publish(await added(database, 1))
    await asyncio.wait_for(following, 10)
    await log.stop()

    assert got == list(range(3, 13))


async def test_another_process_hears_of_events_it_did_not_make(database: Database) -> None:
    log = EventLog(EventRows(database), "default")
    await log.start()
    stream = log.follow()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    await added(database, 1)  # by somebody who could not publish it

    assert (await asyncio.wait_for(waiting, 5)).seq == 1
    await log.stop()


async def test_what_is_not_kept_any_more_is_refused_and_not_skipped(database: Database) -> None:
    await added(database, 10)
    rows = EventRows(database)
    await rows.clear("default", before=NOW - timedelta(days=1), most=4)
    log = EventLog(rows, "default")
    await log.start()

    with pytest.raises(ExpiredEventError):
        await anext(log.follow(since=3))
    with pytest.raises(InvalidRequestError):
        await anext(log.follow(since=11))
    assert (await anext(log.follow(since=6))).seq == 7
    await log.stop()


async def test_who_does_not_take_events_is_told_where_to_go_on(database: Database) -> None:
    log = EventLog(EventRows(database), "default")
    await log.start()
    stream = log.follow(queue=3)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await log.publish(await added(database, 1))
    assert (await first).seq == 1

    await log.publish(await added(database, 9))

    with pytest.raises(SlowSubscriberError) as told:
        _ = [event async for event in stream]
    assert 1 <= told.value.resume_from < 10
    await log.stop()
