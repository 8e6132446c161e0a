"""Runs of the demotion rules that die at each step, and many things at once: no byte is lost and nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from core.model import Asset, Job, JobState
from pipeline.jobs import demotion
from pipeline.jobs.registry import create
from pipeline.replicas import copying
from pipeline.uploads.ingest import Outcome
from tests.pictures import encoded, photo
from tests.pipeline import job_runs
from tests.pipeline.line import Line
from tests.pipeline.policy_line import MAIN_TO_FAR, demote, execute, homes, ruled
from tests.pipeline.test_placement import delete, held_by, read

CODE = """
import os, sys
from pathlib import Path
from uuid import UUID
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from tests.pipeline.policy_line import MAIN_TO_FAR, ruled

for _ in sys.stdin:
    child = os.fork()
    if not child:
        made = ruled(Path(sys.argv[1]), sys.argv[2], MAIN_TO_FAR)
        jobs.run(made.services, KINDS, UUID(sys.argv[3]))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""For each line that it reads a process of its own goes on with the job, and it says how that one ended."""


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = ruled(tmp_path, database_url, MAIN_TO_FAR)
    yield made
    made.close()


@contextmanager
def processes(line: Line, home: Path, job: Job) -> Iterator[Callable[[], int]]:
    url = line.settings.database_url
    assert url is not None
    command = [sys.executable, "-c", CODE, str(home), url.get_secret_value(), str(job.id)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forking:
        assert forking.stdin
        assert forking.stdout
        given, said = forking.stdin, forking.stdout

        def go_on() -> int:
            print(file=given, flush=True)
            return int(said.readline())

        yield go_on


def bring(line: Line, count: int) -> list[tuple[Asset, bytes]]:
    bodies = [encoded(photo(40 + number, 30), "JPEG") for number in range(count)]
    return [(line.bring(f"/bare/{number}.jpg", body), body) for number, body in enumerate(bodies)]


STEPS = (
    "job.after-step",
    "demote.after-begin",
    "copy.after-begin",
    "copy.after-put",
    "demote.after-copy",
    "demote.before-commit",
    "demote.after-commit",
    "gc.after-delete",
)


def test_killed_at_each_step_in_turn_it_is_gone_on_with(line: Line, tmp_path: Path, arm: Callable[..., None]) -> None:
    brought = bring(line, len(STEPS))
    job = create(line.services, demotion.KIND, {})
    with processes(line, tmp_path, job) as go_on:
        for step in STEPS:
            arm(step, "kill")
            assert go_on() == -signal.SIGKILL, step
            for asset, body in brought:
                assert read(line, asset) == body, f"after {step}"
            execute(line, "UPDATE job SET lease_until = now()")  # as if time had passed
    done = job_runs.go_on(line, job.id)
    assert (done.state, done.progress["failed"], done.progress["postponed"]) == (JobState.DONE, 0, 0)
    line.collect()
    for asset, body in brought:
        assert read(line, asset) == body
        assert (held_by(line, asset.blob), homes(line, asset.blob)) == (["far"], {"far": "main"})
    assert list(line.services.store("main").scan()) == []
    assert len(list(line.services.store("far").scan())) == len(brought)


def test_a_move_that_nobody_ends_leaves_nothing(
    line: Line, tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is cancelled in the middle, and by then the rules want something else."""
    [(asset, body)] = bring(line, 1)

    def interrupted(*given: Any, **named: Any) -> None:
        copying.copy(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(demotion, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job_runs.run(line, demotion.KIND)
    [job] = line.services.metadata.jobs.newest(1)
    line.services.metadata.jobs.wish(job.id, "cancel")
    assert homes(line, asset.blob) == {"far": "main", "main": "main"}
    changed = ruled(tmp_path, database_url, {**MAIN_TO_FAR, "pinned": ["/bare/**"]})
    changed.put_rules_in_force()
    assert demote(changed).progress["moved"] == 0
    changed.collect()
    assert homes(changed, asset.blob) == {"main": "main"}
    assert list(changed.services.store("far").scan()) == []
    assert read(changed, asset) == body
    changed.close()


class Crowd:
    """Uploads, deletions, gc and runs of the rules, at once over a few bodies, until something was moved."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.bodies = [encoded(photo(40 + number, 30), "JPEG") for number in range(8)]
        self.wrong: list[str] = []
        self.moved = 0
        self.began = time.monotonic()

    def run(self) -> None:
        work: list[Callable[[], None]] = [
            *(partial(self.upload, number) for number in range(3)),
            self.demote,
            self.collect,
        ]
        with ThreadPoolExecutor(len(work)) as pool:
            for ended in [pool.submit(one) for one in work]:
                ended.result()

    def under_way(self) -> bool:
        seconds = time.monotonic() - self.began
        return seconds < 2 or (self.moved < 5 and seconds < 60)

    def upload(self, number: int) -> None:
        """Each thread has its own path, and all share the bytes."""
        living: list[Asset] = []
        for body in cycle(self.bodies):
            if not self.under_way():
                break
            manifest = self.line.accept(f"/bare/{number}", body)
            while self.line.ingest(manifest.id) is not Outcome.STORED:
                time.sleep(0.01)
            asset = self.line.services.metadata.assets.by_id(manifest.asset_id)
            assert asset is not None
            if read(self.line, asset) != body:
                self.wrong.append(asset.path)
            living.append(asset)
            if len(living) > 4:  # what moves was there when a run began
                delete(self.line, living.pop(0))
        for asset in living:
            delete(self.line, asset)

    def demote(self) -> None:
        while self.under_way():
            job = job_runs.run(self.line, demotion.KIND)
            self.moved += job.progress.get("moved", 0)

    def collect(self) -> None:
        while self.under_way():
            self.line.collect()


def test_uploads_deletions_gc_and_runs_at_once_lose_nothing(line: Line) -> None:
    crowd = Crowd(line)
    crowd.run()
    assert crowd.wrong == []
    assert crowd.moved > 0
    kept = [line.bring(f"/bare/kept/{number}", body) for number, body in enumerate(crowd.bodies)]
    demote(line)
    line.collect()
    assert [read(line, asset) for asset in kept] == crowd.bodies
    assert [held_by(line, asset.blob) for asset in kept] == [["far"]] * len(kept)
    assert list(line.services.store("main").scan()) == []
    for asset in kept:
        delete(line, asset)
    line.collect()
    assert list(line.services.store("far").scan()) == []
