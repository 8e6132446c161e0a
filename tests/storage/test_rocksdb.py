"""The RocksDB store against the contract; then crashes, its one owner and its readers, and every option."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import core.failpoints
from core.errors import Corrupt, Forbidden, Misconfigured, StoreFull, StoreUnavailable
from storage.interface import ObjectStore, Span
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.records import CHUNK, WRITING
from storage.rocksdb.store import RocksdbStore, _names
from tests.contracts.object_store import ObjectStoreContract, fill, keys, read

KIB, MIB = 1 << 10, 1 << 20
ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 4 * KIB
"""1 MiB: four chunks."""


def owner_of(root: Path, **more: Any) -> RocksdbStore:
    return RocksdbStore.owned("main", RocksdbOptions(root=root, **more))


def reader_of(root: Path, **more: Any) -> RocksdbStore:
    return RocksdbStore.beside_its_owner("main", RocksdbOptions(root=root, **more))


def names(store: RocksdbStore, prefix: bytes) -> list[bytes]:
    return list(_names(store._database.to_write(), prefix))


@pytest.fixture
def owner(services_directory: Path) -> Iterator[RocksdbStore]:
    """In memory where there is a tmpfs: a database for each test, and nothing here is about the disk."""
    with TemporaryDirectory(dir=services_directory) as root:
        store = owner_of(Path(root) / "not" / "yet" / "there")
        yield store
        store.close()


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


class TestRocksdbReader(ObjectStoreContract):
    """What a process beside the owner reads is what the contract promises, at once."""

    part_size = 256 * KIB

    @pytest.fixture
    def store(self, owner: RocksdbStore) -> ObjectStore:
        assert keys(owner) == []  # which makes the database
        return _ReadBeside(owner, reader_of(owner._options.root))


class _ReadBeside:
    """Writes through the owner, and reads through the reader."""

    def __init__(self, owner: RocksdbStore, reader: RocksdbStore) -> None:
        self.name, self.breaker = owner.name, owner.breaker
        self.put, self.delete, self.sweep_unfinished = owner.put, owner.delete, owner.sweep_unfinished
        self._reader = reader
        self.copy_from, self.url, self.close = reader.copy_from, reader.url, reader.close

    def open(self, key: str, span: Span | None = None) -> Any:
        self._follow()
        return self._reader.open(key, span)

    def head(self, key: str) -> Any:
        self._follow()
        return self._reader.head(key)

    def scan(self, prefix: str = "", *, after: str = "") -> Any:
        return self._reader.scan(prefix, after=after)

    def _follow(self) -> None:
        """A deletion shows within a second; the contract's tests do not wait for it."""
        self._reader._database._followed_at = 0  # type: ignore[attr-defined]  # of a Reader


WRITER = """
import hashlib, io, sys
from pathlib import Path
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
data = bytes(range(256)) * 4096
store = RocksdbStore.owned("main", RocksdbOptions(root=Path(sys.argv[1])))
store.put("a", io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).digest(), media_type="image/png")
print("put", flush=True)
sys.stdin.read()
"""


def writer(root: Path, failpoints: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(failpoints), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


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


def test_a_second_process_is_told_who_owns_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with writer(root, tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"put\n"
        second = owner_of(root)
        for call in (lambda: fill(second, "b"), lambda: second.head("a"), lambda: second.delete(["a"])):
            with pytest.raises(StoreUnavailable, match=r"main: another process owns .*millrace worker all"):
                call()
        first.kill()
    assert read(second, "a") == DATA  # the kernel freed it
    second.close()


def test_a_reader_follows_its_owner_in_another_process(tmp_path: Path) -> None:
    root = tmp_path / "store"
    reader = reader_of(root)
    with pytest.raises(StoreUnavailable, match="no RocksDB in"):
        reader.head("a")
    with writer(root, tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"put\n"
        assert read(reader, "a") == DATA
        assert read(reader, "a", Span(300_000, 300_010)) == DATA[300_000:300_010]
        child.kill()
    assert keys(reader) == ["a"]
    reader.close()


def test_a_reader_does_not_write(owner: RocksdbStore) -> None:
    fill(owner, "a")
    reader = reader_of(owner._options.root)
    for call in (lambda: fill(reader, "b"), lambda: reader.delete(["a"]), reader.sweep_unfinished):
        with pytest.raises(StoreUnavailable, match=r"main is a RocksDB, which one process owns"):
            call()
    assert keys(reader) == ["a"]


def test_a_reader_keeps_up_with_flushes_and_compactions(owner: RocksdbStore) -> None:
    """Files come and go underneath it, faster than it looks."""
    reader = reader_of(owner._options.root)
    fill(owner, "first", DATA)
    with reader.open("first") as body:
        for number in range(60):
            fill(owner, f"{number:02}", DATA)
            if number % 2:
                owner.delete([f"{number - 1:02}"])
            if number % 10 == 9:
                assert read(reader, f"{number:02}") == DATA
        owner.delete(["first"])
        owner._database.to_write().compact_range(None, None)
        fill(owner, "last", DATA)
        assert read(reader, "last") == DATA
        assert body.read() == DATA
    assert keys(reader) == keys(owner)


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
    owner_of(tmp_path / "store")
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
