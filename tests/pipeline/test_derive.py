"""Rendering with real leases: what fails alone, what is retried, and what a stale holder can do (nothing)."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from core.model import BlobFacts, FailureReason, VariantState
from core.sections import Locks, Variants
from pipeline import failures
from pipeline.replicas.put_reserved import place
from pipeline.uploads.ingest import Outcome
from pipeline.variants import derive
from tests.pictures import encoded, photo
from tests.pipeline.line import Line, under_every_lock

PICTURE = encoded(photo(), "JPEG")


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, locks: str) -> Iterator[Line]:
    """Eager variants are left to the fleet, so that a test leases them itself."""
    chosen = Locks.model_validate({"kind": locks})
    made = Line(tmp_path, database_url, variants=Variants(eager="fleet"), locks=chosen)
    yield made
    made.close()


@under_every_lock
def test_the_fleet_renders_what_ingest_left_to_it(fleet: Line) -> None:
    asset = fleet.bring("/a.jpg", PICTURE)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.PENDING}
    assert fleet.services.metadata.variants.due_sources(10) == [asset.blob.sha256]
    fleet.derive(asset.blob.sha256)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.READY}
    assert fleet.services.metadata.variants.due_sources(10) == []


def test_a_broken_picture_fails_its_variants_visibly_and_keeps_the_original(line: Line) -> None:
    broken = PICTURE[: len(PICTURE) // 2]
    asset = line.bring("/a.jpg", broken)
    variants = line.variants(asset)
    assert {one.state for one in variants.values()} == {VariantState.FAILED}
    assert variants["thumb"].failure is not None
    assert variants["thumb"].failure.kind == "bad-image"
    assert line.holds(broken)
    [failure] = line.services.metadata.failures.page(None, 10).items
    assert (failure.subject, failure.path) == ("source", "/a.jpg")
    assert failures.wish(line.services, failure.id, "discard") is None
    assert line.variants(asset) == {}


@under_every_lock
def test_one_source_is_rendered_by_one_of_many(fleet: Line) -> None:
    asset = fleet.bring("/a.jpg", PICTURE)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: derive.derive(fleet.services, asset.blob.sha256), range(8)))
    assert not any(found), "whoever found it done, or somebody at it, need not look again"
    assert {one.attempts for one in fleet.variants(asset).values()} == {1}


@under_every_lock
def test_a_holder_that_died_is_followed_by_another_after_its_lease(fleet: Line) -> None:
    asset = fleet.bring("/a.jpg", PICTURE)
    stale = fleet.services.metadata.variants.lease(asset.blob.sha256, timedelta(seconds=0.2))
    assert len(stale) == 2
    fleet.derive(asset.blob.sha256)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.PENDING}
    time.sleep(0.3)
    fleet.derive(asset.blob.sha256)
    ready = fleet.variants(asset)
    assert {one.state for one in ready.values()} == {VariantState.READY}
    assert {one.attempts for one in ready.values()} == {2}

    before = {name: one.blob for name, one in ready.items()}
    derive.work(fleet.services, stale)  # the stale holder wakes up and writes all it has
    assert {name: one.blob for name, one in fleet.variants(asset).items()} == before
    fleet.services.metadata.variants.failed(stale, FailureReason("late", "x"), final=True, delay=timedelta(0))
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.READY}


def test_a_long_render_keeps_its_lease(fleet: Line, arm: Callable[..., None]) -> None:
    asset = fleet.bring("/a.jpg", PICTURE)
    arm("derive.after-put", "sleep 3")  # the lease is 2 s
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(derive.derive, fleet.services, asset.blob.sha256)
        time.sleep(2.4)
        assert fleet.services.metadata.variants.lease(asset.blob.sha256, timedelta(seconds=5)) == []
        assert not slow.result(), "nothing else was due"
    assert {one.attempts for one in fleet.variants(asset).values()} == {1}


def test_an_unexpected_fault_is_tried_again_and_then_visible(fleet: Line, arm: Callable[..., None]) -> None:
    asset = fleet.bring("/a.jpg", PICTURE)
    arm("derive.after-reserve", "errno EIO", always=True)
    deadline = time.monotonic() + 20
    while {one.state for one in fleet.variants(asset).values()} != {VariantState.FAILED}:
        assert time.monotonic() < deadline
        fleet.derive(asset.blob.sha256)
        time.sleep(0.05)
    assert {one.attempts for one in fleet.variants(asset).values()} == {fleet.settings.work.variant_attempts}
    failed = fleet.services.metadata.failures.page(None, 10).items
    assert len(failed) == 2
    for failure in failed:
        assert fleet.services.metadata.variants.retry(failure.id)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.PENDING}


def test_a_variant_that_kills_its_process_is_run_alone_and_then_failed(
    fleet: Line, arm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fleet.settings.database_url is not None
    monkeypatch.setenv("MILLRACE_HOME", str(fleet.settings.home))
    monkeypatch.setenv("MILLRACE_DATABASE_URL", fleet.settings.database_url.get_secret_value())
    asset = fleet.bring("/a.jpg", PICTURE)
    while min(one.attempts for one in fleet.variants(asset).values()) < fleet.settings.work.max_unfinished:
        fleet.services.metadata.variants.lease(asset.blob.sha256, timedelta(seconds=0.01))
        time.sleep(0.02)
    arm("alone.start", "kill", always=True)
    fleet.derive(asset.blob.sha256)
    failed = fleet.variants(asset)
    assert {one.state for one in failed.values()} == {VariantState.FAILED}
    assert {one.failure.kind for one in failed.values() if one.failure} == {"crashed"}


def test_an_innocent_variant_survives_any_number_of_kills(fleet: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fleet.settings.database_url is not None
    monkeypatch.setenv("MILLRACE_HOME", str(fleet.settings.home))
    monkeypatch.setenv("MILLRACE_DATABASE_URL", fleet.settings.database_url.get_secret_value())
    asset = fleet.bring("/a.jpg", PICTURE)
    for _ in range(12):
        fleet.services.metadata.variants.lease(asset.blob.sha256, timedelta(seconds=0.01))
        time.sleep(0.02)
    fleet.derive(asset.blob.sha256)
    assert {one.state for one in fleet.variants(asset).values()} == {VariantState.READY}


@under_every_lock
def test_a_replica_that_went_missing_is_put_again(line: Line) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    line.services.default_store.delete([replica.key])
    again = line.accept("/b.jpg", PICTURE)
    assert line.ingest(again.id) is Outcome.STORED
    assert line.holds(PICTURE)
    [renewed] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    assert renewed.generation > replica.generation


def test_what_is_there_is_not_sent_again(line: Line) -> None:
    asset = line.bring("/a.jpg", PICTURE)
    facts = BlobFacts(asset.blob.sha256, len(PICTURE), "image/jpeg")
    [reservation] = line.services.metadata.blobs.reserve([(facts, "main")], timedelta(0))
    assert reservation.healthy
    empty = io.BytesIO(b"")
    assert place(line.services, line.services.default_store, reservation, empty) == reservation.replica
