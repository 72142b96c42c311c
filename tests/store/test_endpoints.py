"""Endpoints and what they were sent survive, on SQLite and on PostgreSQL alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from store.database import Database
from store.endpoints import AttemptRow, EndpointRow, EndpointRows, Entry, Tally, forget

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ROW = EndpointRow(
    id="whe_1", url="https://hooks.example/in", events=("contact.*",), sealed=b"sealed", policy={"maxAttempts": 3}, position=0, created_at=NOW
)  # fmt: skip


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def rows(database: Database) -> EndpointRows:
    found = EndpointRows(database)
    await found.add("default", ROW)
    return found


def entries(*seqs: int) -> list[Entry]:
    return [Entry(seq=seq, body=f"body {seq}") for seq in seqs]


async def settled(rows: EndpointRows, seq: int, state: Any, *, number: int = 1, code: str | None = None, **facts: Any) -> bool:
    attempt = AttemptRow(seq=seq, number=number, at=NOW, bytes=6, status=500 if code else 204, code=code, backoff=None)
    said: dict[str, Any] = {"due_at": NOW, "flag": None, "now": NOW, **facts}
    return await rows.settle("default", "whe_1", attempt, state=state, **said)


async def test_an_endpoint_is_kept_changed_and_forgotten(rows: EndpointRows) -> None:
    known = await rows.get("default", "whe_1")
    await rows.enter("default", "whe_1", entries(1), since=0, upto=2, now=NOW)
    await settled(rows, 1, "PENDING", code="UPSTREAM", flag=("DISABLED", "gone"))
    disabled = await rows.get("default", "whe_1")
    changed = await rows.change("default", "whe_1", url="https://other.example", events=["*"], policy={})
    after = await rows.get("default", "whe_1")
    removed = [await rows.remove("default", "whe_1") for _ in range(2)]

    assert known == ROW
    assert disabled == replace(ROW, position=2, state="DISABLED", reason="gone")
    assert changed
    assert after == replace(ROW, position=2, url="https://other.example", events=("*",), policy={})
    assert removed == [True, False]
    assert await rows.all("default") == []
    assert await rows.deliveries("default", "whe_1", limit=9) == []
    assert not await rows.change("default", "whe_1", url="x", events=[], policy={})


async def test_workspaces_do_not_see_each_others_endpoints(rows: EndpointRows) -> None:
    assert await rows.all("other") == []
    assert await rows.get("other", "whe_1") is None
    assert not await rows.remove("other", "whe_1")
    assert not await rows.enter("other", "whe_1", entries(1), since=0, upto=1, now=NOW)


async def test_deliveries_and_position_are_entered_both_or_neither(rows: EndpointRows) -> None:
    done = await asyncio.gather(
        *(rows.enter("default", "whe_1", entries(1, 3), since=0, upto=4, missed=2, now=NOW) for _ in range(6))
    )
    known = await rows.get("default", "whe_1")

    assert sum(done) == 1
    assert known is not None
    assert (known.position, known.missed) == (4, 2)
    assert [each.seq for each in await rows.due_first("default", "whe_1", limit=9)] == [1, 3]


async def test_of_two_who_note_the_same_attempt_one_does(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(1), since=0, upto=1, now=NOW)

    noted = await asyncio.gather(*(settled(rows, 1, "DONE") for _ in range(4)))

    assert sum(noted) == 1
    [delivery] = await rows.deliveries("default", "whe_1", limit=9)
    assert (delivery.state, delivery.attempts, delivery.body, delivery.ended_at) == ("DONE", 1, None, NOW)
    assert len(await rows.attempts("default", "whe_1", [1])) == 1


async def test_what_failed_is_due_when_it_was_said_and_not_before(rows: EndpointRows) -> None:
    later = NOW + timedelta(seconds=4)
    await rows.enter("default", "whe_1", entries(1, 2), since=0, upto=2, now=NOW)
    await settled(rows, 1, "PENDING", code="TIMEOUT", due_at=later)

    assert [each.seq for each in await rows.due_first("default", "whe_1", limit=9)] == [2]
    assert await rows.due_again("default", "whe_1", now=NOW, limit=9) == []
    assert [(each.seq, each.body) for each in await rows.due_again("default", "whe_1", now=later, limit=9)] == [(1, "body 1")]
    assert await rows.next_again("default", "whe_1") == later


async def test_who_has_work_is_told(rows: EndpointRows) -> None:
    behind = await rows.with_work("default", last=1, now=NOW)
    await rows.enter("default", "whe_1", entries(1), since=0, upto=1, now=NOW)
    due = await rows.with_work("default", last=1, now=NOW)
    await settled(rows, 1, "PENDING", code="NETWORK", due_at=NOW + timedelta(seconds=9))
    waits = await rows.with_work("default", last=1, now=NOW)

    assert (behind, due, waits) == ({"whe_1"}, {"whe_1"}, set())


async def test_parked_deliveries_are_made_due_and_their_count_begins_anew(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(1, 2), since=0, upto=2, now=NOW)
    for seq in (1, 2):
        await settled(rows, seq, "PARKED", code="UPSTREAM", flag=("FAILING", "in vain"))
    tally = (await rows.tallies("default", since=NOW))["whe_1"]

    count = await rows.unpark("default", "whe_1", now=NOW)
    due = await rows.due_again("default", "whe_1", now=NOW, limit=9)

    assert tally == Tally(waiting=0, parked=2, sends=2, failed=2)
    assert count == 2
    assert [(each.seq, each.attempts, each.spent, each.body, each.ended_at) for each in due] == [
        (1, 1, 1, "body 1", None),
        (2, 1, 1, "body 2", None),
    ]


async def test_past_events_are_entered_again_once_whatever_became_of_them(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(1, 2, 3), since=0, upto=4, now=NOW)
    await settled(rows, 1, "DONE")
    await settled(rows, 2, "PARKED", code="UPSTREAM")

    counts = await asyncio.gather(*(rows.enter_again("default", "whe_1", entries(1, 2, 3, 4), now=NOW) for _ in range(3)))

    assert sorted(counts) == [0, 0, 3]
    assert [(each.seq, each.state, each.body) for each in await rows.deliveries("default", "whe_1", limit=9)] == [
        (seq, "PENDING", f"body {seq}") for seq in (4, 3, 2, 1)
    ]
    assert await rows.enter_again("default", "nobody", entries(1), now=NOW) == 0


async def test_a_secret_is_replaced_once(rows: EndpointRows) -> None:
    won = await asyncio.gather(*(rows.reseal("default", "whe_1", bytes([n]), was=b"sealed") for n in range(4)))
    known = await rows.get("default", "whe_1")

    assert sum(won) == 1
    assert known is not None
    assert known.sealed == bytes([won.index(True)])


async def test_only_what_arrived_is_forgotten(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(1, 2, 3), since=0, upto=3, now=NOW)
    await settled(rows, 1, "DONE")
    await settled(rows, 2, "PARKED", code="UPSTREAM")

    early, gone = [await rows.clear("default", before=NOW + timedelta(seconds=after)) for after in (0, 1)]

    assert (early, gone) == (0, 1)
    assert [each.seq for each in await rows.deliveries("default", "whe_1", limit=9)] == [3, 2]


async def test_what_is_kept_about_an_erased_record_is_forgotten(rows: EndpointRows, database: Database) -> None:
    await rows.enter("default", "whe_1", entries(1, 2, 12), since=0, upto=12, now=NOW)
    await settled(rows, 1, "PARKED", code="UPSTREAM")
    await settled(rows, 2, "DONE")

    async with database.write() as connection:
        gone = [await forget(connection, workspace, ["body 1", "bo%y 1", "x"]) for workspace in ("other", "default")]

    assert gone == [0, 2]  # a trace is text that is found, 1 and 12
    assert [each.seq for each in await rows.deliveries("default", "whe_1", limit=9)] == [2]


async def test_an_endpoint_that_is_removed_while_it_is_sent_to_leaves_nothing(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(*range(1, 21)), since=0, upto=20, now=NOW)

    await asyncio.gather(
        *(settled(rows, seq, "PARKED", code="UPSTREAM", flag=("FAILING", "in vain")) for seq in range(1, 21)),
        rows.remove("default", "whe_1"),
        rows.enter("default", "whe_1", entries(21), since=20, upto=21, now=NOW),
    )

    assert await rows.deliveries("default", "whe_1", limit=99) == []
    assert await rows.attempts("default", "whe_1", range(1, 22)) == []


async def test_a_disabled_endpoint_is_not_flagged_and_moves_no_further(rows: EndpointRows) -> None:
    await rows.enter("default", "whe_1", entries(1, 2), since=0, upto=2, now=NOW)
    await settled(rows, 1, "PENDING", code="NOT_FOUND", flag=("DISABLED", "gone"))
    await settled(rows, 2, "DONE", flag=("ACTIVE", None))

    known = await rows.get("default", "whe_1")

    assert known is not None
    assert (known.state, known.reason) == ("DISABLED", "gone")
    assert not await rows.enter("default", "whe_1", entries(3), since=2, upto=3, now=NOW)
