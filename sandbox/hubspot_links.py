"""HubSpot's association graph: read from the world's records, with what was added and taken away since.

The type ids are the vendor's: 1 and 279 from a contact to a company, 3 from a deal to a contact, …; the lower one of a pair with
a company is the labelled "Primary" one, of which a record has at most one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sandbox.hubspot_properties import SUBSCRIPTION, object_name, type_id
from sandbox.table import Row, Table

Pair = tuple[str, str]  # (from, to), by object name
# The labelled "primary" type first where there is one.
TYPES: Mapping[Pair, tuple[tuple[int, str | None], ...]] = {
    ("contacts", "companies"): ((1, "Primary"), (279, None)), ("companies", "contacts"): ((2, "Primary"), (280, None)),
    ("contacts", "deals"): ((4, None),), ("deals", "contacts"): ((3, None),), ("deals", "companies"): ((5, "Primary"), (341, None)),
    ("companies", "deals"): ((6, "Primary"), (342, None)), ("contacts", "tickets"): ((15, None),), ("tickets", "contacts"): ((16, None),),
    ("tickets", "companies"): ((26, "Primary"), (339, None)), ("companies", "tickets"): ((25, "Primary"), (340, None)),
    (SUBSCRIPTION, "contacts"): ((42, None),), ("contacts", SUBSCRIPTION): ((43, None),),
}  # fmt: skip


def pair_of(start: str, type: int) -> Pair | None:
    """Return the pair that a type id ties, None where `start` has no such type."""
    return next((pair for pair, types in TYPES.items() if pair[0] == start and any(id == type for id, _ in types)), None)


class Links:
    """
    Args:
        tables: by object name; their entries say what was so from the start.
        held: pair → the ids that an entry holds, the primary one first; the other direction follows from it.
        live: whether a record is there and not archived.
    """

    def __init__(
        self, tables: Mapping[str, Table[Any]], held: Mapping[Pair, Callable[[Any], tuple[str, ...]]], live: Callable[[str, str], bool],
    ) -> None:  # fmt: skip
        self._tables, self._held, self._live = tables, held, live
        self._backwards: dict[Pair, dict[str, list[str]]] = {}
        self._added: dict[Pair, dict[str, dict[str, None]]] = {}
        self._gone: dict[Pair, set[tuple[str, str]]] = {}
        self._primary: dict[Pair, dict[str, str]] = {}

    def of(self, start: str, to: str, id: str) -> list[str]:
        """Return the ids of the live records of `to` that belong to one, the primary one first."""
        pair = (start, to)
        gone = self._gone.get(pair, set())
        found = dict.fromkeys(other for other in self._at_first(pair, id) if (id, other) not in gone)
        found |= self._added.get(pair, {}).get(id, {})
        first = self._primary.get(pair, {}).get(id)
        ordered = sorted(found, key=lambda other: other != first) if first in found else found
        return [other for other in ordered if self._live(to, other)]

    def typed(self, start: str, to: str, id: str) -> list[Row]:
        """Return the same with their types, as `v4` tells them."""
        return [
            {
                "toObjectId": int(other),
                "associationTypes": [
                    {"category": "HUBSPOT_DEFINED", "typeId": type, "label": label}
                    for type, label in TYPES[start, to]
                    if label is None or self._is_primary(start, to, id, other)
                ],
            }
            for other in self.of(start, to, id)
        ]

    def add(self, start: str, to: str, id: str, other: str, *, primary: bool = False) -> None:
        """Tie two records, in both directions. Tying what is tied changes nothing but which one is the primary."""
        for pair, one, two in (((start, to), id, other), ((to, start), other, id)):
            self._gone.get(pair, set()).discard((one, two))
            if two not in self._at_first(pair, one):
                self._added.setdefault(pair, {}).setdefault(one, {})[two] = None
        if primary:
            self._primary.setdefault((start, to), {})[id] = other

    def remove(self, start: str, to: str, id: str, other: str) -> None:
        for pair, one, two in (((start, to), id, other), ((to, start), other, id)):
            self._gone.setdefault(pair, set()).add((one, two))
            self._added.get(pair, {}).get(one, {}).pop(two, None)

    def inherit(self, kind: str, winner: str, loser: str) -> None:
        """Give a record what belongs to the one that is merged into it."""
        for start, to in TYPES:
            if start == kind:
                for other in self.of(kind, to, loser):
                    self.add(kind, to, winner, other)
                    self.remove(kind, to, loser, other)

    def _is_primary(self, start: str, to: str, id: str, other: str) -> bool:
        if start == "companies":
            return self.of(to, start, other)[:1] == [id]
        return self.of(start, to, id)[:1] == [other]

    def _at_first(self, pair: Pair, id: str) -> Sequence[str]:
        if (held := self._held.get(pair)) is not None:
            entry = self._tables[pair[0]].entry(id)
            return () if entry is None else held(entry)
        return self._backwards_of(pair).get(id, ())

    def _backwards_of(self, pair: Pair) -> dict[str, list[str]]:
        if pair not in self._backwards:
            built: dict[str, list[str]] = {}
            held = self._held.get((pair[1], pair[0]))
            for id, entry in self._tables[pair[1]].entries() if held else ():
                for other in held(entry) if held else ():
                    built.setdefault(other, []).append(id)
            self._backwards[pair] = built
        return self._backwards[pair]


def labels(start: str, to: str, id: str, other: str) -> Row:
    """Return `LabelsBetweenObjectPair`: there are no labels of the portal's own."""
    return {
        "fromObjectTypeId": type_id(start),
        "fromObjectId": id,
        "toObjectTypeId": type_id(to),
        "toObjectId": other,
        "labels": [],
    }


def default(start: str, to: str, id: str, other: str) -> list[Row]:
    """Return the two directions of a default association."""
    return [
        {"from": {"id": one}, "to": {"id": two}, "associationSpec": {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": TYPES[pair][-1][0]}}
        for pair, one, two in (((start, to), id, other), ((to, start), other, id))
    ]  # fmt: skip


def pair(start: str, to: str) -> Pair | None:
    """Return the pair of two objects as paths name them, None where nothing ties them."""
    named = object_name(start), object_name(to)
    return named if named in TYPES else None


def none_associated(start: str, to: str, ids: Iterable[str]) -> list[Row]:
    """Return the benign errors by which HubSpot says "empty"."""
    one, other = start.rstrip("s"), to.rstrip("s")
    return [
        {
            "status": "error", "category": "OBJECT_NOT_FOUND", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
            "message": f"No {other} is associated with {one} {id}.", "links": {}, "errors": [],
            "context": {"fromObjectId": [id], "fromObjectType": [one], "toObjectType": [other]},
        }
        for id in ids
    ]  # fmt: skip
