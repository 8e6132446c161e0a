"""Working through a host's staged entries, two at a time in one process.

An entry is waiting for disks to sync, for PostgreSQL and for a store, and then it is rendering. Two lanes let one entry
wait while the other renders; a lock around the rendering keeps it one decode at a time, so memory and processor are
asked for no more than one entry needs.
"""

from __future__ import annotations

import threading
import time
from uuid import UUID

from core import clock
from core.loops import Guard
from pipeline.leaving import give_everything_back
from pipeline.services import Services
from pipeline.uploads.ingest import Outcome, ingest

LANES = 2
TURN_SECONDS = 5
"""How long one wake-up keeps a process busy: a worker that is told to go ends its turn first. A window of hints from
the sweep (`window_factor` for each process) lasts longer than its interval, so a backlog never waits for the next."""

FAILURES = 3
"""In a row that no code foresaw: the lane ends. The next turn is soon."""

BATCH = 32
"""Listing a backlog of 100,000 costs something, so it is not done for each entry. Who comes second finds it claimed."""

LEAVE_SECONDS = 4
"""How long a process that is told to go waits for what it has begun; what has not ended then is given back."""


class _Supply:
    """The next entries, each given out once in this process."""

    def __init__(self, services: Services, first: UUID) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._waiting = [first]
        self._last = first
        self._ends = time.monotonic() + TURN_SECONDS
        self.closed = False

    def next(self) -> UUID | None:
        with self._lock:
            if self.closed or time.monotonic() > self._ends:
                return None
            if not self._waiting:
                self._waiting = self._services.staging.due(BATCH, clock.now(), after=self._last)
                if not self._waiting:
                    return None
                self._last = self._waiting[-1]
            return self._waiting.pop(0)


def drain(services: Services, first: UUID) -> None:
    """Ingest `first` and then whatever is due and younger, until a turn is over, nothing is left, or a dependency is
    away."""
    supply = _Supply(services, first)
    lanes = [threading.Thread(target=_lane, args=(services, supply), daemon=True) for _ in range(LANES - 1)]
    try:
        for lane in lanes:
            lane.start()
        _lane(services, supply)
    except BaseException:
        supply.closed = True
        _join(lanes, LEAVE_SECONDS)
        give_everything_back()
        raise
    _join(lanes, None)


def _lane(services: Services, supply: _Supply) -> None:
    def turn() -> None:
        upload_id = supply.next()
        if upload_id is None or ingest(services, upload_id) is Outcome.WAITING:
            supply.closed = True

    guard = Guard("ingest-lane", most_rest_seconds=0)
    while not supply.closed and guard.failures < FAILURES:
        guard.call(turn)
    guard.close()


def _join(lanes: list[threading.Thread], seconds: float | None) -> None:
    for lane in lanes:
        lane.join(seconds)
