"""Bytes that only an archive has: asked for once by a job that nobody holds, and then read, rendered and repaired."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from core.errors import Archived, BadRequest, StoreUnavailable
from core.model import Asset, Job, JobState, Replica, VariantState
from core.sections import Placement
from pipeline.assets import read
from pipeline.jobs import restoration
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS, create
from pipeline.replicas import archive, repair, sources
from pipeline.stores import failover
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import go_on
from tests.pipeline.line import Line
from tests.s3_server import S3Server, s3_server, slow_restorations

BODY = encoded(photo(90, 60), "JPEG")
WAIT = 1
"""What the store says that a restoration takes; it is looked for as often."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("moto") / "log") as made:
        made.make_bucket("ice")
        yield made


def stores(home: Path, server: S3Server) -> dict[str, dict[str, Any]]:
    given = {"kind": "s3", "endpoint_url": server.endpoint, "access_key_id": "key", "secret_access_key": "secret"}
    more = {"bucket": "ice", "key_prefix": home.name, "storage_class": "GLACIER", "restore_wait": WAIT}
    near = {name: {"kind": "filesystem", "root": str(home / name)} for name in ("near", "other")}
    return {"cold": {**given, **more, "tier": "cold"}, **near}


RULES = (
    Placement(match="/twice/**", kind="original", store="near", replicas=("cold",)),
    Placement(match="/near/**", store="near"),
    Placement(match="/**", kind="original", store="cold"),
)


@pytest.fixture
def line(tmp_path: Path, database_url: str, server: S3Server) -> Iterator[Line]:
    made = Line(tmp_path, database_url, stores=stores(tmp_path, server), default_store="near", placement=RULES)
    yield made
    made.close()


def content(line: Line, asset: Asset) -> bytes:
    body, stack = read.open_blob(line.services, asset.blob, None)
    with stack:
        return body.read()


def refused(line: Line, asset: Asset) -> archive.Restoring:
    with pytest.raises(archive.Restoring) as caught:
        content(line, asset)
    return caught.value


def replica_of(line: Line, asset: Asset, store: str) -> Replica:
    return next(one for one in line.services.metadata.blobs.replicas(asset.blob.sha256) if one.store == store)


def asked(line: Line, server: S3Server, asset: Asset) -> int:
    """How often the archive was."""
    key = f"{line.settings.home.name}/{replica_of(line, asset, 'cold').key}"
    return server.requests("POST", f"ice/{key}")


def restored(line: Line, job_id: UUID) -> Job:
    until = time.monotonic() + 30
    while (job := go_on(line, job_id)).state is JobState.QUEUED:
        assert time.monotonic() < until
    return job


def test_whoever_reads_it_meets_one_job_and_then_the_bytes(line: Line, server: S3Server) -> None:
    asset = line.bring("/bare/a.jpg", BODY)
    with slow_restorations(server.endpoint, 0.3):
        time.sleep(0.4)
        first = refused(line, asset)
        assert first.retry_after == WAIT
        assert (first.job.kind, first.job.state) == ("restore", JobState.QUEUED)
        assert refused(line, asset).job.id == first.job.id
        assert asked(line, server, asset) == 0, "not by whoever reads"
        waiting = jobs.run(line.services, KINDS, first.job.id)
        assert waiting is not None
        assert (waiting.state, waiting.progress["done"]) == (JobState.QUEUED, 0)
        assert waiting.progress["waits_for"].startswith("the archive of 'cold'")
        assert line.services.metadata.jobs.take(timedelta(seconds=1)) is None, "held by nobody, not due"
        assert refused(line, asset).job.id == first.job.id
        done = restored(line, first.job.id)
    assert (done.state, done.progress["done_bytes"]) == (JobState.DONE, len(BODY))
    assert asked(line, server, asset) == 1
    assert content(line, asset) == BODY
    assert replica_of(line, asset, "cold").verified_at is not None


def test_another_replica_is_read_first_and_nothing_restored(line: Line, server: S3Server) -> None:
    asset = line.bring("/twice/bare/b.jpg", BODY)
    assert content(line, asset) == BODY
    line.services.store("near").delete([replica_of(line, asset, "near").key])
    refused(line, asset)
    healthy = line.services.metadata.blobs.replicas(asset.blob.sha256)
    assert [one.store for one in healthy] == ["cold"], "the missing one is marked, the archived one is not"


