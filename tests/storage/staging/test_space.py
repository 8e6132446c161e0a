"""The high-water mark: bytes and inodes, what is expected included, on figures at most a second old."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import StagingFull
from storage.staging import space
from storage.staging.staging import Staging
from tests.storage.staging.uploads import in_quarantine, names, new_id, settings, stage

BLOCK = 4096


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """1,000 blocks of 4 KiB and 1,000 inodes, half used; the clock stands at 0."""
    figures = SimpleNamespace(
        f_frsize=BLOCK, f_blocks=1000, f_bfree=500, f_bavail=500, f_files=1000, f_ffree=500, f_favail=500, now=0.0
    )
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(**vars(figures)))
    monkeypatch.setattr(space, "time", SimpleNamespace(monotonic=lambda: figures.now))
    return figures


def marked(home: Path, **marks: Any) -> Staging:
    return Staging.open(settings(home, **marks))


def test_the_mark_counts_what_is_expected(tmp_path: Path, disk: SimpleNamespace) -> None:
    staging = marked(tmp_path, high_water_percent=90)
    staging.check_room(400 * BLOCK)
    assert staging.has_room(None)
    assert not staging.has_room(401 * BLOCK)
    with pytest.raises(StagingFull) as refused:
        staging.begin(new_id(), expected=401 * BLOCK)
    assert refused.value.retry_after >= 1
    assert names(tmp_path, "incoming") == []


def test_what_is_set_aside_for_root_counts_as_used_up(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_bavail = 100
    staging = marked(tmp_path, high_water_percent=90)
    assert staging.has_room(40 * BLOCK)
    assert not staging.has_room(41 * BLOCK)


@pytest.mark.parametrize(
    ("marks", "change"),
    [
        ({"min_free_bytes": 300 * BLOCK}, {"f_bavail": 299}),
        ({"min_free_inodes": 300}, {"f_favail": 299}),
        ({"high_water_percent": 90}, {"f_ffree": 49, "f_favail": 49}),
        ({"high_water_percent": 90}, {"f_bfree": 99, "f_bavail": 99}),
    ],
)
def test_each_mark_refuses_within_a_second(
    tmp_path: Path, disk: SimpleNamespace, marks: dict[str, Any], change: dict[str, int]
) -> None:
    staging = marked(tmp_path, **marks)
    assert staging.has_room(None)
    vars(disk).update(change)
    disk.now = 1.1
    assert not staging.has_room(None)


def test_a_file_system_without_inode_figures_has_enough(tmp_path: Path, disk: SimpleNamespace) -> None:
    disk.f_files = disk.f_ffree = disk.f_favail = 0
    assert marked(tmp_path, min_free_inodes=10).has_room(None)


def test_over_the_mark_the_trash_goes_at_once(tmp_path: Path, disk: SimpleNamespace) -> None:
    staging = marked(tmp_path, high_water_percent=90)
    claim = staging.claim(stage(staging))
    assert claim is not None
    with claim:
        claim.drop()
    assert staging.empty_trash(timedelta(hours=1)) == 0
    disk.f_bavail = disk.f_bfree = 10
    disk.now = 2.0
    assert staging.empty_trash(timedelta(hours=1)) == 1


def test_space_that_cannot_be_reserved_is_refused_at_once(tmp_path: Path) -> None:
    """For real: more than the disk has, past admission."""
    staging = marked(tmp_path)
    figures = os.statvfs(tmp_path)
    figures_all = figures.f_blocks * figures.f_frsize
    staging._space.check = lambda expected: None  # type: ignore[method-assign] - as when a crowd passes the mark
    with pytest.raises(StagingFull):
        staging.begin(new_id(), expected=figures_all + (1 << 30))
    assert names(tmp_path, "incoming") == []


def test_a_full_staging_says_what_quarantine_holds_and_how_to_empty_it(tmp_path: Path, disk: SimpleNamespace) -> None:
    staging = marked(tmp_path, high_water_percent=90)
    in_quarantine(staging)
    disk.f_bavail, disk.f_bfree, disk.now = 10, 10, 5.0
    with pytest.raises(StagingFull, match=r"bytes are 1 failed uploads.*millrace staging empty-quarantine"):
        staging.check_usable()
    staging.empty_quarantine(timedelta(0))
    with pytest.raises(StagingFull) as refused:
        staging.check_usable()
    assert "quarantine" not in refused.value.detail
    assert staging.empty_trash(timedelta(hours=1)) == 1, "at once, where there is too little room"


def test_the_bytes_in_quarantine_count_as_used(tmp_path: Path) -> None:
    """Check on the real disk that what staging puts aside frees nothing."""
    staging = marked(tmp_path)
    path = tmp_path / "staging" / "quarantine" / str(in_quarantine(staging))
    before = os.statvfs(path.parent).f_bavail
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
        after = os.statvfs(path.parent)
    assert (before - after.f_bavail) * after.f_frsize > 32 << 20
