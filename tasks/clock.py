"""Beat's scheduler, which ends when it is told to, and only then.

Celery's handler of SIGTERM raises SystemExit wherever the process is. In the middle of a send the cleaning up of a
connection may fail in turn, which takes the place of SystemExit, and beat goes on as after any message that could not
be sent (seen with redis-py: "I/O operation on closed file").
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from celery.beat import Scheduler

from core.loops import Guard

FAILED_SECONDS = 1.0
"""Between a tick that failed and the next."""


class Clock(Scheduler):  # type: ignore[misc]  # celery has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told = self._listens = False
        self._guard = Guard("beat")

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
            pause[0] = super(Clock, self).tick(*args, **kwargs)

        self._guard.call(turn)
        if self._told:
            raise SystemExit
        return pause[0]

    def _listen(self, number: signal.Signals) -> None:
        handler = signal.getsignal(number)

        def hear(signum: int, frame: FrameType | None) -> None:
            self._told = True
            if callable(handler):
                handler(signum, frame)

        signal.signal(number, hear)
