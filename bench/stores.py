"""Part (d): the object stores, each beside what it can be measured against.

The filesystem store against plain copies of files with the same syncs, and ranges of its objects against ranges of
plain files; RocksDB and PostgreSQL against the filesystem store; S3 with parallel parts against one part at a time, on
a server that is `DISTANCE_SECONDS` away. Sources are files, as in ingest, and their hashes are known.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from bench.latency import DistantServer
from bench.measure import KIB, MIB, Comparison, settle
from storage.filesystem.store import FilesystemOptions, FilesystemStore
from storage.interface import ObjectStore, Span
from storage.postgres.options import PostgresOptions
from storage.postgres.store import PostgresStore
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.store import RocksdbStore
from storage.s3.options import S3Options
from storage.s3.store import S3Store
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.s3_server import s3_server

ROUNDS = 4
STEPS = 2 + 3 * ROUNDS
BODIES = {"20k": (20 * KIB, 100), "5m": (5 * MIB, 8)}
"""Size, and how many a round."""
FOLDERS = 8
"""A store in use has its directories already; making one costs both sides a sync."""
RANGE, RANGES = MIB, 400
"""Of an object in the page cache: what is left is what opening and seeking cost, about 10 µs here."""
BLOCK = MIB
DISTANCE_SECONDS = 0.05
PART, PARTS, JOBS = 5 * MIB, 16, 8


@dataclass(frozen=True)
class Source:
    path: Path
    size: int
    sha256: bytes


Side = Callable[[list[Source]], None]
"""Puts every source, each synced before the next, then reads every one."""


def measure(directory: Path, advance: Callable[[str], None]) -> dict[str, Comparison]:
    directory.mkdir(exist_ok=True)
    advance("stores: starting PostgreSQL and S3")
    found: dict[str, Comparison] = {}
    with ExitStack() as servers:
        sides = servers.enter_context(_sides(directory))
        for label, (size, number) in BODIES.items():
            rates = _rates(sides, _sources(directory, size, number), label, advance)
            found[f"store_filesystem_{label}"] = Comparison("MB/s", rates["filesystem"], rates["plain"])
            for name in ("rocksdb", "postgres"):
                found[f"store_{name}_{label}"] = Comparison("MB/s", rates[name], rates["filesystem"])
        found["store_range"] = _ranges(directory)
        found["store_s3_parallel"] = _parallel_parts(directory, advance)
    return found


@contextmanager
def _sides(directory: Path) -> Iterator[Mapping[str, Side]]:
    server = Postgres(directory / "postgres", directory / "run", durable=True)
    child = start(server, directory / "postgres.log")
    stores: list[ObjectStore] = [
        FilesystemStore("filesystem", FilesystemOptions(root=directory / "filesystem")),
        RocksdbStore.owned("rocksdb", RocksdbOptions(root=directory / "rocksdb")),
        PostgresStore("postgres", PostgresOptions.model_validate({"url": server.url_of("postgres")})),
    ]
    try:
        for store in stores:
            store.establish()
        yield {"plain": _Plain(directory / "plain"), **{store.name: _Through(store) for store in stores}}
    finally:
        for store in stores:
            store.close()
        stop([child])


class _Through:
    """The contract of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._names = count()

    def __call__(self, sources: list[Source]) -> None:
        keys = []
        for source in sources:
            number = next(self._names)
            keys.append(f"00{number % FOLDERS:02}{number:060}.1")
            with source.path.open("rb") as body:
                self._store.put(keys[-1], body, size=source.size, sha256=source.sha256, media_type="image/jpeg")
        for key in keys:
            with self._store.open(key) as stored:
                while stored.read(BLOCK):
                    pass


