from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from core.model import JobState
from core.sections import Variants
from pipeline.jobs import kinds, orphans
from pipeline.replicas import repair
from pipeline.services import NoHints
from tasks import maintenance
from tests.pictures import encoded, photo
from tests.pipeline.line import Line


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application reads its settings at the first look at one of its tasks."""
    monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://127.0.0.1:1/0")


class Told(NoHints):
    def __init__(self) -> None:
        self.sources: list[bytes] = []
        self.repairs = 0

    def derive(self, source: bytes, *, interactive: bool) -> None:
        assert not interactive
        self.sources.append(source)

    def repair(self) -> None:
        self.repairs += 1


def test_waiting_variants_are_waked_up_to_a_window_less_what_waits_in_the_queue(
    tmp_path: Path, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path, database_url, redis_url=redis_url, variants=Variants(eager="fleet"))
    for width in (30, 31, 32):
        line.bring("/a.png", encoded(photo(width, 20), "PNG"))
    told = Told()
    monkeypatch.setattr(maintenance, "services", lambda: replace(line.services, hints=told))
    monkeypatch.setattr(maintenance, "WINDOW", 5)
    client = redis.Redis.from_url(redis_url)
    heard = []
    for _ in range(3):
        maintenance.wake_variants.run()
        heard.append(len(told.sources))
        told.sources.clear()
        client.lpush("millrace:variants.eager", *[b"{}"] * 3)
    assert heard == [3, 2, 0]
    client.close()
    line.close()


def test_with_the_broker_away_nobody_is_waked(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path, database_url, redis_url="redis://127.0.0.1:1/0")
    monkeypatch.setattr(maintenance, "services", lambda: line.services)
    maintenance.wake_variants.run()
    line.close()


def test_one_turn_is_enough_for_many_short_jobs(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path, database_url)
    monkeypatch.setattr(maintenance, "services", lambda: line.services)
    created = [kinds.create(line.services, orphans.KIND, {"grace_seconds": 60 + number}) for number in range(3)]
    maintenance.run_jobs.run()
    found = [line.services.metadata.jobs.find(job.id) for job in created]
    assert all(job is not None and job.state not in (JobState.QUEUED, JobState.RUNNING) for job in found)
    line.close()


@pytest.mark.parametrize(("repaired", "hints"), [(0, 0), (repair.BATCH - 1, 0), (repair.BATCH, 1)])
def test_who_repaired_as_many_as_one_turn_allows_wakes_up_the_next(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, repaired: int, hints: int
) -> None:
    line, told = Line(tmp_path, database_url), Told()
    monkeypatch.setattr(maintenance, "services", lambda: replace(line.services, hints=told))
    monkeypatch.setattr(repair, "repair", lambda _services: repaired)
    maintenance.repair_replicas.run()
    assert told.repairs == hints
    line.close()
