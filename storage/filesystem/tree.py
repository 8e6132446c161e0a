"""The directories below a filesystem store's `objects/`.

They are opened one below the other and never through a symbolic link, so no name leads out of the store. With `sync`
every directory that a new one changed is synced before anything is put below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import NoStore
from storage.filesystem.directories import open_or_make
from storage.temporary_files import DIRECTORY

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Tree:
    """The caller closes each descriptor, and translates every `OSError`."""

    def __init__(self, name: str, path: Path, *, sync: bool) -> None:
        self._name = name
        self._path = str(path)
        self._sync = sync
        self._synced: set[tuple[str, ...]] = set()
        """Directories whose own entry this process has synced. One that another process made may not be, yet."""

    def root(self) -> int:
        """Return a descriptor of `objects/` itself.

        Raises:
            NoStore: it is not there, or an unmounted disk would look like an empty store.
        """
        try:
            return os.open(self._path, DIRECTORY)
        except FileNotFoundError:
            raise NoStore(f"{self._name}: there is no {self._path}: is its disk mounted?") from None

    def open_file(self, names: tuple[str, ...]) -> int | None:
        """Return a descriptor of what has this name, which may be no file; None: it is not there."""
        descriptor = self._open_at_once(names)
        return self._open_step_by_step(names) if descriptor is None else descriptor

    def directory(self, path: tuple[str, ...]) -> int | None:
        """Return a descriptor of a directory below `objects/`; None: it is not there. Raises as `root`."""
        current = self.root()
        for name in path:
            try:
                below = os.open(name, DIRECTORY, dir_fd=current)
            except FileNotFoundError:
                return None
            finally:
                os.close(current)
            current = below
        return current

    @contextmanager
    def at(self, path: tuple[str, ...]) -> Iterator[int | None]:
        """Open as `directory` does, for the time of the block."""
        directory = self.directory(path)
        try:
            yield directory
        finally:
            if directory is not None:
                os.close(directory)

    def make(self, path: tuple[str, ...]) -> int:
        """Open as `directory` does, and make what is missing."""
        current = self.root()
        for depth, name in enumerate(path, start=1):
            try:
                below = open_or_make(name, current)
                self._sync_entry(path[:depth], current)
            finally:
                os.close(current)
            current = below
        return current

    def _open_at_once(self, names: tuple[str, ...]) -> int | None:
        """Open the common case in one step: the kernel says where it got to, and that is the very path, so it went
        through no link. None: it is not there, or went another way; the caller then takes every step and sees why."""
        path = "/".join((self._path, *names))
        try:
            descriptor = os.open(path, FILE)
        except OSError:
            return None
        with suppress(OSError):  # no /proc here
            if os.readlink(f"/proc/self/fd/{descriptor}") == path:  # noqa: PTH115 - a Path costs as much as the read
                return descriptor
        os.close(descriptor)
        return None

    def _open_step_by_step(self, names: tuple[str, ...]) -> int | None:
        directory = self.directory(names[:-1])
        if directory is None:
            return None
        try:
            return os.open(names[-1], FILE, dir_fd=directory)
        except FileNotFoundError:
            return None
        finally:
            os.close(directory)

    def _sync_entry(self, path: tuple[str, ...], parent: int) -> None:
        if self._sync and path not in self._synced:
            os.fsync(parent)
            self._synced.add(path)
