"""Bytes at a limited rate, for work that must leave room for others, and how many there were."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Final, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SLICES = 10
"""Reads in one second, so that a body flows instead of stopping and going."""


class Throttle:
    """Shared by all bodies that go at one rate together. Safe for threads."""

    def __init__(self, bytes_per_second: float | None) -> None:
        """None: as fast as it goes."""
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self._passed = 0

    @property
    def passed(self) -> int:
        """Bytes of all bodies until now."""
        return self._passed

    def body(self, body: BinaryIO) -> BinaryIO:
        """Reads like `body`, from where it is, forward only."""
        return cast(BinaryIO, _Throttled(body, self, None if self._rate is None else max(1, int(self._rate / SLICES))))

    def spend(self, count: int) -> None:
        """Wait until `count` more bytes may have passed."""
        with self._lock:
            self._passed += count
            if self._rate is None:
                return
            begins = max(self._free_at, time.monotonic())
            self._free_at = begins + count / self._rate
        time.sleep(max(0.0, begins - time.monotonic()))


class _Unthrottled(Throttle):
    """Shared by everybody, so it counts nothing, and a body stays what it is."""

    def body(self, body: BinaryIO) -> BinaryIO:
        return body


UNTHROTTLED: Final = _Unthrottled(None)


class _Throttled(io.RawIOBase):
    def __init__(self, body: BinaryIO, throttle: Throttle, at_once: int | None) -> None:
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
