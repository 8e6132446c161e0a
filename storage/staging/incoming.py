"""An upload on its way into staging: written once, then visible whole by one rename, or gone.

The file is locked (flock) from its creation to the end of the commit, and its space is reserved before the bytes come.
The lock belongs to the open file description; every descriptor is close-on-exec, so no child keeps it. The descriptor
is closed before `commit` returns, so that whoever is told of the entry can claim it.

    write manifest and trailer → fsync(file) → rename into accepted/ → fsync(directory) → close

A crash leaves either no entry or a complete one. A failed fsync is never tried again on the same file: the kernel may
have dropped the bytes. When the commit fails at any step, the entry is taken out of sight again before the error goes
to the caller.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Literal, Self
from uuid import UUID

from core.errors import AlreadyExists
from core.failpoints import failpoint
from core.model import Manifest
from storage.staging.entry import TRAILER_BYTES, encode_tail
from storage.staging.folders import Directory, Folders
from storage.staging.space import translated
from storage.staging.view import view

log = logging.getLogger(__name__)

Sync = Literal["full", "data", "none"]

TAIL_ROOM = TRAILER_BYTES + 4096
"""Reserved beside the body: enough for nearly every manifest. A longer one asks for its space when it is written."""

UNRESERVED = 1 << 20
"""A body up to this size is not reserved: writing it takes about as long, and reserving slows the disk's journal down
by a quarter (measured at 8 threads)."""

FIRST_STEP, LAST_STEP = 1 << 20, 64 << 20
"""How much is reserved at a time for a body of unknown length: doubling, so that small ones do not crowd a disk."""


class Incoming:
    """A context manager that leaves nothing behind unless `commit` returned."""

    size: int

    def __init__(
        self, folders: Folders, accepted: Directory, upload_id: UUID, *, expected: int | None, sync: Sync
    ) -> None:
        """`accepted` is the one of `folders`, open.

        Raises:
            StagingFull: when the space cannot be reserved.
            AlreadyExists: when an upload with this id runs.
        """
        self.size = 0
        self._expected = expected
        self._whole: memoryview | None = None
        self._written = 0
        self._folders = folders
        self._accepted = accepted
        self._name = str(upload_id)
        self._sync = sync
        self._path = os.path.join(folders.incoming, self._name)  # text: a Path costs as much as a system call
        self._reserved = UNRESERVED + TAIL_ROOM
        self._step = FIRST_STEP
        self._cut = False
        with translated("creating an upload"):
            self._file = _create(self._path)
        try:
            with translated("reserving space"):
                fcntl.flock(self._file, fcntl.LOCK_EX)
                failpoint("accept.after-create", self._name)
                if expected is not None and expected > UNRESERVED:
                    self._reserve(expected + TAIL_ROOM)
        except BaseException:
            self._abandon()
            raise

    def write(self, chunk: bytes | memoryview) -> None:
        """A small body that comes in one piece is kept as it is and written by `commit`, together with its manifest:
        `chunk` must not change until then.

        Raises:
            StagingFull, Unavailable: the upload cannot go on; leave the context.
        """
        rest = memoryview(chunk).cast("B")
        with translated("writing an upload"):
            failpoint("accept.write", self._name)
            if self.size == 0 and len(rest) == self._expected and len(rest) <= UNRESERVED:
                self._whole = rest
            else:
                if self.size + len(rest) + TAIL_ROOM > self._reserved:
                    self._reserve(self.size + len(rest) + TAIL_ROOM + self._step)
                    self._step = min(self._step * 2, LAST_STEP)
                self._append(rest)
            self.size += len(rest)

    def view(self) -> BinaryIO:
        """The body so far, with a position of its own."""
        return view(self._file, self.size) if self._whole is None else io.BytesIO(self._whole)

    def commit(self, manifest: Manifest) -> None:
        """Make the upload an entry, as durably as `staging.sync` says.

        Raises:
            StagingFull, Unavailable: nothing of it is visible.
        """
        if manifest.size != self.size:
            raise ValueError("the manifest is not this upload's")
        try:
            with translated("committing an upload"):
                self._finish(manifest)
                self._publish(manifest.id)
        except BaseException:
            self._abandon()
            raise
        _release(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._abandon()

    def _reserve(self, size: int) -> None:
        os.posix_fallocate(self._file.fileno(), self.size, size - self.size)
        self._reserved = size
        self._cut = True

    def _append(self, piece: memoryview) -> None:
        """Write it after what was written, and before it what was kept: in one go, unless the disk takes less."""
        pieces = [piece] if self._whole is None else [self._whole, piece]
        self._whole = None
        while pieces:
            written = os.pwritev(self._file.fileno(), pieces, self._written)
            self._written += written
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][written:]

    def _finish(self, manifest: Manifest) -> None:
        """Body, manifest and trailer, on disk."""
        self._append(memoryview(encode_tail(manifest)))
        if self._cut:
            os.ftruncate(self._file.fileno(), self._written)
        failpoint("accept.before-fsync", self._name)
        if self._sync != "none":
            os.fdatasync(self._file.fileno())  # covers the length, which is all the metadata that counts
        failpoint("accept.after-fsync", self._name)

    def _publish(self, upload_id: UUID) -> None:
        accepted = os.path.join(self._folders.accepted, str(upload_id))
        os.rename(self._path, accepted)
        try:
            failpoint("accept.after-rename", self._name)
            failpoint("accept.before-dirsync", self._name)
            if self._sync == "full":
                self._accepted.sync()
            failpoint("accept.after-dirsync", self._name)
        except BaseException:
            self._withdraw(accepted)
            raise

    def _withdraw(self, accepted: str) -> None:
        """Nobody could claim it: the lock is still ours."""
        try:
            os.rename(accepted, self._path)
        except OSError:
            log.critical("a refused upload stays accepted", extra={"upload_id": self._name}, exc_info=True)

    def _abandon(self) -> None:
        """Remove the file while it is still locked. What cannot be removed is the sweep's, once the lock is gone."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError:
            log.warning("an upload's file stays for the sweep", extra={"upload_id": self._name}, exc_info=True)
        finally:
            _release(self._file)


def _create(path: str) -> io.FileIO:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise AlreadyExists("an upload with this id is running") from None
    return io.FileIO(descriptor, "r+")


def _release(file: io.FileIO) -> None:
    """Unlock by name, too: a forked child that holds the descriptor must not keep the lock. What counts is on disk by
    now, so an error of `close` says nothing."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    with suppress(OSError):
        file.close()
