"""A staging directory on a small tmpfs of its own, filled under load until it has no byte left, then no inode.

The high-water mark is all but lifted, so that the disk itself refuses. While it is full, every refusal is a 503 that
says when to come back; when the workers wake, what was accepted is stored, and uploads are accepted again. Needs root.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx

from tests.faults.history import Told
from tests.faults.outage import picture
from tests.faults.stack import SETTINGS, Stack

LIFTED = f"""{SETTINGS}
[staging]
high_water_percent = 100
min_free_bytes = 65536
min_free_inodes = 1
"""
OPTIONS = "size=48m,nr_inodes=400,mode=700"
PADDING = {"bytes": 700 << 10, "inodes": 0}
"""What is appended to each picture: the one or the other runs out first."""
CLIENTS = 4
REFUSALS = 60
BESIDE_WORKERS_SECONDS = 10
REST_SECONDS = 180


def run(minutes: float, seed: int) -> list[str]:
    """One filling of each kind; `minutes` changes nothing."""
    del minutes, seed
    if os.geteuid() != 0:
        return ["only root can mount a tmpfs"]
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    print(f"logs in {directory}", flush=True)
    stack = Stack(directory, settings=LIFTED)
    with _mounted(stack.home / "staging"), stack:
        broken = [f"{what}: {line}" for what in PADDING for line in _fill(stack, what)]
    if not broken:
        shutil.rmtree(directory)
    return broken


@contextlib.contextmanager
def _mounted(directory: Path) -> Iterator[None]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", OPTIONS, "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def _fill(stack: Stack, what: str) -> list[str]:
    try:
        with _Clients(stack, what) as clients:
            with stack.stopped("celery", "ingest@"):
                stack.until(lambda: _left(stack.home / "staging", what) == 0, REST_SECONDS, f"no {what} are left")
                wanted = clients.answers[503] + REFUSALS
                stack.until(lambda: clients.answers[503] >= wanted, REST_SECONDS, "uploads are refused")
            time.sleep(BESIDE_WORKERS_SECONDS)
        accepted = clients.answers[202]
        stack.until(lambda: stack.upload(f"/full/{what}/after", picture()).status == 202, REST_SECONDS, "recovered")
        stack.check(seconds=REST_SECONDS)
    except AssertionError as broken:
        return str(broken).splitlines()
    print(f"{what}: {accepted} accepted, {clients.answers[503]} refused, none lost", flush=True)
    return clients.wrong


def _left(staging: Path, what: str) -> int:
    """Inodes, or room for another of the bodies."""
    figures = os.statvfs(staging)
    return figures.f_favail if what == "inodes" else figures.f_bavail * figures.f_frsize // PADDING[what]


class _Clients:
    """Upload without a pause, one half with a length, the other half chunked: its space runs out on the way."""

    def __init__(self, stack: Stack, what: str) -> None:
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        self._stack = stack
        self._what = what
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]

    def __enter__(self) -> _Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            number = next(self._numbers)
            body = picture() + bytes(PADDING[self._what])
            told = Told(f"/full/{self._what}/{number}", hashlib.sha256(body).hexdigest(), None, None)
            try:
                answer = httpx.post(
                    f"{self._stack.url}/assets{told.path}",
                    content=body if number % 2 else _pieces(body),
                    timeout=20,
                )
                self._note(told, answer)
            except httpx.TransportError as error:
                self.wrong.append(f"{told.path}: {type(error).__name__}: {error}")
            self._stack.history.add(told)

    def _note(self, told: Told, answer: httpx.Response) -> None:
        told.status = answer.status_code
        self.answers[answer.status_code] += 1
        if answer.status_code == 202:
            said = answer.json()
            told.upload_id, told.asset_id = UUID(said["id"]), UUID(said["assetId"])
        elif answer.status_code != 503 or "Retry-After" not in answer.headers:
            self.wrong.append(f"{told.path}: {answer.status_code} {answer.text}")


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]
