"""A RocksDB for tests, its owner and those who read beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore, _names

KIB, MIB = 1 << 10, 1 << 20
ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 4 * KIB
"""1 MiB: four chunks."""


def owner_of(root: Path, **more: Any) -> RocksdbStore:
    made = opened_by_owner(root, **more)
    made.establish()
    return made


def opened_by_owner(root: Path, **more: Any) -> RocksdbStore:
    """Open the store as the process that owns it finds it."""
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


WRITER = """
import hashlib, io, sys
from pathlib import Path
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
data = bytes(range(256)) * 4096
store = RocksdbStore.owned("main", RocksdbOptions(root=Path(sys.argv[1])))
store.establish()
store.put("a", io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).digest(), media_type="image/png")
print("put", flush=True)
sys.stdin.read()
"""


def writer(root: Path, failpoints: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MILLRACE_FAILPOINTS": str(failpoints), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
