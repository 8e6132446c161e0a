"""Locks among the threads of one process."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Holder:
    token: str
    until: float


class LocalLockTable:
    """A `LockTable` in memory. It grows with the names that are in use, and a name is forgotten when it is freed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[str, _Holder] = {}

    def take(self, name: str, token: str, ttl: float) -> bool:
        with self._lock:
            if self._holder(name) is not None:
                return False
            self._holders[name] = _Holder(token, time.monotonic() + ttl)
            return True

    def extend(self, name: str, token: str, ttl: float) -> bool:
        with self._lock:
            if not self._is(name, token):
                return False
            self._holders[name] = _Holder(token, time.monotonic() + ttl)
            return True

    def free(self, name: str, token: str) -> bool:
        with self._lock:
            if not self._is(name, token):
                return False
            del self._holders[name]
            return True

    def close(self) -> None: ...

    def _holder(self, name: str) -> _Holder | None:
        holder = self._holders.get(name)
        return holder if holder is not None and time.monotonic() < holder.until else None

    def _is(self, name: str, token: str) -> bool:
        holder = self._holder(name)
        return holder is not None and holder.token == token
