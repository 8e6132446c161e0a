"""Locks as leases in a table: who holds a name, by a random token, for how long.

Only the holder of the token renews or frees the name, and the table compares and acts in one step. A holder renews at
every third of the time to live, from a thread of its own that goes with the lease.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from typing import Protocol

from coordination.lock_times import LockMeter, LockTimes
from coordination.locks import Lease, Outcome
from core.errors import Unavailable
from core.loops import Background

log = logging.getLogger(__name__)

RENEWALS = 3
"""In one time to live, so that two of them may fail."""

pause = time.sleep


class LockTable(Protocol):
    """Every method is atomic. All raise `Unavailable` when the table does not answer; what they were asked may then
    have been done or not."""

    def take(self, name: str, token: str, ttl: float) -> bool:
        """For `ttl` seconds, if nobody has it."""

    def extend(self, name: str, token: str, ttl: float) -> bool:
        """To `ttl` seconds from now, if it is still `token`'s."""

    def free(self, name: str, token: str) -> bool:
        """If it is still `token`'s."""

    def close(self) -> None: ...


class LeasedLocks:
    """`Locks` on a table. `ttl` is in seconds."""

    def __init__(
        self,
        table: LockTable,
        *,
        ttl: float,
        max_retries: int,
        retry_delay_ms: int,
        renew_seconds: float | None = None,
    ) -> None:
        self._table = table
        self._ttl = ttl
        self._max_retries = max_retries
        self._retry_delay = retry_delay_ms / 1000
        self._renew_seconds = ttl / RENEWALS if renew_seconds is None else renew_seconds
        self._meter = LockMeter()

    def acquire(self, name: str, *, wait: bool = False) -> Lease:
        began = time.monotonic()
        lease = self._try(name)
        for _ in range(self._max_retries if wait else 0):
            if lease.outcome is not Outcome.TAKEN:
                break
            pause(self._retry_delay * random.uniform(0.5, 1.5))  # or all who wait would come back together
            lease = self._try(name)
        waited = time.monotonic() - began
        outcome = lease.outcome
        self._meter.waited(waited, taken=outcome is Outcome.TAKEN, unguarded=outcome is Outcome.UNGUARDED)
        log.debug("a lock was asked for", extra={"lock": name, "outcome": outcome.value, "waited_seconds": waited})
        return lease

    def times(self) -> LockTimes:
        return self._meter.read()

    def close(self) -> None:
        """Leases that are still held end with their time to live."""
        self._table.close()

    def _try(self, name: str) -> Lease:
        token = secrets.token_hex(16)
        asked = time.monotonic()
        try:
            ours = self._table.take(name, token, self._ttl)
        except Unavailable as error:
            log.warning("going on without a lock", extra={"lock": name, "detail": error.detail})
            return Lease(name, Outcome.UNGUARDED)
        if not ours:
            return Lease(name, Outcome.TAKEN)
        held = _Held(name, token, asked, self._table, self._meter, self._ttl, self._renew_seconds)
        held.start()
        return held


class _Held(Lease):
    def __init__(
        self, name: str, token: str, asked: float, table: LockTable, meter: LockMeter, ttl: float, renew_seconds: float
    ) -> None:
        super().__init__(name, Outcome.HELD)
        self._token = token
        self._table = table
        self._meter = meter
        self._ttl = ttl
        self._renew_seconds = renew_seconds
        self._since = asked
        self._until = asked + ttl  # counted from before the question: never later than the table's own end
        self._renewal = Background(
            "lock-renewal", self._renew, seconds=renew_seconds, first=self._pause(), most_rest_seconds=renew_seconds
        )
        self._released = False

    def start(self) -> None:
        self._renewal.start()

    def release(self) -> None:
        if self._released:
            return
        self._released = True
        self._renewal.close()
        held = time.monotonic() - self._since
        try:
            if not self._table.free(self.name, self._token):
                self._lose()
        except Unavailable as error:
            log.warning("a lock ends by its time to live", extra={"lock": self.name, "detail": error.detail})
        self._meter.held(held)
        log.debug("a lock was left", extra={"lock": self.name, "held_seconds": held})

    def _renew(self) -> float:
        try:
            ours = self._extended()
        except Exception:
            ours = time.monotonic() < self._until
            raise
        finally:
            if not ours:
                self._lose()
                self._renewal.stop()
        return self._pause()

    def _pause(self) -> float:
        return max(0.0, min(self._renew_seconds, self._until - time.monotonic()))

    def _extended(self) -> bool:
        """While the table does not answer, the lease is ours until its time has passed."""
        asked = time.monotonic()
        try:
            ours = self._table.extend(self.name, self._token, self._ttl)
        except Unavailable:
            return time.monotonic() < self._until
        if ours:
            self._until = asked + self._ttl
        return ours

    def _lose(self) -> None:
        if not self.lost.is_set():
            self.lost.set()
            self._meter.lost()
            log.warning("a lock was lost", extra={"lock": self.name})
