"""Bytes at a limited rate, for work that must leave room for others, and how many there were.

The caller that lets a body flow says what to ask on the way: a body of any size ends as soon as that raises.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SLICES = 10
"""Reads in one second, so that a body flows instead of stopping and going."""
ASK_SECONDS = 0.5
"""Between two questions while it waits."""
AT_ONCE = 1 << 20
"""Bytes of one read at most, so that the next question is never far."""


class Throttle:
    """Shared by all bodies that go at one rate together. Safe for threads."""

    def __init__(self, bytes_per_second: float | None, ask: Callable[[], None] = lambda: None) -> None:
        """Set the rate; None: as fast as it goes. `ask` is called between any two reads and, while they wait, twice a
        second; what it raises ends the body."""
        self._rate = bytes_per_second
        self._ask = ask
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self._passed = 0

    @property
    def passed(self) -> int:
        """Bytes of all bodies until now."""
        return self._passed

    def body(self, body: BinaryIO) -> BinaryIO:
        """Reads like `body`, from where it is, forward only."""
        at_once = AT_ONCE if self._rate is None else max(1, int(min(self._rate / SLICES, AT_ONCE)))
        return cast(BinaryIO, _Throttled(body, self, at_once))

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes may have passed."""
        self._ask()
        with self._lock:
            self._passed += count
            if self._rate is None:
                return
            begins = max(self._free_at, time.monotonic())
            self._free_at = begins + count / self._rate
        rest(begins - time.monotonic(), self._ask)


def rest(seconds: float, ask: Callable[[], None]) -> None:
    """Sleep, and ask meanwhile."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(left, ASK_SECONDS))
        ask()


class _Unthrottled(Throttle):
    """Shared by everybody, so it counts nothing, and a body stays what it is."""

    def body(self, body: BinaryIO) -> BinaryIO:
        return body


UNTHROTTLED: Final = _Unthrottled(None)


class _Throttled(io.RawIOBase):
    def __init__(self, body: BinaryIO, throttle: Throttle, at_once: int) -> None:
        """`at_once`: so many bytes in one read at most."""
        self._body = body
        self._throttle = throttle
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")[: self._at_once]
        data = self._body.read(len(target))
        self._throttle.spend(len(data))
        target[: len(data)] = data
        return len(data)
