"""kill -9 of `millrace storage migrate`, again and again, under live uploads, reads and deletes."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import CarefulClients
from tests.faults.stack import ROOT, SETTINGS, Stack

STORES = """
[stores.main]
kind = "filesystem"
root = "{home}/home/store/main"
[stores.far]
kind = "filesystem"
root = "{home}/home/store/far"
"""
STEPS = ("copy.after-put", "migrate.after-copy", "job.after-step")
"""Each of the others, without the load: tests/pipeline/test_migration.py."""
RANDOM_KILLS = 2


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    settings = SETTINGS.replace("maintenance_seconds = 1", "maintenance_seconds = 3")
    settings = settings.replace("lease_seconds = 4", "lease_seconds = 2")
    settings = settings.replace("lease_renewal_seconds = 1", "lease_renewal_seconds = 0.5")
    with Stack(tmp_path, settings=settings + STORES.format(home=tmp_path)) as made:
        yield made


class Command:
    """The same command every time, with failpoints of its own: those of the stack would kill the workers, too."""

    def __init__(self, stack: Stack, failpoints: Path) -> None:
        failpoints.mkdir()
        self._failpoints = failpoints
        self._environment = stack.environment | {"MILLRACE_FAILPOINTS": str(failpoints)}

    def start(self) -> subprocess.Popen[str]:
        words = ["--from", "main", "--to", "far", "--delete-source", "--max-mb-s", "0.03", "--json"]
        return subprocess.Popen(
            [sys.executable, "-m", "cli", "storage", "migrate", *words],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def die_at(self, step: str) -> int:
        (self._failpoints / step).write_text("kill")
        with self.start() as process:
            return process.wait(60)

    def die_after(self, seconds: float) -> None:
        with self.start() as process:
            time.sleep(seconds)
            process.kill()
            process.wait(10)


def unreadable(stack: Stack) -> list[str]:
    """Of what there is (the checker has compared that with what was accepted): all that does not read back."""
    found = []
    with httpx.Client(base_url=stack.url, timeout=20) as client:
        for asset in stack.world().assets.values():
            path = f"/assets{asset['path_text']}/-/entry/{asset['entry']}/content"
            answer = client.get(path)
            if answer.status_code != 200 or hashlib.sha256(answer.content).digest() != bytes(asset["blob"]):
                found.append(f"{path}: {answer.status_code}")
    return found


def test_a_migration_that_is_killed_again_and_again_loses_nothing(stack: Stack, tmp_path: Path) -> None:
    source = stack.home / "store" / "main"
    command, chance = Command(stack, tmp_path / "of-the-command"), random.Random(20)
    with CarefulClients(stack, "moved", clients=1) as clients:  # the rate is such that more would only wait longer
        clients.flows(30, 90)
        with stack.stopped("maintenance@"):  # or its worker takes the job over, and the next command only watches
            assert [command.die_at(step) for step in STEPS] == [-signal.SIGKILL] * len(STEPS)
        for _ in range(RANDOM_KILLS):
            command.die_after(chance.uniform(1, 3))
        with command.start() as process:
            said, _ = process.communicate(timeout=150)
        left = [path.name for path in source.rglob("*.*") if path.is_file()]
        clients.flows()
    job = json.loads(said)
    assert (process.returncode, job["state"], job["progress"]["failed"]) == (0, "done", 0), job
    assert left == []
    stack.check()
    assert stack.world().assets
    assert unreadable(stack) == []
    assert [path.name for path in source.rglob("*.*") if path.is_file()] == []
