"""A cache in the memory of one process: bounded, each entry with its own end, the one used longest ago goes first."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from cachetools import TLRUCache


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str | None
    """None: it was invalidated."""
    until: float


def _end(_key: str, entry: _Entry, _now: float) -> float:
    return entry.until


class LocalCache:
    """Safe for threads."""

    def __init__(self, max_entries: int) -> None:
        self._lock = threading.Lock()
        self._entries: TLRUCache[str, _Entry] = TLRUCache(max_entries, ttu=_end, timer=time.monotonic)

    def get(self, key: str) -> str | None:
        with self._lock:
            entry = self._entries.get(key)
        return None if entry is None else entry.text

    def put(self, key: str, text: str, seconds: float) -> None:
        with self._lock:
            if seconds > 0 and self._entries.get(key) is None:
                self._entries[key] = _Entry(text, time.monotonic() + seconds)

    def invalidate(self, keys: Collection[str], seconds: float) -> None:
        until = time.monotonic() + seconds
        with self._lock:
            for key in keys:
                self._entries[key] = _Entry(None, until)

    def close(self) -> None: ...
