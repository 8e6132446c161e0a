"""Places for requests that wait for work to be done, so that they leave threads to those that do not.

Nothing queues for one: a request that finds them taken is answered without waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Busy


class WaitingPlaces:
    """A third of a process's threads."""

    def __init__(self, threads: int) -> None:
        self._free = threading.BoundedSemaphore(max(1, threads // 3))

    @contextmanager
    def take(self) -> Iterator[None]:
        """
        Raises:
            Busy: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Busy("too many requests wait at this moment", retry_after=1)
        try:
            yield
        finally:
            self._free.release()
