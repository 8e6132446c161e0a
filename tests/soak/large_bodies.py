"""A body of 2 GiB through every backend that streams, in little memory: what a process grows by at its peak.

Each backend has a process of its own, so that also the memory of libraries is seen. It puts the body from a file, as
ingest does, reads it back whole and a range of it, and compares.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.measure import peak_growth, start_peak
from core.sections import MIB
from core.settings import Settings
from storage.interface import Span
from storage.registry import open_stores
from supervise.embedded_postgres import Postgres
from supervise.processes import start, stop
from tests.s3_server import s3_server

SIZE_MIB = 2048
EXTRA_MIB = 64
PART_MIB, JOBS = 16, 4
SPAN = Span(1_234_567_890, 1_234_567_890 + 3 * MIB)
PATIENCE_SECONDS = 1800


def run(minutes: float, seed: int) -> list[str]:
    """Once through each; `minutes` changes nothing."""
    del minutes, seed
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    try:
        body = directory / "body"
        sha256 = _write(body)
        broken = []
        with _backends(directory) as backends:
            for name, (options, limit) in backends.items():
                broken += _measured(name, options, limit, body, sha256)
    finally:
        shutil.rmtree(directory)
    return broken


@contextmanager
def _backends(directory: Path) -> Iterator[dict[str, tuple[dict[str, Any], int]]]:
    """The options of each, and how many MiB it may take."""
    server = Postgres(directory / "postgres", directory / "run", durable=False)
    child = start(server, directory / "postgres.log")
    try:
        with s3_server(directory / "moto.log") as s3:
            s3.make_bucket("large")
            keys = {"access_key_id": "key", "secret_access_key": "secret", "addressing_style": "path"}
            parts = {"multipart_part_size": PART_MIB * MIB, "multipart_jobs": JOBS}
            postgres = {"kind": "postgres", "url": server.url_of("postgres")}
            yield {
                "filesystem": ({"kind": "filesystem", "root": str(directory / "files")}, EXTRA_MIB),
                "rocksdb": ({"kind": "rocksdb", "root": str(directory / "rocksdb")}, EXTRA_MIB),
                "postgres chunks": (postgres, EXTRA_MIB),
                "postgres large objects": (
                    {**postgres, "schema": "large_objects", "large_object_threshold": 0},
                    EXTRA_MIB,
                ),
                "s3": (
                    {"kind": "s3", "bucket": "large", "endpoint_url": s3.endpoint, **keys, **parts},
                    PART_MIB * JOBS + EXTRA_MIB,
                ),
            }
    finally:
        stop([child])


def _measured(name: str, options: dict[str, Any], limit: int, body: Path, sha256: bytes) -> list[str]:
    command = [sys.executable, "-m", "tests.soak.large_bodies", json.dumps(options), str(body), sha256.hex()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    if ended.returncode:
        return [f"{name}: {(ended.stderr.strip().splitlines() or ['no message'])[-1]}"]
    grown = float(ended.stdout)
    print(f"  {name:<24} {grown:>6.1f} MiB, may be {limit}", flush=True)
    return [f"{name}: {grown:.1f} MiB for a body of {SIZE_MIB} MiB"] if grown > limit else []


def _write(path: Path) -> bytes:
    """Bytes of which no two MiB are alike."""
    digest = hashlib.sha256()
    block = bytearray(random.Random(0).randbytes(MIB))
    with path.open("wb") as file:
        for number in range(SIZE_MIB):
            block[:4] = number.to_bytes(4)
            digest.update(block)
            file.write(block)
    return digest.digest()


def _child(options: str, body: str, sha256: str) -> None:
    settings = Settings.model_validate({"stores": {"main": json.loads(options)}})
    store = open_stores(settings, owner=True)["main"]
    store.establish()
    assert list(store.scan()) == []  # connected, opened, warm
    before = start_peak([os.getpid()])
    with Path(body).open("rb") as file:
        store.put("large", file, size=SIZE_MIB * MIB, sha256=bytes.fromhex(sha256), media_type="image/tiff")
        digest = hashlib.sha256()
        with store.open("large") as back:
            while block := back.read(MIB):
                digest.update(block)
        assert digest.hexdigest() == sha256
        file.seek(SPAN.start)
        with store.open("large", SPAN) as part:
            assert part.read() == file.read(3 * MIB)
    print(peak_growth(before))
    store.close()


if __name__ == "__main__":
    _child(*sys.argv[1:])
