"""The contract of locks. A lock saves work and decides nothing: every step of Millrace can run twice at the same time,
so nothing breaks when a lock is lost, granted to two, or granted to nobody.

`acquire` never raises. What it hands out is left with `with`, whatever the outcome:

    HELD        nobody else was told so, until the lease is left or lost
    TAKEN       somebody holds it
    UNGUARDED   nobody can say: there are no locks here, or their server does not answer. Go on without.

A lease that its holder stopped renewing (a frozen process, a server that went away) is free after its time to live. The
former holder is told by `lost`, and leaving a lost lease never frees the one of its successor.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from coordination.lock_times import LockTimes


class Outcome(StrEnum):
    HELD = "held"
    TAKEN = "taken"
    UNGUARDED = "unguarded"


class Lease:
    """`lost` is set at the latest when the time to live has passed without a renewal, or when somebody else was seen
    to hold the lock. Work that is still under way does no harm; it is only done twice."""

    def __init__(self, name: str, outcome: Outcome) -> None:
        self.name = name
        self.outcome = outcome
        self.lost = threading.Event()

    def release(self) -> None:
        """May be called again. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class Locks(Protocol):
    def acquire(self, name: str, *, wait: bool = False) -> Lease:
        """With `wait`, a lock that is taken is tried for again as often as settings say."""

    def times(self) -> LockTimes: ...

    def close(self) -> None: ...


class NoLocks:
    """Everybody goes on without."""

    def acquire(self, name: str, *, wait: bool = False) -> Lease:
        return Lease(name, Outcome.UNGUARDED)

    def times(self) -> LockTimes:
        return LockTimes()

    def close(self) -> None: ...
