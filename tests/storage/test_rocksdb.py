"""The RocksDB store against the contract; then crashes, its one owner and its readers, and every option."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import core.failpoints
from core.errors import Corrupt, Forbidden, Misconfigured, StoreFull, StoreUnavailable
from storage.interface import ObjectStore, Span
from storage.rocksdb.records import CHUNK, WRITING
from storage.rocksdb.store import RocksdbStore
from tests.contracts.object_store import ObjectStoreContract, fill, keys, read
from tests.storage.rocksdb_store import DATA, KIB, ROOT, names, opened_by_owner, owner, owner_of, reader_of, writer

__all__ = ["owner"]


class TestRocksdbStore(ObjectStoreContract):
    part_size = 256 * KIB

    @pytest.fixture
    def store(self, owner: RocksdbStore) -> ObjectStore:
        return owner

    @pytest.fixture
    def residue(self, owner: RocksdbStore) -> Callable[[], list[str]]:
        """Bodies that are named as unfinished, and chunks beyond those of the objects."""

        def look() -> list[str]:
            chunks = len(names(owner, CHUNK))
            owned = sum(-(-found.size // (256 * KIB)) for found in owner.scan())
            return [name.hex() for name in names(owner, WRITING)] + ["a chunk of nobody"] * (chunks - owned)

        return look


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        ("rocksdb.before-write", False),
        ("rocksdb.before-record", False),
        ("rocksdb.after-record", True),
        ("rocksdb.before-sync", True),
    ],
)
def test_killed_at_any_step_it_leaves_no_partial_object(tmp_path: Path, step: str, visible: bool) -> None:
    (tmp_path / step).write_text("kill")
    with writer(tmp_path / "store", tmp_path) as child:
        assert child.wait(60) == -signal.SIGKILL
    store = owner_of(tmp_path / "store")
    assert keys(store) == (["a"] if visible else [])
    fill(store, "a", DATA)
    assert read(store, "a") == DATA
    assert names(store, WRITING) == []
    assert len(names(store, CHUNK)) == 4  # what the dead one left was removed
    store.close()


def test_what_a_dead_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "rocksdb.before-record").write_text("kill")
    with writer(tmp_path / "store", tmp_path) as child:
        child.wait(60)
    store = owner_of(tmp_path / "store")
    assert len(names(store, CHUNK)) == 3
    assert store.sweep_unfinished() == 1
    assert store.sweep_unfinished() == 0
    assert names(store, CHUNK) == names(store, WRITING) == []
    store.close()


def test_a_sweep_spares_living_writers(owner: RocksdbStore) -> None:
    class Sweeping(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            assert owner.sweep_unfinished() == 0
            return super().read(count)

    owner.put("a", Sweeping(DATA), size=len(DATA), sha256=hashlib.sha256(DATA).digest(), media_type="image/png")
    assert read(owner, "a") == DATA


def test_a_range_reads_only_its_chunks(owner: RocksdbStore) -> None:
    fill(owner, "a", DATA)
    database = owner._database.to_write()
    [first, _, third, fourth] = names(owner, CHUNK)
    for gone in (first, third, fourth):
        database.delete(gone)
    assert read(owner, "a", Span(256 * KIB, 512 * KIB)) == DATA[256 * KIB : 512 * KIB]
    with pytest.raises(Corrupt, match="chunk 0 is missing"):
        read(owner, "a")


def test_the_chunk_size_is_the_objects_own(tmp_path: Path) -> None:
    for number, size in enumerate((4 * KIB, 512 * KIB)):
        store = owner_of(tmp_path, chunk_size=size)
        fill(store, str(number), DATA)
        assert len(names(store, CHUNK)) == [256, 258][number]
        store.close()
    store = owner_of(tmp_path)
    assert read(store, "0", Span(5000)) == read(store, "1", Span(5000)) == DATA[5000:]
    store.close()


@pytest.fixture
def failpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setattr(core.failpoints, "_DIRECTORY", str(folder))
    return folder


@pytest.mark.parametrize("step", ["before-write", "before-record"])
@pytest.mark.parametrize(
    ("number", "error"),
    [("ENOSPC", StoreFull), ("EDQUOT", StoreFull), ("EIO", StoreUnavailable), ("EACCES", Forbidden)],
)
def test_errors_of_the_disk(
    owner: RocksdbStore, failpoints: Path, step: str, number: str, error: type[Exception]
) -> None:
    (failpoints / f"rocksdb.{step}").write_text(f"errno {number}")
    with pytest.raises(error) as caught:
        fill(owner, "a", DATA)
    assert type(caught.value) is error
    assert keys(owner) == []
    fill(owner, "a", DATA)
    assert len(names(owner, CHUNK)) == 4


def test_below_the_watermark_nothing_is_written(tmp_path: Path) -> None:
    store = owner_of(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(StoreFull, match="free-space mark"):
        fill(store, "a")
    assert keys(store) == []
    store.close()


def test_a_lost_database_is_not_an_empty_store(owner: RocksdbStore) -> None:
    fill(owner, "a")
    reader = reader_of(owner._options.root)
    owner.close()
    (owner._options.root / "db").rename(owner._options.root / "unmounted")
    with pytest.raises(StoreUnavailable, match="there is no RocksDB"):
        reader.head("a")


def test_opening_touches_nothing(tmp_path: Path) -> None:
    opened_by_owner(tmp_path / "store")
    reader_of(tmp_path / "store")
    assert os.listdir(tmp_path) == []


def test_without_the_library_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(Misconfigured, match=r"stores.main.kind: .*pip install"):
        owner_of(tmp_path)


MEMORY = """
import hashlib, resource, sys
from pathlib import Path
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from tests.contracts.object_store import MIB, Zeros
size, digest = 256 * MIB, hashlib.sha256()
for _ in range(256):
    digest.update(bytes(MIB))
store = RocksdbStore.owned("main", RocksdbOptions(root=Path(sys.argv[1])))
store.establish()
store.head_of_nothing = [*store.scan()]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("a", Zeros(size), size=size, sha256=digest.digest(), media_type="image/png")
back = hashlib.sha256()
with store.open("a") as body:
    while block := body.read(MIB):
        back.update(block)
assert back.digest() == digest.digest()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_body_takes_bounded_memory_of_the_whole_process(tmp_path: Path) -> None:
    """RocksDB's own memory, too, which the contract's test does not see."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", MEMORY, str(tmp_path)]
    grown = int(subprocess.run(run, env=environment, check=True, capture_output=True, timeout=120).stdout)
    assert grown < 64 * KIB  # KiB
