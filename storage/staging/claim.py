"""The right to work on one staged entry.

A claim is a flock on the entry's inode, held by one open file description. The kernel frees it when the last descriptor
of that description closes, so with kill -9, too; every descriptor is close-on-exec, so an exec'ed child never keeps it.
After locking, the path must still name the locked file: the entry may have left, or may have been made anew.

What happens to the entry while it is claimed is in its attempt record, which anybody may read without a lock.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from core import clock
from core.errors import Corrupt
from core.failpoints import failpoint
from core.model import Attempts, FailureReason, Manifest
from storage.staging.entry import read_manifest, read_trailer, write_attempts
from storage.staging.folders import Folders, is_at, move
from storage.staging.space import translated
from storage.staging.view import view

log = logging.getLogger(__name__)


class Claim:
    """A context manager; leaving it frees the entry. `body()` is readable until then, wherever the entry went."""

    manifest: Manifest
    attempts: Attempts

    def __init__(self, folders: Folders, file: io.FileIO, manifest: Manifest, *, synced: bool) -> None:
        self.manifest = manifest
        self.attempts = read_trailer(file.fileno()).attempts
        self._folders = folders
        self._file = file
        self._synced = synced
        self._name = str(manifest.id)

    def start(self) -> Attempts:
        """Count a start, before the work.

        Raises:
            Unavailable: when it cannot be counted; then the work must not begin.
        """
        with translated("counting an attempt"):
            failpoint("claim.before-start", self._name)
            before = self._read()
            self._write(
                replace(
                    before,
                    total=before.total + 1,
                    unfinished=before.unfinished + 1,
                    running=True,
                    started_at=clock.now(),
                    due_at=None,
                )
            )
        failpoint("claim.after-start", self._name)
        return self.attempts

    def refund(self, *, delay: timedelta, reason: FailureReason | None, counted: bool = False) -> None:
        """The attempt ended in an orderly way and the entry is due again after `delay`. `counted`: the start stays
        counted all the same. A record that cannot be written is logged and leaves the start counted: this is called
        on the way out of a failure and must not hide it."""
        try:
            failpoint("claim.before-refund", self._name)
            before = self._read()
            unfinished = before.unfinished if counted else max(before.unfinished - 1, 0)
            due_at = clock.now() + delay
            self._write(replace(before, unfinished=unfinished, running=False, due_at=due_at, failure=reason))
        except (OSError, Corrupt):
            log.exception("an attempt stays counted", extra={"upload_id": self._name})

    def body(self) -> BinaryIO:
        """The bytes as they were sent, with a position of its own. `fileno()` is the entry itself: the body starts at
        its offset 0 and is `manifest.size` long."""
        return view(self._file, self.manifest.size)

    def quarantine(self, reason: FailureReason) -> None:
        """Put the entry aside, reason first: it is never there without one.

        Raises:
            Unavailable: when the disk refuses; the entry stays where it is.
        """
        with translated("putting an entry into quarantine"):
            failpoint("claim.before-quarantine", self._name)
            with suppress(Corrupt):  # its trailer broke meanwhile, which shows in quarantine by itself
                self._write(replace(self._read(), running=False, due_at=None, failure=reason))
            if self._synced:
                os.fdatasync(self._file.fileno())
            move(self.manifest.id, self._folders.accepted, self._folders.quarantine)
        failpoint("claim.after-quarantine", self._name)

    def drop(self) -> None:
        """The entry is done. A second drop does nothing.

        Raises:
            Unavailable: when the disk refuses; the entry stays where it is.
        """
        with translated("dropping an entry"):
            failpoint("claim.before-drop", self._name)
            move(self.manifest.id, self._folders.accepted, self._folders.trash)
        failpoint("claim.after-drop", self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        release(self._file)

    def _read(self) -> Attempts:
        """From disk: a child that works for this claim's holder writes there, too."""
        return read_trailer(self._file.fileno()).attempts

    def _write(self, attempts: Attempts) -> None:
        write_attempts(self._file.fileno(), attempts)
        self.attempts = attempts


def lock(path: Path, *, held_by_parent: bool = False) -> io.FileIO | None:
    """Open and lock the file at `path`. None: it is gone, or another holds it. With `held_by_parent` it is opened
    only: this process works for the one that holds the lock, and dies with it.

    Raises:
        OSError: when it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    file = io.FileIO(descriptor, "r+")
    try:
        if not held_by_parent:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(descriptor, path):
            return file
    except BlockingIOError:
        pass
    except BaseException:
        release(file)
        raise
    release(file)
    return None


def release(file: io.FileIO) -> None:
    """Unlock by name, too: a forked child that holds the descriptor must not keep the lock."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def claim(folders: Folders, path: Path, *, synced: bool, held_by_parent: bool = False) -> Claim | None:
    """
    Raises:
        Corrupt: when there is a file that is no entry.
        OSError: when it cannot be opened or read.
    """
    file = lock(path, held_by_parent=held_by_parent)
    if file is None:
        return None
    try:
        return Claim(folders, file, _read_own(file, path.name), synced=synced)
    except BaseException:
        release(file)
        raise


def _read_own(file: io.FileIO, name: str) -> Manifest:
    manifest = read_manifest(file.fileno(), read_trailer(file.fileno()))
    if str(manifest.id) != name:
        raise Corrupt("the manifest's id is not the file's name")
    return manifest
