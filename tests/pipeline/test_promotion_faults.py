"""Copies for faster reading that die on their way, cannot be made, rot, or are in the way of others."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from core.model import JobState
from core.sections import Demotion, Placement
from pipeline.jobs import migration, verification
from pipeline.replicas import quarantine, repair
from pipeline.stores import read_tracking
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.policy_line import demote, homes
from tests.pipeline.test_placement import PICTURE, delete, held_by, read, stores
from tests.pipeline.test_promotion import HOT, copies, pictures, promoted, tiered, write

_REPAIR = """
import sys
from pathlib import Path
from pipeline.replicas import repair
from tests.pipeline.test_promotion import tiered

repair.repair(tiered(Path(sys.argv[1]), sys.argv[2]).services)
"""


@pytest.fixture
def line(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 3600.0)
    made = tiered(tmp_path, database_url)
    yield made
    made.close()


def wished(line: Line, count: int) -> None:
    for asset in pictures(line, count):
        read(line, asset)
    write(line)


def due_now(database_url: str) -> None:
    """Leases of dead copiers have ended."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE replica SET next_check_at = now() WHERE next_check_at IS NOT NULL")
    connection.close()


@pytest.mark.parametrize("step", ["copy.after-begin", "copy.after-put"])
def test_a_copier_that_is_killed_is_followed_and_nothing_dangles(
    line: Line, tmp_path: Path, database_url: str, arm: Callable[..., None], step: str
) -> None:
    wished(line, 3)
    arm(step, "kill")
    command = [sys.executable, "-c", _REPAIR, str(tmp_path), database_url]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert len(copies(line)) == 3, "they count, filled or not"
    due_now(database_url)
    assert repair.repair(line.services) == 3
    line.collect()
    assert sorted(one.key for one in copies(line)) == [one.key for one in line.services.store("fast").scan()]
    assert all(held_by(line, one.blob) == ["far", "fast"] for one in copies(line))


def test_a_store_that_takes_no_copies_is_given_up_and_no_trouble(line: Line, tmp_path: Path, database_url: str) -> None:
    wished(line, 1)
    full = tiered(tmp_path, database_url, min_free_bytes="1000TiB")
    for left in (1, 1, 0):
        assert repair.repair(full.services, limit=1) == 0
        assert len(copies(line)) == left
        due_now(database_url)
    assert repair.repair(full.services) == 0
    full.close()


def test_a_copy_on_its_way_is_not_what_verifying_mends(line: Line, tmp_path: Path, database_url: str) -> None:
    wished(line, 1)
    line.services.recognitions["fast"].look()  # it was marked while there was room
    full = tiered(tmp_path, database_url, min_free_bytes="1000TiB")
    job = run(full, verification.KIND)
    assert {name: job.progress[name] for name in ("missing", "corrupt", "repaired", "failed")} == {
        "missing": 0,
        "corrupt": 0,
        "repaired": 0,
        "failed": 0,
    }
    assert quarantine.verdict(full.services, job).good
    full.close()


@pytest.mark.parametrize("found", ["missing", "rotten"])
def test_a_copy_that_is_lost_is_no_loss(line: Line, found: str, tmp_path: Path) -> None:
    [asset] = promoted(line, *pictures(line, 1))
    [file] = (tmp_path / "fast" / "objects").rglob(f"{asset.blob.sha256.hex()}.*")
    file.unlink() if found == "missing" else file.write_bytes(bytes(asset.blob.size))
    job = run(line, verification.KIND)
    assert (job.progress["missing"], job.progress["corrupt"], job.progress["failed"]) == (0, 0, 0)
    assert quarantine.verdict(line.services, job).good
    assert copies(line) == []
    assert len(read(line, asset)) == asset.blob.size
    write(line)
    assert repair.repair(line.services) == 1
    assert held_by(line, asset.blob) == ["far", "fast"]


def test_a_read_that_misses_a_copy_goes_to_the_next_replica(line: Line) -> None:
    [asset] = promoted(line, *pictures(line, 1))
    [copy] = copies(line)
    line.services.store("fast").delete([copy.key])
    assert len(read(line, asset)) == asset.blob.size
    assert copies(line) == []
    assert held_by(line, asset.blob) == ["far"]


def test_a_copy_is_what_a_lost_original_is_mended_from(line: Line, tmp_path: Path) -> None:
    [asset] = promoted(line, *pictures(line, 1))
    [far] = [one for one in line.services.metadata.blobs.replicas(asset.blob.sha256) if one.store == "far"]
    line.services.store("far").delete([far.key])
    assert line.services.metadata.repairs.mark(far, "missing", "gone") == "marked"
    assert line.services.metadata.tiers.evict("fast", 0, line.services.rules) == 0, "the last good bytes"
    assert repair.repair(line.services) == 1
    assert held_by(line, asset.blob) == ["far", "fast"]


def test_moving_away_from_a_hot_store_takes_what_rules_asked_for(line: Line) -> None:
    assets = promoted(line, *pictures(line, 2))
    line.services.metadata.repairs.ensure(assets[0].blob.sha256, "fast", repair.LEASE)
    assert len(copies(line)) == 1
    job = run(line, migration.KIND, source="fast", target="main", delete_source=True)
    assert (job.state, job.progress["copied"], job.progress["removed"]) == (JobState.DONE, 1, 2)
    assert list(line.services.store("fast").scan()) == []
    assert [held_by(line, asset.blob) for asset in assets] == [["far", "main"], ["far"]]


def test_a_deleted_asset_leaves_no_copy(line: Line) -> None:
    kept, gone = promoted(line, *pictures(line, 2))
    delete(line, gone)
    line.collect()
    assert [one.blob.sha256 for one in copies(line)] == [kept.blob.sha256]
    assert len(list(line.services.store("fast").scan())) == len(list(line.services.store("far").scan())) == 1


def test_what_a_policy_moved_away_comes_back_as_a_copy_and_goes_round_no_more(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_tracking, "WRITE_SECONDS", 3600.0)
    rule = Demotion.model_validate({"from": "fast", "to": "far"})
    places = stores(tmp_path, fast=HOT, far={"tier": "cold"})
    line = Line(tmp_path, database_url, stores=places, placement=(Placement(store="fast"),), demotion=(rule,))
    one, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/b.jpg", PICTURE)
    assert demote(line).progress["moved"] == 1
    assert (held_by(line, one.blob), copies(line)) == (["far"], [])
    promoted(line, one)
    assert [copy.blob for copy in copies(line)] == [one.blob]
    assert demote(line).progress["total"] == 0
    delete(line, other)
    line.collect()
    assert (held_by(line, one.blob), homes(line, one.blob)) == (["far", "fast"], {"far": "fast"})
    line.bring("/bare/c.jpg", PICTURE)
    line.collect()
    assert (copies(line), homes(line, one.blob)["fast"]) == ([], "fast")
    line.close()
