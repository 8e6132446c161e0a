"""Ingest with the real staging, store and PostgreSQL, and with each of them failing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import IdempotencyConflict
from core.model import Details, VariantState
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from pipeline.uploads import ingest
from pipeline.uploads.ingest import Outcome
from storage.staging.entry import encode_tail, read_manifest, read_trailer
from tests.pictures import animated, encoded, photo
from tests.pipeline.line import WORK, Line, under_every_lock

PICTURE = encoded(photo(), "JPEG")
OTHER = encoded(photo(300, 200), "PNG")


@under_every_lock
def test_an_upload_becomes_an_asset_with_its_variants(line: Line) -> None:
    details = Details(alt="a slope", labels={"sku": "1"}, tags=("hill",))
    asset = line.bring("/catalog/slope.jpg", PICTURE, details=details)

    assert (asset.path, asset.entry, asset.width, asset.height) == ("/catalog/slope.jpg", 0, 320, 240)
    assert (asset.details.alt, dict(asset.details.labels), list(asset.details.tags)) == (
        "a slope",
        {"sku": "1"},
        ["hill"],
    )
    assert line.holds(PICTURE)
    variants = line.variants(asset)
    assert {one.state for one in variants.values()} == {VariantState.READY}
    assert variants["thumb"].attempts == 1
    thumb = variants["thumb"].blob
    assert thumb is not None
    assert any(key.startswith(thumb.sha256.hex()) for key in line.objects())
    assert line.due() == []


def test_no_eager_variant_is_made_where_no_rule_wants_one(line: Line) -> None:
    assert line.variants(line.bring("/bare/one.jpg", PICTURE)) == {}


def test_equal_bytes_are_stored_once_and_share_their_variants(line: Line) -> None:
    first, second = line.bring("/a.jpg", PICTURE), line.bring("/b.jpg", PICTURE)

    assert first.id != second.id
    assert line.variants(first)["thumb"].id == line.variants(second)["thumb"].id
    assert len([key for key in line.objects() if key.startswith(first.blob.sha256.hex())]) == 1


def test_a_second_upload_to_a_path_is_its_next_entry(line: Line) -> None:
    assert [line.bring("/a.jpg", data).entry for data in (PICTURE, OTHER, PICTURE)] == [0, 1, 2]


def test_a_hint_for_an_entry_that_is_gone_does_nothing(line: Line) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    assert line.ingest(manifest.id) is Outcome.STORED
    assert line.ingest(manifest.id) is Outcome.GONE


@pytest.mark.parametrize(
    "step", ["ingest.after-start", "ingest.after-reserve", "ingest.after-put", "ingest.after-record"]
)
def test_a_fault_of_ours_at_any_step_is_made_up_for_by_the_next_run(
    line: Line, arm: Callable[..., None], step: str
) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    arm(step, "errno EIO")
    assert line.ingest(manifest.id) is Outcome.AGAIN
    entry = line.services.staging.look(manifest.id)
    assert entry is not None
    assert entry.attempts.failure is not None
    assert not entry.attempts.running

    assert line.ingest(manifest.id) is Outcome.STORED
    line.derive(manifest.sha256)
    asset = line.services.metadata.assets.by_id(manifest.asset_id)
    assert asset is not None
    assert asset.entry == 0
    assert len([key for key in line.objects() if key.startswith(manifest.sha256.hex())]) == 1


def test_a_store_that_is_away_costs_no_attempt(line: Line) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    root = line.settings.home / "store"
    shutil.rmtree(root, ignore_errors=True)
    root.write_text("no directory")
    for _ in range(5):
        assert line.ingest(manifest.id) is Outcome.WAITING
    entry = line.services.staging.look(manifest.id)
    assert entry is not None
    assert (entry.attempts.unfinished, entry.attempts.total) == (0, 5)
    root.unlink()
    line.close()

    again = Line(line.settings.home, line.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    assert again.ingest(manifest.id) is Outcome.STORED
    again.close()


def test_a_database_that_is_away_costs_no_attempt(line: Line, tmp_path: Path) -> None:
    nowhere = Line(tmp_path, f"postgresql://nobody@/none?host={tmp_path}/no-server")
    manifest = nowhere.accept("/a.jpg", PICTURE)
    for _ in range(4):
        assert nowhere.ingest(manifest.id) is Outcome.WAITING
    nowhere.close()
    assert line.ingest(manifest.id) is Outcome.STORED


def test_staged_bytes_that_changed_are_never_stored(line: Line) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    path = line.settings.staging_path / "accepted" / str(manifest.id)
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 0xFF]))
    assert line.ingest(manifest.id) is Outcome.FAILED
    failures = line.services.metadata.failures.page(None, 10).items
    assert [(one.id, one.reason.kind) for one in failures] == [(manifest.id, "corrupt")]
    assert line.services.metadata.assets.by_id(manifest.asset_id) is None


def test_too_many_frames_that_only_ingest_can_count_fail_visibly(tmp_path: Path, database_url: str) -> None:
    line = Line(tmp_path, database_url)
    limits = line.settings.limits.model_copy(update={"max_frames": 3})
    data = animated("GIF", frames=5)
    manifest = line.accept("/a.gif", data)
    line.close()
    strict = Line(tmp_path, database_url, limits=limits)
    _forget_frames(strict, manifest.id)
    assert strict.ingest(manifest.id) is Outcome.FAILED
    entry = strict.services.staging.look(manifest.id)
    assert entry is not None
    assert entry.quarantined
    assert entry.attempts.failure is not None
    assert entry.attempts.failure.kind == "too-many-frames"
    strict.close()


def _forget_frames(line: Line, upload_id: object) -> None:
    """As if the header probe could not count them within its limit."""
    path = line.settings.staging_path / "accepted" / str(upload_id)
    with path.open("r+b") as file:
        manifest = read_manifest(file.fileno(), read_trailer(file.fileno()))
        tail = encode_tail(replace(manifest, image=replace(manifest.image, frames=None)))
        os.ftruncate(file.fileno(), manifest.size)
        os.pwrite(file.fileno(), tail, manifest.size)


@under_every_lock
def test_one_key_is_one_asset_even_after_it_was_deleted(line: Line) -> None:
    first = line.accept("/a.jpg", PICTURE, key="k")
    assert line.ingest(first.id) is Outcome.STORED
    again = line.accept("/a.jpg", PICTURE, key="k")
    assert again.asset_id == first.asset_id

    deletion.delete(line.services, AssetPath.from_text("/a.jpg"), 0, purge=False)
    with pytest.raises(IdempotencyConflict):
        line.accept("/a.jpg", OTHER, key="k")
    third = line.accept("/a.jpg", PICTURE, key="k")
    line.ingest(third.id)
    assert line.services.metadata.assets.by_id(first.asset_id) is None


def test_one_key_on_two_hosts_is_one_asset_and_the_other_bytes_a_visible_conflict(
    tmp_path: Path, database_url: str
) -> None:
    store = {"main": {"kind": "filesystem", "root": str(tmp_path / "store")}}
    one = Line(tmp_path / "one", database_url, stores=store)
    two = Line(tmp_path / "two", database_url, stores=store)
    three = Line(tmp_path / "three", database_url, stores=store)
    first, second = one.accept("/a.jpg", PICTURE, key="k"), two.accept("/a.jpg", PICTURE, key="k")
    other = three.accept("/a.jpg", OTHER, key="k")
    assert first.asset_id == second.asset_id == other.asset_id
    assert one.ingest(first.id) is Outcome.STORED
    assert two.ingest(second.id) is Outcome.STORED
    assert three.ingest(other.id) is Outcome.FAILED
    [failure] = three.services.metadata.failures.page(None, 10).items
    assert failure.reason.kind == "idempotency-conflict"
    for line in (one, two, three):
        line.close()


@under_every_lock
def test_garbage_collection_between_put_and_record_makes_ingest_begin_again(
    line: Line, arm: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = line.accept("/a.jpg", PICTURE)
    placed = []
    original = ingest.place

    def place_then_lose(*arguments: object) -> object:
        replica = original(*arguments)  # type: ignore[arg-type]
        if not placed:
            maintenance.give_up_reservations(line.services)
            line.collect()
        placed.append(replica)
        return replica

    monkeypatch.setattr(ingest, "place", place_then_lose)
    assert line.ingest(manifest.id) is Outcome.STORED
    assert len(placed) == 2
    assert placed[0].generation != placed[1].generation
    assert line.holds(PICTURE)


def test_an_entry_that_kills_its_process_ends_in_quarantine_and_others_flow_on(
    tmp_path: Path, database_url: str, arm: Callable[..., None]
) -> None:
    line = Line(tmp_path, database_url, work=WORK.model_copy(update={"max_unfinished": 2}))
    poison, good = line.accept("/poison.jpg", PICTURE), line.accept("/good.jpg", OTHER)
    for _ in range(2):  # two starts that never ended
        claim = line.services.staging.claim(poison.id)
        assert claim is not None
        with claim:
            claim.start()
    arm(f"ingest.after-start@{poison.id}", "kill", always=True)
    child = dict(os.environ, **_variables(line))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in child.items():
            patch.setenv(name, value)
        assert line.ingest(poison.id) is Outcome.FAILED
        assert line.ingest(good.id) is Outcome.STORED
    [failure] = line.services.metadata.failures.page(None, 10).items
    assert (failure.id, failure.reason.kind) == (poison.id, "crashed")
    line.close()


def test_an_innocent_entry_survives_any_number_of_kills(tmp_path: Path, database_url: str) -> None:
    line = Line(tmp_path, database_url)
    manifest = line.accept("/a.jpg", PICTURE)
    for _ in range(7):
        claim = line.services.staging.claim(manifest.id)
        assert claim is not None
        with claim:
            claim.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _variables(line).items():
            patch.setenv(name, value)
        assert line.ingest(manifest.id) is Outcome.STORED
    assert line.holds(PICTURE)
    line.close()


def test_a_fault_that_never_passes_ends_in_quarantine(
    tmp_path: Path, database_url: str, arm: Callable[..., None]
) -> None:
    """No crash and no time-out, but an error that we did not foresee, again and again: not retried for ever."""
    line = Line(tmp_path, database_url, work=WORK.model_copy(update={"max_unfinished": 2}))
    manifest = line.accept("/a.jpg", PICTURE)
    arm(f"ingest.after-start@{manifest.id}", "errno EIO", always=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _variables(line).items():
            patch.setenv(name, value)
        assert [line.ingest(manifest.id) for _ in range(3)] == [Outcome.AGAIN, Outcome.AGAIN, Outcome.FAILED]
    [failure] = line.services.metadata.failures.page(None, 10).items
    assert (failure.id, failure.reason.kind) == (manifest.id, "internal")
    line.close()


def _variables(line: Line) -> dict[str, str]:
    """The child reads its settings for itself."""
    assert line.settings.database_url is not None
    return {
        "MILLRACE_HOME": str(line.settings.home),
        "MILLRACE_DATABASE_URL": line.settings.database_url.get_secret_value(),
        "MILLRACE_PROFILES": '{"thumb": {"w": 40}, "square": {"w": 24, "h": 24, "fit": "crop", "format": "webp"}}',
    }
