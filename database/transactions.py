"""The way to PostgreSQL: transactions with a deadline, a breaker, and errors in our own words.

Guarantees: no call takes much longer than its deadline, whatever the server does; a call whose COMMIT may or may not
have happened ends with DatabaseUnavailable, and whoever called reads again; deadlocks and serialization failures, which
certainly rolled back, are tried again inside; no error and no log line holds a password. Connections are made after
fork: each process has its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg2
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from core.breaker import Breaker
from core.errors import DatabaseUnavailable, MillraceError, Misconfigured
from database import deadline

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION = "millrace"
RETRIES = 5
IDLE_IN_TRANSACTION_SECONDS = 60
"""A client that was stopped in the middle must not hold its locks for ever."""
SERIOUS_SECONDS = 0.5
"""A call that had less time than this says nothing about the server's health when it runs out."""

_ROLLED_BACK = ("40001", "40P01")  # serialization failure, deadlock: certainly not committed
_NOT_MIGRATED = ("42P01", "42703", "42704")  # undefined table, column, object
_PASSING = ("08", "53", "57", "58", "55P03", "25006", "40003")
"""SQLSTATEs of a server that cannot serve now: connection, resources, intervention, system, lock, read-only."""


class Database:
    """`run` is the only way in. Safe for threads, and for fork as long as no transaction is open meanwhile."""

    def __init__(self, url: SecretStr | str, *, pool_size: int = 4, deadline_seconds: float = 10) -> None:
        """Connects to nothing yet.

        Raises:
            Misconfigured: the URL is not one of PostgreSQL.
        """
        self._url = parse_url(url)
        self._pool_size = pool_size
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._own: _Own | None = None

    def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` in one transaction.

        Raises:
            DatabaseUnavailable: no answer in time. If `work` writes, it may or may not have been committed.
        """
        return self._run(False, work, *args, **kwargs)

    def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` with each statement for itself: saves BEGIN and COMMIT where one statement reads all.

        Raises:
            DatabaseUnavailable: no answer in time.
        """
        return self._run(True, work, *args, **kwargs)

    def ping(self) -> None:
        """
        Raises:
            DatabaseUnavailable: there is no PostgreSQL that answers, or it has not been migrated.
        """
        self.read(lambda connection: connection.execute(text("SELECT version_num FROM alembic_version")).all())

    @property
    def breaker(self) -> Breaker:
        return self._ensure_own().breaker

    def close(self) -> None:
        with self._lock:
            if self._own is not None:
                self._own.dispose()
            self._own = None

    def _run(
        self, autocommit: bool, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with deadline.deadline(self._deadline_seconds), self._admitted() as engine:
            for left in reversed(range(RETRIES)):
                try:
                    with _connection(engine, autocommit) as connection:
                        return work(connection, *args, **kwargs)
                except DBAPIError as error:
                    if not left or sqlstate(error) not in _ROLLED_BACK:
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _admitted(self) -> Iterator[Engine]:
        """Past the breaker and to a free connection; everything that goes wrong, in our own words."""
        own = self._ensure_own()
        patience = max(deadline.remaining() or 0, 0)
        if not own.breaker.admits(patience):
            raise DatabaseUnavailable("PostgreSQL did not answer lately; trying again shortly", retry_after=1)
        if not own.free.acquire(timeout=patience):
            raise DatabaseUnavailable("every connection of this process to PostgreSQL is in use", retry_after=1)
        try:
            yield own.engine
            own.breaker.succeeded()
        except MillraceError:
            own.breaker.succeeded()
            raise
        except SQLAlchemyError as error:
            if not _is_silence(error):
                own.breaker.succeeded()
            elif patience >= SERIOUS_SECONDS or not _is_deadline(error):
                own.breaker.failed()
            raise translated(error) from None
        except psycopg2.Error as error:  # outside of any statement, where SQLAlchemy does not wrap it
            raise DatabaseUnavailable(f"PostgreSQL cannot answer: {type(error).__name__}") from None
        finally:
            own.free.release()

    def _ensure_own(self) -> _Own:
        with self._lock:
            if self._own is None or self._own.pid != os.getpid():
                if self._own is not None:
                    self._own.dispose()
                engine = make_engine(self._url, self._deadline_seconds, pool_size=self._pool_size)
                self._own = _Own(os.getpid(), engine, threading.BoundedSemaphore(self._pool_size), Breaker())
            return self._own


@dataclass(frozen=True)
class _Own:
    """What belongs to one process and is made anew after fork."""

    pid: int
    engine: Engine
    free: threading.BoundedSemaphore
    """Waits for a connection as long as the caller's deadline says; the pool's own time-out is one for all."""
    breaker: Breaker

    def dispose(self) -> None:
        self.engine.dispose(close=self.pid == os.getpid())  # a parent's connections are not ours to close


@contextmanager
def _connection(engine: Engine, autocommit: bool) -> Iterator[Connection]:
    with engine.connect() as connection:
        if autocommit:
            with _autocommit(connection.connection.dbapi_connection):
                yield connection
        else:
            with connection.begin():
                yield connection


@contextmanager
def _autocommit(driver: Any) -> Iterator[None]:
    """A flag of psycopg2's that costs no round trip. SQLAlchemy's own isolation level asks the server when it is reset;
    where the connection breaks in there, its place in the pool is lost for ever."""
    driver.autocommit = True
    try:
        yield
    finally:
        with suppress(psycopg2.Error):  # broken meanwhile: the pool finds that out and drops it
            driver.autocommit = False


def parse_url(url: SecretStr | str) -> URL:
    """The URL with the driver we use: SQLAlchemy 2.1 would take another for `postgresql://`.

    Raises:
        Misconfigured: without the URL, which may hold a password.
    """
    plain = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(plain)
    except (ArgumentError, ValueError):
        raise Misconfigured("database_url is not a URL") from None
    if parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise Misconfigured(f"database_url must start with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+psycopg2")


def make_engine(url: URL, statement_seconds: float, *, pool_size: int | None = None) -> Engine:
    """`pool_size=None`: every connection is closed after use."""
    deadline.install()
    options = {
        "statement_timeout": f"{int(statement_seconds * 1000)}",
        "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS * 1000}",
        "timezone": "UTC",
    }
    given = url.query.get("options", "")
    words = [given if isinstance(given, str) else " ".join(given)]
    words += [f"-c {name}={value}" for name, value in options.items()]
    arguments = {"application_name": APPLICATION, "options": " ".join(words).strip()}
    url = url.difference_update_query(["options"])
    if pool_size is None:
        return create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    return create_engine(
        url,
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_use_lifo=True,
        connect_args=arguments,
        hide_parameters=True,
    )


def sqlstate(error: SQLAlchemyError) -> str | None:
    original = error.orig if isinstance(error, DBAPIError) else None
    return original.pgcode if isinstance(original, psycopg2.Error) else None


def translated(error: SQLAlchemyError) -> Exception:
    """Our word for it. What only a fault of ours can cause is a RuntimeError: nobody must wait for it to pass."""
    state = sqlstate(error) or ""
    what = _message(error)
    if state in _NOT_MIGRATED:
        return DatabaseUnavailable(f"the database is not migrated to this version ({what})")
    if _is_silence(error) or state.startswith(_PASSING) or state in _ROLLED_BACK:
        return DatabaseUnavailable(f"PostgreSQL cannot answer: {what}")
    return RuntimeError(f"PostgreSQL refused a statement ({state or type(error).__name__}): {what}")


def _is_silence(error: SQLAlchemyError) -> bool:
    """Nothing came back, or the connection broke: refused, timed out, cut."""
    if not isinstance(error, DBAPIError):
        return False
    broken = isinstance(error.orig, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return broken and (sqlstate(error) or "08").startswith(("08", "57P"))


def _is_deadline(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, deadline.DeadlinePassed)


def _message(error: SQLAlchemyError) -> str:
    """One line, without the statement and its values."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if not isinstance(original, psycopg2.Error):
        return type(error).__name__
    said = original.diag.message_primary or str(original)
    return " ".join(said.split())
