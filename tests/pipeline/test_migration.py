"""Moving a store's replicas to another: online, killed and gone on with, verified, and the source emptied."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import BadRequest, StoreUnavailable
from core.model import Asset, Job, JobState
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.jobs import migration
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create, find
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import held_by, lined, read


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def pictures(line: Line, count: int, path: str = "/bare") -> list[tuple[Asset, bytes]]:
    bodies = [encoded(photo(40 + number, 30), "JPEG") for number in range(count)]
    return [(line.bring(f"{path}/{number}.jpg", body), body) for number, body in enumerate(bodies)]


def migrate(line: Line, watch: Callable[[Job], None] = lambda job: None, **arguments: object) -> Job:
    job = line.services.metadata.jobs.create(migration.KIND, {"source": "main", "target": "far", **arguments})
    done = jobs.run(line.services, KINDS, job.id, watch=watch)
    assert done is not None
    return done


def test_everything_is_at_the_target_and_nothing_at_the_source(line: Line) -> None:
    brought = [*pictures(line, 5), (line.bring("/a.jpg", encoded(photo(), "JPEG")), encoded(photo(), "JPEG"))]
    job = migrate(line, delete_source=True)
    assert job.state is JobState.DONE
    assert (job.progress["total"], job.progress["copied"], job.progress["removed"]) == (8, 8, 8)
    assert job.progress["done_bytes"] == job.progress["total_bytes"] > 0
    for asset, body in brought:
        assert held_by(line, asset.blob) == ["far"]
        assert read(line, asset) == body
    assert list(line.services.store("main").scan()) == []


def test_without_delete_source_both_have_it(line: Line) -> None:
    [(asset, _)] = pictures(line, 1)
    assert migrate(line).state is JobState.DONE
    assert held_by(line, asset.blob) == ["far", "main"]


def test_new_uploads_go_to_the_target_while_and_after(line: Line) -> None:
    pictures(line, 30)
    during: list[Asset] = []

    def upload(job: Job) -> None:
        during.append(line.bring(f"/during/{len(during)}.jpg", encoded(photo(60, 60 + len(during)), "JPEG")))

    time.sleep(1.1)  # what this process knows of its stores is a second old at most
    job = migrate(line, upload, delete_source=True)
    assert job.state is JobState.DONE
    after = line.bring("/after.jpg", encoded(photo(99, 99), "JPEG"))
    assert len(during) >= 2
    assert all(held_by(line, asset.blob) == ["far"] for asset in [*during, after])
    assert list(line.services.store("main").scan()) == []


def test_what_is_wrong_at_the_target_is_not_believed(line: Line, tmp_path: Path) -> None:
    [(asset, body)] = pictures(line, 1)
    migrate(line)
    [far] = (tmp_path / "far" / "objects").rglob(f"{asset.blob.sha256.hex()}.*")
    far.write_bytes(body[:-1] + b"?")
    job = migrate(line, delete_source=True)
    assert job.state is JobState.DONE
    assert (job.progress["copied"], job.progress["removed"]) == (1, 1)
    assert read(line, asset) == body
    assert held_by(line, asset.blob) == ["far"]


def test_what_cannot_be_read_stays_where_it_is_and_is_told(line: Line) -> None:
    brought = pictures(line, 3)
    [replica] = line.services.metadata.blobs.replicas(brought[0][0].blob.sha256)
    line.services.store("main").delete([replica.key])
    job = migrate(line, delete_source=True)
    assert job.state is JobState.DONE
    assert (job.progress["copied"], job.progress["failed"]) == (2, 1)
    assert [one.key for one in line.services.metadata.stores.page("main", b"", 10)] == [replica.key]


def test_the_rate_is_limited(line: Line) -> None:
    pictures(line, 4)
    began = time.monotonic()
    job = migrate(line, max_mb_s=job_rate(line, seconds=2))
    assert job.state is JobState.DONE
    assert time.monotonic() - began > 1.4  # the last body starts when those before it are paid for


def job_rate(line: Line, seconds: float) -> float:
    return line.services.metadata.stores.count("main", b"").size / 1e6 / seconds


def test_a_job_is_paused_gone_on_with_and_cancelled(line: Line) -> None:
    brought = pictures(line, 50)
    wishes = line.services.metadata.jobs.wish

    def pause(job: Job) -> None:
        if job.progress:
            wishes(job.id, "pause")

    paused = migrate(line, pause)
    assert paused.state is JobState.PAUSED
    assert 0 < paused.progress["copied"] < len(brought)
    assert jobs.run(line.services, KINDS, paused.id) is None
    wishes(paused.id, "resume")
    ended = jobs.run(line.services, KINDS, paused.id, watch=lambda job: wishes(job.id, "cancel") and None)
    assert ended is not None
    assert ended.state is JobState.CANCELLED
    assert ended.progress["copied"] > paused.progress["copied"]
    assert wishes(ended.id, "resume") == ended


def test_a_turn_that_is_over_leaves_the_rest_to_the_next(line: Line) -> None:
    brought = pictures(line, 50)
    created = create(line.services, migration.KIND, {"source": "main", "target": "far"})
    turns = 0
    while not find(line.services, created.id).state.ended:
        jobs.run(line.services, KINDS, seconds=0)
        turns += 1
    assert turns > 2
    assert all(held_by(line, asset.blob) == ["far", "main"] for asset, _ in brought)


def test_interrupted_it_is_paused(line: Line) -> None:
    pictures(line, 30)

    def interrupt(job: Job) -> None:
        if job.progress:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate(line, interrupt)
    [job] = line.services.metadata.jobs.newest(10)
    assert job.state is JobState.PAUSED


def test_the_same_migration_is_one_job(line: Line) -> None:
    one = create(line.services, migration.KIND, {"source": "main", "target": "far"})
    again = create(line.services, migration.KIND, {"target": "far", "source": "main", "delete_source": False})
    assert again == one
    assert create(line.services, migration.KIND, {"source": "main", "target": "fast"}).id != one.id


@pytest.mark.parametrize(
    "arguments",
    [
        {"source": "main", "target": "main"},
        {"source": "main", "target": "nowhere"},
        {"source": "main"},
        {"source": "main", "target": "far", "speed": 1},
        {"source": "main", "target": "far", "max_mb_s": 0},
    ],
)
def test_arguments_that_cannot_work_are_refused(line: Line, arguments: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        create(line.services, migration.KIND, arguments)


@pytest.mark.parametrize(
    "step",
    [
        "migrate.after-drain",
        "copy.after-begin",
        "copy.after-put",
        "migrate.after-copy",
        "gc.after-delete",
        "job.after-step",
    ],
)
def test_killed_at_any_step_it_is_gone_on_with(line: Line, tmp_path: Path, arm: Callable[..., None], step: str) -> None:
    brought = pictures(line, 25)
    created = line.services.metadata.jobs.create(
        migration.KIND, {"source": "main", "target": "far", "delete_source": True}
    )
    arm(step, "kill")
    code = (
        "import sys; from pathlib import Path; from uuid import UUID; from tests.pipeline.test_migration import *;"
        "made = lined(Path(sys.argv[1]), sys.argv[2]); jobs.run(made.services, KINDS, UUID(sys.argv[3]))"
    )
    url = line.settings.database_url
    assert url is not None
    command = [sys.executable, "-c", code, str(tmp_path), url.get_secret_value(), str(created.id)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    done = None
    while done is None:  # until the lease of the dead one has ended
        done = jobs.run(line.services, KINDS, created.id)
        time.sleep(0.1)
    assert done.state is JobState.DONE
    line.collect()
    for asset, body in brought:
        assert read(line, asset) == body
        assert held_by(line, asset.blob) == ["far"]
    assert list(line.services.store("main").scan()) == []
    assert len(list(line.services.store("far").scan())) == len(brought)


@pytest.mark.parametrize(
    "arguments",
    [{"max_mb_s": "fast"}, {"max_mb_s": float("inf")}, {"delete_source": "yes"}, {"target": 5}, {"target": None}],
)
def test_arguments_of_another_type_are_refused(line: Line, arguments: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        create(line.services, migration.KIND, {"source": "main", "target": "far", **arguments})


def test_there_and_back_again(line: Line) -> None:
    brought = pictures(line, 3)
    assert migrate(line, delete_source=True).state is JobState.DONE
    back = create(line.services, migration.KIND, {"source": "far", "target": "main", "delete_source": True})
    done = jobs.run(line.services, KINDS, back.id)
    assert done is not None
    assert (done.state, done.progress["removed"]) == (JobState.DONE, 3)
    time.sleep(1.1)
    new = line.bring("/new.jpg", encoded(photo(77, 77), "JPEG"))
    assert all(held_by(line, asset.blob) == ["main"] for asset in [new, *(asset for asset, _ in brought)])


def test_migrations_that_cross_are_refused(line: Line) -> None:
    create(line.services, migration.KIND, {"source": "main", "target": "far"})
    for source, target in (("far", "main"), ("far", "fast"), ("fast", "main")):
        with pytest.raises(BadRequest, match="end it first"):
            create(line.services, migration.KIND, {"source": source, "target": target})
    assert create(line.services, migration.KIND, {"source": "main", "target": "fast"})


def test_gc_leaves_the_source_that_was_to_stay(line: Line) -> None:
    """Each has a reason: one is the store of the settings, the other takes its place."""
    [(asset, body)] = pictures(line, 1)
    migrate(line)
    time.sleep(1.1)
    line.bring("/other.jpg", body)
    deletion.delete(line.services, AssetPath.from_text("/bare/0.jpg"), 0, purge=False)
    line.collect()
    assert held_by(line, asset.blob) == ["far", "main"]


def test_a_target_that_does_not_answer_makes_the_job_wait(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(line, 3)

    def hang(*_: object, **__: object) -> None:
        raise StoreUnavailable("nobody there")

    far = line.services.store("far")
    with monkeypatch.context() as away:
        for name in ("put", "open", "head"):
            away.setattr(far, name, hang)
        waiting = migrate(line)
    assert (waiting.state, waiting.wish) == (JobState.QUEUED, None)
    assert "nobody there" in str(waiting.error)
    done = None
    while done is None:
        done = jobs.run(line.services, KINDS, waiting.id)
        time.sleep(0.05)
    assert (done.state, done.progress["copied"], done.progress["failed"]) == (JobState.DONE, 3, 0)