def test_a_slow_store_is_waited_for_before_an_archive_is_asked(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = line.bring("/twice/bare/s.jpg", BODY)
    near = line.services.store("near")
    ready, opening = time.monotonic() + 0.8, near.open

    def slowly(*given: Any) -> Any:
        time.sleep(max(0.0, ready - time.monotonic()))
        return opening(*given)

    monkeypatch.setattr(failover, "OPEN_SECONDS", 0.2)
    monkeypatch.setattr(near, "open", slowly)
    assert content(line, asset) == BODY
    assert line.services.metadata.jobs.newest(1) == []


def test_where_the_others_do_not_answer_the_archive_is_asked(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/twice/bare/u.jpg", BODY)
    (tmp_path / "near" / "objects").rename(tmp_path / "away")
    job = refused(line, asset).job
    (tmp_path / "away").rename(tmp_path / "near" / "objects")
    assert content(line, asset) == BODY, "whoever answers again is read, whatever the archive does"
    assert restored(line, job.id).state is JobState.DONE
    assert len(line.services.metadata.blobs.replicas(asset.blob.sha256)) == 2


def test_a_lost_replica_is_repaired_once_the_archive_gave_the_bytes(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/twice/bare/c.jpg", BODY)
    line.services.store("near").delete([replica_of(line, asset, "near").key])
    job = refused(line, asset).job
    assert repair.repair(line.services) == 0
    assert [one.store for one in line.services.metadata.blobs.replicas(asset.blob.sha256)] == ["cold"]
    assert restored(line, job.id).state is JobState.DONE
    until = time.monotonic() + 20
    while not repair.repair(line.services):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert content(line, asset) == BODY
    assert replica_of(line, asset, "near")


def test_what_lies_archived_where_a_replica_was_lost_keeps_nothing_from_its_repair(line: Line) -> None:
    asset = line.bring("/twice/bare/d.jpg", BODY)
    lost = replica_of(line, asset, "cold")
    sources.mark(line.services, lost, "corrupt", "said somebody")
    assert repair.repair(line.services) == 1
    assert replica_of(line, asset, "cold").generation > lost.generation


def test_a_store_that_does_not_answer_is_asked_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_key: str) -> int:
        raise StoreUnavailable("it hangs")

    asset = line.bring("/bare/e.jpg", BODY)
    job = refused(line, asset).job
    with monkeypatch.context() as patch:
        patch.setattr(line.services.store("cold"), "restore", away)
        waiting = jobs.run(line.services, KINDS, job.id)
    assert waiting is not None
    assert (waiting.state, waiting.error) == (JobState.QUEUED, "store-unavailable: it hangs")
    assert restored(line, job.id).state is JobState.DONE


def test_what_nobody_has_ends_the_job(line: Line) -> None:
    asset = line.bring("/bare/f.jpg", BODY)
    job = refused(line, asset).job
    line.services.store("cold").delete([replica_of(line, asset, "cold").key])
    ended = jobs.run(line.services, KINDS, job.id)
    assert ended is not None
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.startswith("not-found")
    assert line.services.metadata.blobs.replicas(asset.blob.sha256) == []


def test_a_variant_of_an_archived_original_waits_without_an_attempt(line: Line, server: S3Server) -> None:
    asset = line.bring("/bare/g.jpg", BODY)
    wish = read.understand(line.services, asset, {"w": "20"})
    assert wish.want is not None
    line.services.metadata.variants.want(asset.id, asset.blob.sha256, wish.want)
    line.derive(asset.blob.sha256)
    [variant] = line.services.metadata.variants.of_asset(asset.id)
    assert (variant.state, variant.attempts) == (VariantState.PENDING, 0)
    job = refused(line, asset).job
    assert [one.id for one in line.services.metadata.jobs.newest(10)] == [job.id], "the worker asked for it"
    assert restored(line, job.id).state is JobState.DONE
    until = time.monotonic() + 20
    while variant.state is VariantState.PENDING:
        assert time.monotonic() < until
        line.derive(asset.blob.sha256)
        [variant] = line.services.metadata.variants.of_asset(asset.id)
    assert (variant.state, variant.attempts) == (VariantState.READY, 1)


_CODE = """
import json, sys
from pathlib import Path
from uuid import UUID
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from tests.pipeline.line import Line

line = Line(Path(sys.argv[1]), sys.argv[2], stores=json.loads(sys.argv[3]), default_store="near")
jobs.run(line.services, KINDS, UUID(sys.argv[4]))
"""


def test_killed_when_it_had_asked_it_does_not_ask_again(
    line: Line, server: S3Server, tmp_path: Path, arm: Callable[..., None]
) -> None:
    asset = line.bring("/bare/h.jpg", BODY)
    with slow_restorations(server.endpoint, 0.3):
        time.sleep(0.4)
        job = refused(line, asset).job
        arm("restore.after-look", "kill")
        url = line.settings.database_url
        assert url is not None
        given = [str(tmp_path), url.get_secret_value(), json.dumps(stores(tmp_path, server)), str(job.id)]
        killed = subprocess.run([sys.executable, "-c", _CODE, *given], check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL
        assert restored(line, job.id).state is JobState.DONE
    assert asked(line, server, asset) == 1
    assert content(line, asset) == BODY


@pytest.mark.parametrize("arguments", [{}, {"sha256": "ab"}, {"sha256": "AB" * 32}, {"sha256": "ab" * 32, "days": 1}])
def test_arguments_that_cannot_work_are_refused(line: Line, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        create(line.services, restoration.KIND, arguments)


def test_it_is_looked_for_some_ten_times_and_not_too_often() -> None:
    intervals = [archive.interval(seconds).total_seconds() for seconds in (1, 300, 5 * 3600, 48 * 3600)]
    assert intervals == [1, 30, 600, 600]


def test_late_it_may_come_any_moment(line: Line) -> None:
    asset = line.bring("/bare/i.jpg", BODY)
    found = Archived("", retry_after=3600)
    soon = archive.begin(line.services, asset.blob.sha256, found)
    assert 3590 <= soon.retry_after <= 3600
    late = archive.begin(line.services, asset.blob.sha256, Archived("", retry_after=1))
    assert (late.retry_after, late.job.id) == (1, soon.job.id)
