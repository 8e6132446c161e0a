"""The mark of free space that a store on a disk keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import storage.free_space
from core.errors import StoreFull
from storage.filesystem.store import FilesystemOptions, FilesystemStore
from tests.contracts.object_store import fill, keys, read

KEY = "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b.17"
DATA = b"0123456789" * 1000


@dataclass
class Disk:
    """What `statvfs` says of it."""

    free: int
    used: int = 0
    asked: int = 0

    def statvfs(self, _path: object) -> SimpleNamespace:
        self.asked += 1
        total = self.free + self.used
        return SimpleNamespace(f_frsize=1, f_blocks=total, f_bfree=self.free, f_bavail=self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(free=10_000)
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    monkeypatch.setattr(storage.free_space, "CACHE_SECONDS", 0)
    return made


@pytest.mark.parametrize(
    ("options", "largest"),
    [
        ({"min_free_bytes": 4_000}, 6_000),
        ({"min_free_bytes": 0, "high_water_percent": 90}, 9_000),
        ({"min_free_bytes": 0}, 10_000),
    ],
)
def test_a_body_must_not_take_the_disk_over_its_mark(
    tmp_path: Path, disk: Disk, options: dict[str, Any], largest: int
) -> None:
    store = FilesystemStore("main", FilesystemOptions(root=tmp_path, **options))
    store.establish()
    with pytest.raises(StoreFull, match="main is over its free-space mark"):
        fill(store, "a", bytes(largest + 1))
    assert os.listdir(tmp_path / "tmp") == keys(store) == []
    fill(store, "a", bytes(largest))
    disk.free = 0
    assert len(read(store, "a")) == largest  # reading needs no space, deleting gives some
    store.delete(["a"])


def test_free_space_is_asked_for_once_a_second_and_counted_down(tmp_path: Path, disk: Disk) -> None:
    storage.free_space.CACHE_SECONDS = 60
    store = FilesystemStore("main", FilesystemOptions(root=tmp_path, min_free_bytes=0))
    store.establish()
    for key in ("a", "b"):
        fill(store, key, bytes(4_000))
    with pytest.raises(StoreFull):
        fill(store, "c", bytes(4_000))
    assert disk.asked == 1
