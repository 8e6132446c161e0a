"""Objects as files below a directory, on a local disk or a mounted one.

An object appears by one `link` from `tmp/` into `objects/` and only with all its bytes, so a reader, a scan or a crash
never meets half of one. With `sync_to_disk` the file is synced before the link, and every directory that the link or a
new directory changed after it: what `put` returned survives a loss of power, and what `delete` removed does not come
back after one. No name leads out of `root` (storage/filesystem/tree.py).

The root is made by `establish` alone: anybody else who finds no `objects/` in it takes the disk for one that is not
mounted. What dead processes left in `tmp/` is removed when a process first uses the store (storage/temporary_files.py).
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from stat import S_ISREG
from threading import Lock
from typing import BinaryIO, ClassVar, Literal, cast

from core.breaker import BreakerState
from core.errors import AlreadyExists, NotFound, StoreUnavailable
from core.failpoints import failpoint
from storage.backend import Backend
from storage.filesystem.directories import make_durably
from storage.filesystem.fan_out import parts, walk
from storage.filesystem.tree import FILE, Tree
from storage.free_space import DiskOptions, FreeSpace
from storage.interface import Span, Stored
from storage.object_keys import require_legal
from storage.options import Deployment
from storage.os_errors import translated
from storage.reading import (
    BLOCK_BYTES,
    HashBeside,
    ObjectFile,
    promised_blocks,
    require_hash,
    stops_at,
    verified_blocks,
)
from storage.served_here import ServedHere
from storage.temporary_files import TemporaryFile, remove_leftovers, temporary_file


class FilesystemOptions(DiskOptions):
    looks_are_cheap: ClassVar[bool] = True

    kind: Literal["filesystem"] = "filesystem"
    sync_to_disk: bool = True

    def objection(self, deployment: Deployment) -> str | None:
        staging = deployment.staging
        if self.sync_to_disk or staging.ephemeral or staging.sync == "none":
            return None
        return (
            f"sync_to_disk: false is weaker than staging.sync = {staging.sync!r}: the staged copy, which is dropped"
            " once the object is stored, would have been the safer one"
        )


class FilesystemStore(ServedHere):
    def __init__(self, name: str, options: FilesystemOptions) -> None:
        self.name = name
        self._root = options.root.absolute()
        self._tree = Tree(name, self._root / "objects", sync=options.sync_to_disk)
        self._sync = options.sync_to_disk
        self._space = FreeSpace(name, self._root, options)
        self._ready = False
        self._preparing = Lock()

    @property
    def breaker(self) -> BreakerState:
        return "closed"

    def establish(self) -> None:
        with self._errors("establish"):
            for folder in (self._root / "tmp", self._root / "objects"):
                make_durably(folder, sync=self._sync)

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        del media_type
        require_legal(key)
        self._prepare()
        self._space.require(size)
        with temporary_file(self._root / "tmp", f"{self.name}: {key}") as file:
            if size <= BLOCK_BYTES:
                self._write(file, key, verified_blocks(body, size=size, sha256=sha256))
            else:
                self._write_while_hashing(file, key, body, size, sha256)
            with self._errors(key):
                return self._publish(file, key, size, sha256)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        descriptor, status = self._open(key)
        if span is None:
            buffer = min(max(status.st_size, io.DEFAULT_BUFFER_SIZE), BLOCK_BYTES)
            return io.BufferedReader(ObjectFile(descriptor, key), buffer)
        try:
            stop = stops_at(span, status.st_size)
        except BaseException:
            os.close(descriptor)
            raise
        return cast("BinaryIO", ObjectFile(descriptor, key, start=span.start, stop=stop))  # a raw file is one, too

    def head(self, key: str) -> Stored:
        descriptor, status = self._open(key)
        os.close(descriptor)
        return _stored(key, status)

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        self._prepare()
        with self._errors("scan"):
            for found in walk(self._tree.directory, prefix, after):
                yield _stored(found.key, found.status)

    def delete(self, keys: Iterable[str]) -> None:
        self._prepare()
        emptied: set[tuple[str, ...]] = set()
        for key in keys:
            require_legal(key)
            *above, name = parts(key)
            with self._errors(key), self._tree.at(tuple(above)) as directory:
                if directory is None:
                    continue
                with suppress(FileNotFoundError):  # whose remover may have died before it synced
                    os.unlink(name, dir_fd=directory)
            emptied.add(tuple(above))
        if self._sync:
            # All of them after the last removal: the first sync writes the file system's log, the others find it so.
            for path in sorted(emptied):
                with self._errors("delete"), self._tree.at(path) as directory:
                    if directory is not None:
                        os.fsync(directory)

    def sweep_unfinished(self) -> int:
        self._prepare()
        with self._errors("sweep"):
            return remove_leftovers(self._root / "tmp")

    def close(self) -> None:
        """Nothing is held between calls."""

    def _write(self, file: TemporaryFile, key: str, blocks: Iterable[bytes]) -> None:
        """And sync it."""
        for block in blocks:
            with self._errors(key):
                failpoint("filesystem.before-write", key)
                file.write(block)
        with self._errors(key):
            failpoint("filesystem.before-fsync", key)
            if self._sync:
                os.fsync(file.descriptor)

    def _write_while_hashing(self, file: TemporaryFile, key: str, body: BinaryIO, size: int, sha256: bytes) -> None:
        """Hashing takes as long as writing does, and waiting for a disk leaves the processor free."""

        def hashed() -> Iterator[bytes]:
            for block in promised_blocks(body, size=size):
                digest.update(block)
                yield block

        with HashBeside() as digest:
            self._write(file, key, hashed())
            require_hash(digest.digest(), sha256)

    def _open(self, key: str) -> tuple[int, os.stat_result]:
        require_legal(key)
        names = parts(key)
        self._prepare()
        with self._errors(key):
            descriptor = self._tree.open_file(names)
            if descriptor is None:
                raise NotFound(f"{self.name} has no object {key}")
            status = os.fstat(descriptor)
        if S_ISREG(status.st_mode):
            return descriptor, status
        os.close(descriptor)
        raise StoreUnavailable(f"{self.name}: what stands for {key} is no file")

    def _publish(self, file: TemporaryFile, key: str, size: int, sha256: bytes) -> Stored:
        *above, name = parts(key)
        directory = self._tree.make(tuple(above))
        try:
            failpoint("filesystem.before-link", key)
            try:
                os.link(file.name, name, src_dir_fd=file.directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError:
                self._compare(directory, key, size, sha256)
            failpoint("filesystem.after-link", key)
            if self._sync:
                os.fsync(directory)
            return _stored(key, os.stat(name, dir_fd=directory, follow_symlinks=False))
        finally:
            os.close(directory)

    def _compare(self, directory: int, key: str, size: int, sha256: bytes) -> None:
        """The key is taken: by the same bytes, which are then synced again (their writer may have died before that),
        or by others."""
        existing = os.open(parts(key)[-1], FILE, dir_fd=directory)
        with io.FileIO(existing, "rb") as file:
            same = os.fstat(existing).st_size == size and hashlib.file_digest(file, "sha256").digest() == sha256
            if same and self._sync:
                os.fsync(existing)
        if not same:
            raise AlreadyExists(f"{key} holds other bytes")

    def _prepare(self) -> None:
        """Remove what dead processes left, once, at the first use.

        Raises:
            NoStore: there is no `objects/`, and so no store.
        """
        if self._ready:
            return
        with self._preparing, self._errors("open"):
            if self._ready:
                return
            os.close(self._tree.root())
            with suppress(FileExistsError):  # what copies a store may leave an empty folder out
                (self._root / "tmp").mkdir()
            remove_leftovers(self._root / "tmp")
            self._ready = True

    def _errors(self, subject: str) -> AbstractContextManager[None]:
        return translated(f"{self.name}: {subject}")


def _stored(key: str, status: os.stat_result) -> Stored:
    return Stored(key=key, size=status.st_size, modified_at=datetime.fromtimestamp(status.st_mtime, UTC))


BACKEND = Backend(FilesystemOptions, FilesystemStore)
