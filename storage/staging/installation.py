"""Which installation this host works for: what the database says of itself, kept beside the host's own id.

The database is the truth, and this is what it said last: for what must not wait for PostgreSQL, as accepting and
starting must not. A host that never heard of its installation has no file yet.
"""

from __future__ import annotations

import json
import os
from uuid import UUID, uuid4

from core.failpoints import failpoint
from core.settings import Settings
from storage.staging.folders import Folders, sync_directory

NAME = ".installation.json"


def kept(settings: Settings) -> UUID | None:
    """Read what this host remembers. None: nothing that can be read, so PostgreSQL has to be asked."""
    try:
        with open(settings.staging_path / NAME, encoding="ascii") as file:
            return UUID(json.load(file)["installation"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def keep(settings: Settings, installation: UUID) -> None:
    """Remember it on this host, instead of what was remembered. Of several processes that do this at once one wins, and
    a reader meets one whole answer.

    Raises:
        Misconfigured: there can be no staging here.
        OSError: the disk does not take it.
    """
    folders = Folders.make(settings.staging_path)
    draft = folders.incoming / str(uuid4())  # the sweep removes it when this process dies now
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump({"installation": str(installation)}, file)
            file.flush()
            os.fsync(descriptor)
        failpoint("installation.before-rename")
        os.rename(draft, folders.root / NAME)
        sync_directory(folders.root)
    finally:
        draft.unlink(missing_ok=True)
