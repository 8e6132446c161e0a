"""What the filesystem store syncs, in which order: no loss of power takes what was put, or brings back what went."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.filesystem.fan_out import parts
from tests.contracts.object_store import fill, keys, read
from tests.storage.filesystem_store import KEY, opened_at, store_at


def synced(monkeypatch: pytest.MonkeyPatch, put: Callable[[], object]) -> list[str]:
    """What is synced, in this order: names of directories, and `file`."""
    names: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        names.append("file" if path.parent.name == "tmp" else path.name)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", note)
        put()
    return names


def test_the_file_and_every_changed_directory_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened_at(tmp_path / "new" / "store")
    assert synced(monkeypatch, store.establish) == [tmp_path.name, "new", "store", "store"]
    assert synced(monkeypatch, lambda: fill(store, KEY)) == ["file", "objects", "3a", "7b"]
    assert synced(monkeypatch, lambda: fill(store, KEY[:-2] + "18")) == ["file", "7b"]
    assert synced(monkeypatch, lambda: fill(store, "3a88")) == ["file", "3a", "88"]


def test_what_is_there_already_is_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer may have died between the link and the sync."""
    store = store_at(tmp_path / "store")
    fill(store, KEY)
    assert synced(monkeypatch, lambda: fill(store, KEY)) == ["file", KEY, "7b"]


def test_directories_that_another_process_made_are_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have died before it synced them."""
    fill(store_at(tmp_path / "a" / "store"), KEY)
    store = store_at(tmp_path / "a" / "store")
    assert synced(monkeypatch, lambda: fill(store, KEY[:-2] + "18")) == ["file", "objects", "3a", "7b"]


@pytest.mark.parametrize("removed_before", [False, True])
def test_what_is_deleted_cannot_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, removed_before: bool
) -> None:
    """The directories are synced, each once and after the last removal; also where another process removed the file and
    died before it synced them."""
    store = store_at(tmp_path / "store")
    others = [KEY[:-2] + "18", "3a88", "ffff"]
    for key in (KEY, *others):
        fill(store, key)
        if removed_before:
            (tmp_path / "store" / "objects").joinpath(*parts(key)).unlink()
    left: list[list[str]] = []

    def delete() -> None:
        store.delete([KEY, *others, "0000"])

    real = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (left.append(keys(store)), real(descriptor))[1])
        assert sorted(synced(patch, delete)) == ["7b", "88", "ff"]
    assert left == [[]] * 3


def test_sync_to_disk_can_be_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened_at(tmp_path / "a" / "store", sync=False)
    assert synced(monkeypatch, store.establish) == []
    assert synced(monkeypatch, lambda: fill(store, KEY)) == []
    assert read(store, KEY) == b"bytes"
    assert synced(monkeypatch, lambda: store.delete([KEY])) == []
