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
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Concatenate, ParamSpec, TypeVar

import psycopg2
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from core.breaker import Breaker
from core.errors import DatabaseUnavailable, MillraceError
from database import deadline
from database.connections import Connections, Held, NoneFree
from database.engine import make_engine, parse_url, settings_of
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
        settings: Mapping[str, str] = MappingProxyType({}),
        translate: Callable[[SQLAlchemyError], Exception] | None = None,
    ) -> None:
        """Connects to nothing yet. A call waits for a free connection until its deadline or for `pool_timeout`;
        `settings` of the server hold in every
        transaction; `translate` finds other words than `translated`.

        Raises:
            Misconfigured: the URL is not one of PostgreSQL.
        """
        self._url = parse_url(url)
        self._pool_size = pool_size
        self._deadline_seconds = deadline_seconds
        self._pool_timeout = pool_timeout
        self._settings = settings_of(deadline_seconds, **settings)
        self._translate = translate or translated
        self._lock = threading.Lock()
        self._own: _Own | None = None

    def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` in one transaction. It begins with the first statement and costs one round trip more,
        for COMMIT.

        Raises:
            DatabaseUnavailable: no answer in time. If `work` writes, it may or may not have been committed.
        """
        return self._run(_Kind.TRANSACTION, work, *args, **kwargs)

    def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(connection, …)` with each statement for itself: saves COMMIT where one statement reads all.

        Raises:
            DatabaseUnavailable: no answer in time.
        """
        return self._run(_Kind.READING, work, *args, **kwargs)

    def write(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` as `read` does, for a statement that writes.

        Raises:
            DatabaseUnavailable: no answer in time. It may or may not have been carried out.
        """
        return self._run(_Kind.STATEMENT, work, *args, **kwargs)

    def snapshot(self, *, seconds: float, idle_seconds: float) -> Snapshot | None:
        """The database as it is now, for reading while others write; it holds a connection until it is closed.
        None: all connections are in use, and waiting for one could take as long as its holder likes.

        Raises:
            DatabaseUnavailable: no answer in time.
        """
        try:
            return self._snapshot(self._ensure_own(), seconds, idle_seconds)
        except NoneFree:
            return None

    def _snapshot(self, own: _Own, seconds: float, idle_seconds: float) -> Snapshot:
        with self._guarded(own):
            held = own.connections.take(0)
            if held is None:
                raise NoneFree
            try:
                held.session.begin(self._settings, whole=True)
                return Snapshot(
                    held.connection,
                    guard=lambda: self._guarded(own),
                    release=lambda: own.connections.give(held),
                    seconds=seconds,
                    idle_seconds=idle_seconds,
                )
            except BaseException:
                own.connections.give(held)
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
            if self._own is not None and self._own.pid == os.getpid():
                self._own.connections.close()
            self._own = None

    def _run(self, kind: _Kind, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        own = self._ensure_own()
        with self._guarded(own):
            for left in reversed(range(RETRIES)):
                held = self._take(own)
                try:
                    held.session.begin(self._settings, whole=kind is _Kind.TRANSACTION)
                    with held.connection.begin():
                        return work(held.connection, *args, **kwargs)
                except DBAPIError as error:
                    if not left or not (sqlstate(error) in ROLLED_BACK or _was_broken(held, kind, error)):
                        raise
                finally:
                    own.connections.give(held)
        raise AssertionError("unreachable")

    def _take(self, own: _Own) -> Held:
        held = own.connections.take(min(max(deadline.remaining() or 0, 0), self._pool_timeout))
        if held is None:
            raise NoneFree
        return held

    @contextmanager
    def _guarded(self, own: _Own) -> Iterator[None]:
        """Within the deadline and past the breaker."""
        with deadline.deadline(self._deadline_seconds), self._judged(own, own.admit()):
            yield

    @contextmanager
    def _judged(self, own: _Own, patience: float) -> Iterator[None]:
        """The breaker learns from it; everything that goes wrong, in our own words."""
        try:
            yield
            own.breaker.succeeded()
        except NoneFree:
            own.breaker.abandoned()
            raise
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
            if self._own is None or self._own.pid != os.getpid():  # a parent's connections are not ours to close
                engine = make_engine(self._url)
                self._own = _Own(os.getpid(), engine, Connections(engine.connect, self._pool_size), Breaker())
            return self._own


class _Kind(Enum):
    TRANSACTION = "transaction"
    READING = "reading"
    STATEMENT = "statement"


@dataclass(frozen=True)
class _Own:
    """What belongs to one process and is made anew after fork."""

    pid: int
    engine: Engine
    connections: Connections
    breaker: Breaker

    def admit(self) -> float:
        """Past the breaker. Returns how many seconds the call has."""
        patience = max(deadline.remaining() or 0, 0)
        if not self.breaker.admits(patience):
            raise DatabaseUnavailable("PostgreSQL did not answer lately; trying again shortly", retry_after=1)
        return patience


def _was_broken(held: Held, kind: _Kind, error: DBAPIError) -> bool:
    """Return whether a connection that had been idle broke at its first message: what it said is not in the database,
    or was only read there. So idle connections need not be asked whether they live before each use."""
    if not held.reused or held.session.messages > 1 or is_deadline(error) or not is_silence(error):
        return False
    return kind is _Kind.READING or not held.session.decided
