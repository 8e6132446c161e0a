"""`millrace doctor` on real services: what it finds when all is well, and when something is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
import redis
from click.testing import CliRunner

from cli.doctor import doctor as command
from cli.embedded_valkey import Valkey
from cli.processes import start, stop
from core import settings
from storage.filesystem.store import FilesystemOptions, FilesystemStore
from storage.probes import PREFIX
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from storage.staging.staging import Staging
from tests.rclone_server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, rclone_server
from tests.s3_server import s3_server

ROOT = Path(__file__).parents[2]
Settings = dict[str, str]


@dataclass(frozen=True)
class Said:
    code: int
    text: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        assert self.text.startswith("{"), self.errors
        said: dict[str, Any] = json.loads(self.text)
        return said

    def finding(self, subject: str, check: str) -> dict[str, Any]:
        found = {one["check"]: one for one in self.json["findings"][subject]}
        assert check in found, self.text
        finding: dict[str, Any] = found[check]
        return finding

    def problems(self) -> list[str]:
        return [
            f"{subject}: {one['check']}"
            for subject, found in self.json["findings"].items()
            for one in found
            if one["grade"] == "problem"
        ]


def environment(home: Path, **variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return {**inherited, "MILLRACE_HOME": str(home), **variables}


def doctor(home: Path, *arguments: str, **variables: str) -> Said:
    """In this process: starting one costs more than most examinations."""
    done = CliRunner().invoke(command, arguments, env={"MILLRACE_HOME": str(home), **variables})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def own_process(home: Path, *arguments: str, **variables: str) -> Said:
    argv = [sys.executable, "-m", "cli", "doctor", *arguments]
    done = subprocess.run(
        argv, cwd=ROOT, env=environment(home, **variables), capture_output=True, text=True, timeout=120
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def services(database_url: str, redis_url: str) -> Settings:
    return {"MILLRACE_DATABASE_URL": database_url, "MILLRACE_REDIS_URL": redis_url}


def test_all_is_well(tmp_path: Path, services: Settings) -> None:
    said = doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true", **services)
    assert said.problems() == []
    assert said.code == 0
    assert said.json["healthy"] is True
    assert set(said.json["findings"]) == {"settings", "staging", "postgres", "redis", "store:main"}
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
            MILLRACE_STORES__MAIN=json.dumps(_s3(f"http://127.0.0.1:{port}")),
        )
    assert said.code == 1
    assert {"postgres: version", "redis: answers", "store:main: write"} <= set(said.problems())
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
            MILLRACE_STORES__MAIN=json.dumps(_s3(f"http://127.0.0.1:{port}")),
        )
    assert said.code == 1
    assert {"postgres: version", "redis: answers", "store:main: write"} <= set(said.problems())
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


def test_a_service_that_ignores_conditions(tmp_path: Path, services: Settings) -> None:
    """rclone's server checks signatures, and overwrites whatever If-None-Match says."""
    with rclone_server(tmp_path / "rclone") as server:
        (server.root / "probes").mkdir()
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_STORES__MAIN=json.dumps(_s3(server.endpoint)),
            **services,
        )
        assert said.code == 1
        assert said.finding("store:main", "create only")["grade"] == "problem"
        assert "conditional_writes" in said.finding("store:main", "create only")["advice"]
        assert "a forged one does not" in said.finding("store:main", "link")["detail"]
        assert said.json["advice"] == ["main (s3): mend its problems first."]
        assert not [path for path in (server.root / "probes").rglob("*") if path.is_file()]


def test_a_service_that_honours_them_and_one_without_the_bucket(tmp_path: Path, services: Settings) -> None:
    with s3_server(tmp_path / "moto.log") as server:
        server.make_bucket("probes")
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_STORES__MAIN=json.dumps(_s3(server.endpoint)),
            MILLRACE_STORES__LOST=json.dumps(_s3(server.endpoint, bucket="mistyped")),
            **services,
        )
        assert [one for one in said.problems() if "lost" not in one] == []
        assert "5,242,881 bytes, which go in parts" in said.finding("store:main", "large body")["detail"]
        assert server.requests("POST", "probes/millrace-doctor/") >= 2  # begun and completed
        assert "NoSuchBucket" in said.finding("store:lost", "write")["detail"]
        assert server.keys("probes") == []


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


