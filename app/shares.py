"""Shares of a worker's threads, so that no kind of request can take all of them from the others.

A share never queues: whoever finds it taken is told at once (`Busy`), and the thread is free again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from core.errors import Busy


class Shares:
    """`reading`: requests that may wait for PostgreSQL or a store, at most half of the threads. `waiting`: those that
    wait for work to be done, at most a third. `receiving`: bodies, all but a reserve for short requests, beside the
    reserve that `app/turns.py` keeps for health."""

    def __init__(self, threads: int) -> None:
        self._reading = threading.BoundedSemaphore(max(1, threads // 2))
        self._waiting = threading.BoundedSemaphore(max(1, threads // 3))
        self._receiving = threading.BoundedSemaphore(max(1, threads - 2 * max(1, threads // 16)))

    def reading(self) -> AbstractContextManager[None]:
        return _held(self._reading, "too many requests read at this moment")

    def waiting(self) -> AbstractContextManager[None]:
        return _held(self._waiting, "too many requests wait at this moment")

    def receiving(self) -> AbstractContextManager[None]:
        return _held(self._receiving, "too many uploads are under way")


@contextmanager
def _held(share: threading.BoundedSemaphore, refusal: str) -> Iterator[None]:
    if not share.acquire(blocking=False):
        raise Busy(refusal, retry_after=1)
    try:
        yield
    finally:
        share.release()
