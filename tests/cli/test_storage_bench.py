"""`millrace storage bench`: what it measures, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.examination import ROOT, environment
from tests.s3_server import s3_server

OPERATIONS = ["put", "get", "range", "head", "delete"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli", "storage", "bench", *arguments]


def bench(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(home, **variables), capture_output=True, text=True, timeout=120
    )


def objects(home: Path) -> list[Path]:
    return [path for path in (home / "files").rglob("*") if path.is_file()]


def stores(home: Path, **more: dict[str, Any]) -> dict[str, str]:
    files = {"kind": "filesystem", "root": str(home / "files"), "sync_to_disk": True}
    return {
        f"MILLRACE_STORES__{name.upper()}": json.dumps(options) for name, options in ({"main": files} | more).items()
    }


def test_every_store_every_size_every_operation(tmp_path: Path) -> None:
    with s3_server(tmp_path / "moto.log") as server:
        server.make_bucket("bench")
        cloud = {
            "kind": "s3",
            "bucket": "bench",
            "endpoint_url": server.endpoint,
            "access_key_id": "key",
            "secret_access_key": "hush",
        }
        variables = stores(tmp_path, cloud=cloud, ice={**cloud, "storage_class": "GLACIER"})
        done = bench(tmp_path, "--seconds", "0.1", "--sizes", "1KiB,200KiB", "--json", **variables)
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        assert [(row["store"], row["size"], row["operation"]) for row in rows] == [
            (store, size, operation)
            for store in ("main", "cloud", "ice")
            for size in (1024, 204_800)
            for operation in OPERATIONS
            if store != "ice" or operation not in ("get", "range")  # in an archive nothing is read at once
        ]
        assert all(row["rounds"] >= 1 and 0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
        assert all((row["mb_per_s"] is not None) == (row["operation"] in ("put", "get", "range")) for row in rows)
        assert server.keys("bench") == []
    assert objects(tmp_path) == []


def test_one_store_as_a_table(tmp_path: Path) -> None:
    owned = {"kind": "rocksdb", "root": str(tmp_path / "owned")}
    chosen = ("--store", "main", "--store", "owned", "--seconds", "0.05", "--sizes", "0,1KiB")
    done = bench(tmp_path, *chosen, **stores(tmp_path, owned=owned))
    assert done.returncode == 0, done.stderr
    assert "p99 ms" in done.stdout
    assert done.stdout.count("delete") == 4
    unknown = bench(tmp_path, "--store", "cellar", **stores(tmp_path))
    assert unknown.returncode == 2
    assert unknown.stderr == "millrace: no store is called cellar (there is: main)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_removes_what_it_wrote(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupt the bench in the middle of a put, which goes on to its end: a put that the signal cut off would leave
    a file."""
    points = tmp_path / "failpoints"
    points.mkdir()
    running = subprocess.Popen(
        command("--seconds", "60", "--sizes", "20KiB"),
        cwd=ROOT,
        env=environment(tmp_path, MILLRACE_FAILPOINTS=str(points), **stores(tmp_path)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: len(objects(tmp_path)) >= 20)
        (points / "filesystem.after-create").write_text("stop")
        until((points / "filesystem.after-create.fired").exists)
        (points / "filesystem.after-link").write_text("sleep 0")
        os.kill(running.pid, number)
        os.kill(running.pid, signal.SIGCONT)
        assert running.wait(30) != 0
    finally:
        running.kill()
        running.wait()
    assert (points / "filesystem.after-link.fired").exists()
    assert objects(tmp_path) == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
