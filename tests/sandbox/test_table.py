"""A table keeps its orders and indexes through writes, as if it had been made anew."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.table import Field, Row, Table

INDEXES = {"tag": Field(lambda entry: entry[1], lambda row: row["tag"])}
ORDERS: dict[str, Field[Any]] = {"at": Field(lambda entry: entry[0], lambda row: row["at"])}


def table(rows: dict[str, tuple[int, str]]) -> Table[tuple[int, str]]:
    ids = {value: id for id, value in rows.items()}
    return Table(rows, lambda entry: {"id": ids[entry], "at": entry[0], "tag": entry[1]}, indexes=INDEXES, orders=ORDERS)


def ids(rows: Any) -> list[str]:
    return [row["id"] for row in rows]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), descending=st.booleans())
def test_orders_and_indexes_follow_every_put(seed: int, descending: bool) -> None:
    rng = random.Random(seed)
    found = table({str(n): (rng.randrange(5) * 100 + n, f"t{n % 3}") for n in range(12)})
    assert (len(ids(found.walk("at"))), len(found.having("tag", ["t0"]))) == (12, 4)  # built before the first write
    expected: dict[str, Row] = {row["id"]: row for row in found}

    for _ in range(15):
        id = str(rng.randrange(18))
        row = {"id": id, "at": rng.randrange(500), "tag": rng.choice(["t0", "t1", "new"])}
        found.put(id, row)
        expected[id] = row

        ordered = sorted(expected.values(), key=lambda each: (each["at"], len(each["id"]), each["id"]), reverse=descending)
        assert ids(found.walk("at", descending=descending)) == ids(ordered)
        for tag in ("t0", "t1", "t2", "new"):
            assert sorted(ids(found.having("tag", [tag]))) == sorted(id for id, each in expected.items() if each["tag"] == tag)
        assert found.value("at", id) == row["at"]


def test_a_removed_row_is_nowhere() -> None:
    found = table({"1": (1, "t"), "2": (2, "t")})
    found.put("3", {"id": "3", "at": 3, "tag": "t"})

    found.remove("1")
    found.remove("3")

    assert (ids(found.walk("at")), ids(found.having("tag", ["t"])), [found.knows(id) for id in "123"]) == (
        ["2"],
        ["2"],
        [False, True, False],
    )


def test_a_row_that_was_changed_in_place_does_not_spoil_the_order() -> None:
    found = table({"1": (1, "t"), "2": (2, "t")})
    row = {"id": "1", "at": 5, "tag": "t"}
    found.put("1", row)
    assert ids(found.walk("at")) == ["2", "1"]

    row["at"] = 0
    found.put("1", {**row, "at": 9})

    assert ids(found.walk("at")) == ["2", "1"]
