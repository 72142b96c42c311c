"""The cache in Redis, shared by all replicas. Redis in trouble is a miss, counted and logged, never an error."""

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cache.entries import Entry

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
TIMEOUT = 0.5  # seconds
_FORMAT = "1"  # part of every key: a new encoding starts empty instead of misreading


def connect(url: str) -> "Redis":
    """Return a client that fails fast: whoever uses Redis here goes on without it, so waiting for it helps nobody.

    Raises:
        ValueError: the URL is none that Redis clients know.
    """
    return Redis.from_url(
        url, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0), health_check_interval=30
    )


class RedisCache:
    """Entries under `c360:cache:<format>:<key>`.

    Args:
        failed: told about each operation that Redis did not serve.
    """

    def __init__(self, redis: "Redis", *, failed: Callable[[], None] = lambda: None) -> None:
        self._redis = redis
        self._failed = failed

    async def get_many(self, keys: Sequence[str]) -> list[Entry | None]:
        if not keys:
            return []
        try:
            found = await self._redis.mget([_key(key) for key in keys])
        except (RedisError, OSError) as error:
            self._missed(error)
            return [None] * len(keys)
        return [_decoded(value) if value is not None else None for value in found]

    async def set_many(self, entries: Mapping[str, Entry], *, ttl: float) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, entry in entries.items():
                    pipe.set(_key(key), _encode(entry), px=max(1, int(ttl * 1000)))
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._missed(error)

    async def drop(self, prefix: str) -> None:
        try:
            pattern = "".join(f"\\{each}" if each in "*?[]\\" else each for each in _key(prefix)) + "*"
            async for key in self._redis.scan_iter(match=pattern, count=1000):
                await self._redis.unlink(key)
        except (RedisError, OSError) as error:
            self._missed(error)

    async def close(self) -> None:
        """The client belongs to whoever made it."""

    def _missed(self, error: Exception) -> None:
        self._failed()
        log.warning("cache unavailable", extra={"error.type": type(error).__name__})


def _key(key: str) -> str:
    return f"c360:cache:{_FORMAT}:{key}"


def _decoded(value: bytes | str) -> Entry | None:
    try:
        return _decode(value if isinstance(value, bytes) else value.encode())
    except msgspec.DecodeError:  # written by something else: as good as absent
        return None
