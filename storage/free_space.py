"""The free-space watermark of stores that lie on a disk of this host.

It is checked before a body is written, so that a disk never runs full to its last byte: databases and file systems
behave badly there. What the disk itself refuses all the same is `StoreFull`, too. Figures are at most a second old;
what was let in since then is counted on top.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from pydantic import ByteSize, Field

from core.errors import StoreFull
from core.sections import MIB
from storage.options import StoreOptions
from storage.os_errors import translated

CACHE_SECONDS = 1.0
RETRY_SECONDS = 15


class DiskOptions(StoreOptions):
    """The mark should lie below the one of staging (`staging.min_free_bytes`) where both share a disk: what was
    accepted can then still be stored when new uploads are refused already."""

    root: Path
    min_free_bytes: ByteSize = Field(ByteSize(128 * MIB), ge=0)
    """A body that would leave less than this free is refused as `store-full`; its upload stays staged."""
    high_water_percent: float = Field(100, gt=0, le=100)
    """So is one that would leave more than this of the disk used."""


class FreeSpace:
    """Used space as `df` shows it: what is set aside for root counts as used up."""

    def __init__(self, name: str, path: Path, options: DiskOptions) -> None:
        self._name = name
        self._path = path
        self._options = options
        self._read_at = -math.inf
        self._free = 0
        self._used = 0

    def require(self, size: int) -> None:
        """
        Raises:
            StoreFull: the mark is passed, or would be with `size` bytes more.
        """
        now = time.monotonic()
        if now - self._read_at > CACHE_SECONDS:
            self._read()
            self._read_at = now
        free, used = self._free - size, self._used + size
        if free < self._options.min_free_bytes:
            raise self._full(
                f"{max(free, 0)} bytes would be free, and min_free_bytes is {self._options.min_free_bytes}"
            )
        if used > (used + free) * self._options.high_water_percent / 100:
            raise self._full(f"{used / (used + free):.1%} of its disk would be used")
        self._free, self._used = free, used

    def _read(self) -> None:
        with translated(f"{self._name}: reading free space"):
            figures = os.statvfs(self._path)
        self._free = figures.f_bavail * figures.f_frsize
        self._used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize

    def _full(self, reason: str) -> StoreFull:
        return StoreFull(f"{self._name} is over its free-space mark: {reason}", retry_after=RETRY_SECONDS)
