"""When a call must have ended."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.s3.errors import Outage


class Deadline:
    def __init__(self, seconds: float = math.inf, parent: Deadline | None = None) -> None:
        self._ends = time.monotonic() + seconds
        self._parent = parent
        self._still_since: float | None = None
        self.cancelled = False

    def child(self) -> Deadline:
        """One with the same end that can be cancelled for itself."""
        return Deadline(parent=self)

    @property
    def left(self) -> float:
        now = self._still_since
        own = self._ends - (time.monotonic() if now is None else now)
        return own if self._parent is None else min(own, self._parent.left)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the clock for what is not the server's work: a body may come as slowly as its reader is told to read."""
        self._still_since = time.monotonic()
        try:
            yield
        finally:
            self._ends += time.monotonic() - self._still_since
            self._still_since = None

    def cancel(self) -> None:
        """What still goes on under this deadline is wanted by nobody: it ends at its next step."""
        self.cancelled = True
        self._ends = -math.inf

    def check(self, subject: str) -> None:
        """
        Raises:
            Outage: the time is over.
        """
        if self.left <= 0:
            raise Outage(f"{subject}: not done in time (operation_timeout)")
