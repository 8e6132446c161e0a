"""kill -9 at every named step of accept, ingest, derive, delete, sweep and gc; afterwards nothing is lost or left over.

Each failpoint is armed in turn while uploads, reads and deletes go on that lead through it; whichever process comes
there dies. The invariants are checked at the end of every way: what the kills of one way broke, the next must not mend.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.faults.failpoints import ELSEWHERE, named
from tests.faults.stack import SETTINGS, Stack
from tests.pictures import encoded, photo
from tests.rooms import ROOT

PATIENT = SETTINGS.replace("[work]", "[work]\nmax_unfinished = 50").replace("workers = 1", "workers = 2")
"""No entry here is guilty, however many kills meet it: none is to run alone, where its own death counts."""

Way = Callable[["Traffic"], None]


class Traffic:
    """Requests that lead through the steps. Answers may be lost: the web process may be what dies."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.failing: set[UUID] = set()
        self._numbers = itertools.count()

    def upload(self) -> None:
        number = next(self._numbers)
        self.stack.upload(f"/steps/{number % 3}", picture(number), key=f"steps {number}")

    def variant(self) -> None:
        """Asked for later, so made by the fleet and from the store."""
        number = next(self._numbers)
        told = self.stack.upload("/bare/one", picture(number), wait=10)
        if told.status == 201:
            self.stack.request("GET", f"{told.location}/content?w=40", timeout=2)

    def delete(self) -> None:
        number = next(self._numbers)
        self.stack.delete(self.stack.upload_until_accepted("/bare/gone", picture(number), key=f"gone {number}"))

    def fail(self) -> None:
        told = self.stack.upload("/bare/broken", broken_gif(next(self._numbers)))
        if told.upload_id is not None:
            self.failing.add(told.upload_id)

    def settle(self) -> None:
        """Have a failure tried again; it fails again."""
        rows = self.stack.sql("SELECT id FROM failure WHERE wish IS NULL AND subject = 'ingest' LIMIT 1")
        if rows:
            self.stack.request("POST", f"/failures/{rows[0][0]}/retry")
        else:
            self.fail()

    def torn_store(self) -> None:
        """The store fails once, so the attempt ends in an orderly way and is refunded."""
        self.stack.arm("filesystem.before-fsync", "errno EIO")
        self.upload()


WAYS: dict[str, tuple[Way, ...]] = {
    "accept.": (Traffic.upload,),
    "announce.": (Traffic.upload,),
    "claim.": (Traffic.upload,),
    "claim.after-quarantine": (Traffic.fail,),
    "claim.before-quarantine": (Traffic.fail,),
    "claim.before-refund": (Traffic.torn_store,),
    "collect.": (Traffic.delete,),
    "delete.": (Traffic.delete,),
    "derive.": (Traffic.upload, Traffic.variant),
    "derive.after-lease": (Traffic.variant,),
    "failure.": (Traffic.settle,),
    "filesystem.": (Traffic.upload,),
    "finish.": (Traffic.upload, Traffic.variant),
    "gc.": (Traffic.delete,),
    "ingest.": (Traffic.upload,),
    "ingest.before-quarantine": (Traffic.fail,),
    "record.": (Traffic.upload,),
    "reserve.": (Traffic.upload, Traffic.variant),
    "staging.move-to-accepted": (Traffic.settle,),
    "staging.move-to-quarantine": (Traffic.fail,),
    "staging.move-to-trash": (Traffic.upload,),
    "sweep.": (Traffic.upload,),
    "sweep.after-wish": (Traffic.settle,),
}
"""By the longest beginning of the failpoint's name: a new step of a known kind goes a way that is known."""


def ways(name: str) -> tuple[Way, ...]:
    return next((WAYS[name[:length]] for length in range(len(name), 0, -1) if name[:length] in WAYS), ())


STEPS = [(way, name) for name in named() for way in ways(name)]


def picture(number: int) -> bytes:
    return encoded(photo(100 + number % 100, 80 + number // 100), "JPEG")


def broken_gif(number: int) -> bytes:
    """One frame that is longer than a probe reads and never ends: only ingest sees that."""
    start = b"GIF89a" + bytes([64, 0, 48, 0, 0, 0, 0]) + b"\x2c" + bytes([0, 0, 0, 0, 64, 0, 48, 0, 0, 8])
    return start + (b"\xff" + number.to_bytes(4, "big") + bytes(251)) * 17_000


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with Stack(tmp_path_factory.mktemp("steps"), settings=PATIENT) as stack:
        yield Traffic(stack)


def test_every_failpoint_is_fired_by_a_test() -> None:
    for name in named():
        if name in ELSEWHERE:
            text = (ROOT / ELSEWHERE[name]).read_text()
            assert name in text, f"{ELSEWHERE[name]} does not name {name}"
        else:
            assert ways(name), f"say in WAYS what leads through {name}"


@pytest.mark.parametrize("way", dict.fromkeys(way for way, _ in STEPS), ids=lambda way: way.__name__)
def test_a_kill_at_any_step_loses_nothing(traffic: Traffic, way: Way) -> None:
    stack = traffic.stack
    for name in (name for on, name in STEPS if on is way and name not in ELSEWHERE):
        armed = stack.arm(name, "kill")
        stack.until(lambda armed=armed: go(way, traffic, armed), 30, f"a process comes to {name}")
        stack.until_fired(armed)
    stack.check(expect_failed=traffic.failing)
    assert httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200


def go(way: Way, traffic: Traffic, armed: Path) -> bool:
    way(traffic)
    return not armed.exists()
