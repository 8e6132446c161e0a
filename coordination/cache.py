"""The contract of caches: text under keys, for a while. A cache that is away is one that knows nothing: nothing here
raises, and nothing waits long.

`put` never overwrites, and `invalidate` also keeps a key from being put for a while. So who read something, was slow,
and puts it after it was changed and invalidated, comes too late. What slips through all the same (because the cache was
away or flushed at that moment) ends with its time: count `seconds` from before the reading.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Cache(Protocol):
    def get(self, key: str) -> str | None: ...

    def put(self, key: str, text: str, seconds: float) -> None:
        """Unless there is something under the key. With no seconds left, nothing is put."""

    def invalidate(self, keys: Collection[str], seconds: float) -> None:
        """Forget them, and let nothing be put under them for `seconds`: as long as anything was put for."""

    def close(self) -> None: ...


class NoCache:
    def get(self, key: str) -> str | None:
        return None

    def put(self, key: str, text: str, seconds: float) -> None: ...

    def invalidate(self, keys: Collection[str], seconds: float) -> None: ...

    def close(self) -> None: ...
