"""Directories that are made when they are first needed, by whoever comes first."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from storage.temporary_files import DIRECTORY


def open_or_make(name: str, parent: int) -> int:
    """A descriptor of the directory; no link is followed. Its entry in `parent` is not synced."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=parent)
        return os.open(name, DIRECTORY, dir_fd=parent)


def make_durably(folder: Path, *, sync: bool) -> None:
    """`mkdir -p`, with every directory that got a new entry synced. What is there already is left alone."""
    if folder.is_dir():
        return
    make_durably(folder.parent, sync=sync)
    folder.mkdir(exist_ok=True)
    if sync:
        parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
