"""How long locks are waited for and held: contention shows nowhere else."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass

BOUNDS_SECONDS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram: `counts[i]` took at most `BOUNDS_SECONDS[i]` and longer than the bound before; the last one counts
    what took longer than any."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_SECONDS) + 1)
    total_seconds: float = 0.0
    longest_seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def with_one(self, seconds: float) -> Durations:
        counts = list(self.counts)
        counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        return Durations(tuple(counts), self.total_seconds + seconds, max(self.longest_seconds, seconds))


@dataclass(frozen=True, slots=True)
class LockTimes:
    """Since the process began. `waits` are of every `acquire`, whatever its outcome; `holds` of leases that ended."""

    waits: Durations = Durations()
    holds: Durations = Durations()
    taken: int = 0
    unguarded: int = 0
    lost: int = 0


class LockMeter:
    """Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits = self._holds = Durations()
        self._taken = self._unguarded = self._lost = 0

    def waited(self, seconds: float, *, taken: bool = False, unguarded: bool = False) -> None:
        with self._lock:
            self._waits = self._waits.with_one(seconds)
            self._taken += taken
            self._unguarded += unguarded

    def held(self, seconds: float) -> None:
        with self._lock:
            self._holds = self._holds.with_one(seconds)

    def lost(self) -> None:
        with self._lock:
            self._lost += 1

    def read(self) -> LockTimes:
        with self._lock:
            return LockTimes(self._waits, self._holds, self._taken, self._unguarded, self._lost)
