"""The embedded servers on their own: how they are reached, what they survive, and that they run as root too."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from core.errors import Misconfigured
from supervise import postgres_binaries, unprivileged
from supervise.embedded_postgres import Postgres
from supervise.embedded_valkey import Valkey
from supervise.processes import Child, Identity, Service, start, stop

AS_ROOT = (unprivileged.SETPRIV, unprivileged.NAMESPACE)
WAYS = AS_ROOT if os.geteuid() == 0 else (unprivileged.AS_WE_ARE,)


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    """Below a directory that only we may enter, as root's home is."""
    with tempfile.TemporaryDirectory(prefix="millrace-") as parent:
        assert Path(parent).stat().st_mode & 0o777 == 0o700
        inner = Path(parent) / "home"
        inner.mkdir()
        yield inner


@contextlib.contextmanager
def running(service: Service, log: Path) -> Iterator[Child]:
    child = start(service, log)
    try:
        yield child
    finally:
        stop([child])


def query(url: str, statement: str) -> object:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_postgres_answers_and_has_ltree(empty_database_url: str) -> None:
    query(empty_database_url, "CREATE EXTENSION ltree")
    assert query(empty_database_url, "SELECT 'a.b'::ltree <@ 'a'::ltree") is True


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_postgres_runs_below_a_closed_directory(closed_directory: Path, way: unprivileged.Way) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run", way=way, durable=False)
    with running(server, closed_directory / "log") as child:
        assert query(server.url, "SELECT 1") == 1
        words = Path(f"/proc/{child.pid}/cmdline").read_bytes().split(b"\0")
        assert words[0].endswith(b"/postgres")


def test_a_uid_without_a_name_uses_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_141_592)
    assert unprivileged.choose.__wrapped__() is unprivileged.NAMESPACE


def test_a_cluster_made_one_way_starts_the_other_way(closed_directory: Path) -> None:
    for number, way in enumerate((*WAYS, *reversed(WAYS))):
        server = Postgres(closed_directory / "postgres", closed_directory / "run", way=way, durable=False)
        with running(server, closed_directory / "log"):
            query(server.url, f"CREATE TABLE t{number} ()")
            assert query(server.url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == number + 1


def test_the_wheel_serves_on_this_python(closed_directory: Path) -> None:
    found = postgres_binaries.from_wheel()
    assert found is not None
    server = Postgres(closed_directory / "postgres", closed_directory / "run", binaries=found, durable=False)
    with running(server, closed_directory / "log"):
        query(server.url, "CREATE EXTENSION ltree")
        assert str(query(server.url, "SHOW server_version")).startswith(f"{found.major}.")
    assert postgres_binaries.choose(closed_directory / "postgres").major == found.major


def test_a_cluster_whose_version_is_not_installed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(Misconfigured, match="PostgreSQL 9, which is not installed"):
        postgres_binaries.choose(tmp_path)


def test_nothing_of_postgres_is_open_to_others(closed_directory: Path) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run", durable=False)
    with running(server, closed_directory / "log"):
        assert query(server.url, "SHOW listen_addresses") == ""
        assert server.sockets.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["long" * 25, "a b, c\"d'e%f-\u00fc"])
def test_a_long_or_odd_home_still_has_a_socket(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    server = Postgres(home / "postgres", home / "run", durable=False)
    with running(server, tmp_path / "log"):
        assert query(server.url, "SELECT 1") == 1
    shutil.rmtree(server.sockets)


def test_what_was_committed_survives_kill_and_a_stale_lock_file(closed_directory: Path) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run")
    with running(server, closed_directory / "log") as child:
        query(server.url, "CREATE TABLE kept AS SELECT 1 AS one")
        os.kill(child.pid, signal.SIGKILL)
        child.process.wait()
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        lock = closed_directory / "postgres" / "postmaster.pid"
        lines = lock.read_text().splitlines()
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        with running(server, closed_directory / "log"):
            assert query(server.url, "SELECT one FROM kept") == 1
        stranger.kill()


def test_children_of_a_killed_server_are_waited_for(closed_directory: Path) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run", durable=False)
    with running(server, closed_directory / "log") as child, contextlib.closing(psycopg2.connect(server.url)) as held:
        slow = Identity.of(held.info.backend_pid)
        assert slow is not None
        slow.signal(signal.SIGSTOP)
        os.kill(child.pid, signal.SIGKILL)
        child.process.wait()
        late = threading.Timer(2, slow.signal, [signal.SIGCONT])
        late.start()
        with running(server, closed_directory / "log"):
            assert query(server.url, "SELECT 1") == 1
        late.join()


def test_a_dead_server_that_nobody_reaped_is_in_nobodys_way(closed_directory: Path) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run", durable=False)
    with running(server, closed_directory / "log") as child:
        os.kill(child.pid, signal.SIGKILL)
        child.process.wait()
    lock = closed_directory / "postgres" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    lock.write_text("\n".join([str(zombie.pid), *lines[1:]]) + "\n")
    (server.sockets / ".s.PGSQL.5432.lock").write_text(f"{zombie.pid}\n")
    with running(server, closed_directory / "log"):
        assert query(server.url, "SELECT 1") == 1
    zombie.wait()


def test_a_server_left_over_on_the_cluster_is_stopped_first(closed_directory: Path) -> None:
    server = Postgres(closed_directory / "postgres", closed_directory / "run", durable=False)
    with running(server, closed_directory / "log") as first:
        left_over = Identity.of(first.pid)
        assert left_over is not None
        with running(server, closed_directory / "log"):
            assert not left_over.is_alive()
            assert query(server.url, "SELECT 1") == 1


def test_valkey_needs_its_password_and_keeps_what_it_has(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
    assert client.config_get(*wanted) == wanted
    client.close()
    stranger = redis.Redis.from_url("redis://" + redis_url.rpartition("@")[2])
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()
    stranger.close()


def test_valkey_keeps_its_data_and_its_password_from_ps(tmp_path: Path) -> None:
    for expected in (None, b"1"):
        server = Valkey(tmp_path / "data", tmp_path / "run")
        with running(server, tmp_path / "log") as child:
            client = redis.Redis.from_url(server.url)
            assert client.get("key") == expected
            client.set("key", 1)
            client.close()
            command = Path(f"/proc/{child.pid}/cmdline").read_text()
            assert "valkey-server" in command or "redis-server" in command
            assert server.url.split(":")[2].partition("@")[0] not in command
    assert (tmp_path / "run" / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_valkey_begins_empty_when_its_file_cannot_be_read(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "data", tmp_path / "run")
    with running(server, tmp_path / "log"):
        pass
    (manifest,) = tmp_path.glob("data/*/appendonlydir/*.manifest")
    manifest.write_text("this is not a manifest\n")
    with running(server, tmp_path / "log"):
        client = redis.Redis.from_url(server.url)
        assert client.dbsize() == 0
        client.close()
