"""Uploads, reads and others at work while demotion rules move bytes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.errors import Archived
from core.model import JobState
from core.sections import Placement
from metadata.paths import AssetPath
from pipeline.assets import deletion
from pipeline.jobs import demotion
from pipeline.replicas import copying
from pipeline.replicas.put_reserved import place
from pipeline.uploads import ingest
from tests.pipeline import job_runs
from tests.pipeline.line import Line
from tests.pipeline.policy_line import MAIN_TO_FAR, age, demote, homes, ruled
from tests.pipeline.test_placement import PICTURE, delete, held_by, read
from tests.pipeline.test_policy import line, small

__all__ = ["line"]
"""The fixtures, which tests name as parameters."""


def test_a_new_upload_of_the_same_bytes_makes_them_hot_again(line: Line) -> None:
    line.bring("/bare/a.jpg", PICTURE)
    demote(line)
    again = line.bring("/bare/brand/a.jpg", PICTURE)
    assert held_by(line, again.blob) == ["far", "main"]
    assert demote(line).progress["moved"] == 0, "the new asset is pinned"
    line.collect()
    assert homes(line, again.blob) == {"main": "main"}
    assert list(line.services.store("far").scan()) == []


def test_an_upload_for_the_colder_store_does_not_take_it_from_the_demoted_asset(
    tmp_path: Path, database_url: str
) -> None:
    placement = (
        Placement(match="/twice/**", store="main", replicas=("fast",)),
        Placement(match="/cold/**", store="far"),
    )
    line = ruled(tmp_path, database_url, {"from": "main", "to": "far"}, placement=placement)
    asset = line.bring("/twice/a.jpg", PICTURE)
    assert demote(line).progress["moved"] > 0
    assert homes(line, asset.blob) == {"far": "main", "fast": "fast"}
    other = line.bring("/cold/b.jpg", PICTURE)
    delete(line, other)
    line.collect()
    assert held_by(line, asset.blob) == ["far", "fast"], "its rule wants two"
    line.close()


def during(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """`act` once, between the copy and the last step of the first move."""

    def copied(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(demotion, "copy", copying.copy)
        filled = copying.copy(*args, **named)
        act()
        return filled

    monkeypatch.setattr(demotion, "copy", copied)


def test_what_is_uploaded_between_the_copy_and_the_last_step_stays(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    during(monkeypatch, lambda: line.bring("/bare/brand/b.jpg", PICTURE))
    job = demote(line)
    assert (job.progress["moved"], job.progress["postponed"]) == (0, 1)
    line.collect()
    assert homes(line, asset.blob) == {"main": "main"}, "and the copy that nobody needs is gone"


def test_what_is_read_between_the_copy_and_the_last_step_stays(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ruled(tmp_path, database_url, {**MAIN_TO_FAR, "unread_days": 5})
    asset = line.bring("/bare/a.jpg", PICTURE)
    age(line, asset, days=10)
    during(monkeypatch, lambda: age(line, asset, days=10, read=0))
    assert demote(line).progress["postponed"] == 1
    assert "main" in held_by(line, asset.blob)
    line.close()


def test_whoever_holds_the_blob_is_not_waited_for(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an upload does that confirmed its replica and has not committed yet."""
    asset = line.bring("/bare/a.jpg", PICTURE)
    held, done = threading.Event(), threading.Event()

    def confirm() -> None:
        def work(connection: Any) -> None:
            connection.execute(text("SELECT 1 FROM replica WHERE store = 'main' FOR NO KEY UPDATE"))
            held.set()
            assert done.wait(30)

        line.services.metadata.database.run(work)

    uploader = threading.Thread(target=confirm)

    def begin() -> None:
        uploader.start()
        assert held.wait(30)

    during(monkeypatch, begin)
    job = demote(line)
    done.set()
    uploader.join()
    assert (job.progress["moved"], job.progress["postponed"]) == (0, 1)
    assert homes(line, asset.blob) == {"far": "main", "main": "main"}
    assert demote(line).progress["moved"] == 1


def test_an_upload_whose_reservation_was_moved_away_begins_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.bring("/bare/a.jpg", PICTURE)

    def placed(*args: Any) -> Any:
        monkeypatch.setattr(ingest, "place", place)
        replica = place(*args)
        assert demote(line).progress["moved"] == 1
        return replica

    monkeypatch.setattr(ingest, "place", placed)
    again = line.bring("/bare/brand/a.jpg", PICTURE)
    assert held_by(line, again.blob) == ["far", "main"]
    assert read(line, again) == PICTURE


def test_a_copy_from_before_is_read_before_it_is_believed(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    during(monkeypatch, lambda: line.bring("/bare/brand/b.jpg", PICTURE))
    demote(line)
    deletion.delete(line.services, AssetPath.from_text("/bare/brand/b.jpg"), 0, purge=False)
    [far] = (tmp_path / "far" / "objects").rglob(f"{asset.blob.sha256.hex()}.*")
    far.write_bytes(PICTURE[:-1] + b"?")
    assert demote(line).progress["moved"] == 1
    assert held_by(line, asset.blob) == ["far"]
    assert read(line, asset) == PICTURE


def test_what_cannot_be_read_stays_and_is_told(line: Line) -> None:
    lost, other = line.bring("/bare/a.jpg", PICTURE), line.bring("/bare/b.jpg", small(1))
    [replica] = line.services.metadata.blobs.replicas(lost.blob.sha256)
    line.services.store("main").delete([replica.key])
    job = job_runs.run(line, demotion.KIND)
    assert (job.state, job.progress["moved"], job.progress["failed"]) == (JobState.DONE, 1, 1)
    assert "main" in homes(line, lost.blob)
    assert held_by(line, other.blob) == ["far"]


def test_what_lies_in_an_archive_is_not_believed_unread_and_copied_anew(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    during(monkeypatch, lambda: line.bring("/bare/brand/b.jpg", PICTURE))
    demote(line)
    deletion.delete(line.services, AssetPath.from_text("/bare/brand/b.jpg"), 0, purge=False)

    def refuse(*_: object) -> None:
        raise Archived("on tape")

    monkeypatch.setattr(line.services.store("far"), "open", refuse)
    job = demote(line)
    assert (job.progress["archived"], job.progress["failed"], job.progress["moved"]) == (1, 0, 0)
    line.collect()
    assert homes(line, asset.blob) == {"main": "main"}
    assert demote(line).progress["moved"] == 1
    assert homes(line, asset.blob) == {"far": "main"}
