"""Reading staged entries without locking them, whatever lies there under an entry's name.

A file that is not a whole entry still shows: quarantined, with the reason `corrupt` and a manifest made of what its
name and length say. Links, folders and other people's files do not show at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from core.errors import Corrupt
from core.model import Attempts, Details, FailureReason, ImageFacts, Manifest, StagedEntry
from storage.staging.entry import read_manifest, read_trailer
from storage.staging.space import refusal

FOREIGN = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM})
"""What a link, a folder, a socket or somebody else's file answers."""


def look_at(path: Path, *, host_id: UUID, quarantined: bool) -> StagedEntry | None:
    """
    Raises:
        Unavailable: when the disk refuses for a reason that says nothing about this file.
    """
    try:
        with _opened(path) as descriptor:
            trailer = read_trailer(descriptor)
            manifest = read_manifest(descriptor, trailer)
    except Corrupt as error:
        return _broken(path, host_id, error.detail)
    except OSError as error:
        return _unreadable(path, host_id, error)
    attempts = trailer.attempts
    if quarantined and attempts.failure is None:
        # It was put aside because it could not be read, and now it can.
        attempts = replace(attempts, failure=FailureReason(Corrupt.code, "it could not be read for a while"))
    return StagedEntry(manifest, attempts, quarantined)


def is_due(path: Path, now: datetime, latest: datetime) -> bool:
    """Return whether a claim of the file at `path` has something to do. True for a broken one: a claim puts it aside.
    No entry is put off beyond `latest`, so a later time was written when the clock was wrong."""
    try:
        with _opened(path) as descriptor:
            due_at = read_trailer(descriptor).attempts.due_at
    except Corrupt:
        return True
    except OSError as error:
        return error.errno == errno.EIO
    return due_at is None or due_at <= now or due_at > latest


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unreadable(path: Path, host_id: UUID, error: OSError) -> StagedEntry | None:
    if error.errno == errno.ENOENT or error.errno in FOREIGN:
        return None
    if error.errno == errno.EIO:
        return _broken(path, host_id, "its disk cannot read it")
    raise refusal("looking at an entry", error) from error


def _broken(path: Path, host_id: UUID, detail: str) -> StagedEntry | None:
    try:
        status = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    upload_id = UUID(path.name)
    manifest = Manifest(
        id=upload_id,
        asset_id=upload_id,
        host_id=host_id,
        path="",
        size=status.st_size,
        sha256=bytes(32),
        image=ImageFacts("application/octet-stream", 0, 0, None),
        details=Details(),
        accepted_at=datetime.fromtimestamp(status.st_mtime, UTC),
        fingerprint=bytes(32),
    )
    return StagedEntry(manifest, Attempts(failure=FailureReason(Corrupt.code, detail)), quarantined=True)
