"""What PostgreSQL, its driver and SQLAlchemy say, in our own words. No word of ours holds a statement or its values.

An error of ours may reach a client, so it carries the SQLSTATE at most. The server's own sentence names roles,
databases and hosts: it goes to the log, and from a command to the terminal.
"""

from __future__ import annotations

import logging
import re

import psycopg2
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.errors import DatabaseUnavailable
from database import deadline

log = logging.getLogger(__name__)

ROLLED_BACK = ("40001", "40P01")  # serialization failure, deadlock: certainly not committed
_NOT_MIGRATED = ("42P01", "42703", "42704")  # undefined table, column, object
_PASSING = ("08", "53", "57", "58", "55P03", "25006", "40003")
"""SQLSTATEs of a server that cannot serve now: connection, resources, intervention, system, lock, read-only."""
_CROWDED = ("too many clients already", "remaining connection slots are reserved", "too many connections for",
            "no more connections allowed")  # fmt: skip
"""What PostgreSQL and PgBouncer say in place of 53300: libpq gives no SQLSTATE of a connection that was not made."""


_SAID = re.compile(r":  \S")


def sqlstate(error: SQLAlchemyError) -> str | None:
    original = error.orig if isinstance(error, DBAPIError) else None
    return original.pgcode if isinstance(original, psycopg2.Error) else None


def translated(error: SQLAlchemyError) -> Exception:
    """Our word for it. What only a fault of ours can cause is a RuntimeError: nobody must wait for it to pass."""
    state = sqlstate(error) or ""
    word = logged(error)
    if state in _NOT_MIGRATED:
        return DatabaseUnavailable(f"the database is not migrated to this version ({word}): run `millrace migrate`")
    if is_crowded(error):
        return DatabaseUnavailable(f"PostgreSQL has no connection left for this process now ({word})", retry_after=1)
    if is_silence(error) or _is_turned_away(error) or state.startswith(_PASSING) or state in ROLLED_BACK:
        return DatabaseUnavailable(f"PostgreSQL cannot answer ({word})")
    return RuntimeError(f"PostgreSQL refused a statement ({word})")


def logged(error: SQLAlchemyError) -> str:
    """Log the server's own sentence. Returns what a client may see of it: the SQLSTATE, or what the driver calls it."""
    original = error.orig if isinstance(error, DBAPIError) else None
    word = sqlstate(error) or type(original or error).__name__
    log.warning("PostgreSQL: %s (%s)", message(error), word)
    return word


def is_silence(error: SQLAlchemyError) -> bool:
    """Nothing came back, or the connection broke: refused, timed out, cut."""
    if not isinstance(error, DBAPIError):
        return False
    if is_crowded(error) or _is_turned_away(error):
        return False
    broken = isinstance(error.orig, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return broken and (sqlstate(error) or "08").startswith(("08", "57P"))


def is_crowded(error: SQLAlchemyError) -> bool:
    """Return whether the server answers, and has no connection left (53300). Said in another language it counts as any
    refusal: the driver connects before it can be told to ask libpq for the SQLSTATE in place of the sentence."""
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, psycopg2.OperationalError):
        return False
    return sqlstate(error) == "53300" or any(words in str(error.orig) for words in _CROWDED)


def _is_turned_away(error: SQLAlchemyError) -> bool:
    """Return whether there is no connection because the server answered something else. In any language, libpq puts two
    spaces between its word for FATAL and its sentence, and none into what it says itself."""
    if not isinstance(error, DBAPIError) or error.statement is not None or sqlstate(error) is not None:
        return False
    return isinstance(error.orig, psycopg2.OperationalError) and _SAID.search(str(error.orig)) is not None


def is_deadline(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, deadline.DeadlinePassed)


def message(error: SQLAlchemyError) -> str:
    """One line, without the statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if not isinstance(original, psycopg2.Error):
        return type(error).__name__
    said = original.diag.message_primary or str(original)
    return " ".join(said.split())
