from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis

import pipeline.maintenance
from core.model import BlobFacts, JobState
from core.queues import EAGER
from core.sections import Placement, Variants
from pipeline.installation import redis_prefix
from pipeline.jobs import gc, registry
from pipeline.replicas import repair
from pipeline.services import NoHints
from tasks import maintenance
from tasks.queues import WINDOWS
from tests.pictures import encoded, photo
from tests.pipeline.line import WORK, Line

pytestmark = pytest.mark.usefixtures("application")


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
    line.services.installation.ask()
    monkeypatch.setitem(WINDOWS, EAGER, 5)
    client = redis.Redis.from_url(redis_url)
    heard = []
    for _ in range(3):
        maintenance.wake_variants.run()
        heard.append(len(told.sources))
        told.sources.clear()
        client.lpush(f"{redis_prefix(line.settings)}{EAGER}", *[b"{}"] * 3)
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
    created = [registry.create(line.services, gc.KIND, {"grace_seconds": 60 + number}) for number in range(3)]
    maintenance.run_jobs.run()
    found = [line.services.metadata.jobs.find(job.id) for job in created]
    assert all(job is not None and job.state not in (JobState.QUEUED, JobState.RUNNING) for job in found)
    line.close()


@pytest.mark.parametrize("lost", [0, 3, 9])
def test_repair_goes_on_while_something_is_due_whatever_became_of_it(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Repair a store that lost everything, without a word from beat. What has no source left does not keep the others,
    is tried ever more seldom, and is history once."""
    stores = {name: {"kind": "filesystem", "root": str(tmp_path / name)} for name in ("main", "away")}
    rule = Placement(match="/**", store="main", replicas=("away",))
    work = WORK.model_copy(update={"backoff_seconds": 60, "backoff_cap_seconds": 60})
    line, told = Line(tmp_path, database_url, stores=stores, placement=(rule,), work=work), Told()
    monkeypatch.setattr(maintenance, "services", lambda: replace(line.services, hints=told))
    monkeypatch.setattr(repair, "BATCH", 4)
    assets = [line.bring(f"/bare/{n}.png", encoded(photo(30 + n, 20), "PNG")) for n in range(9)]
    for number, asset in enumerate(assets):
        for one in line.services.metadata.blobs.replicas(asset.blob.sha256):
            if one.store == "away" or number < lost:
                line.services.store(one.store).delete([one.key])
                line.services.metadata.repairs.mark(one, "missing", "lost")
    runs = 0
    while runs == 0 or told.repairs == runs:
        maintenance.repair_replicas.run()
        runs += 1
        assert runs < 20
    assert sql(database_url, "SELECT count(*) FROM replica WHERE state = 'healthy'") == [(2 * (9 - lost),)]
    failed = "FROM replica WHERE state <> 'healthy' AND failed_checks = 1 AND next_check_at > now()"
    assert sql(database_url, f"SELECT count(*) {failed}") == [(2 * lost,)]
    for _ in range(3):
        sql(database_url, "UPDATE replica SET next_check_at = now() WHERE state = 'missing'")
        maintenance.repair_replicas.run()
    assert sql(database_url, "SELECT count(*) FROM verify_event WHERE result = 'unrepaired'") == [(2 * lost,)]
    line.close()


@pytest.mark.parametrize("task", ["collect_garbage", "give_up_reservations"])
def test_a_sweep_goes_on_while_there_was_as_much_as_it_takes_at_once(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    line = Line(tmp_path, database_url)
    monkeypatch.setattr(maintenance, "services", lambda: line.services)
    monkeypatch.setattr(pipeline.maintenance, "BATCH", 2)
    blobs = [BlobFacts(bytes([number]) * 32, 10, "image/png") for number in range(7)]
    line.services.metadata.blobs.reserve([(one, "main") for one in blobs], timedelta(0))
    maintenance.give_up_reservations.run()
    if task == "collect_garbage":
        maintenance.collect_garbage.run()
    counts = "SELECT (SELECT count(*) FROM replica), (SELECT count(*) FROM garbage), (SELECT count(*) FROM blob)"
    assert sql(database_url, counts) == [(0, 0, 0) if task == "collect_garbage" else (0, 7, 7)]
    line.close()


@pytest.mark.parametrize(("with_source", "most"), [(True, 256), (False, 4096)])
def test_what_has_no_source_left_is_tried_more_seldom(
    tmp_path: Path, database_url: str, *, with_source: bool, most: int
) -> None:
    line = Line(tmp_path, database_url)
    asset = line.bring("/bare/a.png", encoded(photo(30, 20), "PNG"))
    [one] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    away, _ = line.services.metadata.repairs.ensure(asset.blob.sha256, "away", timedelta(0))
    if not with_source:
        line.services.metadata.repairs.mark(one, "missing", "lost")
    found = []
    for _ in range(15):
        line.services.metadata.repairs.failed(away, "not now", timedelta(seconds=1))
        [(seconds,)] = sql(
            database_url, "SELECT round(extract(epoch FROM next_check_at - now())) FROM replica WHERE store = 'away'"
        )
        found.append(int(seconds))
    assert found[0] <= 1
    assert max(found) in range(most - 5, most + 1)
    line.close()


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Past everything that is tested."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []
