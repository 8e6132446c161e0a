"""Changing what is recorded: so far, deleting."""

from __future__ import annotations

from datetime import timedelta

from core.errors import NotFound
from core.failpoints import failpoint
from metadata.assets.assets import Deleted
from metadata.paths import AssetPath
from pipeline.services import Services


def delete(services: Services, path: AssetPath, entry: int, *, purge: bool) -> Deleted | None:
    """The asset goes at once and stays gone; blobs that nothing else refers to go after the grace time, with `purge`
    at the next collection. None: it was deleted before.

    Raises:
        NotFound: there never was such an entry.
    """
    failpoint("delete.before")
    grace = timedelta(seconds=services.settings.work.gc_grace_seconds)
    try:
        deleted = services.metadata.assets.delete(path, entry, grace=grace, purge=purge)
    finally:
        services.lookups.forget_asset(path, entry)  # an error may mean that it is not known to be gone
    failpoint("delete.after")
    if deleted is None and not services.metadata.assets.was(path, entry):
        raise NotFound(f"there is no asset at {path.text}, entry {entry}")
    return deleted
