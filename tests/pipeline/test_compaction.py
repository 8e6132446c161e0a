"""Merging segments of the catalogue, crashes in between, what is forgotten and when; and taking it along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.model import JobState
from core.sections import Retention
from metadata.journal.journal_records import Deleted, Recorded
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.jobs import gc, migration, verification
from pipeline.journal import compaction, segments
from pipeline.journal.compaction import MOST_BYTES, RUN, SMALLEST_BYTES, chosen, compact
from pipeline.journal.keys import Segment
from pipeline.journal.writing import write
from tests.pipeline.catalogue_line import bring, facts, keys, line, lined
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line

__all__ = ["line"]


def numbered(*sizes: int) -> list[Segment]:
    return [Segment(number, number, size) for number, size in enumerate(sizes, start=1)]


def written(line: Line, count: int = RUN) -> None:
    for number in range(count):
        bring(line, f"/bare/{number}.jpg", number)
        write(line.services)


def paths(line: Line, store: str = "main") -> set[str]:
    return {one.asset.path for one in facts(line, store) if isinstance(one, Recorded)}


def delete(line: Line, path: str) -> None:
    deletion.delete(line.services, AssetPath.from_text(path), 0, purge=False)


def test_neighbours_of_a_like_size_are_chosen() -> None:
    small, large = 100, SMALLEST_BYTES + 1
    assert chosen(numbered(*[small] * (RUN - 1))) == []
    assert chosen(numbered(*[small] * (RUN + 1))) == numbered(*[small] * (RUN + 1))
    found = chosen(numbered(large, *[small] * RUN))
    assert [one.first for one in found] == list(range(2, RUN + 2)), "the large one waits for others of its size"
    trapped = numbered(large, small, *[large] * (RUN - 2))
    assert chosen(trapped) == trapped, "a small one between large ones goes with them"
    assert chosen(numbered(*[MOST_BYTES] * RUN)) == []
    assert sum(one.size for one in chosen(numbered(*[MOST_BYTES // 4] * RUN))) <= MOST_BYTES


def test_what_is_merged_says_the_same_with_fewer_lines(line: Line) -> None:
    written(line)
    for number in (0, 1):
        delete(line, f"/bare/{number}.jpg")
        write(line.services)
    before = {repr(one) for one in facts(line)}
    assert compact(line.services) == RUN + 2
    assert keys(line) == ["catalog/000000000001-000000000010.ndjson"]
    assert {repr(one) for one in facts(line)} == before
    store = line.services.store("main")
    [merged] = segments.current(store)
    assert segments.trailer(store, merged).lines == RUN, "an asset that is gone has one line, not two"
    assert compact(line.services) == 0
    bring(line, "/bare/next.jpg", 20)
    write(line.services)
    assert keys(line)[-1] == "catalog/000000000011-000000000011.ndjson"


def test_a_crash_after_the_merger_counts_nothing_twice(line: Line, arm: Callable[..., None]) -> None:
    written(line)
    before = {repr(one) for one in facts(line)}
    arm("catalogue.after-merge", "errno EIO")
    with pytest.raises(OSError, match="Input/output"):
        compact(line.services)
    assert len(keys(line)) == RUN + 1
    assert [one.last for one in segments.current(line.services.store("main"))] == [RUN]
    bring(line, "/bare/next.jpg", 20)
    write(line.services)
    assert len({repr(one) for one in facts(line)} - before) == 1
    compact(line.services)
    assert len(keys(line)) == 2, "what was merged is removed"


def test_tombstones_are_forgotten_when_the_database_forgets_them(tmp_path: Path, database_url: str) -> None:
    line = lined(tmp_path, database_url, retention=Retention(tombstones_days=1e-9))
    for number in range(RUN):
        bring(line, f"/{number}.jpg", number)
        write(line.services)
    delete(line, "/0.jpg")
    write(line.services)
    compact(line.services)
    assert paths(line) == {f"/{number}.jpg" for number in range(1, RUN)}
    assert not any(isinstance(one, Deleted) for one in facts(line))
    assert len(facts(line)) == (RUN - 1) * 3, "nor is told any more what was made of it"
    line.close()


def test_they_are_kept_while_an_older_line_may_lie_elsewhere(tmp_path: Path, database_url: str) -> None:
    line = lined(tmp_path, database_url, retention=Retention(tombstones_days=1e-9))
    bring(line, "/bare/0.jpg")
    write(line.services)
    with segments.draft(tmp_path) as old:
        with line.services.store("main").open(keys(line)[0]) as body:
            old.copy(body)
        segments.append(line.services.store("far"), old)
    delete(line, "/bare/0.jpg")
    written(line)
    compact(line.services)
    assert len(keys(line)) < RUN
    assert any(isinstance(one, Deleted) for one in facts(line))
    line.close()


def test_a_damaged_segment_is_left_as_it_is(line: Line, tmp_path: Path) -> None:
    written(line)
    damaged = sorted((tmp_path / "main").rglob("*.ndjson"))[3]
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert compact(line.services) == 0
    assert len(keys(line)) == RUN


def test_a_run_that_changes_under_the_merger_is_left_for_the_next_time(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(line)
    store = line.services.store("main")
    gone = segments.current(store)[2].key
    kept = compaction.chosen

    def taken(found: list[Segment]) -> object:
        run = kept(found)
        store.delete([gone])
        return run

    monkeypatch.setattr(compaction, "chosen", taken)
    assert compact(line.services) == 0


@pytest.mark.parametrize("remove", [True, False])
def test_a_migration_takes_it_along(line: Line, remove: bool) -> None:
    written(line, 3)
    before = {repr(one) for one in facts(line)}
    done = run(line, migration.KIND, source="main", target="far", delete_source=remove)
    assert done.state is JobState.DONE
    assert {repr(one) for one in facts(line, "far")} == before
    assert len(keys(line)) == (0 if remove else 3)
    bring(line, "/bare/next.jpg", 20)
    write(line.services)
    assert "/bare/next.jpg" in paths(line, "far")


def test_a_migration_that_dies_while_it_takes_it_along_loses_nothing(line: Line, arm: Callable[..., None]) -> None:
    written(line, 3)
    before = {repr(one) for one in facts(line)}
    arm("catalogue.after-carry", "errno EIO")
    failed = run(line, migration.KIND, source="main", target="far", delete_source=True)
    assert failed.state is JobState.FAILED
    done = run(line, migration.KIND, source="main", target="far", delete_source=True)
    assert done.state is JobState.DONE
    assert {repr(one) for one in facts(line, "far")} == before
    assert keys(line) == []


def test_gc_and_verify_count_it_as_what_it_is(line: Line) -> None:
    written(line, 2)
    for kind in (gc.KIND, verification.KIND):
        done = run(line, kind)
        assert done.state is JobState.DONE
        assert [done.progress[name] for name in ("catalogue", "foreign", "orphans")] == [2, 0, 0]
    assert len(keys(line)) == 2
