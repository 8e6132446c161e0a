"""Processes beside the owner of a RocksDB: they read, follow, and are told who owns it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.errors import StoreUnavailable
from storage.interface import ObjectStore, Span
from storage.rocksdb.database import Reader
from storage.rocksdb.store import RocksdbStore
from tests.contracts.object_store import ObjectStoreContract, fill, keys, read
from tests.storage.rocksdb_store import DATA, KIB, opened_by_owner, owner, reader_of, writer

__all__ = ["owner"]


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

    def restore(self, key: str) -> int:
        self._follow()
        return self._reader.restore(key)

    def scan(self, prefix: str = "", *, after: str = "") -> Any:
        return self._reader.scan(prefix, after=after)

    def _follow(self) -> None:
        """A deletion shows within a second; the contract's tests do not wait for it."""
        self._reader._database._followed_at = 0  # type: ignore[attr-defined]  # of a Reader


def test_a_second_process_is_told_who_owns_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with writer(root, tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"put\n"
        second = opened_by_owner(root)
        for call in (
            second.establish,
            lambda: fill(second, "b"),
            lambda: second.head("a"),
            lambda: second.delete(["a"]),
        ):
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


def test_a_reader_that_lost_track_opens_anew_before_it_says_that_there_is_nothing(
    owner: RocksdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(owner, "a")
    reader = reader_of(owner._options.root)
    assert keys(reader) == ["a"]
    monkeypatch.setattr(Reader, "_follow", lambda _reader, opened: opened)
    fill(owner, "b", DATA)
    assert read(reader, "b") == DATA


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
