"""Which files a bulk upload takes, and the asset path that each becomes."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the asset path (not encoded) it becomes."""

    file: Path
    path: str
    size: int


def find(starts: Iterable[Path], into: str, only: str | None = None) -> list[Source]:
    """Return every regular file below the directories, and files that are named themselves. Follows links to files, not
    to directories. What cannot be looked at is in the list too, so that sending it reports why."""
    prefix = "/" + into.strip("/")
    found = []
    for start in starts:
        base = start if start.is_dir() else start.parent
        for file in _walk(start) if start.is_dir() else [start]:
            size = _size(file)
            if size is not None and (only is None or fnmatch(file.name, only)):
                relative = unicodedata.normalize("NFC", file.relative_to(base).as_posix())
                found.append(Source(file, f"{prefix.rstrip('/')}/{relative}", size))
    return found


def _walk(directory: Path) -> list[Path]:
    unreadable: list[OSError] = []
    found = [
        Path(parent) / name for parent, _, names in os.walk(directory, onerror=unreadable.append) for name in names
    ]
    return sorted([*found, *(Path(error.filename) for error in unreadable)])


def _size(file: Path) -> int | None:
    """Return the bytes of a file, 0 where it cannot be looked at. None: there is nothing to send, as with a socket."""
    try:
        status = file.stat()
    except OSError:
        return 0
    unreadable_directory = stat.S_ISDIR(status.st_mode)
    return status.st_size if stat.S_ISREG(status.st_mode) or unreadable_directory else None
