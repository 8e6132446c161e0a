"""Behind Debian's PgBouncer in transaction mode, where a connection is the server's only from BEGIN to COMMIT."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg2
import pytest
from sqlalchemy import Connection, text

from database.transactions import Database
from supervise import unprivileged
from supervise.processes import POLITE, start, stop
from supervise.python_process import Process
from tests.app.server import free_port
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.system.programs import program

SERVERS = 2
"""Fewer than there are clients: none of them has one of its own."""
CONFIGURATION = """
[databases]
* = host={host} user=millrace pool_size={servers}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
"""


@pytest.fixture
def pooled_url(database_url: str, tmp_path: Path) -> Iterator[str]:
    """Start the pooler, otherwise left as Debian configures it, and yield the URL of the test's database through it."""
    parts = urlsplit(database_url)
    port = free_port()
    file = tmp_path / "pgbouncer.ini"
    file.write_text(CONFIGURATION.format(host=parse_qs(parts.query)["host"][0], port=port, servers=SERVERS))
    argv = [*unprivileged.choose().prefix, program("pgbouncer"), str(file)]

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    child = start(Process("pgbouncer", argv, dict(os.environ), POLITE, listens), tmp_path / "pgbouncer.log")
    yield urlunsplit(parts._replace(netloc=f"millrace@127.0.0.1:{port}", query=""))
    stop([child])


def _sees(url: str) -> list[tuple[str, ...]]:
    """Return what a stranger to our settings finds on every server connection of the pool."""
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "search_path", "synchronous_commit")
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    found = []
    clients = [psycopg2.connect(url) for _ in range(SERVERS)]
    for client in clients:  # each transaction stays open, so each has another server
        with client.cursor() as cursor:
            cursor.execute(query)
            found.append(cursor.fetchone())
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            assert cursor.fetchone() == (0,)
    for client in clients:
        client.close()
    return found


@pytest.mark.parametrize("kind", ["filesystem", "postgres"])
def test_the_line_works_and_leaves_nothing_on_the_servers_connections(
    pooled_url: str, tmp_path: Path, kind: str
) -> None:
    options = {"kind": kind} | ({"root": str(tmp_path / "store")} if kind == "filesystem" else {})
    before = _sees(pooled_url)
    lines = [Line(tmp_path / name, pooled_url, stores={"main": options}) for name in ("one", "two")]
    problems: list[BaseException] = []

    def work(line: Line, name: int) -> None:
        try:
            for number in range(4):
                asset = line.bring(f"/{name}/{number}", encoded(photo(200 + 10 * name + number), "PNG"))
                assert {one.state.value for one in line.variants(asset).values()} == {"ready"}
            line.services.metadata.database.ping()
        except BaseException as error:  # shown by the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(one, name)) for name, one in enumerate(lines * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert _sees(pooled_url) == before
    for line in lines:
        line.services.close()


def test_a_snapshot_and_a_time_out_hold_behind_it(pooled_url: str) -> None:
    database = Database(pooled_url, deadline_seconds=20)
    count = text("SELECT count(*) FROM path_counter")

    def number(connection: Connection) -> int:
        return int(connection.scalar(count) or 0)

    snapshot = database.snapshot(seconds=20, idle_seconds=10)
    assert snapshot is not None
    assert snapshot.read(number) == 0
    database.run(lambda connection: connection.execute(text("INSERT INTO path_counter VALUES ('x', 1)")))
    assert (snapshot.read(number), database.read(number)) == (0, 1)
    snapshot.close()
    short = Database(pooled_url, deadline_seconds=0.5)
    for call in (short.run, short.read):
        with pytest.raises(Exception, match=r"57014|DeadlinePassed"):
            call(lambda connection: connection.execute(text("SELECT pg_sleep(30)")))
    short.close()
    database.close()
