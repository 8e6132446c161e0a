"""A process's threads. They are daemons: what one of them hangs in cannot keep the process from its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from core.loops import Guard

T = TypeVar("T")


class Threads(Generic[T]):
    """`give` is called from one thread only, and never more often at a time than there may be threads."""

    def __init__(self, limit: int, work: Callable[[T], None]) -> None:
        self._limit = limit
        self._work = work
        self._given: SimpleQueue[T] = SimpleQueue()
        self._started = 0

    def give(self, one: T, *, busy: int) -> None:
        """`busy`: how many are at work, this one included; a thread is started when no other is free."""
        if self._started < min(busy, self._limit):
            self._started += 1
            threading.Thread(target=self._run, name=f"request-{self._started}", daemon=True).start()
        self._given.put(one)

    def _run(self) -> None:
        guard = Guard("request", most_rest_seconds=0)
        while True:
            guard.call(self._turn)

    def _turn(self) -> None:
        self._work(self._given.get())
