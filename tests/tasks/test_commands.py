"""The command lines of the workers, and what they refuse before anything starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from core.errors import Misconfigured
from core.queues import ingest_queue
from core.settings import Settings
from tasks import commands

ROOT = Path(__file__).parents[2]


def settings(tmp_path: Path, **more: object) -> Settings:
    stores = {"main": {"kind": "rocksdb", "root": str(tmp_path / "store")}}
    return Settings.model_validate({"home": tmp_path, "stores": stores, **more})


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize("kind", ["ingest", "variants", "all"])
def test_several_processes_cannot_own_a_store(tmp_path: Path, kind: commands.Worker) -> None:
    with pytest.raises(Misconfigured, match=r"stores\.main: .*`millrace worker all --pool threads`"):
        commands.worker(kind, settings(tmp_path))


def test_one_process_with_threads_can(tmp_path: Path) -> None:
    argv = commands.worker("all", settings(tmp_path), "threads")
    queues = option(argv, "-Q").split(",")
    assert option(argv, "-P") == "threads"
    assert option(argv, "-c") == str(commands.RECEIVERS)
    assert queues[:2] == ["maintenance", "variants.interactive"]
    assert queues[2].startswith(ingest_queue(""))
    assert queues[3:] == ["variants.eager"]


def test_so_can_one_of_one_process(tmp_path: Path) -> None:
    argv = commands.worker("ingest", settings(tmp_path, work={"ingest_concurrency": 1}))
    assert (option(argv, "-P"), option(argv, "-c")) == ("prefork", "1")


def test_a_worker_that_is_started_by_hand_is_refused_too(tmp_path: Path, database_url: str) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")},
        "MILLRACE_HOME": str(tmp_path),
        "MILLRACE_DATABASE_URL": database_url,
        "MILLRACE_REDIS_URL": "redis://127.0.0.1:1",
        "MILLRACE_STORES": f'{{"main": {{"kind": "rocksdb", "root": "{tmp_path}/store"}}}}',
    }
    argv = [*commands.celery(), "worker", "-Q", "maintenance", "-c", "2"]
    ended = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "`millrace worker all --pool threads`" in ended.stderr
