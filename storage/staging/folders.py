"""The four folders of staging. An entry is one file whose name is its upload's UUIDv7, so name order is age order.

    incoming/      uploads that still run, each locked by its writer
    accepted/      entries that wait for their ingest
    quarantine/    entries that failed visibly
    trash/         entries that are done; files are removed here and in incoming/ only

An entry moves by one rename, so it is in exactly one folder at any moment: all four are on one file system.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from core.errors import Misconfigured
from core.failpoints import failpoint

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

DISCARDED = ".discarded"
"""Marks what was thrown away from quarantine: it lies in the trash too, but it never was done."""


@dataclass(frozen=True, slots=True)
class Folders:
    root: Path
    incoming: Path
    accepted: Path
    quarantine: Path
    trash: Path

    @classmethod
    def make(cls, root: Path) -> Folders:
        """
        Raises:
            Misconfigured: when they cannot be made, or are not on one file system.
        """
        folders = cls(root, root / "incoming", root / "accepted", root / "quarantine", root / "trash")
        four = (folders.incoming, folders.accepted, folders.quarantine, folders.trash)
        try:
            missing = [folder for folder in four if not folder.is_dir()]
            for folder in missing:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if missing:
                sync_directory(root)
                sync_directory(root.parent)
            devices = {folder.stat().st_dev for folder in four}
        except OSError as error:
            raise Misconfigured(f"staging.path: {root} cannot be used: {error.strerror}") from None
        if len(devices) > 1:
            raise Misconfigured(f"staging.path: the folders in {root} must be on one file system")
        return folders


class Directory:
    """A directory kept open: for each sync anew, that is a good part of what a small upload costs."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Not at exit: a thread may still be committing.
        weakref.finalize(self, os.close, self._descriptor).atexit = False

    def sync(self) -> None:
        """Make the names in it survive a power cut."""
        os.fsync(self._descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def entry_names(folder: Path) -> Iterator[str]:
    """The entries of a folder by name, in no order. Files with other names are not ours and are left alone. Names and
    not ids, because a backlog of 100,000 is sorted several times faster as text."""
    with os.scandir(folder) as found:
        for item in found:
            if is_entry_name(item.name):
                yield item.name


def upload_ids(folder: Path) -> Iterator[UUID]:
    return map(UUID, entry_names(folder))


def accepted_at(upload_id: UUID) -> float:
    """Return the time in a UUIDv7, which begins with it, in seconds since 1970."""
    return (upload_id.int >> 80) / 1000


def depth(folder: Path) -> tuple[int, int]:
    """Return how many entries lie there, and their bytes. Reads every name."""
    count = size = 0
    with os.scandir(folder) as found:
        for item in found:
            if is_entry_name(item.name):
                try:
                    size += item.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue
                count += 1
    return count, size


def is_entry_name(name: str) -> bool:
    """Only the one canonical spelling of an id names an entry."""
    return _CANONICAL_UUID.fullmatch(name) is not None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), named)


def move(upload_id: UUID, source: Path, target: Path, *, suffix: str = "") -> bool:
    """Rename an entry from one folder to another. False: it is not in `source`."""
    failpoint(f"staging.move-to-{target.name}", str(upload_id))
    try:
        os.rename(source / str(upload_id), target / f"{upload_id}{suffix}")
    except FileNotFoundError:
        return False
    return True
