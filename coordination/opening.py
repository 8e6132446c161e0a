"""From the settings to the locks and the cache of a process. Connects to nothing yet.

`prefix` is what the keys of this installation begin with in Redis. Without one, on a host that never heard of its
installation, a process has locks and a cache of its own: it must not meet another installation's.
"""

from __future__ import annotations

from coordination.cache import Cache, NoCache
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


def open_locks(settings: Settings, prefix: str | None) -> Locks:
    chosen = settings.locks
    if chosen.kind == "none":
        return NoLocks()
    return LeasedLocks(
        _table(settings, prefix), ttl=chosen.ttl, max_retries=chosen.max_retries, retry_delay_ms=chosen.retry_delay_ms
    )


def open_cache(settings: Settings, prefix: str | None) -> Cache:
    chosen = settings.cache
    if chosen.kind == "none":
        return NoCache()
    if chosen.kind == "redis" and settings.redis_url is not None and prefix is not None:
        link = RedisLink.to(settings.redis_url, seconds=CACHE_SECONDS)
        return RedisCache(link, key_prefix=prefix + chosen.key_prefix)
    return LocalCache(chosen.max_entries)


def _table(settings: Settings, prefix: str | None) -> LockTable:
    chosen = settings.locks
    if chosen.kind in ("always", "never"):
        return LyingLockTable(answer=chosen.kind == "always")
    if chosen.kind == "redis" and settings.redis_url is not None and prefix is not None:
        link = RedisLink.to(settings.redis_url, seconds=LOCK_SECONDS)
        return RedisLockTable(link, key_prefix=prefix + chosen.key_prefix)
    return LocalLockTable()
