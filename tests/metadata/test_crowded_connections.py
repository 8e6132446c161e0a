"""How many of PostgreSQL's connections a process keeps, for how long, and what it does when none is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
from sqlalchemy import Connection, text

from core.errors import DatabaseUnavailable
from database import connections, errors
from database.deadline import deadline
from database.transactions import Database
from tests.metadata.asking import ping, until
from tests.metadata.conftest import Query

ROLE = "narrow"


def _burst(database: Database, size: int) -> None:
    meet = threading.Barrier(size)
    threads = [threading.Thread(target=database.run, args=(lambda _: meet.wait(30),)) for _ in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
        until(lambda: _opened(query) == 1)
        until(lambda: _opened(query) == 0)
    database.close()


def test_a_busy_connection_ends_in_time(database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LIFE_SECONDS", 0.1)
    database = Database(database_url, pool_size=1)
    backend = text("SELECT pg_backend_pid()")
    first = database.read(lambda connection: connection.scalar(backend))
    until(lambda: database.read(lambda connection: connection.scalar(backend)) != first)
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
    """The server may say anything, and in a language that we know no word of: it is not silent."""
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
