"""Locks that say yes to everybody, or to nobody: how tests show that nothing rests on one."""

from __future__ import annotations


class LyingLockTable:
    """A `LockTable` that gives one answer to everything."""

    def __init__(self, *, answer: bool) -> None:
        self._answer = answer

    def take(self, name: str, token: str, ttl: float) -> bool:
        return self._answer

    def extend(self, name: str, token: str, ttl: float) -> bool:
        return self._answer

    def free(self, name: str, token: str) -> bool:
        return self._answer

    def close(self) -> None: ...
