"""What PostgreSQL says to a store, in the project's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from core.errors import Corrupt, DatabaseUnavailable, Forbidden, NoStore, StoreFull, StoreUnavailable
from database.errors import logged, sqlstate, translated

_DISK_FULL = "53100"
_INSUFFICIENT_PRIVILEGE = "42501"
_UNIQUE_VIOLATION = "23505"
_NAMES_NOTHING = ("23503", "42704")
"""Foreign key violation, undefined object: a chunk without its row, or no such large object."""
_DATA_CORRUPTED = "XX001"
_INTERNAL = "XX"
_TABLES_MISSING = ("42P01", "42703", "3F000")
"""Undefined table, undefined column, no such schema."""

GONE = "what was written is gone: swept as unfinished, or lost with a crash of the server"


class KeyTaken(StoreUnavailable):
    """Another object got the key first."""


def meaning(error: SQLAlchemyError) -> Exception:
    state = sqlstate(error) or ""
    if state == _UNIQUE_VIOLATION:
        return KeyTaken("another object got the key first")
    if state in _NAMES_NOTHING:
        return StoreUnavailable(GONE)
    ours = _said(state)
    if ours is None:
        return translated(error)
    logged(error)
    return ours


def _said(state: str) -> Exception | None:
    if state == _DISK_FULL:
        return StoreFull(f"the disk of PostgreSQL is full ({state})")
    if state == _INSUFFICIENT_PRIVILEGE:
        return Forbidden(f"the role lacks a right ({state})")
    if state == _DATA_CORRUPTED:
        return Corrupt(f"PostgreSQL found damaged data ({state})")
    if state in _TABLES_MISSING:  # never `NotFound`: a dropped schema is not an empty store
        return NoStore(f"the tables of this store are gone ({state})")
    if state.startswith(_INTERNAL):
        return StoreUnavailable(f"PostgreSQL cannot answer ({state})")
    return None


@contextmanager
def named(subject: str) -> Iterator[None]:
    """Say of which store or object it is. No connection free, or none made, is an outage of the store."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise StoreUnavailable(f"{subject}: {error.detail}", retry_after=error.retry_after) from None
    except (StoreUnavailable, Forbidden, Corrupt) as error:
        raise type(error)(f"{subject}: {error.detail}") from None
