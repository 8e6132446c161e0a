"""A directory for the files of one rendering. Those of killed processes are removed by whoever renders there later.

Each directory is locked (flock) while its process lives; the kernel frees the lock of a killed one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core import clock
from core.errors import Unavailable
from core.settings import Settings

SETTLED_SECONDS = 60
"""Between its creation and its lock a directory looks left over: younger ones are let alone."""


def scratch_root(settings: Settings) -> Path:
    """Return where a host's processes have their scratch directories."""
    return settings.cache_path / "scratch"


@contextmanager
def scratch(below: Path) -> Iterator[Path]:
    """A new directory in `below`, gone at the end.

    Raises:
        Unavailable: it cannot be made: no space, no inodes, no rights.
    """
    try:
        below.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=below))
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"no scratch directory for rendering: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def remove_leftovers(below: Path) -> int:
    """Remove what killed processes left; returns how many directories."""
    count = 0
    with suppress(FileNotFoundError):
        for directory in list(below.iterdir()):
            with suppress(OSError):
                count += _remove_unlocked(directory)
    return count


def _remove_unlocked(directory: Path) -> int:
    if clock.age(directory.stat().st_mtime) < SETTLED_SECONDS:
        return 0
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory)
        return 1
    finally:
        os.close(descriptor)
