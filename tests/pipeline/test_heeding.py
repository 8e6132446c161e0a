"""In the middle of one body, however long it takes, a job hears its end, and what it has begun is repeatable."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from core.errors import StoreUnavailable
from core.model import Asset, Job, JobState
from core.sections import Placement
from pipeline.jobs import applying, demotion, heads, live_progress, migration, verification
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create
from pipeline.leaving import give_everything_back
from pipeline.replicas.repair import repair
from storage import throttle
from storage.interface import Stored
from storage.object_keys import MARKER
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import go_on
from tests.pipeline.line import Line
from tests.pipeline.policy_line import MAIN_TO_FAR, age, execute, ruled

BODY = encoded(photo(1000, 800), "PNG")
GENTLE = 0.001
"""The rate, in MB/s, at which the body takes minutes."""

Case = tuple[str, Mapping[str, object], Callable[[Line, Asset], None]]


def nothing(line: Line, asset: Asset) -> None:
    pass


def is_lost_in_far(line: Line, asset: Asset) -> None:
    there, _ = line.services.metadata.repairs.ensure(asset.blob.sha256, "far", migration.LEASE)
    line.services.metadata.repairs.failed(there, "not there", migration.LEASE)


def is_in_far_unverified(line: Line, asset: Asset) -> None:
    is_lost_in_far(line, asset)
    execute(line, "UPDATE replica SET next_check_at = now() WHERE state = 'missing'")
    assert repair(line.services) == 1
    execute(line, "UPDATE replica SET last_verified_at = now() - interval '1 hour'")


MOVE = {"source": "main", "target": "far"}
CASES: Mapping[str, Case] = {
    "copying": (migration.KIND, MOVE, nothing),
    "checking what is there": (migration.KIND, {**MOVE, "delete_source": True}, is_in_far_unverified),
    "verifying": (verification.KIND, {"stores": ["main"]}, nothing),
    "repairing": (verification.KIND, {"stores": ["far"]}, is_lost_in_far),
    "demoting": (demotion.KIND, {}, nothing),
}


@pytest.fixture
def line(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(live_progress, "LIVE_SECONDS", 0.1)
    monkeypatch.setattr(throttle, "ASK_SECONDS", 0.05)
    made = ruled(tmp_path, database_url, MAIN_TO_FAR)
    yield made
    made.close()


@pytest.fixture
def asset(line: Line) -> Asset:
    made = line.bring("/bare/large.png", BODY)
    age(line, made, days=100)
    return made


def wish(word: jobs.Wish) -> Callable[[Line, Job], object]:
    return lambda line, job: line.services.metadata.jobs.wish(job.id, word)


def in_other_hands(line: Line, job: Job) -> None:
    execute(line, "UPDATE job SET fence = fence + 1 WHERE id = :id", id=job.id)


def let_go(line: Line, job: Job) -> None:
    give_everything_back()


ENDS: Mapping[str, tuple[Callable[[Line, Job], object], JobState]] = {
    "paused": (wish("pause"), JobState.PAUSED),
    "cancelled": (wish("cancel"), JobState.CANCELLED),
    "in other hands": (in_other_hands, JobState.RUNNING),
    "told to go": (let_go, JobState.QUEUED),
}


class Running:
    """A job in a thread, as one of the maintenance worker."""

    def __init__(self, line: Line, job: Job) -> None:
        self.ended: list[Job | None] = []
        self._thread = threading.Thread(
            target=lambda: self.ended.append(jobs.run(line.services, KINDS, job.id)), daemon=True
        )
        self._thread.start()

    def is_over(self) -> bool:
        self._thread.join(30)
        return not self._thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    last = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.01)


MANY = 4
COUNTED: Mapping[str, tuple[str, Mapping[str, object]]] = {
    migration.KIND: ("copied", MOVE),
    demotion.KIND: ("moved", {}),
    applying.KIND: ("copied", {}),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_what_was_settled_before_a_pause_is_counted(line: Line, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no step came between."""
    counter, arguments = COUNTED[kind]
    for module in (migration, demotion, applying):
        monkeypatch.setattr(module, "STEP_SECONDS", 100)
    for number in range(MANY):
        age(line, line.bring(f"/bare/{number}.jpg", encoded(photo(40 + number, 30), "JPEG")), days=100)
    if kind == applying.KIND:
        rule = Placement(match="/bare/**", store="main", replicas=("far",))
        assert line.settings.database_url is not None
        line = ruled(line.settings.home, line.settings.database_url.get_secret_value(), placement=(rule,))
        line.put_rules_in_force()

    job = create(line.services, kind, {**arguments, "max_mb_s": GENTLE})
    running = Running(line, job)
    far = "SELECT 1 FROM replica WHERE store = 'far' AND state = 'healthy'"
    until(lambda: execute(line, far))
    line.services.metadata.jobs.wish(job.id, "pause")
    assert running.is_over()
    paused = line.services.metadata.jobs.find(job.id)
    assert paused is not None
    assert paused.state is JobState.PAUSED
    assert 1 <= paused.progress[counter] < MANY
    line.services.metadata.jobs.wish(paused.id, "resume")
    done = go_on(line, paused.id)
    assert (done.state, done.progress[counter], done.progress["done"]) == (JobState.DONE, MANY, MANY)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("case", CASES)
