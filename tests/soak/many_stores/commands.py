"""The `millrace storage` commands beside the stack: started, killed with SIGKILL at a random moment, run to the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.stack import ROOT, Stack

UNDER_WAY_SECONDS = 30.0
END_SECONDS = 300.0
TAKEN_OVER_SECONDS = 15.0
RUNS = 4
"""A run that ends with 1 because of what goes on beside it is followed by another one, so often."""


@dataclass(frozen=True)
class Kind:
    """A command to kill: how long after its job was taken, and where it dawdles so that more than its start is hit."""

    name: str
    job: str
    span: float
    dawdles: dict[str, float]


MIGRATE = Kind(
    "migrate", "migrate", 5.0, {"migrate.after-drain": 0.5, "copy.after-begin": 0.03, "copy.after-put": 0.03}
)
VERIFY = Kind("verify", "verify", 5.0, {"verify.after-read": 0.02, "verify.after-repair": 0.3, "copy.after-put": 0.3})
GC = Kind("gc", "gc", 2.0, {"gc.after-discard": 0.3, "gc.before-delete": 0.2, "gc.after-delete": 0.2})


POLICY = Kind(
    "policy", "demotion", 3.0, {"demote.after-begin": 0.1, "demote.after-copy": 0.1, "demote.after-commit": 0.2}
)
KINDS = (MIGRATE, VERIFY, GC, POLICY)


@dataclass(frozen=True)
class Ended:
    code: int
    said: dict[str, Any]
    complained: str


class Commands:
    """Safe for threads, one for each kind."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.killed_jobs: set[str] = set()
        self.notes: list[str] = []
        self._stack = stack
        self._directory = directory
        self._lock = threading.Lock()

    def run(self, *words: str) -> Ended:
        """Without interference."""
        with self._started(words, {}) as process:
            return _ended(process)

    def end_of(self, kind: Kind, words: tuple[str, ...]) -> dict[str, Any]:
        """Run until it is done and nothing failed.

        Raises:
            AssertionError: it does not come to that.
        """
        for _ in range(RUNS):
            ended = self.run(kind.name, *words, "--json")
            if ended.code == 0 and ended.said.get("state") == "done":
                self.counts[f"{kind.name} runs to the end"] += 1
                return ended.said
            self.counts[f"{kind.name} runs with something left"] += 1
            self.notes.append(
                f"{kind.name} {' '.join(words)}: {ended.code} {json.dumps(ended.said)} {ended.complained}"
            )
        raise AssertionError(f"not done after {RUNS} runs: {self.notes[-1]}")

    def kill(self, kind: Kind, words: tuple[str, ...], chance: random.Random) -> bool:
        """One run with a kill -9 at a random moment, and now and then another one of the worker that takes its job
        over. False: it was done before that."""
        fence = self._newest(kind)
        dawdles = {name: seconds for name, seconds in kind.dawdles.items() if chance.random() < 0.5}
        with self._started((kind.name, *words, "--json"), dawdles) as process:
            self._until_taken(kind, fence, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, kind.span))
            job = self._newest(kind)
            process.kill()
            process.communicate()
        if process.returncode != -signal.SIGKILL:
            self.counts[f"{kind.name} runs done before their kill"] += 1
            return False
        self.counts[f"{kind.name} kills"] += 1
        if job:
            self.killed_jobs.add(job[0])
        if chance.random() < 0.35:
            self._kill_follower(kind, job, chance)
        return True

    def is_unfinished(self, kind: Kind) -> bool:
        """Has anybody a job of the kind to do still?"""
        query = "SELECT count(*) FROM job WHERE kind = %s AND finished_at IS NULL"
        return bool(self._stack.sql(query, kind.job)[0][0])

    def _kill_follower(self, kind: Kind, dead: tuple[str, int] | None, chance: random.Random) -> None:
        """The maintenance worker that goes on with the job."""
        deadline = time.monotonic() + TAKEN_OVER_SECONDS
        while (now := self._newest(kind)) == dead or now is None:
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        if dead is None or now[0] != dead[0]:
            return
        time.sleep(chance.uniform(0, kind.span / 2))
        with self._lock:
            pids = self._stack.pids("celery", "maintenance@")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.counts[f"{kind.name} kills of its worker"] += bool(pids)

    def _until_taken(self, kind: Kind, before: tuple[str, int] | None, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + UNDER_WAY_SECONDS
        while process.poll() is None and self._newest(kind) == before and time.monotonic() < deadline:
            time.sleep(0.05)

    def _newest(self, kind: Kind) -> tuple[str, int] | None:
        found = self._stack.sql(
            "SELECT id::text, fence FROM job WHERE kind = %s ORDER BY created_at DESC, id DESC LIMIT 1", kind.job
        )
        return found[0] if found else None

    @contextlib.contextmanager
    def _started(self, words: tuple[str, ...], dawdles: Mapping[str, float]) -> Iterator[subprocess.Popen[str]]:
        failpoints = Path(tempfile.mkdtemp(dir=self._directory))
        for name, seconds in dawdles.items():
            (failpoints / name).write_text(f"sleep {seconds}\nalways")
        with subprocess.Popen(
            [sys.executable, "-m", "cli", "storage", *words],
            cwd=ROOT,
            env=self._stack.environment | {"MILLRACE_FAILPOINTS": str(failpoints)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
        shutil.rmtree(failpoints)


def _ended(process: subprocess.Popen[str]) -> Ended:
    said, complained = process.communicate(timeout=END_SECONDS)
    try:
        told = json.loads(said)
    except ValueError:
        told = {"said": said}
    return Ended(process.returncode, told, complained[-500:])
