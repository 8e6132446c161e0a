"""Objects as local files, for decoders that want one.

A filesystem store's own file is used where it lies. Of other stores there is one copy per host in a directory that is
bounded by evicting what was used longest ago; a copy is evicted or replaced by removing its name, so whoever has it
open keeps it. However many processes ask, an object is downloaded once, and a host downloads one object at a time:
the lock is a flock, which the kernel frees when its holder dies. A copy is verified while it comes in and takes its
name only then; what a crash leaves is removed by the next download.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from core.errors import Corrupt
from core.failpoints import failpoint
from storage.filesystem.store import FilesystemStore
from storage.interface import ObjectStore
from storage.os_errors import translated
from storage.reading import verified_blocks

_LOCK = "lock"
_COPY = ".copy"
_PART = ".part"


class LocalCopies:
    def __init__(self, directory: Path, max_bytes: int) -> None:
        """The directory is made at the first download. It may be removed while nobody runs."""
        self._directory = directory
        self._max_bytes = max_bytes

    @contextmanager
    def open(self, store: ObjectStore, key: str, *, size: int, sha256: bytes) -> Iterator[BinaryIO]:
        """A real file (it has a `fileno`) that holds exactly the object.

        Raises:
            NotFound, StoreUnavailable, Forbidden: from the store, or from this host's disk.
            Corrupt: the store's bytes are not the promised ones.
        """
        if isinstance(store, FilesystemStore):
            with store.open(key) as file:
                _require_size(file, key, size)
                yield file
            return
        descriptor = self._find(sha256, size)
        if descriptor is None:
            descriptor = self._download(store, key, size, sha256)
        with open(descriptor, "rb") as file:
            yield file

    def at_hand(self, sha256: bytes, size: int) -> BinaryIO | None:
        """A copy that is here already, for the caller to close. It was right when it came; this host's disk may have
        changed it since."""
        descriptor = self._find(sha256, size)
        return None if descriptor is None else open(descriptor, "rb")

    def remove(self, sha256: bytes) -> None:
        """A copy turned out to be wrong."""
        with translated("local copies"):
            self._path(sha256).unlink(missing_ok=True)

    def _find(self, sha256: bytes, size: int) -> int | None:
        """Open a copy and mark it as just used. One of another size is torn and does not count."""
        try:
            descriptor = os.open(self._path(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            return None
        with suppress(OSError):
            os.utime(descriptor)
        return descriptor

    def _download(self, store: ObjectStore, key: str, size: int, sha256: bytes) -> int:
        with self._only_one():
            found = self._find(sha256, size)  # whom we waited for may have brought it
            if found is not None:
                return found
            with translated("local copies"):
                self._make_room(size)
                part = self._directory / (uuid4().hex + _PART)
                descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                self._fill(descriptor, store, key, size, sha256)
                with translated("local copies"):
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    if size <= self._max_bytes:
                        # Synced, or a loss of power could leave the name with other bytes.
                        os.fsync(descriptor)
                        failpoint("copies.before-rename", key)
                        part.rename(self._path(sha256))
                return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            finally:
                part.unlink(missing_ok=True)

    def _fill(self, descriptor: int, store: ObjectStore, key: str, size: int, sha256: bytes) -> None:
        with store.open(key) as body:
            for block in verified_blocks(body, size=size, sha256=sha256):
                with translated("local copies"):
                    failpoint("copies.before-write", key)
                    view = memoryview(block)
                    while view:
                        view = view[os.write(descriptor, view) :]

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        with translated("local copies"):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with translated("local copies"):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _make_room(self, size: int) -> None:
        """Called with the lock held: no download of anybody is under way, so every part is left over."""
        for part in self._directory.glob("*" + _PART):
            part.unlink(missing_ok=True)
        copies = [(path.stat(), path) for path in self._directory.glob("*" + _COPY)]
        used = sum(status.st_size for status, _ in copies)
        for status, path in sorted(copies, key=lambda copy: copy[0].st_mtime_ns):
            if used + min(size, self._max_bytes) <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            used -= status.st_size

    def _path(self, sha256: bytes) -> Path:
        return self._directory / (sha256.hex() + _COPY)


def _require_size(file: BinaryIO, key: str, size: int) -> None:
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise Corrupt(f"{key} has {found} bytes and not the promised {size}")
