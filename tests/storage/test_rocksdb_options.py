"""Every key of `[stores.NAME] kind = "rocksdb"` reaches RocksDB: as it wrote down itself, or by what it then does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from core.errors import Misconfigured, NotFound
from core.sections import Staging
from core.settings import Settings
from storage.registry import open_stores, with_one_owner
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from tests.contracts.object_store import fill, read

KIB, MIB = 1 << 10, 1 << 20


def opened(root: Path, **options: Any) -> RocksdbStore:
    store = RocksdbStore.owned("main", RocksdbOptions(root=root, **options))
    store.establish()
    fill(store, "a")
    return store


def written_down(root: Path, **options: Any) -> dict[str, str]:
    """RocksDB's own account of the options it runs with."""
    opened(root, **options).close()
    [newest] = sorted((root / "db").glob("OPTIONS-*"))[-1:]
    lines = [line.strip().partition("=") for line in newest.read_text().splitlines()]
    return {name: value for name, sign, value in lines if sign}


@pytest.mark.parametrize(
    ("option", "value", "name", "default", "changed"),
    [
        ("compression", "none", "compression", "kNoCompression", "kNoCompression"),
        ("compression", "snappy", "compression", "kNoCompression", "kSnappyCompression"),
        ("compression", "lz4", "compression", "kNoCompression", "kLZ4Compression"),
        ("compression", "lz4hc", "compression", "kNoCompression", "kLZ4HCCompression"),
        ("compression", "zstd", "compression", "kNoCompression", "kZSTD"),
        ("compression", "bz2", "compression", "kNoCompression", "kBZip2Compression"),
        ("bloom_bits_per_key", 0, "filter_policy", "bloomfilter", "nullptr"),
        ("write_buffer_size", "8MiB", "write_buffer_size", str(16 * MIB), str(8 * MIB)),
        ("max_open_files", 64, "max_open_files", "512", "64"),
        ("max_open_files", -1, "max_open_files", "512", "-1"),
        ("max_background_jobs", 3, "max_background_jobs", "2", "3"),
        ("block_cache_size", 0, "no_block_cache", "false", "true"),
    ],
)
def test_rocksdb_runs_with_it(
    tmp_path: Path, option: str, value: object, name: str, default: str, changed: str
) -> None:
    assert written_down(tmp_path / "default")[name] == default
    assert written_down(tmp_path / "changed", **{option: value})[name] == changed


def test_the_block_cache_has_its_size(tmp_path: Path) -> None:
    for number, size in enumerate((MIB, 32 * MIB)):
        store = opened(tmp_path / str(number), block_cache_size=size)
        assert store._database.to_write().property_int_value("rocksdb.block-cache-capacity") == size
        store.close()


@pytest.mark.parametrize("compression", ["none", "snappy", "lz4", "lz4hc", "zstd", "bz2"])
def test_each_compression_is_in_the_library(tmp_path: Path, compression: str) -> None:
    store = opened(tmp_path, compression=compression)
    fill(store, "zeros", bytes(8 * MIB))
    store._database.to_write().flush(True)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "db").glob("*.sst"))
    assert (on_disk > 8 * MIB) == (compression == "none")
    assert read(store, "zeros") == bytes(8 * MIB)
    store.close()


def test_filters_spare_look_ups_the_disk(tmp_path: Path) -> None:
    size, cost = {}, {}
    for bits in (0, 10, 14):
        store = opened(tmp_path / str(bits), bloom_bits_per_key=bits, block_cache_size=0, sync_to_disk=False)
        for number in range(1000):
            fill(store, f"b{number:05}", b"x" * 100)
        database = store._database.to_write()
        database.flush(True)
        size[bits] = filter_bytes(database.property_value("rocksdb.aggregated-table-properties"))
        before = bytes_read()
        for number in range(200):
            with pytest.raises(NotFound):
                store.head(f"b{number:05}x")
        cost[bits] = bytes_read() - before
        store.close()
    assert 0 == size[0] < size[10] < size[14]
    assert cost[10] < cost[0] / 10


def filter_bytes(properties: str | None) -> int:
    [found] = [line for line in (properties or "").split(";") if "filter block size" in line]
    return int(found.partition("=")[2])


def bytes_read() -> int:
    fields = Path("/proc/self/io").read_text().split()
    return int(fields[fields.index("rchar:") + 1])


@pytest.mark.parametrize("sync", [True, False])
def test_sync_to_disk_syncs_the_log_before_a_change_returns(tmp_path: Path, sync: bool) -> None:
    store = opened(tmp_path, sync_to_disk=sync)
    syncs: list[bool] = []
    database = store._database.to_write()

    class Watched:
        def flush_wal(self, synced: bool) -> None:
            syncs.append(synced)
            database.flush_wal(synced)

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

    store._database._opened = Watched()  # type: ignore[attr-defined]  # of an Owner
    fill(store, "b")
    fill(store, "b")  # what was there may not be synced, either
    assert syncs == ([True, True] if sync else [])
    store.delete(["b", "c"])
    store.delete(["b"])  # whoever removed it may not have come to it
    assert syncs == ([True] * 4 if sync else [])
    store.close()


@pytest.mark.parametrize(
    ("staging", "allowed"),
    [(Staging(sync="full"), False), (Staging(sync="none"), True), (Staging(sync="full", ephemeral=True), True)],
)
def test_it_is_not_weaker_than_staging(tmp_path: Path, staging: Staging, allowed: bool) -> None:
    given = settings(tmp_path, staging, sync_to_disk=False)
    if allowed:
        assert open_stores(given)
    else:
        with pytest.raises(Misconfigured, match=r"stores\.main\.sync_to_disk: false is weaker than staging\.sync"):
            open_stores(given)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"chunk_size": "1KiB"}, "stores.main.chunk_size: "),
        ({"compression": "rar"}, "stores.main.compression: "),
        ({"max_open_files": -2}, "stores.main.max_open_files: "),
        ({"max_background_jobs": 0}, "stores.main.max_background_jobs: "),
        ({"bloom_bits_per_key": -1}, "stores.main.bloom_bits_per_key: "),
        ({"write_buffer_size": "256KiB"}, "stores.main: write_buffer_size must hold at least two chunks"),
        ({"color": "red"}, "stores.main.color: unknown key"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, more: dict[str, Any], line: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_stores(settings(tmp_path, Staging(), **more))
    assert caught.value.detail.startswith(line)


def test_only_the_owner_opens_it_to_write(tmp_path: Path) -> None:
    given = settings(tmp_path, Staging())
    assert with_one_owner(given) == ["main"]
    owner, reader = open_stores(given, owner=True)["main"], open_stores(given)["main"]
    owner.establish()
    fill(owner, "a")
    assert read(reader, "a") == b"bytes"
    assert os.listdir(tmp_path) == ["db"]
    owner.close()


def settings(root: Path, staging: Staging, **options: Any) -> Settings:
    return Settings(stores={"main": {"kind": "rocksdb", "root": str(root), **options}}, staging=staging)
