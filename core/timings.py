"""How long a call takes, measured by calling it again and again for a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each call, shortest first. There is at least one."""

    samples: Sequence[float]

    @property
    def p50_ms(self) -> float:
        return self.percentile(0.50) * 1000

    @property
    def p99_ms(self) -> float:
        """The slowest one, of fewer than a hundred."""
        return self.percentile(0.99) * 1000

    def percentile(self, share: float) -> float:
        """By nearest rank: a time that really was measured."""
        return self.samples[max(0, math.ceil(share * len(self.samples)) - 1)]

    @property
    def total(self) -> float:
        return sum(self.samples)


def measure(call: Callable[[int], object], *, rounds: int, seconds: float) -> Timings:
    """Call it with 0, 1, 2, … until `rounds` calls or `seconds` are over, at least once."""
    samples: list[float] = []
    ends = time.monotonic() + seconds
    while len(samples) < rounds and (not samples or time.monotonic() < ends):
        started = time.perf_counter()
        call(len(samples))
        samples.append(time.perf_counter() - started)
    return Timings(sorted(samples))
