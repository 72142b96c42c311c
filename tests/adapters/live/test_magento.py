"""Magento's feeds; it sends no webhooks. Contract: tests/adapters/test_changes.py; here is what is unusual."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from adapters.changes import Change, Delivery
from adapters.magento import Magento
from adapters.writing import Write
from model.errors import UnsupportedError
from model.records import Kind
from tests.adapters.live.following import Follower, ids
from tests.adapters.noted import Noted, System, system

FIELDS: dict[Kind, tuple[str, ...]] = {
    "contact": ("id", "created_at", "updated_at"),
    "order": ("entity_id", "created_at", "updated_at"),
}


@pytest.fixture
def shop() -> Iterator[System]:
    with system("magento") as running:
        yield running


def passed(shop: System, follower: Follower) -> tuple[list[Change], int]:
    """Make a pass; return what it told, and its calls."""

    async def work(source: Any, api: Noted) -> tuple[list[Change], int]:
        return await follower.passed(source.adapter, api), len(api.sent)

    return shop.run(work)


def test_it_claims_no_webhooks_and_no_deletions() -> None:
    assert Magento.push is None
    assert [facts.feed and facts.feed.deletes for facts in Magento.kinds.values()] == [False, False]
    with pytest.raises(UnsupportedError):
        Magento.events(
            Delivery(method="POST", url="https://c360.example/", headers={}, body=b"{}", at=datetime.now(UTC)), ["any"]
        )


def test_the_feed_tells_makes_and_edits_late_ones_too(shop: System) -> None:
    follower = Follower("contact", FIELDS["contact"])
    rows = sorted(shop.dialect.tables["contact"], key=lambda row: row["updated_at"])
    edited, late, gone = (str(row["id"]) for row in rows[:3])

    passed(shop, follower)
    shop.dialect.change("contact", edited, {"firstname": "Grace"})
    first, _ = passed(shop, follower)
    shop.broken("late_commit", seconds=150, times=1)
    httpx.patch(f"{shop.address}/_control/records/magento/contact/{late}", json={"firstname": "Late"})
    shop.dialect.delete("contact", gone)
    [made] = shop.write("contact", Write(verb="create", row={"firstname": "A", "lastname": "New", "email": "new@shop.example"}))
    second, _ = passed(shop, follower)

    assert edited in ids(first)
    assert late not in ids(first)
    assert {late, made.native_id} <= ids(second)
    assert gone not in ids(second)  # nothing tells of it: a comparison of all ids finds it


@pytest.mark.parametrize(("kind", "many"), [("contact", 650), ("order", 250)])
def test_ties_over_several_pages_are_all_told_where_a_page_past_the_end_repeats_the_last(
    shop: System, kind: Kind, many: int
) -> None:
    follower = Follower(kind, FIELDS[kind])
    passed(shop, follower)
    table, moment = shop.dialect.tables[kind], f"{shop.sandbox.clock.now():%Y-%m-%d %H:%M:%S}"
    row = next(iter(table))
    made = [str(940_000_000 + number) for number in range(many)]
    for one in made:
        table.put(one, {**row, FIELDS[kind][0]: int(one), "created_at": moment, "updated_at": moment})

    told, calls = passed(shop, follower)

    assert set(made) <= ids(told)
    assert calls == follower.pages == 3


@pytest.mark.parametrize("kind", ["contact", "order"])
def test_a_pass_of_a_hundredth_is_one_call_and_brings_the_rows(shop: System, kind: Kind) -> None:
    follower = Follower(kind, FIELDS[kind])
    passed(shop, follower)
    few = [str(row[FIELDS[kind][0]]) for row in list(shop.dialect.tables[kind])[:5]]
    for one in few:
        shop.dialect.change(kind, one, {"store_id": 2})

    told, calls = passed(shop, follower)

    assert set(few) <= ids(told)
    assert all(change.row is not None for change in told)
    assert calls == 1  # of 20,000 records: 1 of 67 for customers, 2 of 200 for orders
