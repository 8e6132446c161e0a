"""When a call must have ended."""

from __future__ import annotations

import math
import time

from storage.s3.errors import Outage


class Deadline:
    def __init__(self, seconds: float = math.inf) -> None:
        self._ends = time.monotonic() + seconds
        self.cancelled = False

    def child(self) -> Deadline:
        """One with the same end that can be cancelled for itself."""
        other = Deadline()
        other._ends = self._ends
        return other

    @property
    def left(self) -> float:
        return self._ends - time.monotonic()

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
