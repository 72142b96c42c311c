"""Every cache keeps the same promises; losing entries is allowed, raising is not."""

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis

from cache.entries import Cache, Entry
from cache.memory import MemoryCache
from cache.redis import RedisCache, connect
from tests.clocks import ManualClock

ENTRY = Entry(rows=[{"id": "1", "nested": {"a": [1, None, "é"]}}, None], at=12.5, known=frozenset({"id"}), end=True)


@pytest.fixture(params=["memory", "fake redis", "real redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(clock=ManualClock())
    elif request.param == "fake redis":
        yield RedisCache(FakeAsyncRedis())
    else:
        redis = connect(request.getfixturevalue("redis_url"))
        await redis.flushdb()
        yield RedisCache(redis)
        await redis.aclose()


async def test_entries_come_back_in_the_order_asked_and_none_where_there_is_none(cache: Cache) -> None:
    await cache.set_many({"a": ENTRY, "b": Entry(rows=[], at=1.0)}, ttl=60)

    found = await cache.get_many(["b", "missing", "a"])

    assert found == [Entry(rows=[], at=1.0), None, ENTRY]


async def test_an_entry_is_gone_after_its_time() -> None:
    clock = ManualClock()
    cache = MemoryCache(clock=clock)
    await cache.set_many({"a": ENTRY}, ttl=60)

    clock.advance(61)

    assert await cache.get_many(["a"]) == [None]


async def test_the_least_recently_used_entry_makes_room() -> None:
    cache = MemoryCache(clock=ManualClock(), max_rows=4)
    await cache.set_many({"a": ENTRY, "b": ENTRY}, ttl=60)
    await cache.get_many(["a"])

    await cache.set_many({"c": ENTRY}, ttl=60)

    assert await cache.get_many(["a", "b", "c"]) == [ENTRY, None, ENTRY]


async def test_redis_in_trouble_is_a_counted_miss() -> None:
    failures: list[int] = []
    nobody = connect("redis://127.0.0.1:1")
    cache = RedisCache(nobody, failed=lambda: failures.append(1))

    await cache.set_many({"a": ENTRY}, ttl=60)
    found = await cache.get_many(["a"])

    assert found == [None]
    assert len(failures) == 2
    await nobody.aclose()


async def test_bytes_that_something_else_wrote_are_a_miss() -> None:
    redis = FakeAsyncRedis()
    await redis.set("c360:cache:1:a", b"\xff\xff")

    assert await RedisCache(redis).get_many(["a"]) == [None]
