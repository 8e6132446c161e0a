"""What verifying, moving and marking make of bytes that lie in an archive."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import update

from cli import job_progress
from core.errors import Archived
from core.model import JobState
from metadata.schema import installation
from pipeline.jobs import migration, verification
from pipeline.replicas.identification import is_ours
from pipeline.replicas.quarantine import verdict
from tests.pictures import encoded, photo
from tests.pipeline.job_runs import run
from tests.pipeline.line import Line
from tests.pipeline.test_restoration import BODY, content, line, refused, replica_of, restored, server
from tests.s3_server import S3Server

__all__ = ["line", "server"]
"""The fixtures, which tests name as parameters."""


def test_verifying_says_what_it_could_not_read_and_comes_to_its_end(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "ROWS", 2)
    assets = [line.bring(f"/twice/bare/{number}.jpg", encoded(photo(20 + number, 9), "JPEG")) for number in range(3)]
    before = [replica_of(line, asset, "cold") for asset in assets]
    assert verdict(line.services, run(line, verification.KIND)).good, "nothing is known of them, nothing is wrong"
    lost = replica_of(line, assets[0], "near")
    line.services.store("near").delete([lost.key])
    job = run(line, verification.KIND)
    assert job.state is JobState.DONE
    assert (job.progress["archived"], job.progress["missing"], job.progress["corrupt"]) == (3, 1, 0)
    assert job.progress["done_bytes"] == job.progress["total_bytes"] - lost.blob.size
    assert job.progress["failed"] == 1, "the archive has what would repair it"
    after = [replica_of(line, asset, "cold") for asset in assets]
    assert [(one, one.verified_at) for one in after] == [(one, one.verified_at) for one in before]


@pytest.mark.parametrize("delete_source", [False, True])
def test_what_is_in_an_archive_is_not_moved_and_said_so(line: Line, delete_source: bool) -> None:
    frozen = [line.bring(f"/bare/m{number}.jpg", encoded(photo(20 + number, 9), "JPEG")) for number in range(2)]
    job = run(line, migration.KIND, source="cold", target="other", delete_source=delete_source)
    assert job.state is JobState.DONE
    counts = [job.progress[name] for name in ("archived", "copied", "removed", "failed", "done")]
    assert counts == [2, 0, 0, 0, 0]
    assert job_progress.exit_code(job) == 1
    for asset in frozen:
        assert [one.store for one in line.services.metadata.blobs.replicas(asset.blob.sha256)] == ["cold"]


def test_moving_into_an_archive_verifies_what_it_sends(line: Line, server: S3Server) -> None:
    """And leaves the source where somebody else has put it there: that can not be verified."""
    sent, there = line.bring("/near/a.jpg", BODY), line.bring("/twice/bare/n.jpg", encoded(photo(33, 9), "JPEG"))
    job = run(line, migration.KIND, source="near", target="cold", delete_source=True)
    assert (job.state, job.progress["archived"]) == (JobState.DONE, 1)
    stores = [line.services.metadata.blobs.replicas(asset.blob.sha256) for asset in (sent, there)]
    assert [[one.store for one in held] for held in stores] == [["cold"], ["cold", "near"]]
    assert restored(line, refused(line, sent).job.id).state is JobState.DONE
    assert content(line, sent) == BODY


def test_an_archived_marker_is_known_by_its_hash(line: Line) -> None:
    line.services.recognitions["cold"].look()  # it is new, and gets its marker
    assert is_ours(line.services, "cold")
    line.services.metadata.inventory._database.run(
        lambda connection: connection.execute(update(installation).values(id=uuid4()))
    )
    with pytest.raises(Archived):
        is_ours(line.services, "cold")
