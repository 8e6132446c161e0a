from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text

from core.breaker import Breaker
from core.errors import DatabaseUnavailable, Misconfigured
from database.deadline import deadline
from database.transactions import Database
from metadata import migrate
from metadata.facade import Metadata
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.metadata.conftest import Query
from tests.metadata.cut import CuttingProxy
from tests.metadata.made import Ingester, facts, manifest


class Server:
    """PostgreSQL that a test may stop and freeze."""

    def __init__(self, directory: Path) -> None:
        self.service = Postgres(directory / "own", directory / "own-run", durable=False)
        self._log = directory / "own.log"
        self._child = start(self.service, self._log)

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        os.kill(self._child.pid, number)
        for pid in _children(self._child.pid):
            with suppress(ProcessLookupError):  # a session that ends meanwhile
                os.kill(pid, number)

    def thaw(self) -> None:
        self.freeze(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        stop([self._child])

    def restart(self) -> None:
        self._child = start(self.service, self._log)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def server(services_directory: Path) -> Iterator[Server]:
    own = Server(services_directory)
    migrate.upgrade(own.service.url)
    yield own
    own.stop()


def test_a_frozen_server_and_its_return(server: Server) -> None:
    """New and pooled connections end with the deadline; then the breaker answers for the server; then all is well."""
    pooled = Database(server.service.url, deadline_seconds=1)
    fresh = Database(server.service.url, deadline_seconds=1)
    pooled.ping()
    server.freeze()
    for database in (pooled, fresh):
        for _ in range(3):
            assert 0.9 <= _seconds_to_fail(database) < 3
        assert database.breaker.state == "open"
        assert _seconds_to_fail(database) < 0.5
    with deadline(0.2):
        assert _seconds_to_fail(Database(server.service.url, deadline_seconds=30)) < 2
    server.thaw()
    for database in (pooled, fresh):
        _until_well(database)
        assert database.breaker.state == "closed"
        database.close()


def test_a_stopped_server_and_its_return(server: Server) -> None:
    database = Database(server.service.url, deadline_seconds=5)
    database.ping()
    server.stop()
    for _ in range(3):
        assert _seconds_to_fail(database) < 3
    assert database.breaker.state == "open"
    server.restart()
    _until_well(database)
    database.close()


def _seconds_to_fail(database: Database) -> float:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        database.ping()
    return time.monotonic() - began


def _until_well(database: Database) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            database.ping()
            return
        except DatabaseUnavailable:
            assert time.monotonic() < ends
            time.sleep(0.1)


def test_a_commit_whose_answer_is_lost(database_url: str, services_directory: Path, query: Query) -> None:
    """The caller is told that nobody knows, and reading again tells."""
    with CuttingProxy(database_url, services_directory) as proxy:
        metadata = Metadata.of(Database(proxy.url, deadline_seconds=10))
        made = manifest()
        replica = Ingester(metadata).reserve(facts(made))
        proxy.cut_after(b"COMMIT")
        with pytest.raises(DatabaseUnavailable):
            metadata.assets.record(made, [replica], [])
        assert query("SELECT count(*) FROM asset") == [(1,)]
        again = metadata.assets.record(made, [replica], [])
        assert (again.entry, again.replay, again.conflict) == (0, True, False)
        metadata.close()
    assert query("SELECT next FROM path_counter") == [(1,)]


def test_a_transaction_cut_before_its_commit_leaves_nothing(
    database_url: str, services_directory: Path, query: Query
) -> None:
    with CuttingProxy(database_url, services_directory) as proxy:
        metadata = Metadata.of(Database(proxy.url, deadline_seconds=10))
        made = manifest()
        replica = Ingester(metadata).reserve(facts(made))
        proxy.cut_after(b"INSERT INTO path_counter")
        with pytest.raises(DatabaseUnavailable):
            metadata.assets.record(made, [replica], [])
        assert metadata.assets.record(made, [replica], []).replay is False
        metadata.close()
    assert query("SELECT next FROM path_counter") == [(1,)]


def test_a_connection_that_breaks_after_its_answer_costs_no_place_in_the_pool(database_url: str, query: Query) -> None:
    database = Database(database_url, pool_size=1, deadline_seconds=2)

    def read_and_lose_the_server(connection: Connection) -> int:
        pid: int = connection.scalar(text("SELECT pg_backend_pid()"))
        query(f"SELECT pg_terminate_backend({pid}, 5000)")
        return pid

    for _ in range(3):
        database.ping()  # the second use of a connection is not like the first
        assert database.read(read_and_lose_the_server)
    database.ping()
    database.close()


def test_a_deadlock_is_tried_again_inside(database_url: str, query: Query) -> None:
    query("CREATE TABLE pair (id int PRIMARY KEY, times int)")
    query("INSERT INTO pair VALUES (1, 0), (2, 0)")
    database = Database(database_url, deadline_seconds=60)
    meet = threading.Barrier(2)

    def cross(first: int) -> None:
        waited = False

        def work(connection: Connection) -> None:
            nonlocal waited
            for number in (first, 3 - first):
                connection.execute(text("UPDATE pair SET times = times + 1 WHERE id = :id"), {"id": number})
                if not waited:
                    waited = True
                    meet.wait(30)

        database.run(work)

    threads = [threading.Thread(target=cross, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert query("SELECT times FROM pair") == [(2,), (2,)]
    database.close()


def test_every_connection_in_use_is_said_in_time(database_url: str) -> None:
    database = Database(database_url, pool_size=1, deadline_seconds=30)

    def hold(_connection: Connection) -> None:
        def other() -> None:
            with deadline(0.2), pytest.raises(DatabaseUnavailable, match="in use"):
                database.ping()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    database.run(hold)
    database.close()


def test_a_forked_child_uses_connections_of_its_own(database_url: str) -> None:
    database = Database(database_url)
    backend = text("SELECT pg_backend_pid()")
    mine = database.read(lambda connection: connection.scalar(backend))
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        theirs = database.read(lambda connection: connection.scalar(backend))
        os._exit(0 if theirs != mine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert database.read(lambda connection: connection.scalar(backend)) == mine
    database.close()


def test_no_error_tells_the_password(tmp_path: Path) -> None:
    url = f"postgresql://user:s3cret-word@/db?host={tmp_path}"
    with pytest.raises(DatabaseUnavailable) as caught:
        Database(SecretStr(url)).ping()
    assert "s3cret-word" not in repr(caught.value)
    with pytest.raises(Misconfigured) as refused:
        Database("mysql://user:s3cret-word@host/db")
    assert "s3cret-word" not in refused.value.detail
    with pytest.raises(Misconfigured) as broken:
        Database("user:s3cret-word@host:port")
    assert "s3cret-word" not in broken.value.detail


def test_a_fault_of_ours_is_not_taken_for_the_weather(database_url: str) -> None:
    database = Database(database_url)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="42601"):
            database.read(lambda connection: connection.execute(text("SELEC 1")))
    assert database.breaker.state == "closed"
    database.close()


def test_the_breaker_lets_one_call_probe() -> None:
    breaker = Breaker(failures=2, seconds=0.05)
    breaker.failed()
    assert breaker.admits(1)
    breaker.failed()
    assert not breaker.admits(1)
    time.sleep(0.1)
    assert [breaker.state, breaker.admits(1), breaker.admits(1)] == ["probing", True, False]
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.admits(1)
