"""Files in the making: each is locked (flock) as long as its writer lives, so that others can tell what is left over.

The kernel frees the lock of a killed process. A file that is taken away in the moment between its creation and its lock
is made again; where locks do not work, its writer's `link` or `rename` fails, and it never publishes wrong bytes.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from core.failpoints import failpoint
from storage.os_errors import translated

_NAME = re.compile(r"[0-9a-f]{32}")

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TemporaryFile:
    """A new file under a name that nobody else uses."""

    def __init__(self, folder: Path) -> None:
        self.name = uuid4().hex
        self.directory = os.open(folder, DIRECTORY)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.descriptor = os.open(self.name, flags, 0o666, dir_fd=self.directory)
        except BaseException:
            os.close(self.directory)
            raise

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def discard(self) -> None:
        with suppress(OSError):  # what stays is removed as left over
            os.unlink(self.name, dir_fd=self.directory)
        os.close(self.descriptor)
        os.close(self.directory)


@contextmanager
def temporary_file(folder: Path, subject: str) -> Iterator[TemporaryFile]:
    """The name is gone at the end, whatever happened; a link to the file keeps it.

    Raises:
        StoreUnavailable, Forbidden: the file cannot be made; `subject` names it.
    """
    with translated(subject):
        file = _locked(folder)
    try:
        with translated(subject):
            failpoint("filesystem.after-create")
        yield file
    finally:
        file.discard()


def _locked(folder: Path) -> TemporaryFile:
    """Make a file whose name stands. Another process, which begins just now, may take it for one that is left over."""
    while True:
        file = TemporaryFile(folder)
        try:
            fcntl.flock(file.descriptor, fcntl.LOCK_EX)
            if os.fstat(file.descriptor).st_nlink:
                return file
        except BaseException:
            file.discard()
            raise
        file.discard()


def remove_leftovers(folder: Path) -> int:
    """Remove every file of ours that no living process holds: the folder may be a program's that knows nothing of us.
    What cannot be removed stays, and keeps nobody from working.
    Returns how many were removed."""
    directory = os.open(folder, DIRECTORY)
    removed = 0
    try:
        for name in filter(_NAME.fullmatch, os.listdir(directory)):
            with suppress(OSError):
                _remove_unlocked(name, directory)
                removed += 1
    finally:
        os.close(directory)
    return removed


def _remove_unlocked(name: str, directory: int) -> None:
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(descriptor)
