"""What was read lately, and from where: for copies in a hot store, and for rules that ask what nobody reads any more.

Requests and renderings only take a note, in the memory of their process. A thread writes the notes down every few
seconds, over a connection of its own, so that nobody who reads waits for it and nobody's breaker learns from it. With
PostgreSQL away, and when a process ends, notes are lost: a copy is made at a later read then, and a blob looks unread
for longer than it is, by minutes where it is read often.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from core.errors import MillraceError
from core.loops import Background
from core.model import BlobFacts, Replica
from core.settings import Settings
from metadata.facade import Metadata
from pipeline.lookups.cached_metadata import Lookups
from pipeline.rules.placement import Placements
from pipeline.rules.promotion import any_could_take, is_colder, takers
from storage.options import StoreOptions

log = logging.getLogger(__name__)

CAPACITY = 2000
"""Blobs; what else is read until the next writing is left out."""
WRITE_SECONDS = 2.0
CLOSE_SECONDS = 1.0
DATABASE_SECONDS = 10.0


class Accesses(Protocol):
    def note(self, served: Replica) -> None:
        """Somebody reads this replica. Asks nobody, and never raises."""

    def close(self) -> None: ...


class NoAccesses:
    """Where no settings need to know what was read."""

    def note(self, served: Replica) -> None: ...

    def close(self) -> None: ...


def are_wanted(settings: Settings, stores: Mapping[str, StoreOptions]) -> bool:
    """Does anything depend on what is read?"""
    return any_could_take(stores) or any(rule.unread_days > 0 for rule in settings.demotion)


def open_accesses(settings: Settings, placements: Placements, lookups: Lookups, hasten: Callable[[], None]) -> Accesses:
    """Connects to nothing yet. `hasten` wakes up whoever makes copies."""
    if not are_wanted(settings, placements.stores):
        return NoAccesses()
    metadata = Metadata.open(settings, pool_size=1, deadline_seconds=DATABASE_SECONDS)
    return WrittenAccesses(metadata, lookups, placements, timedelta(seconds=settings.work.last_read_seconds), hasten)


class WrittenAccesses:
    """Safe for threads, and for fork."""

    def __init__(
        self,
        metadata: Metadata,
        lookups: Lookups,
        placements: Placements,
        every: timedelta,
        hasten: Callable[[], None],
    ) -> None:
        """Of the reads of one blob, one in `every` is written down."""
        self._metadata = metadata
        self._lookups = lookups
        self._placements = placements
        self._promotes = any_could_take(placements.stores)
        self._every = every
        self._hasten = hasten
        self._read: dict[bytes, BlobFacts | None] = {}
        self._lock = threading.Lock()
        self._writer = Background("accesses", self._write, seconds=WRITE_SECONDS, fresh=self._forget)

    def note(self, served: Replica) -> None:
        self._writer.start()
        sha256 = served.blob.sha256
        wished = served.blob if self._promotes and is_colder(self._placements.stores, served.store) else None
        with self._lock:
            if sha256 in self._read or len(self._read) < CAPACITY:
                self._read[sha256] = wished or self._read.get(sha256)

    def write(self) -> None:
        """Write down what was noted.

        Raises:
            DatabaseUnavailable: the notes are lost.
        """
        with self._lock:
            read, self._read = self._read, {}
        if read:
            self._metadata.tiers.read(list(read), self._every)
            wished = [blob for blob in read.values() if blob is not None]
            if wished:
                self._wish(wished)

    def _wish(self, blobs: list[BlobFacts]) -> None:
        wanted = False
        for taker in takers(self._placements):
            fitting = [blob.sha256 for blob in blobs if blob.size <= taker.max_bytes]
            blobs = [blob for blob in blobs if blob.size > taker.max_bytes]
            if not fitting:
                continue
            promotion = self._metadata.tiers.promote(fitting, taker.name, up_to=taker.up_to, max_bytes=taker.max_bytes)
            for sha256 in promotion.there:  # it was read elsewhere, so what this process knows is out of date
                self._lookups.forget_replicas(sha256)
            wanted = wanted or bool(promotion.wanted)
        if wanted:
            self._hasten()

    def close(self) -> None:
        self._writer.close(CLOSE_SECONDS)
        self._metadata.close()

    def _forget(self) -> None:
        self._read, self._lock = {}, threading.Lock()

    def _write(self) -> None:
        try:
            self.write()
        except MillraceError as error:
            log.warning("what was read lately is not written down", extra={"reason": error.code})