def test_a_job_hears_its_end_in_the_middle_of_a_body(
    line: Line, asset: Asset, tmp_path: Path, case: str, end: str
) -> None:
    kind, arguments, prepare = CASES[case]
    prepare(line, asset)
    before = files(tmp_path)
    job = create(line.services, kind, {**arguments, "max_mb_s": GENTLE})
    running = Running(line, job)
    until(lambda: _flows(line, job))
    tell, state = ENDS[end]
    tell(line, job)
    assert running.is_over()
    found = line.services.metadata.jobs.find(job.id)
    assert found is not None
    assert (found.state, found.wish) == (state, None)
    assert files(tmp_path) == before, "nothing is left of what was begun"
    if state is JobState.CANCELLED:
        return
    arguments = json.dumps({**job.arguments, "max_mb_s": None})
    again = "state = 'queued', lease_until = NULL"
    execute(line, f"UPDATE job SET arguments = :new, {again} WHERE id = :id", new=arguments, id=job.id)
    done = jobs.run(line.services, KINDS, job.id)
    assert done is not None
    assert (done.state, done.error, done.progress.get("failed", 0)) == (JobState.DONE, None, 0)
    assert BODY in [path.read_bytes() for path in tmp_path.glob("*/objects/*/*/*")]


def _flows(line: Line, job: Job) -> bool:
    """Held, and some of its bytes have passed: its thread is in the body."""
    found = line.services.metadata.jobs.find(job.id)
    return found is not None and found.state is JobState.RUNNING and bool(_throttles())


def _throttles() -> list[str]:
    """Threads that wait for their turn to let bytes pass."""
    found = []
    for frame in sys._current_frames().values():
        names = set()
        at: Any = frame
        while at is not None:
            names.add(at.f_code.co_name)
            at = at.f_back
        if {"spend", "rest"} <= names:
            found.append("waits")
    return found


def files(home: Path) -> dict[str, int]:
    """Return the size of every file in the stores but for the markers, which a store gets when it is first used."""
    found = (path for name in ("main", "fast", "far") for path in (home / name).rglob("*"))
    return {
        str(path.relative_to(home)): path.stat().st_size for path in found if path.is_file() and path.name != MARKER
    }


@pytest.mark.parametrize("end", ENDS)
def test_a_job_hears_its_end_while_a_store_hangs_over_a_page(
    line: Line, asset: Asset, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    store, asked, goes_on = line.services.store("main"), threading.Event(), threading.Event()
    head = store.head

    def hang(key: str) -> Stored:
        asked.set()
        assert goes_on.wait(60)
        return head(key)

    monkeypatch.setattr(store, "head", hang)
    monkeypatch.setattr(heads, "ASK_SECONDS", 0.05)
    job = create(line.services, verification.KIND, {"stores": ["main"], "structure_only": True})
    running = Running(line, job)
    assert asked.wait(30)
    tell, state = ENDS[end]
    tell(line, job)
    assert running.is_over()
    goes_on.set()
    found = line.services.metadata.jobs.find(job.id)
    assert found is not None
    assert found.state is state


def test_a_job_hears_its_end_while_it_waits_for_a_store_that_is_away(
    line: Line, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def away(key: str) -> Stored:
        asked.set()
        raise StoreUnavailable("away")

    monkeypatch.setattr(line.services.store("main"), "head", away)
    monkeypatch.setattr(verification, "TRY_SECONDS", 3600)
    job = create(line.services, verification.KIND, {"stores": ["main"]})
    running = Running(line, job)
    assert asked.wait(30)
    time.sleep(0.2)
    line.services.metadata.jobs.wish(job.id, "cancel")
    assert running.is_over()
    found = line.services.metadata.jobs.find(job.id)
    assert found is not None
    assert found.state is JobState.CANCELLED
