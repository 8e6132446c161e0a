"""From the settings to the locks and the cache of a process. Connects to nothing yet.

`prefix` says what the keys of this installation begin with in Redis, and is asked until it knows
(coordination/later.py).
"""

from __future__ import annotations

from coordination.cache import Cache, NoCache
from coordination.later import LaterCache, LaterLockTable, Prefix
from coordination.leased_locks import LeasedLocks, LockTable
from coordination.local_cache import LocalCache
from coordination.local_locks import LocalLockTable
from coordination.locks import Locks, NoLocks
from coordination.lying_locks import LyingLockTable
from coordination.redis_cache import RedisCache
from coordination.redis_link import RedisLink
from coordination.redis_locks import RedisLockTable
from core.settings import Settings

LOCK_SECONDS = 1.0
CACHE_SECONDS = 0.2
"""How long Redis may take: a cache that is slower than what it saves is none."""


def open_locks(settings: Settings, prefix: Prefix) -> Locks:
    chosen = settings.locks
    if chosen.kind == "none":
        return NoLocks()
    return LeasedLocks(
        _table(settings, prefix), ttl=chosen.ttl, max_retries=chosen.max_retries, retry_delay_ms=chosen.retry_delay_ms
    )


def open_cache(settings: Settings, prefix: Prefix) -> Cache:
    chosen = settings.cache
    if chosen.kind == "none":
        return NoCache()
    alone, url = LocalCache(chosen.max_entries), settings.redis_url
    if chosen.kind != "redis" or url is None:
        return alone

    def shared(prefix: str) -> Cache:
        return RedisCache(RedisLink.to(url, seconds=CACHE_SECONDS), key_prefix=prefix + chosen.key_prefix)

    return LaterCache(prefix, alone, shared)


def _table(settings: Settings, prefix: Prefix) -> LockTable:
    chosen = settings.locks
    if chosen.kind in ("always", "never"):
        return LyingLockTable(answer=chosen.kind == "always")
    alone, url = LocalLockTable(), settings.redis_url
    if chosen.kind != "redis" or url is None:
        return alone

    def shared(prefix: str) -> LockTable:
        return RedisLockTable(RedisLink.to(url, seconds=LOCK_SECONDS), key_prefix=prefix + chosen.key_prefix)

    return LaterLockTable(prefix, alone, shared)
