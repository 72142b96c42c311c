"""What a follower of the log wants of it, told as facts, so that an event is brought only to those who may take it."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from msgspec import Struct

from model.events import Event

T = TypeVar("T")
Place = tuple[str | None, str | None]  # (kind, system), None for any


class Interest(Struct, frozen=True, kw_only=True):
    """A filter of events. None takes all.

    Attributes:
        kinds, systems: of the record that changed.
        customers: whose records.
        known: only records of a customer.
        echoes: also what we wrote ourselves.
    """

    kinds: frozenset[str] | None = None
    systems: frozenset[str] | None = None
    customers: frozenset[str] | None = None
    known: bool = False
    echoes: bool = False

    def __call__(self, event: Event) -> bool:
        return (
            (self.echoes or event.origin != "LOCAL_WRITE")
            and (self.kinds is None or event.ref.kind in self.kinds)
            and (self.systems is None or event.system in self.systems)
            and (self.customers is None or event.customer in self.customers)
            and (not self.known or event.customer is not None)
        )


class Routes(Generic[T]):
    """Followers by what they want: whoever must look at an event is found without asking the others."""

    def __init__(self) -> None:
        self._all: dict[T, Callable[[Event], bool]] = {}
        self._by_customer: dict[str, set[T]] = {}
        self._by_place: dict[Place, set[T]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def add(self, follower: T, wants: Callable[[Event], bool]) -> None:
        self._all[follower] = wants
        for table, key in self._places(wants):
            table.setdefault(key, set()).add(follower)

    def remove(self, follower: T) -> None:
        wants = self._all.pop(follower, None)
        if wants is None:
            return
        for table, key in self._places(wants):
            table[key].discard(follower)
            if not table[key]:
                del table[key]

    def of(self, event: Event) -> list[T]:
        """Return every follower that may want the event, once; each still asks its own filter."""
        kind, system = event.ref.kind, event.system
        found: list[T] = []
        if event.customer is not None:
            found += self._by_customer.get(event.customer, ())
        for place in ((kind, system), (kind, None), (None, system), (None, None)):
            found += self._by_place.get(place, ())
        return found

    def _places(self, wants: Callable[[Event], bool]) -> Iterator[tuple[dict[object, set[T]], object]]:
        # A follower stands in one table only, and an event has one key per table and place: nobody is found twice.
        by_customer: dict[object, set[T]] = self._by_customer  # type: ignore[assignment]
        by_place: dict[object, set[T]] = self._by_place  # type: ignore[assignment]
        if not isinstance(wants, Interest):
            yield by_place, (None, None)
        elif wants.customers is not None:
            yield from ((by_customer, customer) for customer in wants.customers)
        else:
            for kind in wants.kinds if wants.kinds is not None else (None,):
                for system in wants.systems if wants.systems is not None else (None,):
                    yield by_place, (kind, system)
