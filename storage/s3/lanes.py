"""So many pieces of work at once and no more, of which the first that fails ends all."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Generic, TypeVar

from storage.s3.deadline import Deadline

T = TypeVar("T")


class Lanes(Generic[T]):
    """At its end nothing is under way any more."""

    def __init__(self, count: int, deadline: Deadline) -> None:
        self.deadline = deadline.child()
        """For the work: it is over as soon as a piece fails."""
        self._free: SimpleQueue[int] = SimpleQueue()
        for lane in range(count):
            self._free.put(lane)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="s3-part")
        self._started: list[Future[T]] = []
        self._failure: BaseException | None = None
        self._failing = Lock()

    def take(self) -> int:
        """Wait for a free lane. Whoever has its number may use what belongs to it, until `start`.

        Raises:
            MillraceError: what a piece of work ended with.
        """
        lane = self._free.get()
        self._check()
        return lane

    def start(self, lane: int, work: Callable[[], T]) -> None:
        self._started.append(self._pool.submit(self._run, lane, work))

    def results(self) -> list[T]:
        """In the order of their start.

        Raises:
            MillraceError: what the first of them failed with.
        """
        self._pool.shutdown()
        self._check()
        return [piece.result() for piece in self._started]

    def __enter__(self) -> Lanes[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.deadline.cancel()
        self._pool.shutdown()

    def _run(self, lane: int, work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            with self._failing:
                self._failure = self._failure or error
            self.deadline.cancel()
            raise
        finally:
            self._free.put(lane)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
