"""Structure is asked for side by side: bounded, in order, and one error of the store ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StoreUnavailable
from core.model import BlobFacts, Job, JobState, Replica
from pipeline.jobs import heads, verification
from pipeline.jobs.heads import Heads
from storage.interface import Stored
from storage.memory import MemoryOptions, MemoryStore
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


class Slow:
    """A `head` as it is over a network, and how many of them were under way at once."""

    def __init__(self, line: Line, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._head = line.services.store(store).head
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        monkeypatch.setattr(line.services.store(store), "head", self.head)

    def head(self, key: str) -> Stored:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        try:
            return self._head(key)
        finally:
            with self._lock:
                self._now -= 1


def test_structure_is_asked_for_side_by_side(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        line.bring(f"/bare/{number}.png", encoded(photo(40 + number, 30), "PNG"))
    store = line.services.store("main")
    keys = [one.key for one in store.scan()]
    store.delete([keys[3], keys[11]])
    slow, places = Slow(line, "main", monkeypatch), []

    def watch(job: Job) -> None:
        places.append((job.cursor.get("phase", 0), job.cursor.get("after", ""), job.progress.get("done", 0)))

    monkeypatch.setattr(verification, "ROWS", 8)
    job = run(line, verification.KIND, watch, stores=["main"], structure_only=True)
    assert job.state is JobState.DONE
    assert (job.progress["done"], job.progress["missing"]) == (20, 2)
    assert 4 < slow.most <= heads.AT_ONCE
    rows = [(after, done) for phase, after, done in places if phase == 0 and after]
    # Page by page: the cursor never runs ahead of an answer. What is missing is no row of the pages any more.
    assert [done for _, done in rows] == [8, 16, 20]
    assert [after for after, _ in rows] == sorted(after for after, _ in rows)


def test_the_first_error_of_a_store_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = MemoryStore("main", MemoryOptions()), []

    def head(key: str) -> Stored:
        asked.append(key)
        time.sleep(0.05)
        raise StoreUnavailable("it hangs")

    monkeypatch.setattr(store, "head", head)
    replicas = [Replica(BlobFacts(bytes([number]) * 32, 1, "image/png"), "main", number) for number in range(200)]
    with Heads(lambda: None) as pool, pytest.raises(StoreUnavailable):
        pool.faults(store, replicas)
    assert len(asked) < 200
