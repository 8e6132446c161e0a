"""A client-side deadline for everything libpq waits for, connecting included.

Server-side and TCP time-outs do not end a wait for a server that is stopped but whose kernel still acknowledges. A
psycopg2 wait callback does. It is process-wide by psycopg2's design; the deadline itself belongs to the thread, and a
thread without one waits as long as it takes.

Not covered: name resolution, which libpq does in the C library before the first wait.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection, set_wait_callback

_local = threading.local()


class DeadlinePassed(psycopg2.OperationalError):
    """The connection is of no more use: psycopg2 closes it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What this thread asks of PostgreSQL inside ends after `seconds`, or with an outer deadline that ends sooner."""
    outer: float | None = getattr(_local, "ends", None)
    ends = time.monotonic() + seconds
    _local.ends = ends if outer is None else min(ends, outer)
    try:
        yield
    finally:
        _local.ends = outer


def remaining() -> float | None:
    """Seconds left for this thread; None: no deadline."""
    ends: float | None = getattr(_local, "ends", None)
    return None if ends is None else ends - time.monotonic()


def install() -> None:
    """Once for each process; a forked child inherits it."""
    set_wait_callback(_wait)


def _wait(waiting: connection) -> None:
    while True:
        state = waiting.poll()
        if state == POLL_OK:
            return
        if state not in (POLL_READ, POLL_WRITE):
            raise psycopg2.OperationalError(f"libpq is in the unknown state {state}")
        poller = select.poll()
        poller.register(waiting.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        left = remaining()
        if not poller.poll(None if left is None else max(left, 0) * 1000):
            raise DeadlinePassed("PostgreSQL did not answer in time")
