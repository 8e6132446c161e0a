"""One very large body: how far it is shows while it goes on, and whoever takes the job over begins it again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from core.model import Job, JobState
from pipeline.jobs import live_progress, migration, verification
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_placement import lined, read

BODY = encoded(photo(160, 120), "PNG")
MOVE = {"source": "main", "target": "far"}


@pytest.fixture
def line(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(live_progress, "LIVE_SECONDS", 0.1)
    for kind in (migration, verification):
        monkeypatch.setattr(kind, "LARGE_BYTES", 1)
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def watched(line: Line, job: Job) -> tuple[Job, list[Job]]:
    seen: list[Job] = []
    done = jobs.run(line.services, KINDS, job.id, watch=seen.append)
    assert done is not None
    return done, seen


@pytest.mark.parametrize(("kind", "arguments"), [(migration.KIND, MOVE), (verification.KIND, {"stores": ["main"]})])
def test_the_bytes_of_a_large_body_show_while_they_flow(line: Line, kind: str, arguments: dict[str, object]) -> None:
    asset = line.bring("/bare/large.png", BODY)
    done, seen = watched(line, create(line.services, kind, {**arguments, "max_mb_s": len(BODY) / 1e6}))
    assert done.state is JobState.DONE
    assert done.progress["done_bytes"] == len(BODY)
    under_way = [job for job in seen if 0 < job.progress.get("done_bytes", 0) < len(BODY)]
    assert len(under_way) > 2
    assert len({job.progress["done_bytes"] for job in under_way}) == len(under_way)
    assert len({str(job.cursor) for job in under_way}) == 1  # it is where it was: before this body
    assert read(line, asset) == BODY


def test_a_body_that_was_cut_short_counts_once(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        line.bring(f"/bare/{number}.png", encoded(photo(160 + number, 120), "PNG"))
    job = create(line.services, migration.KIND, MOVE)
    target = line.services.store("far")

    def cut_short(key: str, body: BinaryIO, **_: object) -> None:
        body.read(1000)
        deadline = time.monotonic() + 30
        while not shown() and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt

    def shown() -> int:
        found = line.services.metadata.jobs.find(job.id)
        assert found is not None
        return int(found.progress.get("done_bytes", 0))

    with monkeypatch.context() as patched:
        patched.setattr(target, "put", cut_short)
        with pytest.raises(KeyboardInterrupt):
            jobs.run(line.services, KINDS, job.id)
    assert shown() == 1000
    line.services.metadata.jobs.wish(job.id, "resume")
    done, seen = watched(line, job)
    sizes = [one.blob.size for one in line.services.metadata.stores.page("main", b"", 10)]
    assert [one.cursor["done_bytes"] for one in seen if one.cursor.get("after")][:1] == sizes[:1]
    assert done.progress["done_bytes"] == sum(sizes)
