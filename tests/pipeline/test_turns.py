"""Maintenance beside a lock: one at a time does the work, and no lock, however wrong, keeps it from being done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from coordination.turns import PATIENCE
from core.errors import StoreUnavailable
from core.sections import Locks
from metadata.paths import AssetPath
from pipeline import maintenance
from pipeline.assets import deletion
from tests.pictures import encoded, photo
from tests.pipeline.line import Line


def throw_away(line: Line, count: int, path: str = "/bare/a") -> None:
    """Garbage of so many objects that nobody has deleted yet."""
    for number in range(count):
        asset = line.bring(path, encoded(photo(30 + number, 20), "PNG"))
        deletion.delete(line.services, AssetPath.from_text(path), asset.entry, purge=True)
    line.services.metadata.blobs.collect(100, line.services.keeping)


def record_deletes(line: Line, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    deleted: list[str] = []
    store = line.services.default_store
    delete = store.delete

    def record(keys: Iterable[str]) -> None:
        given = list(keys)
        deleted.extend(given)
        delete(given)

    monkeypatch.setattr(store, "delete", record)
    return deleted


def test_eight_processes_delete_each_object_once(
    line: Line, monkeypatch: pytest.MonkeyPatch, arm: Callable[..., None]
) -> None:
    throw_away(line, 5)
    deleted = record_deletes(line, monkeypatch)
    arm("gc.after-delete", "sleep 0.5")  # longer than the others try
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(maintenance.collect_garbage, [replace(line.services) for _ in range(8)]))
    assert sorted(found) == [0] * 7 + [5]
    assert len(deleted) == len(set(deleted)) == 5


def test_without_a_lock_they_do_it_twice_and_nothing_breaks(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, arm: Callable[..., None]
) -> None:
    line = Line(tmp_path, database_url, locks=Locks(kind="none"))
    throw_away(line, 5)
    deleted = record_deletes(line, monkeypatch)
    arm("gc.after-delete", "sleep 0.5")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: maintenance.collect_garbage(line.services), range(4)))
    assert len(deleted) > len(set(deleted)) == 5
    assert line.objects() == {}
    assert line.services.metadata.blobs.garbage(10) == []
    line.close()


def test_a_store_that_somebody_empties_is_left_out_but_not_for_ever(line: Line) -> None:
    throw_away(line, 1)
    with line.services.locks.acquire("gc:main"):
        found = [maintenance.collect_garbage(line.services) for _ in range(PATIENCE + 1)]
    assert found == [0] * PATIENCE + [1]


def test_one_store_that_is_away_holds_up_no_other(tmp_path: Path, database_url: str) -> None:
    stores = {name: {"kind": "filesystem", "root": str(tmp_path / name)} for name in ("a", "b")}
    first = Line(tmp_path / "1", database_url, stores=stores, default_store="a")
    second = Line(tmp_path / "2", database_url, stores=stores, default_store="b")
    throw_away(first, maintenance_batch := 3)
    throw_away(second, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "BATCH", maintenance_batch)  # all that a batch holds is of the store that is away
        patch.setattr(second.services.stores["a"], "delete", away)
        assert maintenance.collect_garbage(second.services) == 2
        assert maintenance.collect_garbage(second.services) == 0
    assert maintenance.collect_garbage(second.services) == 3
    first.close()
    second.close()


def test_garbage_of_a_store_without_settings_stays(line: Line, tmp_path: Path, database_url: str) -> None:
    throw_away(line, 2)
    stores = {"other": {"kind": "filesystem", "root": str(tmp_path / "other")}}
    stranger = Line(tmp_path / "stranger", database_url, stores=stores, default_store="other")
    assert maintenance.collect_garbage(stranger.services) == 0
    assert len(line.services.metadata.blobs.garbage(10)) == 2
    stranger.close()


def test_a_turn_goes_on_over_several_batches_until_it_is_lost(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "BATCH", 2)
    throw_away(line, 7)
    store = line.services.default_store
    delete, leases = store.delete, []
    acquire = line.services.locks.acquire

    def remember(name: str, *, wait: bool = False) -> object:
        leases.append(acquire(name, wait=wait))
        return leases[-1]

    def lose(keys: Iterable[str]) -> None:
        delete(keys)
        leases[-1].lost.set()

    monkeypatch.setattr(line.services.locks, "acquire", remember)
    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", lose)
        assert maintenance.collect_garbage(line.services) == 2
    assert maintenance.collect_garbage(line.services) == 5


def test_one_sweeps_a_store(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []
    monkeypatch.setattr(line.services.default_store, "sweep_unfinished", lambda: swept.append(1) or 4)
    assert maintenance.sweep_stores(line.services) == 4
    with line.services.locks.acquire("sweep:main"):
        found = [maintenance.sweep_stores(line.services) for _ in range(PATIENCE + 1)]
    assert found == [0] * PATIENCE + [4]


def away(_: object) -> None:
    raise StoreUnavailable("away")
