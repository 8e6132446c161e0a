"""Which host this staging directory belongs to: a UUID in `.host.json`, with the inode of that very file.

A copied directory has another inode there and is refused: two hosts under one id would hide each other's uploads.
Moving or remounting the directory keeps the inode. Nothing rests on the id being unique: this is a guard against a
mistake, and a snapshot of the block device passes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import UUID, uuid4

from core.errors import Misconfigured
from core.failpoints import failpoint
from core.settings import Settings
from storage.staging.folders import Folders, sync_directory

NAME = ".host.json"


def read_or_make(folders: Folders) -> UUID:
    """This host's id. Of several processes that start at once on a new directory, one makes it.

    Raises:
        Misconfigured: when the directory is a copy, or the id cannot be read or made.
    """
    try:
        return _read(folders.root)
    except FileNotFoundError:
        pass
    try:
        _write(folders, replace=False)
        return _read(folders.root)
    except OSError as error:
        raise Misconfigured(f"staging.path: the host id cannot be made in {folders.root}: {error.strerror}") from None


def known(settings: Settings) -> UUID | None:
    """Read this host's id. None: it has none that can be read, and none is made."""
    try:
        return _read(settings.staging_path)
    except (OSError, Misconfigured):
        return None


def adopt(settings: Settings) -> UUID:
    """Give the staging directory a new host id, whatever id it had. Its entries stay and are worked on here."""
    folders = Folders.make(settings.staging_path)
    try:
        _write(folders, replace=True)
        return _read(folders.root)
    except OSError as error:
        raise Misconfigured(f"staging.path: the host id cannot be made in {folders.root}: {error.strerror}") from None


def _read(root: Path) -> UUID:
    with open(root / NAME, "rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        try:
            found = json.load(file)
            host_id, written_to = UUID(found["host_id"]), int(found["inode"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Misconfigured(
                f"{root / NAME} cannot be read; `millrace staging adopt` gives this directory a new host id"
            ) from None
    if inode != written_to:
        raise Misconfigured(
            f"{root} is a copy of the staging directory of host {host_id}; "
            "`millrace staging adopt` gives it a host id of its own"
        )
    return host_id


def _write(folders: Folders, *, replace: bool) -> None:
    """Synced before it has its name, and linked, which fails where there is one already. A crash leaves a file in
    incoming/ that the sweep removes."""
    draft = folders.incoming / str(uuid4())
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump({"host_id": str(uuid4()), "inode": os.fstat(descriptor).st_ino}, file)
            file.flush()
            os.fsync(descriptor)
        failpoint("host.before-link")
        if replace:
            os.rename(draft, folders.root / NAME)
        else:
            _link_if_absent(draft, folders.root / NAME)
        sync_directory(folders.root)
    finally:
        draft.unlink(missing_ok=True)


def _link_if_absent(draft: Path, target: Path) -> None:
    try:
        os.link(draft, target)
    except FileExistsError:
        return  # another process was first
