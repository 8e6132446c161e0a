"""`millrace doctor` looks at stores: what they cannot do, and what it leaves in them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from storage.filesystem.store import FilesystemOptions, FilesystemStore
from storage.object_keys import EXAMINED
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from tests.cli.examination import ROOT, Settings, doctor, environment, s3_options, services
from tests.rclone_server import rclone_server
from tests.s3_server import s3_server

__all__ = ["services"]


def test_a_service_that_ignores_conditions(tmp_path: Path, services: Settings) -> None:
    """rclone's server checks signatures, and overwrites whatever If-None-Match says."""
    with rclone_server(tmp_path / "rclone") as server:
        (server.root / "probes").mkdir()
        said = doctor(
            tmp_path,
            "--json",
            MILLRACE_STAGING__EPHEMERAL="true",
            MILLRACE_STORES__MAIN=json.dumps(s3_options(server.endpoint)),
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
            MILLRACE_STORES__MAIN=json.dumps(s3_options(server.endpoint)),
            MILLRACE_STORES__LOST=json.dumps(s3_options(server.endpoint, bucket="mistyped")),
            MILLRACE_STORES__ICE=json.dumps(s3_options(server.endpoint, key_prefix="ice", storage_class="GLACIER")),
            **services,
        )
        assert [one for one in said.problems() if "lost" not in one] == []
        assert "5,242,881 bytes, which go in parts" in said.finding("store:main", "large body")["detail"]
        assert server.requests("POST", "probes/millrace-doctor/") >= 2  # begun and completed
        for check in ("read", "range", "large body", "link", "latency"):
            found = said.finding("store:ice", check)
            assert (found["grade"], "archive" in found["detail"]) == ("note", True)
        assert "NoSuchBucket" in said.finding("store:lost", "marker")["detail"]
        assert server.keys("probes") == []


def test_what_a_killed_examination_left_is_removed_once_it_is_old(tmp_path: Path, services: Settings) -> None:
    store = FilesystemStore("main", FilesystemOptions(root=tmp_path / "store"))
    store.establish()
    for name in ("old", "young"):
        store.put(
            EXAMINED + name, io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").digest(), media_type="image/png"
        )
    (old,) = (tmp_path / "store").rglob("*old")
    os.utime(old, (0, 0))
    assert doctor(tmp_path, "--json", MILLRACE_STAGING__EPHEMERAL="true", **services).code == 0
    assert [found.key for found in store.scan(EXAMINED)] == [EXAMINED + "young"]


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
    owner.establish()
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
    store = FilesystemStore("old", FilesystemOptions(root=root))
    store.establish()
    store.put("a", io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").digest(), media_type="image/png")
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
