"""The database as it was at one moment, read in several steps while others write.

Guarantees: it ends. An open snapshot keeps the server from cleaning up behind everybody, so one that is older than
`seconds`, or that nobody has asked for `idle_seconds`, is lost; in the second case the server itself ends the session,
so a client that stopped cannot keep it. Whoever reads is told by `SnapshotLost` and can go on without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Concatenate, ParamSpec, TypeVar

import psycopg2
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.errors import DatabaseUnavailable
from database import deadline
from database.session import with_next

P = ParamSpec("P")
T = TypeVar("T")

CLOSE_SECONDS = 2
"""For the rollback; a connection that does not answer by then is dropped."""

_BEGIN = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_LIMIT = text("SELECT set_config('idle_in_transaction_session_timeout', :milliseconds, true)")


class SnapshotLost(DatabaseUnavailable):
    """Too old, idle for too long, or broken off. Reading again outside of it is right."""


class Snapshot:
    """For one thread at a time. Made by `Database.snapshot`."""

    def __init__(
        self,
        connection: Connection,
        *,
        guard: Callable[[], AbstractContextManager[None]],
        release: Callable[[], None],
        seconds: float,
        idle_seconds: float,
    ) -> None:
        """`release` gives the connection back and is called by `close`."""
        self._connection = connection
        self._guard = guard
        self._release = release
        self._idle_seconds = idle_seconds
        self._open = True
        with_next(connection, _BEGIN)
        connection.execute(_LIMIT, {"milliseconds": str(max(int(idle_seconds * 1000), 1))})
        self._asked_at = time.monotonic()
        self._ends_at = self._asked_at + seconds

    def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` on the database as it was.

        Raises:
            SnapshotLost: see the module; close it and go on without.
            DatabaseUnavailable: no answer in time.
        """
        now = time.monotonic()
        if now >= self._ends_at or now - self._asked_at >= self._idle_seconds:
            raise SnapshotLost("the snapshot was held for too long")
        with self._guard():
            try:
                return work(self._connection, *args, **kwargs)
            except DBAPIError as error:
                if isinstance(error.orig, deadline.DeadlinePassed):
                    raise
                raise SnapshotLost("the snapshot broke off") from None  # an error of another kind comes again without
            finally:
                self._asked_at = time.monotonic()

    def close(self) -> None:
        """Idempotent; waits for the server only shortly."""
        if not self._open:
            return
        self._open = False
        try:
            with suppress(SQLAlchemyError, psycopg2.Error), deadline.deadline(CLOSE_SECONDS):
                self._connection.rollback()
        finally:
            self._release()
