"""In a process of threads each kind of work has threads of its own, so that none waits for another.

A message is a hint: what it asks for is put into its lane, once however often it is asked for, and the message is over.
So a backlog of one kind holds neither threads nor messages of another, and a body that is throttled binds nothing but
its own thread. What a process that dies did not come to is found again by the sweep and by beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from threading import Condition

from core.loops import Background
from core.queues import EAGER, INTERACTIVE
from core.settings import Settings

CAPACITY = 1000
"""Hints that wait in a lane. Those beyond are dropped: they come again."""
IDLE_SECONDS = 1.0

JOBS = 4
"""At once in one process; each may be throttled, and is then mostly waiting."""
REPAIRS = 2

Work = Callable[[], object]


class Lane:
    def __init__(self, threads: int) -> None:
        self._waiting: dict[Hashable, Work] = {}
        self._changed = Condition()
        self._running = 0
        self._closed = False
        self._threads = [Background("lane", self._turn, seconds=0, most_rest_seconds=5) for _ in range(threads)]

    def put(self, key: Hashable, work: Work) -> None:
        """Returns at once. What waits already under this key is not done twice."""
        with self._changed:
            if self._closed or len(self._waiting) >= CAPACITY:
                return
            self._waiting.setdefault(key, work)
            self._changed.notify()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Begin nothing any more."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
        for thread in self._threads:
            thread.stop()

    def is_at_rest(self, until: float) -> bool:
        """Wait for what is under way, until then at most."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, max(0.0, until - time.monotonic()))

    def _turn(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, IDLE_SECONDS):
                return
            work = self._waiting.pop(next(iter(self._waiting)))
            self._running += 1
        try:
            work()
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()


class Lanes:
    """Those of one process. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        work = settings.work
        self._sizes = {
            INTERACTIVE: work.variants_concurrency,
            EAGER: work.variants_concurrency,
            "ingest": work.ingest_concurrency,
            "maintenance.run_jobs": JOBS,
            "maintenance.repair_replicas": REPAIRS,
        }
        self._lanes: dict[str, Lane] = {}
        self._making = Condition()

    def put(self, name: str, key: Hashable, work: Work) -> None:
        with self._making:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = Lane(self._sizes.get(name, 1))
        lane.put(key, work)

    def close(self, seconds: float) -> None:
        """Let what is under way end within so many seconds; what waits is left to others."""
        until = time.monotonic() + seconds
        for lane in self._lanes.values():
            lane.close()
        for lane in self._lanes.values():
            lane.is_at_rest(until)
