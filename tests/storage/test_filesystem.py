"""The filesystem store against the contract; then what only files have: crashes, links, rights."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import core.failpoints
from core.errors import AlreadyExists, Forbidden, NoStore, NotFound, StoreFull, StoreUnavailable
from storage.filesystem.fan_out import parts
from storage.filesystem.store import FilesystemStore
from storage.interface import ObjectStore, Span
from tests.contracts.object_store import ObjectStoreContract, fill, keys, read
from tests.storage.filesystem_store import KEY, opened_at, store_at

DATA = b"0123456789" * 1000


@pytest.fixture
def files(tmp_path: Path) -> FilesystemStore:
    return store_at(tmp_path / "not" / "yet" / "there")


class TestFilesystemStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, files: FilesystemStore) -> ObjectStore:
        return files

    @pytest.fixture
    def residue(self, files: FilesystemStore) -> Callable[[], list[str]]:
        return lambda: os.listdir(files._root / "tmp")


def test_where_an_object_lies(files: FilesystemStore) -> None:
    fill(files, KEY)
    assert (files._root / "objects" / "3a" / "7b" / KEY).read_bytes() == b"bytes"
    assert parts("..") == ("+.", "==", "+.")
    assert parts("a/b") == ("a,", "b=", "a,b")


def test_a_whole_object_is_a_real_file(files: FilesystemStore) -> None:
    fill(files, "a", b"0123456789")
    with files.open("a") as body:
        assert os.pread(body.fileno(), 4, 3) == b"3456"
        body.seek(8)
        assert body.read() == b"89"
    with files.open("a", Span(2, 4)) as body, pytest.raises(io.UnsupportedOperation):
        body.fileno()


WRITER = """
import hashlib, io, sys
from pathlib import Path
from storage.filesystem.store import FilesystemOptions, FilesystemStore
data = b"0123456789" * 1000
store = FilesystemStore("main", FilesystemOptions(root=Path(sys.argv[1])))
store.establish()
store.put(sys.argv[2], io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).digest(), media_type="image/png")
"""


def write_in_another_process(root: Path, failpoints: Path) -> int:
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(failpoints), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", WRITER, str(root), KEY], env=environment, timeout=60).returncode


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        ("filesystem.after-create", False),
        ("filesystem.before-write", False),
        ("filesystem.before-fsync", False),
        ("filesystem.before-link", False),
        ("filesystem.after-link", True),
    ],
)
def test_killed_at_any_step_it_leaves_no_partial_object(tmp_path: Path, step: str, visible: bool) -> None:
    (tmp_path / step).write_text("kill")
    root = tmp_path / "store"
    assert write_in_another_process(root, tmp_path) == -signal.SIGKILL
    assert len(os.listdir(root / "tmp")) == 1
    store = store_at(root)
    assert keys(store) == ([KEY] if visible else [])
    assert os.listdir(root / "tmp") == []  # its first use took what the dead one left
    fill(store, KEY, DATA)
    assert read(store, KEY) == DATA
    assert keys(store) == [KEY]


def test_what_cannot_be_removed_keeps_nobody_from_working(tmp_path: Path) -> None:
    (tmp_path / "tmp" / ("0" * 32)).mkdir(parents=True)
    store = store_at(tmp_path)
    fill(store, "a")
    assert keys(store) == ["a"]


def test_files_of_others_beside_ours_stay(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    for name in ("theirs", "0" * 31, "0" * 33, "A" * 32, f"{0:032x}"):
        (tmp_path / "tmp" / name).touch()
    assert store_at(tmp_path).sweep_unfinished() == 0, "the first use removed what is ours"
    assert sorted(os.listdir(tmp_path / "tmp")) == sorted(("theirs", "0" * 31, "0" * 33, "A" * 32))


def test_the_temporary_file_of_a_living_writer_stays(tmp_path: Path) -> None:
    class Watching(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            other = store_at(tmp_path)
            assert keys(other) == []
            assert len(os.listdir(tmp_path / "tmp")) == 1
            return super().read(count)

    store = store_at(tmp_path)
    store.put("a", Watching(DATA), size=len(DATA), sha256=hashlib.sha256(DATA).digest(), media_type="image/png")
    assert read(store, "a") == DATA


def test_a_process_that_begins_takes_nothing_from_one_that_writes(tmp_path: Path) -> None:
    """Not even a file that is there already and not locked yet."""
    store = store_at(tmp_path)
    done = threading.Event()

    def begin() -> None:
        while not done.is_set():
            opened_at(tmp_path).sweep_unfinished()

    def write(number: int) -> None:
        fill(store, f"{number:03}")

    with ThreadPoolExecutor(4) as pool:
        beginning = [pool.submit(begin) for _ in range(2)]
        try:
            list(pool.map(write, range(300)))
        finally:
            done.set()
    for one in beginning:
        one.result()
    assert len(keys(store)) == 300
    assert os.listdir(tmp_path / "tmp") == []


@pytest.fixture
def failpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    monkeypatch.setattr(core.failpoints, "_DIRECTORY", str(folder))
    return folder


@pytest.mark.parametrize("step", ["before-write", "before-fsync", "before-link"])
@pytest.mark.parametrize(
    ("number", "error"),
    [("ENOSPC", StoreFull), ("EDQUOT", StoreFull), ("EIO", StoreUnavailable), ("EACCES", Forbidden)],
)
def test_errors_of_the_disk(
    files: FilesystemStore, failpoints: Path, step: str, number: str, error: type[Exception]
) -> None:
    (failpoints / f"filesystem.{step}").write_text(f"errno {number}")
    with pytest.raises(error) as caught:
        fill(files, KEY)
    assert type(caught.value) is error
    assert keys(files) == []
    assert os.listdir(files._root / "tmp") == []
    fill(files, KEY)


def test_a_link_in_the_root_leads_nowhere(files: FilesystemStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "7b").mkdir(parents=True)
    (outside / "7b" / KEY).write_bytes(b"secret")
    fill(files, "other")
    (files._root / "objects" / "3a").symlink_to(outside)
    for call in (lambda: fill(files, KEY), lambda: read(files, KEY), lambda: files.delete([KEY])):
        with pytest.raises(StoreUnavailable):
            call()
    assert keys(files) == ["other"]
    assert (outside / "7b" / KEY).read_bytes() == b"secret"


def test_a_link_in_place_of_an_object_is_not_followed(files: FilesystemStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"bytes")
    fill(files, KEY)
    place = files._root / "objects" / "3a" / "7b" / KEY
    place.unlink()
    place.symlink_to(tmp_path / "secret")
    for call in (lambda: read(files, KEY), lambda: files.head(KEY), lambda: fill(files, KEY)):
        with pytest.raises(StoreUnavailable):
            call()
    assert keys(files) == []


def test_foreign_files_are_no_objects(files: FilesystemStore) -> None:
    fill(files, KEY)
    level = files._root / "objects" / "3a"
    (level / "README").write_text("mine")
    (level / "7b" / "not the place").write_text("mine")
    (level / "7b" / "3a7c").write_text("in the wrong folder")
    (files._root / "objects" / "lost+found").mkdir()
    assert keys(files) == [KEY]


def test_a_lost_root_is_not_an_empty_store(files: FilesystemStore) -> None:
    fill(files, KEY)
    files._root.rename(files._root.with_name("unmounted"))
    for call in (lambda: files.head(KEY), lambda: read(files, KEY), lambda: keys(files), lambda: fill(files, KEY)):
        with pytest.raises(StoreUnavailable):
            call()


def test_a_torn_object_is_not_taken_for_the_same(files: FilesystemStore) -> None:
    """The right size is not enough: after a loss of power a file may hold zeros."""
    fill(files, KEY, DATA)
    (files._root / "objects" / "3a" / "7b" / KEY).write_bytes(bytes(len(DATA)))
    with pytest.raises(AlreadyExists):
        fill(files, KEY, DATA)


@pytest.mark.parametrize("there", [(), ("store",), ("store", "store/tmp")])
def test_nothing_but_establishing_makes_the_root(tmp_path: Path, there: tuple[str, ...]) -> None:
    """A mount point without its mount."""
    for name in there:
        (tmp_path / name).mkdir()
    store = opened_at(tmp_path / "store")
    for call in (
        lambda: fill(store, KEY),
        lambda: store.head(KEY),
        lambda: read(store, KEY),
        lambda: keys(store),
        lambda: store.delete([KEY]),
        store.sweep_unfinished,
    ):
        with pytest.raises(NoStore, match="is its disk mounted"):
            call()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == sorted(there)
    store.establish()
    fill(store, KEY)
    assert keys(store) == [KEY]


def test_reading_what_is_deleted_meanwhile(files: FilesystemStore) -> None:
    fill(files, KEY)
    with files.open(KEY) as body:
        files.delete([KEY])
        assert body.read() == b"bytes"
    with pytest.raises(NotFound):
        files.open(KEY)
