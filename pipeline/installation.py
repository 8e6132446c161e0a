"""Which installation this process belongs to: stores carry its id, and what is shared with others is told apart by it.

PostgreSQL says it; the host remembers it (storage/staging/installation.py), so a process that starts while PostgreSQL
is away knows it all the same.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final
from uuid import UUID

from core.errors import Misconfigured, Unavailable
from core.settings import Settings
from metadata.blobs.inventory import Inventory
from metadata.facade import Metadata
from storage.staging import installation

ASK_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 3.0

log = logging.getLogger(__name__)

_heard: dict[Path, UUID] = {}
"""What PostgreSQL said last to this process, or to the one that forked it, for each staging directory. Where no staging
can be made (a rendering worker in a container that writes nowhere else), it is kept nowhere else."""


def redis_prefix(settings: Settings) -> str | None:
    """Name what all keys and queues of this installation begin with in Redis, which others may share. None: neither
    this host nor this process ever heard which installation it belongs to."""
    known = _remembered(settings)
    return None if known is None else f"{settings.key_prefix}{known}:"


def _remembered(settings: Settings) -> UUID | None:
    return installation.kept(settings) or _heard.get(settings.staging_path)


def await_redis_prefix(settings: Settings) -> str:
    """Say `redis_prefix`; on a host that never heard of its installation, as soon as PostgreSQL tells it."""
    while (prefix := redis_prefix(settings)) is None:
        metadata = Metadata.open(settings, pool_size=1, deadline_seconds=PATIENCE_SECONDS)
        try:
            Installation(settings, metadata.inventory).ask()
        except Unavailable as error:
            log.warning("PostgreSQL has not told yet which installation this is", extra={"detail": error.detail})
            time.sleep(AWAY_SECONDS)
        finally:
            metadata.close()
    return prefix


class Installation:
    """Safe for threads and for fork. PostgreSQL is asked now and then, and what it said last counts meanwhile."""

    def __init__(self, settings: Settings, inventory: Inventory) -> None:
        self._settings = settings
        self._inventory = inventory
        self._known: UUID | None = None
        self._ask_at, self._answers = float("-inf"), False

    def known(self) -> UUID | None:
        """Say it without asking anything but this host's disk. None: this host never heard of it."""
        if self._known is None:
            self._known = _remembered(self._settings)
        return self._known

    def ask(self) -> UUID:
        """Say what PostgreSQL says now, which gives a new database its id; while it is away, what it said last.

        Raises:
            DatabaseUnavailable: it is away, and this host never heard of its installation.
        """
        if self._known is not None and time.monotonic() < self._ask_at:
            return self._known
        try:
            said = self._inventory.make_installation()
        except Unavailable:
            if (known := self.known()) is None:
                raise
            self._ask_at, self._answers = time.monotonic() + AWAY_SECONDS, False
            return known
        self._ask_at, self._answers = time.monotonic() + ASK_SECONDS, True
        self._remember(said)
        return said

    def answered(self) -> bool:
        """Return whether PostgreSQL answered lately."""
        return time.monotonic() < self._ask_at and self._answers

    def _remember(self, said: UUID) -> None:
        """Keep it on this host as well, and again if it is not kept there (any more): its disk may have been full."""
        before, self._known = self.known(), said
        _heard[self._settings.staging_path] = said
        if before not in (None, said):
            log.warning("this host's database is another installation's now", extra={"installation": str(said)})
        if installation.kept(self._settings) == said:
            return
        try:
            installation.keep(self._settings, said)
        except (OSError, Misconfigured) as error:
            level = logging.DEBUG if before == said else logging.WARNING
            log.log(level, "the installation's id is not kept on this host: %s", error)
