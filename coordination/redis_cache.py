"""A cache that all processes share, in Redis.

An entry is `<end> <text>`, where the end is in milliseconds since 1970 by the clock of the process that put it; an
invalidated one has no text. Redis drops it after its time to live. The end is there for a `SET` that waited in the
buffers of a server that hung and took effect much later: the time to live began then, the end is the right one. Neither
alone holds when a clock is wrong; an entry is answered only while both do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from typing import cast

from redis import Redis

from coordination.redis_link import RedisLink
from core import clock
from core.errors import BrokerUnavailable


class RedisCache:
    def __init__(self, link: RedisLink, *, key_prefix: str) -> None:
        self._link = link
        self._prefix = key_prefix

    def get(self, key: str) -> str | None:
        try:
            found = self._link.ask(lambda redis: cast("bytes | None", redis.get(self._prefix + key)))
        except BrokerUnavailable:
            return None
        return None if found is None else _text_of(found)

    def put(self, key: str, text: str, seconds: float) -> None:
        if seconds > 0:
            self._tell(lambda redis: redis.set(self._prefix + key, _entry(text, seconds), px=_ms(seconds), nx=True))

    def invalidate(self, keys: Collection[str], seconds: float) -> None:
        def command(redis: Redis) -> None:
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.set(self._prefix + key, _entry("", seconds), px=_ms(seconds))
            pipeline.execute()

        self._tell(command)

    def close(self) -> None:
        self._link.close()

    def _tell(self, command: Callable[[Redis], object]) -> None:
        with suppress(BrokerUnavailable):
            self._link.ask(command)


def _entry(text: str, seconds: float) -> bytes:
    return f"{round((clock.now().timestamp() + seconds) * 1000)} {text}".encode()


def _text_of(entry: bytes) -> str | None:
    """What is not ours, or older than it may be, is nothing."""
    end, _, text = entry.partition(b" ")
    try:
        return text.decode() or None if clock.now().timestamp() * 1000 < int(end) else None
    except ValueError:
        return None


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
