"""What becomes of two Pipedrive records that are merged.

Decided here, since no document says: the one in the path goes, the one named by `merge_with_id` stays, takes what it lacked, and has the
other's deals and people from then on.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sandbox.pipedrive_hooks import Hooks
from sandbox.table import Row, Table

# What moves when two are merged: its kind, the index that finds it, its column.
_CHILDREN: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "contact": [("deal", "person", "person_id")], "account": [("deal", "org", "org_id"), ("contact", "org", "org_id")],
}  # fmt: skip


class Company(Protocol):
    tables: dict[str, Table[object]]
    hooks: Hooks

    def put(self, kind: str, row: Row) -> None: ...

    def delete(self, kind: str, native_id: str) -> bool: ...


def merged(company: Company, kind: str, loser: str, winner: str) -> bool:
    """Merge two records; return False when one of them is not there, or they are the same."""
    table = company.tables[kind]
    gone, kept = table.get(loser), table.get(winner)
    if gone is None or kept is None or loser == winner or gone["is_deleted"] or kept["is_deleted"]:
        return False
    company.hooks.into[kind, loser], company.hooks.of[kind, winner] = winner, loser
    for child, index, column in _CHILDREN.get(kind, ()):
        for row in company.tables[child].having(index, [gone["id"]]):
            moved: Row = {column: kept["id"] if row[column] == gone["id"] else row[column]}
            if index == "person":
                others = (kept["id"] if id == gone["id"] else id for id in row["_participants"])
                moved["_participants"] = tuple(dict.fromkeys(others))
            company.put(child, {**row, **moved})
    company.delete(kind, loser)
    company.put(kind, _joined(kept, gone))
    del company.hooks.into[kind, loser], company.hooks.of[kind, winner]
    return True


def _joined(winner: Row, loser: Row) -> Row:
    """Return the record that stays, with what it lacked and the other had."""
    custom = {
        code: loser["custom_fields"].get(code) if value is None else value for code, value in winner["custom_fields"].items()
    }
    lists: Row = {
        name: [*winner[name], *({**each, "primary": not winner[name] and not at} for at, each in enumerate(loser[name]) if each["value"] not in {known["value"] for known in winner[name]})]
        for name in ("emails", "phones") if name in winner
    }  # fmt: skip
    filled = {name: loser.get(name) if value in (None, "") else value for name, value in winner.items()}
    return {**filled, **lists, "custom_fields": custom}
