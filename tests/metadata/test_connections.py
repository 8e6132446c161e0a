"""What a process sends over its connections to PostgreSQL, and what follows when one breaks, or the process forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from core.errors import DatabaseUnavailable
from database.session import with_next
from database.transactions import Database
from tests.metadata.asking import ping, until
from tests.metadata.conftest import Query
from tests.metadata.cut import CuttingProxy


@pytest.fixture
def proxy(database_url: str, services_directory: Path) -> Iterator[CuttingProxy]:
    with CuttingProxy(database_url, services_directory) as made:
        yield made


@pytest.fixture
def database(proxy: CuttingProxy) -> Iterator[Database]:
    """Connected, so that what the driver asks at first is over."""
    made = Database(proxy.url, deadline_seconds=10)
    made.read(ping)
    proxy.asked.clear()
    yield made
    made.close()


def test_a_transaction_begins_with_its_first_statement(database: Database, proxy: CuttingProxy) -> None:
    def three(connection: Connection) -> list[str]:
        with_next(connection, text("SELECT pg_advisory_xact_lock(:key)"), {"key": 5})
        read = text("SELECT current_setting(:name)")
        found = [str(connection.scalar(read, {"name": name})) for name in ("statement_timeout", "TimeZone")]
        with_next(connection, text("UPDATE path_counter SET next = 1 WHERE next = :next"), {"next": 100})
        return found

    assert database.run(three) == ["10s", "UTC"]
    first, second, last = proxy.asked
    assert first.startswith("BEGIN; SET LOCAL statement_timeout = '10000'; ")
    assert "pg_advisory_xact_lock(5); SELECT" in first
    assert "SET" not in second.split()
    assert last.startswith("UPDATE")
    assert last.endswith("COMMIT")


def test_a_statement_for_itself_is_one_message(database: Database, proxy: CuttingProxy) -> None:
    read = text("SELECT current_setting('statement_timeout')")
    assert [call(lambda connection: connection.scalar(read)) for call in (database.read, database.write)] == ["10s"] * 2
    assert len(proxy.asked) == 2
    assert not any("BEGIN" in one for one in proxy.asked)


def test_an_error_rolls_back_and_leaves_the_connection_as_it_was(database: Database, proxy: CuttingProxy) -> None:
    def fails(connection: Connection) -> None:
        with_next(connection, text("INSERT INTO path_counter VALUES ('\\x01', 1)"))
        connection.execute(text("SELECT 1 / 0"))

    def fails_before_anything_is_sent(connection: Connection) -> None:
        with_next(connection, text("INSERT INTO path_counter VALUES ('\\x01', 1)"))
        raise KeyError

    for _ in range(2):
        with pytest.raises(RuntimeError, match="22012"):
            database.run(fails)
        with pytest.raises(KeyError):
            database.run(fails_before_anything_is_sent)
    assert database.read(lambda connection: connection.scalar(text("SELECT count(*) FROM path_counter"))) == 0
    assert database.read(lambda connection: connection.scalar(text("SHOW DateStyle"))).startswith("ISO")
    assert proxy.connected == 1


def test_nothing_of_a_transaction_stays_with_its_connection(database_url: str, query: Query) -> None:
    """The next client of the connection, as behind a pooler, finds it as the server made it."""
    database = Database(database_url, deadline_seconds=10, pool_size=1)
    with database._ensure_own().engine.connect() as bare:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "search_path")
        settings = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        before = bare.execute(settings).one()
    database.run(ping)
    held = database._ensure_own().connections.take(1)
    assert held is not None
    held.session.begin(b"", whole=False)
    assert held.connection.execute(settings).one() == before
    assert held.connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0
    assert held.connection.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0
    database._ensure_own().connections.give(held)
    database.close()


@pytest.mark.parametrize("kind", ["run", "read", "write"])
def test_an_idle_connection_that_the_server_ended_is_noticed_before_it_is_used(
    database: Database, proxy: CuttingProxy, query: Query, kind: str
) -> None:
    [idle] = database._ensure_own().connections._idle
    query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'millrace'")
    until(lambda: not idle.session.is_sound())  # through the proxy it takes a moment
    assert getattr(database, kind)(ping) == 1
    assert proxy.connected == 2


@pytest.mark.parametrize(("kind", "tried_again"), [("run", True), ("read", True), ("write", False)])
def test_an_idle_connection_that_broke_unnoticed_is_replaced_where_nothing_can_have_come_of_it(
    database: Database, proxy: CuttingProxy, kind: str, tried_again: bool
) -> None:
    proxy.lose_connections()
    if tried_again:
        assert getattr(database, kind)(ping) == 1
    else:
        with pytest.raises(DatabaseUnavailable):
            getattr(database, kind)(ping)
    assert database.run(ping) == 1
    assert proxy.connected == 2


def test_a_connection_that_breaks_later_in_a_transaction_ends_it(database: Database, proxy: CuttingProxy) -> None:
    def loses(connection: Connection) -> None:
        ping(connection)
        proxy.lose_connections()
        ping(connection)

    with pytest.raises(DatabaseUnavailable):
        database.run(loses)
    assert database.run(ping) == 1


def test_a_child_waits_for_no_lock_of_its_parents_connections(database: Database) -> None:
    """A thread of the parent held it while the child was forked, and frees it in the parent only."""
    own = database._ensure_own().connections
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with own._changed:
            held.set()
            over.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    pid = os.fork()
    if pid == 0:
        try:
            Database("postgresql:///none?host=/nonexistent", deadline_seconds=5).read(ping)
        except DatabaseUnavailable:
            os._exit(0)
        os._exit(1)
    ends, ended = time.monotonic() + 30, (0, 0)
    while ended == (0, 0) and time.monotonic() < ends:
        time.sleep(0.02)
        ended = os.waitpid(pid, os.WNOHANG)
    over.set()
    holder.join()
    if ended == (0, 0):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert ended == (pid, 0)
