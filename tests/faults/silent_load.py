"""Clients that upload to every rule, read what is stored, and delete, while a store is silent."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from tests.faults.at_work import AtWork
from tests.faults.clients import picture
from tests.faults.history import Told
from tests.faults.stack import Stack
from tests.pictures import encoded

FOLDERS = ("sync", "later", "front", "hybrid")
UPLOAD_EVERY, READ_EVERY, DELETE_EVERY = 0.1, 0.1, 1.0
"""Seconds."""
READERS = 2
LARGE_EVERY = 5
"""Which uploads are too large for rows."""


@dataclass(eq=False)
class Sent:
    told: Told
    size: int
    address: str = ""
    """Once it is stored."""

    @property
    def folder(self) -> str:
        return self.told.path.split("/")[1]

    @property
    def is_elsewhere(self) -> bool:
        """A store that is not silent has its bytes."""
        return self.folder != "hybrid" or self.size <= 6000


class Load(AtWork):
    """A context manager. What clients find wrong is in `wrong`, and raised by nobody."""

    def __init__(self, stack: Stack, name: str) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.readable: list[Sent] = []
        self.during_fault: list[Sent] = []
        self.deleted_during_fault = 0
        self.reads: Counter[str] = Counter()
        self.slowest_read = 0.0
        self.wrong: list[str] = []
        self._stack = stack
        self._name = name
        self._fault = False
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        jobs = [(self._upload, UPLOAD_EVERY), (self._look, 0.5), (self._delete, DELETE_EVERY)]
        jobs += [(self._read, READ_EVERY)] * READERS
        self._threads = [threading.Thread(target=self._run, args=job, daemon=True) for job in jobs]

    def begin_fault(self) -> None:
        self._fault = True

    def end_fault(self) -> None:
        self._fault = False

    def find_all(self, seconds: float) -> None:
        """Where everything is that was accepted."""
        self._stack.until(self._found_all, seconds, "every upload has its address")

    def _found_all(self) -> bool:
        self._look()
        return all(one.address for one in self.sent)

    def _run(self, turn: object, every: float) -> None:
        while not self._ended.wait(every):
            try:
                turn()  # type: ignore[operator]  # it is one of ours
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _upload(self) -> None:
        number = next(self._numbers)
        folder = FOLDERS[number % len(FOLDERS)]
        body = _large(number) if number // len(FOLDERS) % LARGE_EVERY == 0 else picture(number + self._offset)
        fault = self._fault
        told = self._stack.upload(f"/{folder}/{self._name}/{number}", body)
        if told.status != 202:
            self.wrong.append(f"{told.path}: an upload was answered with {told.status}")
            return
        sent = Sent(told, len(body))
        self.sent.append(sent)
        if fault and self._fault:
            self.during_fault.append(sent)

    @property
    def _offset(self) -> int:
        """So that no two loads send equal bytes."""
        return 50_000 if self._name == "forbidden" else 0

    def _look(self) -> None:
        unknown = {str(one.told.upload_id): one for one in self.sent if not one.address}
        query = "SELECT upload_id::text, path_text, entry FROM asset WHERE upload_id = ANY(%s::uuid[])"
        for upload_id, path, entry in self._stack.sql(query, list(unknown)):
            found = unknown[upload_id]
            found.address = f"/assets{path}/-/entry/{entry}"
            with self._lock:
                self.readable.append(found)

    def _delete(self) -> None:
        with self._lock:
            if len(self.readable) < 10:
                return
            chosen = self.readable.pop(random.randrange(len(self.readable)))
        chosen.told.deleted = True
        status = self._stack.request("DELETE", chosen.address)
        if status != 204:
            self.wrong.append(f"{chosen.address}: a delete was answered with {status}")
        self.deleted_during_fault += self._fault

    def _read(self) -> None:
        with self._lock:
            if not self.readable:
                return
            chosen = random.choice(self.readable)
        fault, began = self._fault, time.monotonic()
        answer = httpx.get(f"{self._stack.url}{chosen.address}/content", timeout=30)
        took = time.monotonic() - began
        if not (fault and self._fault):
            return
        silent = "" if chosen.is_elsewhere else " (of a silent store)"
        self.reads[f"{answer.status_code}{silent}"] += 1
        if chosen.is_elsewhere:
            self.slowest_read = max(self.slowest_read, took)
        right = answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() == chosen.told.sha256
        allowed = (answer.status_code == 404 and chosen.told.deleted) or (answer.status_code == 503 and bool(silent))
        if not right and not allowed:
            self.wrong.append(f"{chosen.address}: {answer.status_code} {answer.text[:200]}")


def _large(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (120, 110, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")
