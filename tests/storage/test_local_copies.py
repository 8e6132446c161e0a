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
from threading import Event, Lock
from time import sleep
from typing import BinaryIO

import pytest

import core.failpoints
from core.errors import Busy, Corrupt, NotFound, StoreUnavailable
from storage import local_copies
from storage.filesystem.store import FilesystemOptions, FilesystemStore
from storage.interface import Span
from storage.local_copies import LocalCopies
from storage.memory import MemoryOptions, MemoryStore
from tests.contracts.object_store import fill, sha256

DATA = random.Random(7).randbytes(300_000)


class CountingStore(MemoryStore):
    """A remote store that notes how many downloads there were."""

    def __init__(self) -> None:
        super().__init__("remote", MemoryOptions())
        self.downloads = 0
        self._counting = Lock()

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        return self._counted(key)

    @contextmanager
    def _counted(self, key: str) -> Iterator[BinaryIO]:
        with self._counting:
            self.downloads += 1
        sleep(0.02)
        with super().open(key) as body:
            yield body


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


def test_a_filesystem_store_gives_its_own_file(copies: LocalCopies, tmp_path: Path) -> None:
    files = FilesystemStore("main", FilesystemOptions(root=tmp_path / "store"))
    files.establish()
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
@pytest.mark.parametrize("same", [True, False])
def test_killed_it_leaves_only_what_the_next_one_removes(
    tmp_path: Path, step: str, store: CountingStore, *, same: bool
) -> None:
    (tmp_path / step).write_text("kill")
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    folder = tmp_path / "copies"
    ended = subprocess.run([sys.executable, "-c", READER, str(folder)], env=environment, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert [Path(name).suffix for name in names(folder)] == [".part"]
    data = b"x" * 3_000_000
    fill(store, "a", data)
    fill(store, "b", DATA)
    key, wanted = ("a", data) if same else ("b", DATA)
    assert read(LocalCopies(folder, 10_000_000), store, key, wanted) == wanted
    assert names(folder) == [sha256(wanted).hex() + ".copy"]


class Trickling(MemoryStore):
    """Its bodies begin and go on when they are let go."""

    def __init__(self) -> None:
        super().__init__("slow", MemoryOptions())
        self.begun = Event()
        self.go_on = Event()

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        body = super().open(key, span)
        self.begun.set()
        assert self.go_on.wait(60)
        return body


@pytest.fixture
def slow() -> Iterator[Trickling]:
    store = Trickling()
    fill(store, "slow", DATA)
    yield store
    store.go_on.set()


def test_a_slow_original_stops_only_those_who_want_it(
    slow: Trickling, store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own instance, as the processes of a host do. Who wants the same one waits, but not for long."""
    monkeypatch.setattr(local_copies, "WAIT_SECONDS", 0.1)
    others = {f"other-{number}": random.Random(number).randbytes(1000) for number in range(5)}
    for key, data in others.items():
        fill(store, key, data)

    def ask(kind: MemoryStore, key: str, data: bytes) -> bytes:
        return read(LocalCopies(tmp_path / "copies", 1_000_000), kind, key, data)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, slow, "slow", DATA)
        assert slow.begun.wait(60)
        for key, data in others.items():
            assert ask(store, key, data) == data
        with pytest.raises(Busy):
            ask(store, "slow", DATA)
        assert not first.done()
        slow.go_on.set()
        assert first.result(60) == DATA
    assert ask(store, "slow", DATA) == DATA
    assert store.downloads == len(others)


def test_what_is_on_its_way_has_its_room(slow: Trickling, store: CountingStore, tmp_path: Path) -> None:
    """A part counts as what it will be, and is not taken for left over while it comes."""
    copies = LocalCopies(tmp_path / "copies", 500_000)
    bodies = {key: random.Random(key).randbytes(100_000) for key in "abcd"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(read, copies, slow, "slow", DATA)
        assert slow.begun.wait(60)
        for key, data in bodies.items():
            fill(store, key, data)
            assert read(copies, store, key, data) == data
            sleep(0.01)
        assert len(list((tmp_path / "copies").glob("*.copy"))) == 2
        slow.go_on.set()
        assert first.result(60) == DATA
    assert sum(path.stat().st_size for path in (tmp_path / "copies").glob("*.*")) == 500_000
