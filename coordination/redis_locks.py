"""Locks among all processes that share a Redis: one key for each name, gone by itself after its time to live.

Taking is one `SET NX PX`; renewing and freeing compare the owner's token and act in one script, so that nobody touches
the key of a successor.
"""

from __future__ import annotations

from redis import Redis

from coordination.redis_link import RedisLink

_EXTEND = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_FREE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLockTable:
    """A `LockTable`. A Redis that lost its scripts, by a restart or `SCRIPT FLUSH`, is given them again."""

    def __init__(self, link: RedisLink, *, key_prefix: str) -> None:
        self._link = link
        self._prefix = key_prefix
        self._extend = link.redis.register_script(_EXTEND)
        self._free = link.redis.register_script(_FREE)

    def take(self, name: str, token: str, ttl: float) -> bool:
        def command(redis: Redis) -> bool:
            return bool(redis.set(self._prefix + name, token, nx=True, px=_milliseconds(ttl)))

        return self._link.ask(command)

    def extend(self, name: str, token: str, ttl: float) -> bool:
        arguments: list[str | int] = [token, _milliseconds(ttl)]
        return self._link.ask(lambda redis: bool(self._extend([self._prefix + name], arguments, redis)))

    def free(self, name: str, token: str) -> bool:
        return self._link.ask(lambda redis: bool(self._free([self._prefix + name], [token], redis)))

    def close(self) -> None:
        self._link.close()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
