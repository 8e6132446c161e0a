"""Recurring work that one of many is enough for: whoever finds it under way leaves it out, but not for ever.

A holder that hangs goes on renewing its lock. So after `PATIENCE` refusals in a row the work is done beside it, which
is safe, as all work under a lock is. Where locks are away it is done by everybody who comes.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from coordination.locks import Lease, Locks, Outcome

log = logging.getLogger(__name__)

PATIENCE = 3


class Turns:
    """Safe for threads; the refusals are counted in each process."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks
        self._refused: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def take(self, name: str) -> Iterator[Lease | None]:
        """The lease to work under; None: leave it to whoever has it. A lease that is lost in the middle means that
        somebody else may have begun: end where it is convenient."""
        with self._locks.acquire(name, wait=True) as lease:
            yield lease if self._goes_on(lease) else None

    def _goes_on(self, lease: Lease) -> bool:
        with self._lock:
            if lease.outcome is not Outcome.TAKEN:
                del self._refused[lease.name]
                return True
            self._refused[lease.name] += 1
            if self._refused[lease.name] <= PATIENCE:
                return False
            del self._refused[lease.name]
        log.warning("a lock was taken too long: going on beside its holder", extra={"lock": lease.name})
        return True
