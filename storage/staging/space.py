"""The high-water mark of staging, and what its disk's own refusals mean.

Admission looks at figures at most a second old, so a crowd may pass the mark together; reserving the space
(`posix_fallocate`) is what decides in the end.
"""

from __future__ import annotations

import errno
import math
import os
import time
from pathlib import Path
from types import TracebackType

from core.errors import StagingFull, Unavailable
from core.settings import Settings

CACHE_SECONDS = 1.0
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class translated:  # noqa: N801 - reads as the function it stands for
    """Turn an OSError of staging's disk into StagingFull or Unavailable. A class, because an upload enters it four
    times, and a generator costs several times as much."""

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise refusal(self._doing, error) from error


def refusal(doing: str, error: OSError) -> Unavailable:
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in FULL:
        return StagingFull(f"staging is full: {doing}: {name}", retry_after=15)
    return Unavailable(f"staging's disk refused: {doing}: {name}")


class Space:
    """Used space as `df` shows it: what is set aside for root counts as used up."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._limits = settings.staging
        self._retry_after = max(1, math.ceil(settings.work.sweep_seconds))
        self._read_at = -math.inf
        self._figures: os.statvfs_result | None = None

    def check(self, expected: int | None) -> None:
        """
        Raises:
            StagingFull: when staging is over its high-water mark, or would be with `expected` bytes more.
        """
        reason = self._shortage(expected or 0)
        if reason:
            raise StagingFull(f"staging is over its high-water mark: {reason}", retry_after=self._retry_after)

    def is_short(self) -> bool:
        return self._shortage(0) is not None

    def _shortage(self, expected: int) -> str | None:
        figures = self._read()
        limits = self._limits
        free = figures.f_bavail * figures.f_frsize - expected
        if free < limits.min_free_bytes:
            return f"{max(free, 0)} bytes would be free"
        used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize + expected
        if used > (used + free) * limits.high_water_percent / 100:
            return f"{used / (used + free):.1%} of its disk would be used"
        if not figures.f_files:  # a file system without a table of inodes
            return None
        used_inodes = figures.f_files - figures.f_ffree
        if figures.f_favail < limits.min_free_inodes:
            return f"{figures.f_favail} inodes are free"
        if used_inodes > (used_inodes + figures.f_favail) * limits.high_water_percent / 100:
            return f"{used_inodes / (used_inodes + figures.f_favail):.1%} of its inodes are used"
        return None

    def _read(self) -> os.statvfs_result:
        figures, now = self._figures, time.monotonic()
        if figures is None or now - self._read_at > CACHE_SECONDS:
            with translated("reading free space"):
                figures = os.statvfs(self._path)
            self._figures, self._read_at = figures, now
        return figures
