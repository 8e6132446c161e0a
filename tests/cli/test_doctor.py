"""`millrace doctor` on real services: what it finds when all is well, and when something is not."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
import redis

from core import settings, troubles
from storage.staging.staging import Staging
from supervise.embedded_valkey import Valkey
from supervise.processes import start, stop
from tests.cli.examination import Settings, doctor, own_process, s3_options, services

__all__ = ["services"]


def test_all_is_well(tmp_path: Path, services: Settings) -> None:
    said = doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true", **services)
    assert said.problems() == []
    assert said.code == 0
    assert said.json["healthy"] is True
    assert set(said.json["findings"]) == {"settings", "staging", "background", "postgres", "redis", "store:main"}
    assert said.finding("redis", "eviction")["grade"] == "ok"
    assert said.finding("postgres", "latency")["figures"]["p50_ms"] > 0
    assert said.finding("store:main", "latency")["figures"]["put_p99_ms"] > 0
    assert said.finding("staging", "sync")["figures"]["p50_ms"] > 0
    assert said.json["advice"] == ["main (filesystem) suits one host, or several that mount the same directory."]
    assert not list((tmp_path / "store").rglob("*millrace-doctor*"))
    assert not (tmp_path / "staging").exists()
    with redis.Redis.from_url(services["MILLRACE_REDIS_URL"]) as client:
        assert client.keys() == []


def test_it_works_beside_a_running_stack_and_prints_a_table(tmp_path: Path, services: Settings) -> None:
    """`up` says in the home where its services are; nothing else is told to the doctor."""
    (tmp_path / "run").mkdir()
    urls = {"database_url": services["MILLRACE_DATABASE_URL"], "redis_url": services["MILLRACE_REDIS_URL"]}
    (tmp_path / "run" / "services.json").write_text(json.dumps(urls))
    said = own_process(tmp_path, MILLRACE_STAGING__EPHEMERAL="true")
    assert said.code == 0, said.text
    assert "Nothing is wrong." in said.text
    assert "one winner" in said.text


def test_what_fails_again_and_again_is_said_with_its_error(
    tmp_path: Path, services: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "_directory", tmp_path / "troubles")
    troubles.note("hints", 3, 10, "ValueError", "ValueError: I/O operation on closed file")
    said = doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true", **services)
    assert said.problems() == ["background: loops"]
    assert "hints fails since" in said.finding("background", "loops")["detail"]
    assert "closed file" in said.finding("background", "loops")["detail"]


def test_everything_away_is_said_of_each_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_DATABASE_URL=f"postgresql://millrace:hush@127.0.0.1:{port}/millrace",
            MILLRACE_REDIS_URL=f"redis://:hush@127.0.0.1:{port}/0",
            MILLRACE_STORES__MAIN=json.dumps(s3_options(f"http://127.0.0.1:{port}")),
        )
    assert said.code == 1
    assert {"postgres: version", "redis: answers", "store:main: marker"} <= set(said.problems())
    assert "hush" not in said.text + said.errors


def test_what_hangs_is_a_finding(tmp_path: Path, services: Settings) -> None:
    """A server that takes connections and never answers, as all three of them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        said = own_process(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_DATABASE_URL=f"postgresql://millrace@127.0.0.1:{port}/millrace",
            MILLRACE_REDIS_URL=f"redis://127.0.0.1:{port}/0",
            MILLRACE_STORES__MAIN=json.dumps(s3_options(f"http://127.0.0.1:{port}")),
        )
    assert said.code == 1
    assert {"postgres: version", "redis: answers", "store:main: marker"} <= set(said.problems())
    assert time.monotonic() - started < 45


def test_a_bad_redis_policy_is_a_problem(tmp_path: Path, database_url: str) -> None:
    with _valkey(tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            client.config_set("appendonly", "no")
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_DATABASE_URL=database_url,
            MILLRACE_REDIS_URL=url,
        )
    assert said.problems() == ["redis: eviction"]
    assert "noeviction" in said.finding("redis", "eviction")["advice"]
    assert said.finding("redis", "persistence")["grade"] == "note"


def test_a_database_that_was_never_migrated(tmp_path: Path, empty_database_url: str, redis_url: str) -> None:
    said = doctor(
        tmp_path,
        "--json",
        MILLRACE_STAGING__EPHEMERAL="true",
        MILLRACE_DATABASE_URL=empty_database_url,
        MILLRACE_REDIS_URL=redis_url,
    )
    assert said.problems() == ["postgres: ltree", "postgres: schema"]
    assert "millrace migrate" in said.finding("postgres", "schema")["advice"]


def test_a_role_without_rights(tmp_path: Path, database_url: str, redis_url: str) -> None:
    _execute(database_url, "CREATE ROLE looker LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    parts = urlsplit(database_url)
    theirs = urlunsplit(parts._replace(netloc=parts.netloc.replace("millrace@", "looker@", 1)))
    try:
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_DATABASE_URL=theirs,
            MILLRACE_REDIS_URL=redis_url,
        )
    finally:
        _execute(database_url, "DROP OWNED BY looker; DROP ROLE looker")
    assert said.problems() == ["postgres: rights"]
    assert "asset" in said.finding("postgres", "rights")["detail"]


def test_staging_in_memory_and_full(tmp_path: Path, services: Settings) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        Staging.open(settings.Settings(home=Path(memory)))
        said = doctor(Path(memory), "--json", MILLRACE_STAGING__MIN_FREE_BYTES="900TiB", **services)
        left = [path.name for path in (Path(memory) / "staging").iterdir() if path.is_file()]
    assert [one for one in said.problems() if "staging" in one] == ["staging: disk", "staging: room"]
    assert "tmpfs" in said.finding("staging", "disk")["detail"]
    assert "min_free_bytes" in said.finding("staging", "room")["advice"]
    assert left == [".host.json"]


def test_a_copied_staging_directory(tmp_path: Path, services: Settings) -> None:
    Staging.open(settings.Settings(home=tmp_path / "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    said = doctor(tmp_path / "second", "--json", MILLRACE_STAGING__EPHEMERAL="true", **services)
    assert said.problems() == ["staging: directory"]
    assert "millrace staging adopt" in said.finding("staging", "directory")["detail"]


def test_without_urls_it_says_which_to_set(tmp_path: Path) -> None:
    said = doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true")
    assert said.problems() == ["postgres: settings", "redis: settings"]
    assert "MILLRACE_REDIS_URL" in said.finding("redis", "settings")["advice"]


@contextmanager
def _valkey(home: Path) -> Iterator[str]:
    server = Valkey(home / "valkey", home / "valkey-run")
    child = start(server, home / "valkey.log")
    try:
        yield server.url
    finally:
        stop([child])


def _execute(url: str, statements: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        connection.cursor().execute(statements)
    finally:
        connection.close()
