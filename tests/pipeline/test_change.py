"""Deleting, collecting, and the races between a late collector and a new copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from pipeline.uploads import status
from pipeline.uploads.ingest import Outcome
from tests.pictures import encoded, photo
from tests.pipeline.line import WORK, Line, under_every_lock

PICTURE = encoded(photo(), "JPEG")
A, B = AssetPath.from_text("/a.jpg"), AssetPath.from_text("/b.jpg")


@under_every_lock
def test_a_deleted_asset_is_gone_at_once_and_its_bytes_after_the_grace(line: Line) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    assert len(line.objects()) == 3
    assert deletion.delete(line.services, A, 0, purge=False) is not None
    assert line.services.metadata.assets.newest(A) is None
    assert line.services.metadata.assets.by_id(asset.id) is None
    line.collect()
    assert line.objects() == {}


def test_within_the_grace_the_bytes_stay_unless_purged(tmp_path: Path, database_url: str) -> None:
    line = Line(tmp_path, database_url, work=WORK.model_copy(update={"gc_grace_seconds": 3600}))
    line.bring("/a.jpg", PICTURE)
    deletion.delete(line.services, A, 0, purge=False)
    line.collect()
    assert len(line.objects()) == 3
    line.bring("/b.jpg", PICTURE)
    deletion.delete(line.services, B, 0, purge=True)
    line.collect()
    assert line.objects() == {}
    line.close()


def test_nobody_waits_for_what_was_purged(line: Line) -> None:
    """A retry of the upload, with its key, has no asset to be shown any more."""
    manifest = line.accept("/a.jpg", PICTURE)
    line.ingest(manifest.id)
    assert status.wait(line.services, manifest.id, 0) is not None
    deletion.delete(line.services, A, 0, purge=True)
    began = time.monotonic()
    assert status.wait(line.services, manifest.id, 30) is None
    assert time.monotonic() - began < 20


@under_every_lock
def test_what_another_asset_holds_stays_and_purge_says_so(line: Line) -> None:
    line.bring("/a.jpg", PICTURE)
    other = line.bring("/b.jpg", PICTURE)
    deleted = deletion.delete(line.services, A, 0, purge=True)
    assert deleted is not None
    assert [held.id for held in deleted.still_held] == [other.id]
    line.collect()
    assert len(line.objects()) == 3
    assert line.holds(PICTURE)


def test_an_upload_that_comes_again_after_the_delete_stays_deleted(line: Line, arm: Callable[..., None]) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    arm("ingest.after-record", "errno EIO")  # recorded, but the entry stays
    assert line.ingest(manifest.id) is Outcome.AGAIN
    deletion.delete(line.services, A, 0, purge=False)
    assert line.ingest(manifest.id) is Outcome.STORED
    assert line.services.metadata.assets.newest(A) is None
    assert line.due() == []


@pytest.mark.parametrize("step", ["gc.after-collect", "gc.before-delete", "gc.after-delete"])
def test_a_collector_that_wakes_late_deletes_nothing_that_lives(
    line: Line, arm: Callable[..., None], step: str
) -> None:
    line.bring("/a.jpg", PICTURE)
    deletion.delete(line.services, A, 0, purge=True)
    arm(step, "sleep 1.5")
    late = threading.Thread(target=maintenance.collect_garbage, args=(line.services,))
    late.start()
    again = line.bring("/b.jpg", PICTURE)
    line.derive(again.blob.sha256)
    late.join()
    line.collect()
    assert line.holds(PICTURE)
    assert {one.state.value for one in line.variants(again).values()} == {"ready"}
    for one in line.variants(again).values():
        assert one.blob is not None
        assert any(key.startswith(one.blob.sha256.hex()) for key in line.objects())
    assert {key.split(".")[0] for key in line.objects()} == {
        again.blob.sha256.hex(),
        *(one.blob.sha256.hex() for one in line.variants(again).values() if one.blob),
    }
    assert len(line.objects()) == 3


@under_every_lock
def test_bytes_deleted_and_ingested_again_and_again_beside_a_collector_are_never_lost(line: Line) -> None:
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            maintenance.collect_garbage(line.services)
            maintenance.give_up_reservations(line.services)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(15):
            path = f"/bare/{number}.jpg"
            manifest = line.accept(path, PICTURE)
            while line.ingest(manifest.id) in (Outcome.WAITING, Outcome.AGAIN):
                pass
            assert line.services.metadata.assets.by_id(manifest.asset_id) is not None
            assert line.holds(PICTURE)
            deletion.delete(line.services, AssetPath.from_text(path), 0, purge=True)
    finally:
        over.set()
        collector.join()
