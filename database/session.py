"""A connection of psycopg2's whose transactions cost no round trips of their own.

What begins a transaction and what sets it up travel in one message with its first statement, and statements whose
results are not asked for travel with the next one (`with_next`). Nothing of it outlives a transaction: settings are
`SET LOCAL`, so a pooler that hands connections from one transaction to the next (PgBouncer) changes nothing.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    connection,
    cursor,
)
from sqlalchemy import Connection, Executable

BATCH = 100
"""Statements in one message, of those that are many."""


class _Cursor(cursor):
    def execute(self, query: Any, values: Any = None) -> None:
        assert isinstance(self.connection, Session)
        message = self.connection.completed(self.mogrify(query, values))
        if message:
            super().execute(message)

    def executemany(self, query: Any, rows: Iterable[Any]) -> None:
        """Send the statement once for each row, many in a message: what `rowcount` says is of the last."""
        left = iter(rows)
        while batch := list(islice(left, BATCH)):
            self.execute(b"; ".join(self.mogrify(query, values) for values in batch))


class Session(connection):
    """`whole`: everything until COMMIT is one transaction; else each statement is one for itself."""

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__(dsn, **options)
        self.autocommit = True  # the driver sends no BEGIN by itself
        self.cursor_factory = _Cursor
        self.settings = b""
        self.whole = True
        self.messages = 0
        """Since `begin`."""
        self.decided = False
        """A message was sent that may have committed something."""
        self.holding = False
        """Statements are kept until the next one that is not."""
        self._held: list[bytes] = []
        self._pid = os.getpid()

    def begin(self, settings: bytes, *, whole: bool) -> None:
        """Begin a new use of this connection. `settings` are statements for each of its transactions. Sends nothing."""
        self.settings, self.whole = settings, whole
        self.messages, self.decided = 0, False
        self._held.clear()

    def completed(self, statement: bytes) -> bytes:
        """Return the message that takes the statement to the server; nothing while statements are held back."""
        if self.holding:
            self._held.append(statement)
            return b""
        held, self._held = self._held, []
        begin = [b"BEGIN"] if self.whole else []
        head = [] if self._is_open() else [*begin, self.settings]
        self.messages += 1
        self.decided = self.decided or not self.whole
        return b"; ".join(part for part in [*head, *held, statement] if part)

    def commit(self) -> None:
        """Commit, together with what is held back."""
        if self._held or self._is_open():
            self.decided = True
            with self.cursor() as last:
                last.execute(b"COMMIT" if self.whole else self._held.pop())

    def rollback(self) -> None:
        self._held.clear()
        if self.closed or self.is_idle:
            return
        if not self._is_open():  # in the middle of something: what comes next is unknown
            self.close()
            return
        with self.cursor() as last:
            last.execute(b"ROLLBACK")

    def close(self) -> None:
        """Close the connection, but in a forked child leave its parent's alone."""
        if self._pid == os.getpid():
            super().close()

    @property
    def is_idle(self) -> bool:
        return not self.closed and self.info.transaction_status == TRANSACTION_STATUS_IDLE

    def is_sound(self) -> bool:
        """Return whether an idle connection looks as if it could be used: where the server ended it, there is something
        to read. Does not ask the server."""
        if not self.is_idle:
            return False
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        return not poller.poll(0)

    def _is_open(self) -> bool:
        return self.info.transaction_status in (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR)


def session_of(connection: Connection) -> Session:
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, Session)
    return driver


def with_next(connection: Connection, statement: Executable, values: Any = None) -> None:
    """Send a statement with the next one of this transaction, or with its COMMIT. Its result is not heard, but an
    error of it is an error of that message; each statement of a message sees what was committed before it, as always.
    """
    session = session_of(connection)
    session.holding = True
    try:
        connection.execute(statement, values)
    finally:
        session.holding = False


def local(settings: Mapping[str, str]) -> bytes:
    """Statements that set these for one transaction."""
    return "; ".join(f"SET LOCAL {name} = {_quoted(value)}" for name, value in settings.items()).encode("ascii")


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
