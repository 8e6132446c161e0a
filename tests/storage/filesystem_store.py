"""Filesystem stores for tests, and the key of an object whose folders are known."""

from __future__ import annotations

from pathlib import Path

from storage.filesystem.store import FilesystemOptions, FilesystemStore

KEY = "3a7bd3e2360a3d29eea436fcfb7e44c735d117c42d1c1835420b6b9942dd4f1b.17"


def store_at(root: Path, *, sync: bool = True) -> FilesystemStore:
    made = opened_at(root, sync=sync)
    made.establish()
    return made


def opened_at(root: Path, *, sync: bool = True) -> FilesystemStore:
    return FilesystemStore("main", FilesystemOptions(root=root, sync_to_disk=sync))
