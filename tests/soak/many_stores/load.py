"""Clients at work for the whole time: they upload, read and compare, ask for variants, delete, and look whether what
they deleted stays away."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import httpx
import numpy as np
from PIL import Image

from tests.faults.clients import picture
from tests.faults.history import Told
from tests.faults.stack import Stack
from tests.pictures import encoded
from tests.soak.many_stores.installation import FOLDERS

CLIENTS = 4
PAUSE_SECONDS = (0.01, 0.12)
ALIVE = 150
"""About so many assets live at a time: more are deleted when there are more."""
PATIENCE_SECONDS = 120.0
LARGE_EVERY, SAME_EVERY = 9, 8
"""Which uploads are of some 60 KiB, and which carry bytes that were sent before."""
SEEN_AGAIN = 40
"""How far back those are."""


@dataclass(eq=False)
class Sent:
    """An accepted upload. `alive`: to be read; `held`: to be left alone; `leaving`: nobody knows; `deleted`: gone."""

    told: Told
    address: str
    state: str = "alive"


def body(number: int) -> bytes:
    """Another one for each number."""
    if number % LARGE_EVERY == 0:
        pixels = np.random.default_rng(number).integers(0, 255, (150, 140, 3), dtype=np.uint8)
        return encoded(Image.fromarray(pixels), "PNG")
    return picture(number)


class Load:
    """A context manager. What it finds wrong is in `wrong`."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self.sent: list[Sent] = []
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self._stack = stack
        self._lock = threading.Lock()
        self._number = 0
        self._ended = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._busy = threading.Semaphore(CLIENTS)
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {n}"),), name=f"client-{n}", daemon=True)
            for n in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._open.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody is in the middle of anything."""
        self._open.clear()
        for _ in range(CLIENTS):
            self._busy.acquire()
        try:
            yield
        finally:
            self._busy.release(CLIENTS)
            self._open.set()

    def among(self, state: str) -> list[Sent]:
        with self._lock:
            return [one for one in self.sent if one.state == state]

    def upload(self, path: str, content: bytes, key: str) -> Sent:
        told = self._stack.upload_until_accepted(path, content, key=key, seconds=PATIENCE_SECONDS)
        links: list[str | None] = []

        def stored() -> bool:
            links.append(self._stack.ingest(told.upload_id).get("links", {}).get("asset"))
            return links[-1] is not None

        self.counts["accepted"] += 1
        self._stack.until(stored, PATIENCE_SECONDS, f"{path} is stored")
        assert links[-1] is not None
        sent = Sent(told, links[-1])
        with self._lock:
            self.sent.append(sent)
        return sent

    def delete(self, sent: Sent) -> None:
        sent.state = "leaving"
        address = sent.address
        self._stack.until(lambda: self._stack.request("DELETE", address) == 204, PATIENCE_SECONDS, f"no {address}")
        sent.state, sent.told.deleted = "deleted", True
        self.counts["deleted"] += 1

    def _run(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            self._open.wait()
            with self._busy:
                try:
                    self._turn(chance)
                except Exception as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")
            time.sleep(chance.uniform(*PAUSE_SECONDS))

    def _turn(self, chance: random.Random) -> None:
        alive, dice = self.among("alive"), chance.random()
        if len(alive) < ALIVE // 4 or dice < 0.25:
            self._upload(chance)
        elif dice < 0.50:
            self._read(chance.choice(alive), chance)
        elif dice < 0.65:
            self._ask_variant(chance.choice(alive), chance)
        elif dice < 0.70:
            self._look_for_deleted(chance)
        elif len(alive) > ALIVE:
            self._delete_one(chance)
        else:
            self._upload(chance)

    def _upload(self, chance: random.Random) -> None:
        with self._lock:
            number, self._number = self._number, self._number + 1
        again = number % SAME_EVERY == 0
        content = body(max(0, number - chance.randrange(1, SEEN_AGAIN)) if again else number)
        self.upload(f"/{chance.choice(FOLDERS)}/{number % 7}", content, f"soak {number}")

    def _delete_one(self, chance: random.Random) -> None:
        with self._lock:
            alive = [one for one in self.sent if one.state == "alive"]
            chosen = chance.choice(alive)
            chosen.state = "leaving"
        self.delete(chosen)

    def _read(self, sent: Sent, chance: random.Random) -> None:
        whole = chance.random() < 0.8
        answer = self._get(sent, "", {} if whole else {"Range": "bytes=0-"})
        if answer is None:
            return
        self.counts["read"] += 1
        if hashlib.sha256(answer.content).hexdigest() != sent.told.sha256:
            self.wrong.append(f"{sent.address}: other bytes than were sent")

    def _ask_variant(self, sent: Sent, chance: random.Random) -> None:
        query = chance.choice(["profile=thumb", "profile=square", f"w={chance.randrange(20, 30)}"])
        answer = self._get(sent, f"?{query}", {})
        if answer is None:
            return
        self.counts["variants read"] += 1
        if hashlib.sha256(answer.content).hexdigest() != answer.headers["ETag"].strip('"'):
            self.wrong.append(f"{sent.address}?{query}: other bytes than were made")
        Image.open(io.BytesIO(answer.content)).load()

    def _get(self, sent: Sent, query: str, headers: dict[str, str]) -> httpx.Response | None:
        """Asked again while the answer says so. None: it was deleted meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"{self._stack.url}{sent.address}/content{query}", headers=headers, timeout=30)
                if answer.status_code in (200, 206):
                    return answer
                if sent.state not in ("alive", "held"):
                    return None
                if answer.status_code not in (202, 503):
                    self.wrong.append(f"{sent.address}{query}: {answer.status_code} {answer.text[:200]}")
                    return None
                self.counts["told to come again" if answer.status_code == 202 else "answered 503"] += 1
            if time.monotonic() > deadline:
                self.wrong.append(f"{sent.address}{query}: not readable for {PATIENCE_SECONDS} s")
                return None
            time.sleep(0.2)

    def _look_for_deleted(self, chance: random.Random) -> None:
        if deleted := self.among("deleted"):
            address = chance.choice(deleted).address
            self.counts["looked for deleted"] += 1
            if (status := self._stack.request("GET", f"{address}/content")) not in (404, 503, None):
                self.wrong.append(f"{address}: deleted, and answers {status}")
