"""How a web process ends after TERM.

`/readyz?for=accept` says no, and all else goes on for `stop_delay_seconds`, so that balancers look elsewhere first;
then the listeners close, and requests under way have `graceful_seconds`.
"""

from __future__ import annotations


class Ending:
    """Times are of the monotonic clock, in seconds."""

    def __init__(self, stop_delay_seconds: float, graceful_seconds: float) -> None:
        self._stop_delay_seconds = stop_delay_seconds
        self._graceful_seconds = graceful_seconds
        self._began: float | None = None
        self._closed: float | None = None

    @property
    def has_closed(self) -> bool:
        """Return whether the listeners are closed."""
        return self._closed is not None

    def closes(self, now: float) -> bool:
        """Return whether the listeners are to close now: once, and first asked when TERM has come."""
        if self._began is None:
            self._began = now
        if self.has_closed or now < self._began + self._stop_delay_seconds:
            return False
        self._closed = now
        return True

    def is_over(self, now: float, connections: int) -> bool:
        return self._closed is not None and (not connections or now > self._closed + self._graceful_seconds)