def test_what_a_killed_examination_left_is_removed_once_it_is_old(tmp_path: Path, services: Settings) -> None:
    store = FilesystemStore("main", FilesystemOptions(root=tmp_path / "store"))
    for name in ("old", "young"):
        store.put(PREFIX + name, io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").digest(), media_type="image/png")
    (old,) = (tmp_path / "store").rglob("*old")
    os.utime(old, (0, 0))
    assert doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true", **services).code == 0
    assert [found.key for found in store.scan(PREFIX)] == [PREFIX + "young"]


def test_an_interrupted_examination_removes_what_it_wrote(tmp_path: Path, services: Settings) -> None:
    armed = tmp_path / "failpoints" / "filesystem.after-link"
    armed.parent.mkdir()
    armed.write_text("sleep 2")
    running = subprocess.Popen(
        [sys.executable, "-m", "cli", "doctor"],
        cwd=ROOT,
        env=environment(tmp_path, MILLRACE_FAILPOINTS=str(armed.parent), **services),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not armed.with_name(f"{armed.name}.fired").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list((tmp_path / "store" / "objects").rglob("*millrace-doctor*"))
        running.send_signal(signal.SIGINT)
        assert running.wait(30) != 0
    finally:
        running.kill()
        running.wait()
    assert not list((tmp_path / "store").rglob("*millrace-doctor*"))


def test_one_bad_store_leaves_the_others_to_be_looked_at(tmp_path: Path, services: Settings) -> None:
    said = doctor(
        tmp_path,
        "--json",
        MILLRACE_STAGING__EPHEMERAL="true",
        MILLRACE_STORES__MAIN=json.dumps({"kind": "filesystem", "root": str(tmp_path / "store")}),
        MILLRACE_STORES__TAPE=json.dumps({"kind": "tape"}),
        **services,
    )
    assert said.problems() == ["store:tape: open"]
    assert said.finding("store:main", "delete")["grade"] == "ok"


def test_a_store_with_one_owner_is_only_read(tmp_path: Path, services: Settings) -> None:
    """The doctor must not take the place of the worker that owns it."""
    options = {"kind": "rocksdb", "root": str(tmp_path / "owned")}
    owner = RocksdbStore.owned("owned", RocksdbOptions.model_validate(options))
    try:
        owner.put("a", io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").digest(), media_type="image/png")
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_STORES__MAIN=json.dumps(options),
            **services,
        )
        assert said.problems() == []
        assert said.finding("store:main", "read")["detail"] == "a is whole: 1 bytes"
        assert owner.head("a").size == 1
    finally:
        owner.close()


def test_a_store_that_takes_nothing_new_is_only_read(tmp_path: Path, services: Settings) -> None:
    root = tmp_path / "old"
    FilesystemStore("old", FilesystemOptions(root=root)).put(
        "a", io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").digest(), media_type="image/png"
    )
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    said = doctor(
        tmp_path,
        "--json",
        MILLRACE_STAGING__EPHEMERAL="true",
        MILLRACE_STORES__MAIN=json.dumps({"kind": "postgres"}),
        MILLRACE_STORES__OLD=json.dumps({"kind": "filesystem", "root": str(root), "state": "draining"}),
        **services,
    )
    assert said.problems() == []
    assert "draining" in said.finding("store:old", "write")["detail"]
    assert "p50" in said.finding("store:main", "latency")["detail"]
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*")) == before


def test_without_urls_it_says_which_to_set(tmp_path: Path) -> None:
    said = doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true")
    assert said.problems() == ["postgres: settings", "redis: settings"]
    assert "MILLRACE_REDIS_URL" in said.finding("redis", "settings")["advice"]


def _s3(endpoint: str, **more: object) -> dict[str, object]:
    return {
        "kind": "s3",
        "bucket": "probes",
        "endpoint_url": endpoint,
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "addressing_style": "path",
        **more,
    }


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
