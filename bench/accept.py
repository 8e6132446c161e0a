"""Part (a): taking uploads in, against an application that only keeps the bytes, on the same server and disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import pictures
from bench.load import Connection, uploads_per_second
from bench.measure import MIB, Comparison, peak_growth, settle, start_peak
from bench.servers import WEB_THREADS, WEB_WORKERS, Bare, Millrace, Server

ROUNDS = 6
SMALL_SECONDS = 4.0
WARM_SECONDS = 1.5
LARGE_BYTES = 1 << 30

CONFIG = f"""
[web]
workers = {WEB_WORKERS}
threads = {WEB_THREADS}
"""

WORKER_CLASSES = ("gthread", "app.server.Worker")
"""The bare application runs on gunicorn's own worker and on ours: the better one of the day is the limit."""


@dataclass
class Accepting:
    small: Comparison
    large: Comparison
    web_growth_mib: float
    bare: dict[str, str]
    """The worker class that was the limit, by size."""


def measure(directory: Path, advance: Callable[[str], None]) -> Accepting:
    body = pictures.small()
    large = pictures.large(directory / "large.jpg", LARGE_BYTES)
    with ExitStack() as servers:
        ours = servers.enter_context(Millrace(directory / "accept", CONFIG))
        ours.pause_background()
        bare = [servers.enter_context(Bare(directory / name, name)) for name in WORKER_CLASSES]
        advance("accept: warming up, and choosing the bare limit")
        uploads_per_second(ours.port, body, WARM_SECONDS)
        for one in bare:
            uploads_per_second(one.port, body, WARM_SECONDS)
        for_small = max(bare, key=lambda one: uploads_per_second(one.port, body, SMALL_SECONDS / 2))
        for_large = max(bare, key=lambda one: _send_rested(one, large))
        small = _small(ours, for_small, body, advance)
        big, growth = _large(ours, for_large, large, advance)
    return Accepting(small, big, growth, {"small": for_small.worker_class, "large": for_large.worker_class})


def _small(ours: Millrace, bare: Bare, body: bytes, advance: Callable[[str], None]) -> Comparison:
    comparison = Comparison("uploads/s")
    for number in range(ROUNDS):
        advance(f"accept: 20 KiB, round {number + 1}")
        comparison.round(
            lambda: uploads_per_second(ours.port, body, SMALL_SECONDS),
            lambda: uploads_per_second(bare.port, body, SMALL_SECONDS),
        )
    return comparison


def _large(ours: Millrace, bare: Bare, file: Path, advance: Callable[[str], None]) -> tuple[Comparison, float]:
    comparison = Comparison("MB/s")
    before = start_peak(ours.web_workers)
    for number in range(ROUNDS):
        advance(f"accept: 1 GiB, round {number + 1}")
        bare.forget(larger_than=MIB)
        comparison.round(lambda: _send(ours, file), lambda: _send(bare, file))
    return comparison, peak_growth(before)


def _send_rested(server: Server, file: Path) -> float:
    settle()
    return _send(server, file)


def _send(server: Server, file: Path) -> float:
    with Connection(server.port) as connection:
        began = time.monotonic()
        status = connection.post_file("/assets/bench/large.jpg", file)
        seconds = time.monotonic() - began
    if status not in (200, 202):
        raise RuntimeError(f"the large upload was answered with {status}")
    return file.stat().st_size / 1e6 / seconds


def clear(directory: Path) -> None:
    """Give the disk back before the next part."""
    shutil.rmtree(directory, ignore_errors=True)
