"""Uploads that go on while a dependency is out, and canaries that show that every kind of worker works again."""

from __future__ import annotations

import itertools
import json
import threading
import time

import httpx

from core.queues import ingest_queue
from core.settings import Settings
from pipeline.installation import redis_prefix
from storage.staging.staging import Staging
from tests.faults.at_work import AtWork
from tests.faults.history import Told
from tests.faults.stack import Stack
from tests.pictures import encoded, photo

SOON_SECONDS = 5
"""Also on a busy machine."""

_numbers = itertools.count()


def picture() -> bytes:
    """Another one each time."""
    number = next(_numbers)
    return encoded(photo(72 + number % 64, 56 + number // 64), "JPEG")


class Uploads(AtWork):
    """A context in which two clients upload, a dozen a second. Every answer must be a 202."""

    def __init__(self, stack: Stack, path: str) -> None:
        super().__init__()
        self.told: list[Told] = []
        self._stack = stack
        self._path = path
        self._threads = [threading.Thread(target=self._upload, daemon=True) for _ in range(2)]

    def until(self, count: int, seconds: float = 30) -> None:
        """So many more answers have come."""
        wanted = len(self.told) + count
        self._stack.until(lambda: len(self.told) >= wanted, seconds, f"{count} more uploads are answered")

    def _judge(self) -> None:
        assert {told.status for told in self.told} == {202}

    def _upload(self) -> None:
        while not self._ended.wait(0.15):
            self.told.append(self._stack.upload(self._path, picture()))


def upload_at_once(stack: Stack, path: str, count: int, *, keyed: bool = False) -> list[Told]:
    """Upload `count` pictures, one after the other, each within `SOON_SECONDS`. A key is looked for in PostgreSQL, too,
    for less than a second; all else that an upload could wait for while something is out takes longer."""
    told = [stack.upload(path, picture(), key=f"{path} {next(_numbers)}" if keyed else None) for _ in range(count)]
    assert {one.status for one in told} == {202}
    assert max(one.seconds for one in told) < SOON_SECONDS
    return told


def recorded(stack: Stack, told: list[Told]) -> bool:
    ids = [str(one.asset_id) for one in told]
    return bool(stack.sql("SELECT count(*) FROM asset WHERE id = ANY(%s::uuid[])", ids)[0][0] == len(set(ids)))


def assert_workers_consume(stack: Stack, seconds: float = 30) -> None:
    """The ingest worker stores an upload itself (not the sweep in its place), the variants worker renders on demand."""
    waiting = [stack.upload("/bare/canary", picture())]

    def stored_by_the_worker() -> bool:
        if not any(ingested_by_worker(stack, told) for told in waiting):
            waiting.append(stack.upload("/bare/canary", picture()))
            time.sleep(0.3)
            return False
        return True

    stack.until(stored_by_the_worker, seconds, "the ingest worker takes a message")
    stack.until(lambda: recorded(stack, waiting), seconds, "the canaries are stored")
    canary = waiting[-1].upload_id  # recorded, and a moment later this host says so
    stack.until(lambda: stack.ingest(canary)["links"]["asset"] is not None, seconds, "the canary has an address")
    wanted = f"{stack.url}{stack.ingest(canary)['links']['asset']}/content?w=30"
    stack.until(lambda: httpx.get(wanted, timeout=15).status_code == 200, seconds, "the variants worker renders")


def ingested_by_worker(stack: Stack, told: Told) -> bool:
    lines = (stack.home / "log" / "ingest.log").read_text().splitlines()
    return any(
        said.get("message") == "ingest stored" and said.get("upload_id") == str(told.upload_id)
        for said in map(json.loads, (line for line in lines if line.startswith("{")))
    )


def ingest_key(stack: Stack) -> str:
    """The list in Redis that is the queue of the stack's host."""
    settings = Settings(home=stack.home)
    return str(redis_prefix(settings)) + ingest_queue(Staging.open(settings).host_id)


def died(stack: Stack) -> int:
    """How many processes the supervisor has seen die."""
    return (stack.home.parent / "up.log").read_text().count(" died (")


def readiness(stack: Stack) -> tuple[int, dict[str, bool]]:
    """The status of /readyz, and which dependencies are well."""
    answer = httpx.get(f"{stack.url}/readyz", timeout=5)
    return answer.status_code, {name: one["ok"] for name, one in answer.json()["dependencies"].items()}
