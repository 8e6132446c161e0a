"""What turns again and again, and goes on after any error in it.

A `Guard` calls one thing: an error that was not foreseen is logged with its stack and goes no further. What fails again
and again rests, longer each time, and shows among the host's troubles. A `Background` is a guarded thread: one for each
process that uses it, so it is started again after a fork. What a turn foresees, such as a database that is away, it
handles itself.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from core import troubles
from core.failpoints import failpoint

log = logging.getLogger(__name__)

T = TypeVar("T")

REST_SECONDS = 1.0
MOST_REST_SECONDS = 60.0
IN_A_ROW = 2
"""So many failures are a trouble: one alone may have been chance."""


def rest(failures: int, first: float = REST_SECONDS, most: float = MOST_REST_SECONDS) -> float:
    """Return the seconds to leave alone what failed so many times in a row: doubling from `first` to `most`."""
    return 0.0 if failures < 1 else min(most, first * 2.0 ** min(failures - 1, 30))


def each(items: Iterable[T], call: Callable[[T], object]) -> int:
    """Call it for every item: none stops the others. Returns for how many it said yes. The first error is raised after
    the last item."""
    first: Exception | None = None
    count = 0
    for item in items:
        try:
            count += bool(call(item))
        except Exception as error:
            log.exception("%s failed, and the others go on", item)
            first = first or error
    if first is not None:
        raise first
    return count


class Guard:
    """Of one loop or step. Not for several threads at once."""

    def __init__(
        self,
        name: str,
        *,
        most_rest_seconds: float = MOST_REST_SECONDS,
        lets_through: tuple[type[Exception], ...] = (),
    ) -> None:
        """`name` is what the log, `/readyz` and `millrace doctor` call it; `lets_through` is meant to end the loop."""
        self.name = name
        self._lets_through = lets_through
        self.failures = 0
        self._most_rest_seconds = most_rest_seconds
        self._failing_since = 0.0
        self._rests_until = float("-inf")

    @property
    def rests(self) -> float:
        """Return the seconds that are left of its rest; 0: it may be called."""
        return max(0.0, self._rests_until - time.monotonic())

    def call(self, turn: Callable[[], object]) -> bool:
        """Returns whether it went well. Does nothing while it rests."""
        if self.rests:
            return False
        try:
            failpoint("loop.turn", self.name)
            turn()
        except self._lets_through:
            raise
        except Exception as error:
            self._failed(error)
            log.exception("%s failed and goes on", self.name, extra={"in_a_row": self.failures})
            return False
        self.close()
        self.failures = 0
        return True

    def close(self) -> None:
        """End the loop's trouble, as the loop is over."""
        if self.failures >= IN_A_ROW:
            troubles.forget(self.name)

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        self.failures += 1
        if self.failures == 1:
            self._failing_since = now
        self._rests_until = now + rest(self.failures, most=self._most_rest_seconds)
        if self.failures >= IN_A_ROW:
            kind = getattr(error, "code", type(error).__name__)
            troubles.note(self.name, self.failures, now - self._failing_since, kind, f"{type(error).__name__}: {error}")


class Background:
    """A thread that calls `turn` until it is stopped. Safe for threads and for fork; a daemon, so a process that ends
    does not wait for it."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], float | None],
        *,
        seconds: float,
        first: float | None = None,
        fresh: Callable[[], None] = lambda: None,
        most_rest_seconds: float = MOST_REST_SECONDS,
    ) -> None:
        """`turn` returns how long to wait before the next one, None for `seconds`; `first` is that of the first one.
        `fresh` is called before a process's first turn: what a fork took along is of no use there."""
        self._name = name
        self._turn = turn
        self._seconds = seconds
        self._first = seconds if first is None else first
        self._fresh = fresh
        self._most_rest_seconds = most_rest_seconds
        self._start = threading.Lock()
        self._pid = 0
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Unless it runs. Without a thread left for this process it is tried again at the next call."""
        if self._pid == os.getpid():
            return
        with self._start:
            if self._pid == os.getpid():
                return
            self._fresh()
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                log.warning("no thread is left", extra={"loop": self._name})
                return
            self._thread, self._pid = thread, os.getpid()

    def stop(self) -> None:
        """Stop after the turn it is in; a turn itself may say so."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def close(self, seconds: float | None = None) -> None:
        """Stop, and wait until it has ended, so long at most."""
        self.stop()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(seconds)

    def _run(self) -> None:
        guard = Guard(self._name, most_rest_seconds=self._most_rest_seconds)
        pause: list[float | None] = [self._first]

        def turn() -> None:
            pause[0] = None
            pause[0] = self._turn()

        while not self._stopped.wait(max(self._seconds if pause[0] is None else pause[0], guard.rests)):
            guard.call(turn)
        guard.close()
