"""Objects as local files, for decoders that want one.

A filesystem store's own file is used where it lies. Of other stores there is one copy per host in a directory that is
bounded by evicting what was used longest ago; a copy is evicted or replaced by removing its name, so whoever has it
open keeps it. However many processes ask, an object is downloaded once: whoever brings it holds a flock on its part,
which the kernel frees when its holder dies. Only those who want this very object wait for it, and not for long. A copy
is verified while it comes in and takes its name only then; what a crash leaves is removed by the next download.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from core import clock
from core.errors import Busy, Corrupt
from core.failpoints import failpoint
from storage.filesystem.store import FilesystemStore
from storage.interface import ObjectStore
from storage.os_errors import translated
from storage.reading import verified_blocks
from storage.recognised import bare

_LOCK = "lock"
_COPY = ".copy"
_PART = ".part"

WAIT_SECONDS = 5.0
"""For another process that brings the same object: most come sooner, and whoever waits does nothing else."""
_LOOK_SECONDS = 0.02


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
            Busy: another process of this host is still bringing it.
            Corrupt: the store's bytes are not the promised ones.
        """
        if isinstance(bare(store), FilesystemStore):
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

    def is_due(self, seconds: float) -> bool:
        """Has no process of this host heard so for so many seconds? Never, where there was no download yet."""
        if not self._directory.is_dir():
            return False
        with translated("local copies"), self._alone():
            lock = self._directory / _LOCK
            if clock.age(lock.stat().st_mtime) < seconds and lock.stat().st_size:
                return False
            lock.write_bytes(b"looked")
            return True

    def held(self) -> list[bytes]:
        """Return the hashes of what is here."""
        with translated("local copies"):
            return sorted(bytes.fromhex(path.stem) for path in self._directory.glob("*" + _COPY))

    def forget(self, hashes: Iterable[bytes]) -> int:
        """Remove these, for good, and what dead downloads left; returns how many of these were here."""
        gone = 0
        with translated("local copies"), self._alone():
            parts = len(list(self._directory.glob("*" + _PART))) - len(list(self._coming()))
            for sha256 in hashes:
                with suppress(FileNotFoundError):
                    self._path(sha256).unlink()
                    gone += 1
            if gone or parts:
                directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)  # or a loss of power could bring them back
                finally:
                    os.close(directory)
        return gone

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
        part = self._part(sha256)
        descriptor = self._begin(sha256, size)
        if descriptor is None:
            found = self._find(sha256, size)
            if found is None:
                raise Busy(f"another process of this host is bringing {key}", retry_after=2)
            return found
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
            part.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        part.unlink(missing_ok=True)
        return descriptor

    def _begin(self, sha256: bytes, size: int) -> int | None:
        """The part of an object, locked, empty, and with its room reserved. None: whoever had it has brought the
        object, or is still at it."""
        ends = time.monotonic() + WAIT_SECONDS
        while True:
            with translated("local copies"), self._alone():
                if self._is_here(sha256, size):
                    return None
                descriptor = _locked(self._part(sha256), create=True)
                if descriptor is not None:
                    try:
                        os.ftruncate(descriptor, 0)  # a dead one's may be longer
                        self._make_room(size)
                        os.ftruncate(descriptor, size)  # what it will hold counts from now on
                    except BaseException:
                        os.close(descriptor)
                        raise
                    return descriptor
            if time.monotonic() > ends:
                return None
            time.sleep(_LOOK_SECONDS)

    def _is_here(self, sha256: bytes, size: int) -> bool:
        with suppress(OSError):
            return self._path(sha256).stat().st_size == size
        return False

    def _fill(self, descriptor: int, store: ObjectStore, key: str, size: int, sha256: bytes) -> None:
        with store.open(key) as body:
            for block in verified_blocks(body, size=size, sha256=sha256):
                with translated("local copies"):
                    failpoint("copies.before-write", key)
                    view = memoryview(block)
                    while view:
                        view = view[os.write(descriptor, view) :]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """For the moment in which room is made and a part begins, and never while anything is waited for: names of
        parts come to be only here, so a part that can be locked is left over."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _make_room(self, size: int) -> None:
        """Called alone. What is on its way counts and cannot go, so beside it there may be no room to be made."""
        used = sum(self._coming())
        copies = [(path.stat(), path) for path in self._directory.glob("*" + _COPY)]
        used += sum(status.st_size for status, _ in copies)
        for status, path in sorted(copies, key=lambda copy: copy[0].st_mtime_ns):
            if used + min(size, self._max_bytes) <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            used -= status.st_size

    def _coming(self) -> Iterator[int]:
        """The sizes of what others bring. What is left over goes."""
        for part in self._directory.glob("*" + _PART):
            descriptor = _locked(part, create=False)
            if descriptor is not None:
                os.close(descriptor)
                part.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):  # done by now
                yield part.stat().st_size

    def _part(self, sha256: bytes) -> Path:
        return self._directory / (sha256.hex() + _PART)

    def _path(self, sha256: bytes) -> Path:
        return self._directory / (sha256.hex() + _COPY)


def _require_size(file: BinaryIO, key: str, size: int) -> None:
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise Corrupt(f"{key} has {found} bytes and not the promised {size}")


def _locked(path: Path, *, create: bool) -> int | None:
    """A descriptor that holds the lock. None: another one has it, or took the name away."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
