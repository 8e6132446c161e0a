"""Changing what is recorded: so far, deleting."""

from __future__ import annotations

from datetime import timedelta

from core.failpoints import failpoint
from metadata.assets import Deleted
from metadata.paths import AssetPath
from pipeline.services import Services


def delete(services: Services, path: AssetPath, entry: int, *, purge: bool) -> Deleted | None:
    """The asset goes at once and stays gone; blobs that nothing else refers to go after the grace time, with `purge`
    at the next collection. None: there is no such entry (any more)."""
    failpoint("delete.before")
    grace = timedelta(seconds=services.settings.work.gc_grace_seconds)
    deleted = services.metadata.assets.delete(path, entry, grace=grace, purge=purge)
    failpoint("delete.after")
    return deleted
