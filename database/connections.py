"""The connections of one process to PostgreSQL, which others need as well.

Guarantees: there are never more than `size`; what is idle goes back after a few seconds, and all of it at once where
the server has none left for this process, which then waits for one as long as its caller does. A busy connection goes
back too, once it has lived for long enough, so that those who wait get their turn from those who have.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakSet

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.errors import DatabaseUnavailable
from core.loops import Background
from database import deadline
from database.errors import is_crowded
from database.session import Session, session_of

log = logging.getLogger(__name__)

IDLE_SECONDS = 3.0
"""After a burst."""
LAST_IDLE_SECONDS = 10.0
"""Of the last one of a process: a process that comes every few seconds need not connect anew each time."""
LIFE_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.25
"""Seconds between two tries to get a connection from a server that has none left."""
CLOSE_SECONDS = 2.0
"""For a farewell; a connection that does not answer by then is dropped."""


class NoneFree(DatabaseUnavailable):
    """It says nothing of the server, which was not asked."""

    def __init__(self) -> None:
        super().__init__("every connection of this process to PostgreSQL is in use", retry_after=1)


@dataclass(eq=False)
class Held:
    """A connection in use by one thread."""

    connection: Connection
    session: Session
    reused: bool = False
    """It was idle before, so it may be broken without anybody knowing."""
    dies_at: float = field(default_factory=lambda: time.monotonic() + LIFE_SECONDS * random.uniform(0.75, 1.25))
    idle_since: float = 0.0


class _All:
    """Those of this process: after a fork, none of its parent's, whose threads may have held their locks just then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakSet[Connections] = WeakSet()
        os.register_at_fork(after_in_child=self._forget)

    def add(self, one: Connections) -> None:
        with self._lock:
            self._known.add(one)

    def close_idle(self) -> None:
        with self._lock:
            known = list(self._known)
        for one in known:
            one.close_idle()

    def _forget(self) -> None:
        self._lock, self._known = threading.Lock(), WeakSet()


_all = _All()


class Connections:
    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        """Connects to nothing yet."""
        self._connect = connect
        self._places = threading.BoundedSemaphore(size)
        self._changed = threading.Condition()
        self._idle: list[Held] = []  # the one used last is at the end
        self._keeper = Background("idle-connections", self._keep, seconds=0, most_rest_seconds=5)
        self._closed = False
        _all.add(self)

    def take(self, seconds: float) -> Held | None:
        """Return a connection within so many seconds. None: every one that this process may have is in use.

        Raises:
            SQLAlchemyError, psycopg2.Error: none can be made.
        """
        ends = time.monotonic() + seconds
        if not self._places.acquire(timeout=max(seconds, 0)):
            return None
        try:
            return self._pop() or self._open(ends)
        except BaseException:
            self._places.release()
            raise

    def give(self, held: Held) -> None:
        """Take a connection back after its use, in any state."""
        try:
            if self._closed or not held.session.is_idle or time.monotonic() >= held.dies_at:
                close(held)
                return
            held.idle_since, held.reused = time.monotonic(), True
            with self._changed:
                self._idle.append(held)
                self._changed.notify_all()
            self._keeper.start()
        finally:
            self._places.release()

    def close_idle(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
        for one in idle:
            close(one)

    def close(self) -> None:
        """Close what is idle; what is in use is closed when it is given back."""
        self._closed = True
        self._keeper.stop()
        self.close_idle()
        with self._changed:
            self._changed.notify_all()

    def _pop(self) -> Held | None:
        while True:
            with self._changed:
                if not self._idle:
                    return None
                held = self._idle.pop()
            if held.session.is_sound():
                return held
            close(held)

    def _open(self, ends: float) -> Held:
        pause = FIRST_PAUSE
        while True:
            try:
                connection = self._connect()
                return Held(connection, session_of(connection))
            except DBAPIError as error:
                _all.close_idle()  # what one of them keeps another may need
                if not is_crowded(error) or time.monotonic() + pause >= ends:
                    raise
            with self._changed:
                self._changed.wait(pause * random.uniform(0.5, 1))
            if found := self._pop():
                return found
            pause = min(pause * 2, LONGEST_PAUSE)

    def _keep(self) -> None:
        """Close what is idle for long; rest while there is nothing to look after."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._closed)
            now = time.monotonic()
            over = [one for one in self._idle if one.idle_since + IDLE_SECONDS <= now]
            if over and len(over) == len(self._idle) and over[-1].idle_since + LAST_IDLE_SECONDS > now:
                over.pop()
            self._idle = [one for one in self._idle if one not in over]
            if not over and self._idle:
                patience = LAST_IDLE_SECONDS if len(self._idle) == 1 else IDLE_SECONDS
                self._changed.wait(max(self._idle[0].idle_since + patience - now, 0.01))
        for one in over:
            close(one)


def close(held: Held) -> None:
    """Never raises for what the server or the network does."""
    with suppress(SQLAlchemyError, psycopg2.Error), deadline.deadline(CLOSE_SECONDS):
        held.connection.close()
