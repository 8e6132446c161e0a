"""Transactions side by side on a real PostgreSQL, one statement at a time, in an order that is chosen.

Each act runs in a thread of its own, which stops before every message that it sends. A
schedule says whose turn it is; who waits for a lock of another one has no turn until that one has gone on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, event

from core.errors import MillraceError
from database.errors import sqlstate
from database.session import session_of

Act = Callable[[], object]
Schedule = Callable[[Sequence[int]], int]
"""Of the acts that may go on, in ascending order, the one whose turn it is."""

DEADLOCK = "40P01"
SECONDS = 30
"""After so long a step is not slow, but stuck."""
_own = threading.local()


@dataclass
class Ended:
    """How a race went."""

    results: list[object]
    """What each act returned, or the error of ours that it raised."""
    deadlocks: int


class _Racer:
    def __init__(self, act: Act) -> None:
        self._act = act
        self._go = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.ended = False
        self.commits = False
        """It stands before a COMMIT."""
        self.pid = 0
        self.deadlocks = 0

    def run(self) -> object:
        _own.racer = self
        try:
            return self._act()
        except MillraceError as error:
            return error
        finally:
            _own.racer = None
            self.ended = True
            self.stopped.set()

    def stop(self, *, commits: bool = False) -> None:
        self.commits = commits
        self.stopped.set()
        assert self._go.acquire(timeout=2 * SECONDS)

    def go_on(self) -> None:
        self.stopped.clear()
        self._go.release()


class Course:
    """Where races are run. `url` is of the database that the acts use."""

    def __init__(self, url: str) -> None:
        self._monitor = psycopg2.connect(url)
        self._monitor.autocommit = True
        self._pool = ThreadPoolExecutor(8)

    def close(self) -> None:
        self._pool.shutdown()
        self._monitor.close()

    def race(self, acts: Sequence[Act], schedule: Schedule, committed: Callable[[int], None]) -> Ended:
        """Run the acts side by side, each from where it stands before its first message. `committed` is called after
        each COMMIT, with the number of the act."""
        racers = [_Racer(act) for act in acts]
        running: list[Future[object]] = [self._pool.submit(one.run) for one in racers]
        for one in racers:
            assert one.stopped.wait(SECONDS)
        waiting: set[int] = set()
        while left := [number for number, one in enumerate(racers) if not one.ended]:
            moving, commits = set(waiting), False
            if free := [number for number in left if number not in waiting]:
                chosen = schedule(free)
                commits = racers[chosen].commits
                racers[chosen].go_on()
                moving.add(chosen)
            # Else they wait for each other, until PostgreSQL sees that.
            waiting = {number for number in sorted(moving) if not self._stops(racers[number])}
            if commits:
                committed(chosen)
        return Ended([one.result() for one in running], sum(one.deadlocks for one in racers))

    def _stops(self, one: _Racer) -> bool:
        """False: it waits for a lock."""
        for _ in range(SECONDS * 500):
            if one.stopped.wait(0.002):
                return True
            with self._monitor.cursor() as cursor:
                cursor.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", (one.pid,))
                if cursor.fetchone() is not None and not one.stopped.is_set():
                    return False
        raise AssertionError("an act neither goes on nor waits for a lock")


def _before_statement(connection: Connection, *_: Any) -> None:
    racer, session = getattr(_own, "racer", None), session_of(connection)
    if racer is not None and not session.holding:
        racer.pid = session.info.backend_pid
        racer.stop()


def _before_commit(_: Connection) -> None:
    racer = getattr(_own, "racer", None)
    if racer is not None:
        racer.stop(commits=True)


def _on_error(context: Any) -> None:
    racer = getattr(_own, "racer", None)
    if racer is not None and sqlstate(context.sqlalchemy_exception) == DEADLOCK:
        racer.deadlocks += 1


@contextmanager
def stops() -> Iterator[None]:
    """Acts stop in here."""
    hooks = (("before_cursor_execute", _before_statement), ("commit", _before_commit), ("handle_error", _on_error))
    for name, hook in hooks:
        event.listen(Engine, name, hook)
    try:
        yield
    finally:
        for name, hook in hooks:
            event.remove(Engine, name, hook)


class OneSwitch:
    """The first act does so many steps; then the second one goes on until it ends or waits; then the first one."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.switched = False

    def __call__(self, free: Sequence[int]) -> int:
        if self._steps > 0 and 0 in free:
            self._steps -= 1
            return 0
        self.switched = self.switched or 0 in free
        return free[-1]


class ByChance:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def __call__(self, free: Sequence[int]) -> int:
        return self._chance.choice(free)


class Every:
    """All schedules, one after the other: call `again` until it says no."""

    def __init__(self) -> None:
        self._chosen: list[tuple[int, int]] = []
        self._at = 0

    def __call__(self, free: Sequence[int]) -> int:
        if self._at == len(self._chosen):
            self._chosen.append((0, len(free)))
        index, self._at = self._chosen[self._at][0], self._at + 1
        return free[min(index, len(free) - 1)]

    def again(self) -> bool:
        self._at = 0
        while self._chosen:
            index, options = self._chosen.pop()
            if index + 1 < options:
                self._chosen.append((index + 1, options))
                return True
        return False
