"""The way to PostgreSQL: transactions with a deadline, a breaker, and errors in our own words.

Guarantees: no call takes much longer than its deadline, whatever the server does; a call whose COMMIT may or may not
have happened ends with DatabaseUnavailable, and whoever called reads again; deadlocks and serialization failures, which
certainly rolled back, are tried again inside; no error and no log line holds a password. Connections are made after
fork: each process has its own.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg2
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.breaker import Breaker
from core.errors import DatabaseUnavailable, MillraceError
from database import deadline
from database.engine import make_engine, parse_url
from database.errors import ROLLED_BACK, is_deadline, is_silence, sqlstate, translated
from database.snapshot import Snapshot

P = ParamSpec("P")
T = TypeVar("T")

RETRIES = 5
SERIOUS_SECONDS = 0.5
"""A call that had less time than this says nothing about the server's health when it runs out."""


class Database:
    """`run` is the only way in for what writes. Safe for threads, and for fork as long as no transaction is open
    meanwhile."""

    def __init__(
        self,
        url: SecretStr | str,
        *,
        pool_size: int = 4,
        deadline_seconds: float = 10,
        pool_timeout: float = math.inf,
        options: Mapping[str, str] = MappingProxyType({}),
        translate: Callable[[SQLAlchemyError], Exception] | None = None,
    ) -> None:
        """Connects to nothing yet. A call waits for a free connection until its deadline or for `pool_timeout`;
        `options` are settings of the server for every session; `translate` finds other words than `translated`.

        Raises:
            Misconfigured: the URL is not one of PostgreSQL.
        """
        self._url = parse_url(url)
        self._pool_size = pool_size
        self._deadline_seconds = deadline_seconds
        self._pool_timeout = pool_timeout
        self._options = options
        self._translate = translate or translated
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

    def snapshot(self, *, seconds: float, idle_seconds: float) -> Snapshot | None:
        """The database as it is now, for reading while others write; it holds a connection until it is closed.
        None: all connections are in use, and waiting for one could take as long as its holder likes.

        Raises:
            DatabaseUnavailable: no answer in time.
        """
        own = self._ensure_own()
        if not own.free.acquire(blocking=False):
            return None
        try:
            with self._guarded(own):
                return Snapshot(
                    own.engine.connect(),
                    guard=lambda: self._guarded(own),
                    release=own.free.release,
                    seconds=seconds,
                    idle_seconds=idle_seconds,
                )
        except BaseException:
            own.free.release()
            raise

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
                    if not left or sqlstate(error) not in ROLLED_BACK:
                        raise
        raise AssertionError("unreachable")

    @contextmanager
    def _admitted(self) -> Iterator[Engine]:
        """Past the breaker and to a free connection."""
        own = self._ensure_own()
        patience = own.admit()
        if not own.free.acquire(timeout=min(patience, self._pool_timeout)):
            raise DatabaseUnavailable("every connection of this process to PostgreSQL is in use", retry_after=1)
        try:
            with self._judged(own, patience):
                yield own.engine
        finally:
            own.free.release()

    @contextmanager
    def _guarded(self, own: _Own) -> Iterator[None]:
        """As for `_run`, on a connection that is held already."""
        with deadline.deadline(self._deadline_seconds), self._judged(own, own.admit()):
            yield

    @contextmanager
    def _judged(self, own: _Own, patience: float) -> Iterator[None]:
        """The breaker learns from it; everything that goes wrong, in our own words."""
        try:
            yield
            own.breaker.succeeded()
        except MillraceError:
            own.breaker.succeeded()
            raise
        except SQLAlchemyError as error:
            if not is_silence(error):
                own.breaker.succeeded()
            elif patience >= SERIOUS_SECONDS or not is_deadline(error):
                own.breaker.failed()
            raise self._translate(error) from None
        except psycopg2.Error as error:  # outside of any statement, where SQLAlchemy does not wrap it
            raise DatabaseUnavailable(f"PostgreSQL cannot answer ({type(error).__name__})") from None

    def _ensure_own(self) -> _Own:
        with self._lock:
            if self._own is None or self._own.pid != os.getpid():
                if self._own is not None:
                    self._own.dispose()
                engine = make_engine(
                    self._url, self._deadline_seconds, pool_size=self._pool_size, options=self._options
                )
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

    def admit(self) -> float:
        """Past the breaker. Returns how many seconds the call has."""
        patience = max(deadline.remaining() or 0, 0)
        if not self.breaker.admits(patience):
            raise DatabaseUnavailable("PostgreSQL did not answer lately; trying again shortly", retry_after=1)
        return patience

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
