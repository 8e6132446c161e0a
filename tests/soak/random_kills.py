"""Random kill -9 of random processes and flushes of Redis while clients upload, read and delete.

In rounds: faults for a while, then rest, then the invariants of `tests/faults/checker.py`. The supervisor gives up a
child that dies five times within a minute, which is right, so nobody is killed as often as that.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from pathlib import Path

import redis

from tests.faults.clients import CarefulClients
from tests.faults.stack import SETTINGS, Stack

ROUND_SECONDS = 100.0
PAUSE_SECONDS = (0.3, 3.0)
REST_SECONDS = 180
"""How long the stack may take to bring everything to its end once the faults have stopped."""

DEATHS, WINDOW_SECONDS = 3, 65.0

ROOMY = SETTINGS.replace("workers = 1", "workers = 2").replace("solo_seconds = 8", "solo_seconds = 120")

Find = Callable[[Stack], list[int]]

FREE: dict[str, Find] = {
    "web worker": lambda stack: stack.children("gunicorn"),
    "ingest child": lambda stack: stack.children("celery", "ingest@"),
    "variants child": lambda stack: stack.children("celery", "variants@"),
    "interactive child": lambda stack: stack.children("celery", "interactive@"),
    "postgres backend": lambda stack: stack.pids("postgres:", "millrace millrace"),  # of clients; recovery is not free
}
"""Replaced by their parents, as often as need be."""

SUPERVISED: dict[str, Find] = {
    "web master": lambda stack: stack.heads("gunicorn"),
    "ingest main": lambda stack: stack.heads("celery", "ingest@"),
    "variants main": lambda stack: stack.heads("celery", "variants@"),
    "interactive main": lambda stack: stack.heads("celery", "interactive@"),
    "maintenance": lambda stack: stack.heads("celery", "maintenance@"),
    "beat": lambda stack: stack.pids("celery", "beat"),
    "sweep": lambda stack: stack.pids("millrace", "sweep"),
    "postmaster": lambda stack: stack.heads("postgres"),
    "valkey": lambda stack: stack.pids("valkey-server") or stack.pids("redis-server"),
}


class Nemesis:
    """Kills and flushes, and counts what it did."""

    def __init__(self, stack: Stack, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._stack = stack
        self._chance = chance
        self._deaths: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=DEATHS))

    def pause(self) -> float:
        return self._chance.uniform(*PAUSE_SECONDS)

    def strike(self) -> None:
        spared = [kind for kind in SUPERVISED if not self._may_die(kind)]
        kind = self._chance.choice([kind for kind in [*FREE, *SUPERVISED, "flush"] if kind not in spared])
        if kind == "flush":
            self._flush()
            return
        pids = (FREE.get(kind) or SUPERVISED[kind])(self._stack)
        if not pids:
            return  # not back yet
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._chance.choice(pids), signal.SIGKILL)
            self.done[kind] += 1
            self._deaths[kind].append(time.monotonic())

    def _may_die(self, kind: str) -> bool:
        deaths = self._deaths[kind]
        return len(deaths) < DEATHS or time.monotonic() - deaths[0] > WINDOW_SECONDS

    def _flush(self) -> None:
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self._stack.services["redis_url"]) as client:
            client.flushall()
            self.done["flush"] += 1


def run(minutes: float, seed: int) -> list[str]:
    directory = Path(tempfile.mkdtemp(prefix="millrace-soak-"))
    print(f"seed {seed}, logs in {directory}", flush=True)
    with Stack(directory, settings=ROOMY) as stack:
        nemesis = Nemesis(stack, random.Random(seed))
        broken = _rounds(stack, nemesis, time.monotonic() + minutes * 60)
        if is_running(stack):
            stack.until(stack.is_ready, 60, "the stack is ready again")
            _tell(stack, nemesis)
    if not broken:
        shutil.rmtree(directory)
    return broken


def _rounds(stack: Stack, nemesis: Nemesis, ends: float) -> list[str]:
    number = 0
    while time.monotonic() < ends:
        number += 1
        try:
            with CarefulClients(stack, f"soak-{number}", clients=4, patience=REST_SECONDS):
                round_ends = min(ends, time.monotonic() + ROUND_SECONDS)
                while time.monotonic() < round_ends:
                    time.sleep(nemesis.pause())
                    assert is_running(stack), "the stack gave up: see up.log"
                    nemesis.strike()
            stack.check(seconds=REST_SECONDS)
        except AssertionError as broken:
            return str(broken).splitlines()
        print(f"round {number}: {len(stack.history.accepted)} accepted, {nemesis.done.total()} faults", flush=True)
    return []


def _tell(stack: Stack, nemesis: Nemesis) -> None:
    uploads = stack.history.uploads
    statuses = Counter(told.status for told in uploads)
    kept = {told.asset_id for told in stack.history.accepted if not told.deleted}
    deleted = {told.asset_id for told in stack.history.accepted if told.deleted}
    there = {row[0] for row in stack.sql("SELECT id::text FROM asset")}
    ready = stack.sql("SELECT count(*) FROM variant WHERE state = 'ready'")[0][0]
    for kind, count in sorted(nemesis.done.items()):
        print(f"  {kind:<18} {count:>6}")
    print(f"  uploads sent       {len(uploads):>6}   no answer {statuses[None]}, refused {len(stack.history.refused)}")
    print(
        f"  accepted           {len(kept | deleted):>6}   deleted {len(deleted)}, slowest answer {slowest(stack):.1f} s"
    )
    print(f"  stored             {len(there):>6}   variants ready {ready}")
    print(f"  losses             {sum(str(one) not in there for one in kept):>6}", flush=True)


def is_running(stack: Stack) -> bool:
    return stack.process is not None and stack.process.poll() is None


def slowest(stack: Stack) -> float:
    return max((told.seconds for told in stack.history.accepted), default=0.0)
