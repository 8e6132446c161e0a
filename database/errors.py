"""What PostgreSQL, its driver and SQLAlchemy say, in our own words. No word of ours holds a statement or its values."""

from __future__ import annotations

import psycopg2
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.errors import DatabaseUnavailable
from database import deadline

ROLLED_BACK = ("40001", "40P01")  # serialization failure, deadlock: certainly not committed
_NOT_MIGRATED = ("42P01", "42703", "42704")  # undefined table, column, object
_PASSING = ("08", "53", "57", "58", "55P03", "25006", "40003")
"""SQLSTATEs of a server that cannot serve now: connection, resources, intervention, system, lock, read-only."""


def sqlstate(error: SQLAlchemyError) -> str | None:
    original = error.orig if isinstance(error, DBAPIError) else None
    return original.pgcode if isinstance(original, psycopg2.Error) else None


def translated(error: SQLAlchemyError) -> Exception:
    """Our word for it. What only a fault of ours can cause is a RuntimeError: nobody must wait for it to pass."""
    state = sqlstate(error) or ""
    what = message(error)
    if state in _NOT_MIGRATED:
        return DatabaseUnavailable(f"the database is not migrated to this version ({what})")
    if is_silence(error) or state.startswith(_PASSING) or state in ROLLED_BACK:
        return DatabaseUnavailable(f"PostgreSQL cannot answer: {what}")
    return RuntimeError(f"PostgreSQL refused a statement ({state or type(error).__name__}): {what}")


def is_silence(error: SQLAlchemyError) -> bool:
    """Nothing came back, or the connection broke: refused, timed out, cut."""
    if not isinstance(error, DBAPIError):
        return False
    broken = isinstance(error.orig, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return broken and (sqlstate(error) or "08").startswith(("08", "57P"))


def is_deadline(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, deadline.DeadlinePassed)


def message(error: SQLAlchemyError) -> str:
    """One line, without the statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if not isinstance(original, psycopg2.Error):
        return type(error).__name__
    said = original.diag.message_primary or str(original)
    return " ".join(said.split())
