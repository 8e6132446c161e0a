"""What a process has of PostgreSQL's connections, and what it sends over them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import Connection, text

from core.errors import DatabaseUnavailable
from database import connections, errors
from database.deadline import deadline
from database.session import with_next
from database.transactions import Database
from tests.metadata.conftest import Query
from tests.metadata.cut import CuttingProxy

ROLE = "narrow"


def ping(connection: Connection) -> int:
    found: int = connection.scalar(text("SELECT 1"))
    return found


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
    """Whoever uses the connection next, as behind a pooler, finds it as the server made it."""
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
    _until(lambda: not idle.session.is_sound())  # through the proxy it takes a moment
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


def _burst(database: Database, size: int) -> None:
    meet = threading.Barrier(size)
    threads = [threading.Thread(target=database.run, args=(lambda _: meet.wait(30),)) for _ in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def _opened(query: Query) -> int:
    return int(query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace'"
                     " AND datname = current_database()")[0][0])  # fmt: skip


def test_idle_connections_go_back(database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(connections, "LAST_IDLE_SECONDS", 1.5)
    database = Database(database_url, pool_size=6)
    for _ in range(2):
        _burst(database, 6)
        assert _opened(query) > 1
        _until(lambda: _opened(query) == 1)
        _until(lambda: _opened(query) == 0)
    database.close()


def test_a_busy_connection_ends_in_time(database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LIFE_SECONDS", 0.1)
    database = Database(database_url, pool_size=1)
    backend = text("SELECT pg_backend_pid()")
    first = database.read(lambda connection: connection.scalar(backend))
    _until(lambda: database.read(lambda connection: connection.scalar(backend)) != first)
    database.close()


@pytest.fixture
def crowded_url(database_url: str, query: Query) -> Iterator[str]:
    """The server lets its role have three connections at once."""
    query(f"CREATE ROLE {ROLE} LOGIN CONNECTION LIMIT 3")
    parts = urlsplit(database_url)
    yield urlunsplit(parts._replace(netloc=f"{ROLE}@"))
    query(f"DROP ROLE {ROLE}")


def test_who_finds_none_left_gives_back_and_waits_for_its_turn(crowded_url: str, query: Query) -> None:
    """One process keeps three idle ones; others come, and all are served, though each may have three."""
    databases = [Database(crowded_url, pool_size=3, deadline_seconds=30) for _ in range(3)]
    refused: list[BaseException] = []

    def work(database: Database) -> None:
        try:
            for _ in range(20):
                database.run(lambda connection: connection.execute(text("SELECT pg_sleep(0.01)")))
        except DatabaseUnavailable as error:
            refused.append(error)

    _burst(databases[0], 3)
    threads = [threading.Thread(target=work, args=(one,)) for one in databases for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert [one.breaker.state for one in databases] == ["closed"] * 3
    for one in databases:
        one.close()


def test_what_one_part_of_a_process_keeps_another_gets(crowded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_SECONDS", "LAST_IDLE_SECONDS", "LIFE_SECONDS"):
        monkeypatch.setattr(connections, name, 600.0)
    first, second = (Database(crowded_url, pool_size=3, deadline_seconds=20) for _ in range(2))
    for database in (first, second, first):
        _burst(database, 3)
    first.close()
    second.close()


def test_none_left_is_said_in_time_and_opens_no_breaker(crowded_url: str, query: Query) -> None:
    holder = Database(crowded_url, pool_size=3, deadline_seconds=30)
    held = [holder._ensure_own().connections.take(5) for _ in range(3)]
    other = Database(crowded_url, deadline_seconds=30)
    for _ in range(5):
        with deadline(0.6), pytest.raises(DatabaseUnavailable, match="no connection left"):
            other.run(ping)
    assert other.breaker.state == "closed"
    for one in held:
        assert one is not None
        holder._ensure_own().connections.give(one)
    holder.close()
    assert other.run(ping) == 1
    other.close()


@pytest.mark.parametrize(
    "change", [{"path": "/no-such-database"}, {"netloc": "no-such-role@"}, {"netloc": f"{ROLE}@"}], ids=str
)
def test_who_is_turned_away_heard_an_answer(
    crowded_url: str, change: dict[str, str], query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the server says, and in a language that we know no word of: it is not silent."""
    monkeypatch.setattr(errors, "_CROWDED", ())
    query(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    database = Database(urlunsplit(urlsplit(crowded_url)._replace(**change)), deadline_seconds=10)
    for _ in range(5):
        with deadline(0.6), pytest.raises(DatabaseUnavailable):
            database.read(ping)
    assert database.breaker.state == "closed"
    database.close()


def _no_room_for_a_call(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match="in use"):
        database.read(ping)


def _no_room_for_a_snapshot(database: Database) -> None:
    assert database.snapshot(seconds=1, idle_seconds=1) is None


@pytest.mark.parametrize("refused", [_no_room_for_a_call, _no_room_for_a_snapshot])
def test_who_gets_no_connection_learns_nothing_of_the_server(
    database_url: str, refused: Callable[[Database], None]
) -> None:
    """Else those who wait close the breaker again that those who have a connection open."""
    database = Database(database_url, pool_size=1, deadline_seconds=10, pool_timeout=0.01)

    def meanwhile(connection: Connection) -> None:
        for _ in range(2):
            database.breaker.failed()
        refused(database)
        database.breaker.failed()
        assert database.breaker.state == "open"

    database.run(meanwhile)
    database.close()


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
