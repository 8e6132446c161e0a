"""What a host keeps of originals for rendering follows what the database says of them.

Hosts are not told what was purged: each asks which of its copies are of blobs that are gone. So it makes no difference
whether a host was away, when the copy came, or whether the bytes went by a purge, after their grace time, or with a
database that was made anew. Any process that may have brought copies does it, one at a time on a host.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from core.errors import Unavailable
from core.loops import Background
from pipeline.services import Services

PAGE: Final = 1000


def forget_gone(services: Services) -> int:
    """Remove the copies of blobs that are gone, unless a process of this host did so a moment ago; returns how many.

    Raises:
        Unavailable: PostgreSQL does not answer, or this host's disk refuses.
    """
    copies = services.copies
    if not copies.is_due(services.settings.work.maintenance_seconds):
        return 0
    held, forgotten = copies.held(), copies.forget([])
    for start in range(0, len(held), PAGE):
        page = held[start : start + PAGE]
        known = services.metadata.blobs.known(page)
        forgotten += copies.forget([sha256 for sha256 in page if sha256 not in known])
    return forgotten


def keeper(services: Services) -> Background:
    """Return a thread that forgets copies of blobs that are gone, again and again."""

    def turn() -> None:
        with suppress(Unavailable):  # soon again
            forget_gone(services)

    return Background("local-copies", turn, seconds=services.settings.work.maintenance_seconds)
