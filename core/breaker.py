"""Stops calls to a server that does not answer: after some failures in a row they fail at once for a short time, then
one call is let through to look. So threads do not pile up behind a hanging dependency."""

from __future__ import annotations

import threading
import time
from typing import Literal

BreakerState = Literal["closed", "open", "probing"]


class Breaker:
    def __init__(self, *, failures: int = 3, seconds: float = 1.0) -> None:
        self._allowed = failures
        self._seconds = seconds
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at = 0.0
        self._probe_ends = 0.0

    @property
    def state(self) -> BreakerState:
        with self._lock:
            if self._failures < self._allowed:
                return "closed"
            return "open" if time.monotonic() < self._opened_at + self._seconds else "probing"

    def admits(self, patience: float) -> bool:
        """May a call that gives up after `patience` seconds go to the server? While probing, one at a time may."""
        with self._lock:
            if self._failures < self._allowed:
                return True
            now = time.monotonic()
            if now < self._opened_at + self._seconds or now < self._probe_ends:
                return False
            self._probe_ends = now + patience + self._seconds  # a prober that never reports must not block for ever
            return True

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0
            self._probe_ends = 0.0

    def abandoned(self) -> None:
        """A call ended for a reason of ours and says nothing about the server: the next one may look."""
        with self._lock:
            self._probe_ends = 0.0

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            self._opened_at = time.monotonic()
            self._probe_ends = 0.0
