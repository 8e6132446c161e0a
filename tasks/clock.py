"""Beat's scheduler, which ends when it is told to, and only then; fills no queue without a reader; and goes on when
this host's clock is set.

Messages have no time at which they expire: that would be compared with another host's clock, and a worker whose clock
is ahead would never do anything.

Celery's handler of SIGTERM raises SystemExit wherever the process is. In the middle of a send the cleaning up of a
connection may fail in turn, which takes the place of SystemExit, and beat goes on as after any message that could not
be sent (seen with redis-py: "I/O operation on closed file").
"""

from __future__ import annotations

import signal
import time
from datetime import datetime, timedelta
from functools import cached_property
from types import FrameType
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from core import clock, settings
from core.errors import BrokerUnavailable
from core.loops import Guard
from core.queues import BEAT, MAINTENANCE
from tasks import reading
from tasks.queues import Queues

FAILED_SECONDS = 1.0
"""Between a tick that failed and the next."""
SET_SECONDS = 5.0
"""A clock that moves so much at once was set."""


class Clock(Scheduler):  # type: ignore[misc]  # celery has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told = self._listens = False
        self._guard = Guard("beat")
        self._started = _started()
        self._speaks_at = 0.0

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """
        Raises:
            SystemExit: the process was told to end meanwhile.
        """
        if not self._listens:
            self._listens = True
            for number in (signal.SIGTERM, signal.SIGINT):
                self._listen(number)
        pause = [FAILED_SECONDS]

        def turn() -> None:
            self._look_at_the_clock()
            pause[0] = super(Clock, self).tick(*args, **kwargs)
            self._speak()

        self._guard.call(turn)
        if self._told:
            raise SystemExit
        return pause[0]

    def apply_entry(self, entry: ScheduleEntry, producer: object = None) -> None:
        """Send it, unless enough of them wait."""
        try:
            room = self._queues.room(MAINTENANCE)
        except BrokerUnavailable:
            room = 1  # sending says it better
        if room:
            super().apply_entry(entry, producer=producer)

    def _speak(self) -> None:
        if time.monotonic() >= self._speaks_at:
            self._reader.speak()
            self._speaks_at = time.monotonic() + reading.SECONDS

    @cached_property
    def _reader(self) -> reading.Reader:
        return reading.Reader(settings.load(), [BEAT])

    @cached_property
    def _queues(self) -> Queues:
        return Queues(settings.load())

    def _look_at_the_clock(self) -> None:
        """Begin all periods anew if the clock was set: set back by a year, it would else send nothing for that year."""
        started = _started()
        if abs(started - self._started) < timedelta(seconds=SET_SECONDS):
            return
        self._started = started
        for entry in self.schedule.values():
            entry.last_run_at = entry.default_now()
        self._heap = None

    def _listen(self, number: signal.Signals) -> None:
        handler = signal.getsignal(number)

        def hear(signum: int, frame: FrameType | None) -> None:
            self._told = True
            if callable(handler):
                handler(signum, frame)

        signal.signal(number, hear)


def _started() -> datetime:
    """Return when this machine started, as its clock has it now."""
    return clock.now() - timedelta(seconds=time.monotonic())
