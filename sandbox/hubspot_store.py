"""One portal's records: what is written is read at once, and searched a few seconds later."""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.clock import SandboxClock
from sandbox.hubspot_answers import iso, millis
from sandbox.hubspot_hooks import Hooks
from sandbox.hubspot_links import Links
from sandbox.hubspot_properties import created, modified
from sandbox.table import Row, Table

MERGED = "hs_merged_object_ids"
LAG = 5.0  # seconds; the vendor says "a few moments" and no number


class Store:
    """
    Args:
        tables, searched: the same tables twice, by object name; search answers from the second ones.
        merged: ids that were merged away → the id that swallowed them.
    """

    def __init__(
        self, clock: SandboxClock, tables: Mapping[str, Table[Any]], searched: Mapping[str, Table[Any]], merged: dict[str, str],
    ) -> None:  # fmt: skip
        self.clock, self.tables, self.merged = clock, tables, merged
        self.links: Links
        self.hooks = Hooks(clock)
        self.quiet: set[str] = set()  # what is gone in a way that has an event of its own
        self.archived = {
            kind: {id for id, entry in table.entries() if getattr(entry, "deleted", False)} for kind, table in tables.items()
        }
        self._searched = searched
        self._hidden = {kind: set(ids) for kind, ids in self.archived.items()}
        self._waiting: deque[tuple[float, str, Row]] = deque()
        self._last = 50_000_000_000

    def live(self, kind: str, id: str) -> bool:
        return id not in self.archived[kind] and self.tables[kind].knows(id)

    def one(self, kind: str, given: str, id_property: str | None = None) -> Row | None:
        """Return a record by id or by unique property, archived ones by id only; a merged id gives the one that swallowed it."""
        if id_property == "email":
            return next((row for row in self.tables[kind].having("email", [given.lower()]) if not row["archived"]), None)
        return self.tables[kind].get(self.merged.get(given, given) if kind == "contacts" else given)

    def holder(self, email: str) -> Row | None:
        """Return the live contact that an address belongs to, as its primary or as a further one."""
        found = (row for index in ("email", "more") for row in self.tables["contacts"].having(index, [email]))
        return next((row for row in found if not row["archived"]), None)

    def new_id(self) -> str:
        self._last += 1
        return str(self._last)

    def make(self, kind: str, properties: Row) -> Row:
        """Keep a new record."""
        id, now = self.new_id(), iso(self.clock.time() * 1000)
        times = {created(kind): now, modified(kind): now, "hs_object_id": id}
        row = {"id": id, "properties": {**properties, **times}, "createdAt": now, "updatedAt": now, "archived": False}
        self.keep(kind, row)
        return row

    def change(self, kind: str, row: Row, properties: Row) -> Row:
        """Keep a record with these properties changed; its modified time moves, even where they say what it said."""
        now = iso(max(self.clock.time() * 1000, millis(row["updatedAt"]) + 1))
        row = {**row, "properties": {**row["properties"], **properties, modified(kind): now}, "updatedAt": now}
        self.keep(kind, row)
        return row

    def archive(self, kind: str, id: str) -> bool:
        row = self.tables[kind].get(id)
        if row is None or row["archived"]:
            return False
        self.keep(kind, {**row, "archived": True, "archivedAt": iso(self.clock.time() * 1000)})
        return True

    def restore(self, kind: str, id: str) -> bool:
        """Take a record out of the recycle bin; that its modified time moves is a guess."""
        row = self.tables[kind].get(id)
        if row is None or not row["archived"]:
            return False
        now = iso(self.clock.time() * 1000)
        row = {name: value for name, value in row.items() if name != "archivedAt"}
        self.keep(kind, {**row, "archived": False, "updatedAt": now, "properties": {**row["properties"], modified(kind): now}})
        return True

    def merge(self, kind: str, winner: Row, loser: Row, changes: Row) -> Row:
        """Let one record go into another, which is changed; return that one. The loser is in no list any more."""
        swallowed = [*split(winner["properties"].get(MERGED)), *split(loser["properties"].get(MERGED)), loser["id"]]
        self.merged |= dict.fromkeys(swallowed, winner["id"])
        self.links.inherit(kind, winner["id"], loser["id"])
        self._drop(kind, loser["id"])
        after = self.change(kind, winner, {**changes, MERGED: ";".join(swallowed)})
        self.hooks.merged(kind, winner["id"], [loser["id"]], len(changes))
        return after

    def forget(self, id: str) -> bool:
        """Delete a contact for good, as a privacy request asks."""
        if not self.tables["contacts"].knows(id):
            return False
        self._drop("contacts", id)
        self.hooks.forgotten(id)
        return True

    def _drop(self, kind: str, id: str) -> None:
        self.quiet.add(id)
        self.archive(kind, id)
        self.tables[kind].remove(id)

    def keep(self, kind: str, row: Row) -> None:
        self.tables[kind].put(row["id"], row)
        _mark(self.archived[kind], row)
        self._waiting.append((self.clock.time() + LAG, kind, row))

    def searched(self, kind: str) -> tuple[Table[Any], set[str]]:
        """Return what search knows of an object by now, and the ids that it does not show."""
        now = self.clock.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, of, row = self._waiting.popleft()
            self._searched[of].put(row["id"], row)
            _mark(self._hidden[of], row)
        return self._searched[kind], self._hidden[kind]

    def listed(self, kind: str, after: str | None, *, archived: bool) -> Iterator[Row]:
        """Walk an object's records by id."""
        start = int(after) if after and after.isdigit() else None
        for row in self.tables[kind].walk("id", start=start):
            if row["archived"] is archived and row["id"] != after:
                yield row


def split(ids: str | None) -> list[str]:
    return [each for each in (ids or "").split(";") if each]


def _mark(hidden: set[str], row: Row) -> None:
    if row["archived"]:
        hidden.add(row["id"])
    else:
        hidden.discard(row["id"])