class _Plain:
    """Copy, sync the file, give it its name, sync the directory: nothing is hashed, checked or decided."""

    def __init__(self, directory: Path) -> None:
        self._names = count()
        self._folders = [directory / str(number) for number in range(FOLDERS)]
        for folder in self._folders:
            folder.mkdir(parents=True)

    def __call__(self, sources: list[Source]) -> None:
        paths = []
        for source in sources:
            number = next(self._names)
            folder = self._folders[number % FOLDERS]
            paths.append(folder / str(number))
            _copy(source.path, folder / "new")
            (folder / "new").rename(paths[-1])
            _sync(folder)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.read(BLOCK):
                    pass


def _copy(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as body, target.open("wb", buffering=0) as file:
        while block := body.read(BLOCK):
            file.write(block)
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sources(directory: Path, size: int, number: int) -> list[Source]:
    made = []
    for one in range(number):
        data = random.Random(size + one).randbytes(size)
        path = directory / f"source-{size}-{one}"
        path.write_bytes(data)
        made.append(Source(path, size, hashlib.sha256(data).digest()))
    return made


def _rates(
    sides: Mapping[str, Side], sources: list[Source], label: str, advance: Callable[[str], None]
) -> dict[str, list[float]]:
    """MB/s of each side in each round. In every other round they go the other way around."""
    for side in sides.values():
        side(sources[:FOLDERS])
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        advance(f"stores: bodies of {label}, round {number + 1}")
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            settle()
            began = time.monotonic()
            sides[name](sources)
            rates[name].append(sum(source.size for source in sources) / 1e6 / (time.monotonic() - began))
    return rates


def _ranges(directory: Path) -> Comparison:
    """Ranges from the middle of an object of 64 MiB that is in the page cache: what opening and seeking cost."""
    [source] = _sources(directory, 64 * MIB, 1)
    store = FilesystemStore("ranges", FilesystemOptions(root=directory / "ranges"))
    store.establish()
    with source.path.open("rb") as body:
        store.put("0000", body, size=source.size, sha256=source.sha256, media_type="image/jpeg")
    chance = random.Random(0)
    starts = [chance.randrange(source.size - RANGE) for _ in range(RANGES)]

    def ours(start: int) -> bytes:
        with store.open("0000", Span(start, start + RANGE)) as part:
            return part.read()

    def plain(start: int) -> bytes:
        with source.path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(RANGE)

    comparison = Comparison("ranges/s")
    for number in range(2 * ROUNDS):
        pair = [(comparison.ours, ours), (comparison.bare, plain)]
        for kept, read in pair if number % 2 == 0 else reversed(pair):
            began = time.monotonic()
            assert all(len(read(start)) == RANGE for start in starts)
            kept.append(RANGES / (time.monotonic() - began))
    return comparison


def _parallel_parts(directory: Path, advance: Callable[[str], None]) -> Comparison:
    comparison = Comparison("MB/s")
    [source] = _sources(directory, PART * PARTS, 1)
    names = count()
    with (
        s3_server(directory / "moto.log") as server,
        DistantServer(urlsplit(server.endpoint).port or 80, DISTANCE_SECONDS) as distant,
    ):
        server.make_bucket("bench")

        def put(jobs: int) -> float:
            store = S3Store("s3", _s3(distant.port, jobs))
            began = time.monotonic()
            with source.path.open("rb") as body:
                store.put(f"{next(names)}", body, size=source.size, sha256=source.sha256, media_type="image/jpeg")
            seconds = time.monotonic() - began
            store.close()
            return source.size / 1e6 / seconds

        for number in range(ROUNDS):
            advance(f"stores: parts to a distant S3, round {number + 1}")
            comparison.round(lambda: put(JOBS), lambda: put(1))
    return comparison


def _s3(port: int, jobs: int) -> S3Options:
    return S3Options.model_validate(
        {
            "bucket": "bench",
            "endpoint_url": f"http://127.0.0.1:{port}",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "addressing_style": "path",
            "multipart_threshold": PART,
            "multipart_part_size": PART,
            "multipart_jobs": jobs,
        }
    )
