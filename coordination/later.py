"""Locks and a cache among all processes of an installation, as soon as this one knows which installation it is.

Keys in Redis begin with a prefix that has to be heard first, from PostgreSQL or from the host; until then a process has
locks and a cache of its own, since it must not meet another installation's. It goes over at the next call after the
prefix is known, and needs no restart. A lease ends where it began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Final, Generic, Protocol, TypeVar

from coordination.cache import Cache
from coordination.leased_locks import LockTable

ASK_SECONDS: Final = 1.0
"""Between two questions for the prefix, each of which may read a file."""

Prefix = Callable[[], str | None]
"""What the keys of this installation begin with. None: neither PostgreSQL nor the host has said it yet."""


class _Closing(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closing)


class _Later(Generic[T]):
    """Safe for threads."""

    def __init__(self, prefix: Prefix, alone: T, shared: Callable[[str], T]) -> None:
        self._prefix, self._alone, self._make = prefix, alone, shared
        self._lock = threading.Lock()
        self._shared: T | None = None
        self._ask_at = float("-inf")

    def get(self) -> T:
        with self._lock:
            if self._shared is None and time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + ASK_SECONDS
                if (prefix := self._prefix()) is not None:
                    self._shared = self._make(prefix)
            return self._alone if self._shared is None else self._shared

    def close(self) -> None:
        self._alone.close()
        if self._shared is not None:
            self._shared.close()


class LaterLockTable:
    """A `LockTable`."""

    def __init__(self, prefix: Prefix, alone: LockTable, shared: Callable[[str], LockTable]) -> None:
        self._alone, self._later = alone, _Later(prefix, alone, shared)

    def take(self, name: str, token: str, ttl: float) -> bool:
        return self._later.get().take(name, token, ttl)

    def extend(self, name: str, token: str, ttl: float) -> bool:
        return self._alone.extend(name, token, ttl) or self._later.get().extend(name, token, ttl)

    def free(self, name: str, token: str) -> bool:
        return self._alone.free(name, token) or self._later.get().free(name, token)

    def close(self) -> None:
        self._later.close()


class LaterCache:
    """A `Cache`."""

    def __init__(self, prefix: Prefix, alone: Cache, shared: Callable[[str], Cache]) -> None:
        self._later = _Later(prefix, alone, shared)

    def get(self, key: str) -> str | None:
        return self._later.get().get(key)

    def put(self, key: str, text: str, seconds: float) -> None:
        self._later.get().put(key, text, seconds)

    def invalidate(self, keys: Collection[str], seconds: float) -> None:
        self._later.get().invalidate(keys, seconds)

    def close(self) -> None:
        self._later.close()
