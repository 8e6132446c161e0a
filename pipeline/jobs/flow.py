"""What jobs that move bytes have in common: their rate, how far the body is that is under way, and what it means when
one cannot be copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final, TypeVar

from core.errors import Archived, Interrupted, MillraceError, NotFound, Unavailable
from core.model import Replica
from pipeline.services import Services
from storage.throttle import Throttle

T = TypeVar("T")

LARGE_BYTES: Final = 16 << 20
"""A body that takes a while, so that it is a step of its own."""
LEASE: Final = timedelta(minutes=10)
"""So long the repair of replicas leaves those alone that a job copies, at a rate of its own."""
RETRY: Final = timedelta(seconds=30)

Heed = Callable[[], None]
"""Called within what may take long. It raises Interrupted when the job is to be paused or cancelled, or is in other
hands, as when its process was told to go."""


class Flow:
    def __init__(self, max_mb_s: float | None, heed: Heed) -> None:
        """`max_mb_s`: 10^6 bytes a second at most. `heed` is called while they flow."""
        self.throttle = Throttle(None if max_mb_s is None else max_mb_s * 1e6, heed)
        self._passed = 0
        self._size = 0

    @property
    def flowed(self) -> int:
        """Bytes of the body that is under way. Read from another thread, too."""
        return min(self.throttle.passed - self._passed, self._size)

    def begin(self, size: int) -> None:
        self._passed, self._size = self.throttle.passed, size

    def rest(self) -> None:
        self._passed, self._size = self.throttle.passed, 0


def settled(work: Callable[[], None], step: Callable[[], T]) -> Iterator[T]:
    """Do it. Where it is told to end, write down how far the job had come before: what it settled since its last step
    is not met again, so nothing would ever count it."""
    try:
        work()
    except Interrupted:
        yield step()
        raise


def judge(services: Services, source: Replica, target: Replica, error: MillraceError) -> None:
    """`source` could not be copied to `target`. Bytes that are lost or archived must not stop the others, a store that
    is away must: it would fail them all.

    Raises:
        Unavailable: one of their stores does not answer.
    """
    if isinstance(error, Unavailable) and not isinstance(error, Archived):
        for one in (source, target):
            try:
                services.store(one.store).head(one.key)
            except NotFound:
                continue
