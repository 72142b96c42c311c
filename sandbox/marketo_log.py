"""Marketo's activity log: what happened to leads, in the order of time, and where one stands in it."""

import base64
from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from sandbox.world import MarketingEvent, Profile

NEW_LEAD, CHANGE, MERGE, DELETE = 12, 13, 32, 37
_MAIL = (6, 7, 10, 11, 8, 9)  # by MarketingEvent.what
_NEW, _GONE, _LATER = 2_000_000_000, 4_000_000_000, 6_000_000_000  # where the numbers of each sort begin
_SCANNED, _SCANNED_OF_LEADS = 3000, 100  # entries looked through for one page


class Entry(NamedTuple):
    """One activity. `what` is the mailing's index, or (field, old, new) of a change, or the ids that were merged, or the name of who was deleted."""

    at: int  # milliseconds since 1970
    number: int
    lead: int
    type: int
    what: Any = None


class Place(NamedTuple):
    """Entries after (at, number) come next; `number` -1 is a date that nobody has paged from yet."""

    at: int
    number: int

    @property
    def token(self) -> str:
        return base64.b32encode(f"{self.at},{self.number}".encode()).decode()

    @classmethod
    def of(cls, token: str) -> "Place":
        """
        Raises:
            ValueError: it is no token.
        """
        at, _, number = base64.b32decode(token).decode().partition(",")
        return cls(int(at), int(number))


class Log:
    """Built when it is first asked; a hundred thousand people make some 300,000 entries."""

    def __init__(self, profiles: Iterable[Profile], events: Iterable[MarketingEvent]) -> None:
        self._profiles, self._events = profiles, events
        self._built: list[Entry] | None = None
        self._of_leads: dict[int, list[Entry]] = {}
        self._gone: set[int] = set()
        self._moved: dict[int, int] = {}  # who was merged away → into whom
        self._number = _LATER

    def add(self, at: int, lead: int, type: int, what: Any = None) -> None:
        entries = self._entries()
        self._number += 1
        entry = Entry(at, self._number, lead, type, what)
        insort(entries, entry, key=_place)
        if type != DELETE:
            self._of_leads.setdefault(lead, []).append(entry)

    def forget(self, lead: int) -> None:
        """Drop what is known of a lead, but that it was deleted."""
        self._entries()
        self._of_leads.pop(lead, None)
        self._gone.add(lead)

    def move(self, loser: int, winner: int) -> None:
        """Let the winner of a merge have the loser's activities."""
        self._entries()
        moved = [entry._replace(lead=winner) for entry in self._of_leads.pop(loser, [])]
        self._of_leads[winner] = sorted([*self._of_leads.get(winner, []), *moved], key=_place)
        self._moved[loser] = winner

    def page(
        self, after: Place, size: int, wanted: Callable[[Entry], bool], *, leads: Collection[int] | None = None
    ) -> tuple[list[Entry], Place, bool]:
        """Return up to `size` wanted entries, where they end, and whether any entry follows.

        The first page of a date is empty, and the others are short where much was looked through: as Marketo's are.
        """
        entries = self._entries()
        if leads is not None:
            entries = sorted((entry for lead in leads for entry in self._of_leads.get(lead, ())), key=_place)
        start = bisect_right(entries, (after.at, after.number), key=_place)
        if after.number < 0:
            return [], Place(after.at, 0), start < len(entries)
        found: list[Entry] = []
        end = after
        for entry in entries[start : start + (_SCANNED if leads is None else _SCANNED_OF_LEADS)]:
            start, end = start + 1, Place(entry.at, entry.number)
            entry = entry._replace(lead=self._home(entry.lead)) if entry.type != DELETE else entry
            if (entry.lead not in self._gone or entry.type == DELETE) and wanted(entry):
                found.append(entry)
            if len(found) == size:
                break
        return found, end, start < len(entries)

    def _home(self, lead: int) -> int:
        """Return who has a lead's activities now: winners are merged away as well."""
        while lead in self._moved:
            lead = self._moved[lead]
        return lead

    def _entries(self) -> list[Entry]:
        if self._built is None:
            self._built = [Entry(each.at, each.id, each.contact, _MAIL[each.what], each.campaign) for each in self._events]
            for each in self._profiles:
                if each.deleted:
                    self._built.append(Entry(each.updated, _GONE + each.id, each.id, DELETE, f"{each.given} {each.family}"))
                else:
                    self._built.append(Entry(each.created, _NEW + each.id, each.id, NEW_LEAD))
            self._built.sort(key=_place)
            for entry in self._built:
                if entry.type != DELETE:
                    self._of_leads.setdefault(entry.lead, []).append(entry)
        return self._built


def _place(entry: Entry) -> tuple[int, int]:
    return entry.at, entry.number
