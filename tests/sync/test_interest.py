"""Followers are found by what they want: exactly those whose filter takes an event, whatever else is followed."""

import random

from sync.interest import Interest, Routes
from tests.happenings import event

KINDS, SYSTEMS, CUSTOMERS = ("contact", "deal", "order"), ("alpha", "beta", "gamma"), ("customer:1", "customer:2", None)


def some(rng: random.Random, values: tuple[str, ...]) -> frozenset[str] | None:
    return frozenset(rng.sample(values, rng.randint(1, len(values)))) if rng.random() < 0.6 else None


def test_looking_followers_up_gives_what_asking_each_of_them_gives() -> None:
    rng = random.Random(4)
    for _ in range(50):
        filters = {
            number: Interest(
                kinds=some(rng, KINDS), systems=some(rng, SYSTEMS), customers=some(rng, CUSTOMERS[:2]) if rng.random() < 0.5 else None,
                known=rng.random() < 0.3, echoes=rng.random() < 0.3,
            )
            for number in range(20)
        }  # fmt: skip
        routes: Routes[int] = Routes()
        for number, wants in filters.items():
            routes.add(number, wants)
        for number in rng.sample(range(20), 5):
            routes.remove(number)
            del filters[number]
        for _ in range(30):
            happened = event(
                kind=rng.choice(KINDS), source=rng.choice(SYSTEMS), customer=rng.choice(CUSTOMERS),  # type: ignore[arg-type]
                origin=rng.choice(["WEBHOOK", "LOCAL_WRITE"]),
            )  # fmt: skip
            found = [number for number in routes.of(happened) if filters[number](happened)]

            assert sorted(found) == [number for number, wants in filters.items() if wants(happened)]


def test_a_plain_function_is_asked_for_every_event() -> None:
    routes: Routes[str] = Routes()
    routes.add("all", lambda _: True)

    assert routes.of(event()) == ["all"]


def test_one_who_is_not_concerned_is_not_even_asked() -> None:
    routes: Routes[str] = Routes()
    for number in range(100):
        routes.add(str(number), Interest(customers=frozenset({f"customer:{number}"})))
    routes.add("deals", Interest(kinds=frozenset({"deal"})))

    assert routes.of(event(customer="customer:7")) == ["7"]


def test_who_has_left_leaves_nothing_behind() -> None:
    routes: Routes[str] = Routes()
    routes.add("one", Interest(customers=frozenset({"customer:1"})))
    routes.add("two", Interest(kinds=frozenset({"deal"}), systems=frozenset({"alpha"})))
    for each in ("one", "two", "two"):
        routes.remove(each)

    assert (len(routes), routes._by_customer, routes._by_place) == (0, {}, {})
