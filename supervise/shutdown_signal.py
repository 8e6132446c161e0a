"""The order to end, given by a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from queue import Empty, SimpleQueue


class Stop:
    """Like `threading.Event`, and safe to set in a signal handler. That one takes a lock: a second signal that comes
    while the first is being handled, or while the main thread is about to wait, would wait for itself for ever.
    `SimpleQueue.put` is documented to be reentrant."""

    def __init__(self) -> None:
        self._is_set = False
        self._wake: SimpleQueue[None] = SimpleQueue()

    @classmethod
    def on(cls, signals: Iterable[signal.Signals]) -> Stop:
        """Set when one of these signals comes."""
        stop = cls()
        for number in signals:
            signal.signal(number, lambda *_: stop.set())
        return stop

    def set(self) -> None:
        self._is_set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float | None = None) -> bool:
        """At most `seconds`; returns whether it is set."""
        if not self._is_set:
            try:
                self._wake.get(timeout=seconds)
                self._wake.put(None)  # for whoever else waits
            except Empty:
                pass
        return self._is_set
