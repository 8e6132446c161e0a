"""Local copies: one download per host, verified, bounded, and nothing half done after a crash."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock
from time import sleep
from typing import BinaryIO

import pytest

import core.failpoints
from core.errors import Corrupt, NotFound, StoreUnavailable
from storage.filesystem.store import FilesystemOptions, FilesystemStore
from storage.interface import Span
from storage.local_copies import LocalCopies
from storage.memory import MemoryOptions, MemoryStore
from tests.contracts.object_store import fill, sha256

DATA = random.Random(7).randbytes(300_000)


class CountingStore(MemoryStore):
    """A remote store that notes how many downloads there were, and how many at once."""

    def __init__(self) -> None:
        super().__init__("remote", MemoryOptions())
        self.downloads = 0
        self.most_at_once = 0
        self._now = 0
        self._counting = Lock()

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        return self._counted(key)

    @contextmanager
    def _counted(self, key: str) -> Iterator[BinaryIO]:
        with self._counting:
            self.downloads += 1
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            sleep(0.02)
            with super().open(key) as body:
                yield body
        finally:
            with self._counting:
                self._now -= 1


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def copies(tmp_path: Path) -> LocalCopies:
    return LocalCopies(tmp_path / "copies", 1_000_000)


def read(copies: LocalCopies, store: MemoryStore | FilesystemStore, key: str, data: bytes = DATA) -> bytes:
    with copies.open(store, key, size=len(data), sha256=sha256(data)) as file:
        return os.pread(file.fileno(), len(data) + 1, 0)


def names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "lock")


def test_it_is_a_real_file_downloaded_once(store: CountingStore, copies: LocalCopies) -> None:
    fill(store, "a", DATA)
    for _ in range(3):
        assert read(copies, store, "a") == DATA
    assert store.downloads == 1


def test_many_ask_and_one_downloads(store: CountingStore, tmp_path: Path) -> None:
    """Each has its own instance, as the processes of a host do."""
    fill(store, "a", DATA)
    fill(store, "b", b"other")

    def ask(number: int) -> bytes:
        copies = LocalCopies(tmp_path / "copies", 1_000_000)
        return read(copies, store, "b", b"other") if number % 2 else read(copies, store, "a")

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {DATA, b"other"}
    assert store.downloads == 2
    assert store.most_at_once == 1


def test_a_filesystem_store_gives_its_own_file(copies: LocalCopies, tmp_path: Path) -> None:
    files = FilesystemStore("main", FilesystemOptions(root=tmp_path / "store"))
    fill(files, "abcdef", DATA)
    with copies.open(files, "abcdef", size=len(DATA), sha256=sha256(DATA)) as file:
        assert Path(f"/proc/self/fd/{file.fileno()}").readlink() == tmp_path / "store/objects/ab/cd/abcdef"
    assert not (tmp_path / "copies").exists()
    with pytest.raises(Corrupt), copies.open(files, "abcdef", size=1, sha256=sha256(b"a")):
        pass


def test_the_longest_unused_goes_first_and_open_ones_go_on(
    store: CountingStore, copies: LocalCopies, tmp_path: Path
) -> None:
    bodies = {key: random.Random(key).randbytes(300_000) for key in "abcd"}
    for key, data in bodies.items():
        fill(store, key, data)
    for key in "abc":
        read(copies, store, key, bodies[key])
        sleep(0.01)
    with copies.open(store, "b", size=300_000, sha256=sha256(bodies["b"])) as kept:
        read(copies, store, "a", bodies["a"])  # now `b` is the second oldest, `c` the oldest
        sleep(0.01)
        fill(store, "e", bodies["b"][:299_999])
        read(copies, store, "d", bodies["d"])
        read(copies, store, "e", bodies["b"][:299_999])
        assert kept.read() == bodies["b"]
    left = {name.removesuffix(".copy") for name in names(tmp_path / "copies")}
    assert left == {sha256(data).hex() for data in (bodies["a"], bodies["d"], bodies["b"][:299_999])}


def test_what_is_larger_than_the_bound_is_not_kept(store: CountingStore, tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path / "copies", 1000)
    fill(store, "a", DATA)
    assert read(copies, store, "a") == DATA
    assert names(tmp_path / "copies") == []


def test_wrong_bytes_never_become_a_copy(store: CountingStore, copies: LocalCopies, tmp_path: Path) -> None:
    fill(store, "a", b"!" + DATA[1:])
    with pytest.raises(Corrupt):
        read(copies, store, "a")
    with pytest.raises(NotFound):
        read(copies, store, "missing")
    assert names(tmp_path / "copies") == []


def test_a_torn_copy_is_fetched_again(store: CountingStore, copies: LocalCopies, tmp_path: Path) -> None:
    fill(store, "a", DATA)
    read(copies, store, "a")
    (copy,) = (tmp_path / "copies").glob("*.copy")
    os.truncate(copy, 10)
    assert read(copies, store, "a") == DATA
    assert store.downloads == 2


def test_a_full_disk_is_not_the_objects_fault(
    store: CountingStore, copies: LocalCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failpoints = tmp_path / "failpoints"
    failpoints.mkdir()
    (failpoints / "copies.before-write").write_text("errno ENOSPC")
    monkeypatch.setattr(core.failpoints, "_DIRECTORY", str(failpoints))
    fill(store, "a", DATA)
    with pytest.raises(StoreUnavailable):
        read(copies, store, "a")
    assert names(tmp_path / "copies") == []
    assert read(copies, store, "a") == DATA


READER = """
import io, sys
from pathlib import Path
from hashlib import sha256
from storage.local_copies import LocalCopies
from storage.memory import MemoryOptions, MemoryStore
data = b"x" * 3_000_000
store = MemoryStore("remote", MemoryOptions())
store.put("a", io.BytesIO(data), size=len(data), sha256=sha256(data).digest(), media_type="image/png")
with LocalCopies(Path(sys.argv[1]), 10_000_000).open(store, "a", size=len(data), sha256=sha256(data).digest()):
    pass
"""


@pytest.mark.parametrize("step", ["copies.before-write", "copies.before-rename"])
def test_killed_it_leaves_only_what_the_next_one_removes(tmp_path: Path, step: str, store: CountingStore) -> None:
    (tmp_path / step).write_text("kill")
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    folder = tmp_path / "copies"
    ended = subprocess.run([sys.executable, "-c", READER, str(folder)], env=environment, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [Path(name).suffix for name in names(folder)] == [".part"]
    data = b"x" * 3_000_000
    fill(store, "a", data)
    assert read(LocalCopies(folder, 10_000_000), store, "a", data) == data
    assert [Path(name).suffix for name in names(folder)] == [".copy"]
