"""What one host does for its own staging, again and again, whether or not anybody sent it a message.

Every step stands alone: with PostgreSQL away the hints still go out, with Redis away the entries are ingested right
here, one at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol
from uuid import UUID

from core.errors import BrokerUnavailable, MillraceError, Unavailable
from core.failpoints import failpoint
from core.model import StagedEntry
from pipeline.ingest import Outcome, ingest
from pipeline.services import Services

log = logging.getLogger(__name__)

ANNOUNCE_BATCH = 1000
TRASH_AGE = timedelta(minutes=1)
"""Long enough that a host can still say `stored` from the trash when PostgreSQL went away right after."""


class Queue(Protocol):
    """The queue of this host's ingest hints. Both raise BrokerUnavailable."""

    def depth(self) -> int: ...

    def publish(self, upload_id: UUID) -> None: ...


class Sweep:
    def __init__(self, services: Services, queue: Queue) -> None:
        self._services = services
        self._queue = queue
        self._announced: set[UUID] = set()
        self._broker_seen = time.monotonic()

    def run(self) -> None:
        """One round. Never raises for what is wrong outside."""
        staging = self._services.staging
        work = self._services.settings.work
        steps: list[Callable[[], object]] = [
            self._hint,
            staging.set_broken_aside,
            lambda: staging.sweep_incoming(timedelta(seconds=work.incoming_grace_seconds)),
            lambda: staging.empty_trash(TRASH_AGE),
            self._announce,
            self._reconcile_failures,
            self._grant_wishes,
        ]
        for step in steps:
            try:
                step()
            except Unavailable as error:
                log.warning("a step of the sweep waits", extra={"reason": error.code, "detail": error.detail})
            except (MillraceError, OSError):
                log.exception("a step of the sweep failed")
            failpoint("sweep.after-step")

    def _hint(self) -> None:
        """Keep the queue filled with the oldest due entries, up to a window: a backlog is fed, never sent whole."""
        work = self._services.settings.work
        window = work.window_factor * work.ingest_concurrency
        try:
            room = window - self._queue.depth()
            for upload_id in self._services.staging.due(max(room, 0), datetime.now(UTC)):
                self._queue.publish(upload_id)
            self._broker_seen = time.monotonic()
        except BrokerUnavailable:
            if time.monotonic() - self._broker_seen >= work.broker_patience_seconds:
                self._ingest_here()

    def _ingest_here(self) -> None:
        """Until the next round is due, or a dependency of the entries themselves is away."""
        ends = time.monotonic() + self._services.settings.work.sweep_seconds
        while time.monotonic() < ends:
            due = self._services.staging.due(1, datetime.now(UTC))
            if not due or ingest(self._services, due[0]) in (Outcome.WAITING, Outcome.GONE):
                return

    def _announce(self) -> None:
        """Tell the fleet that this host lives, and what it holds that nobody recorded yet."""
        staging = self._services.staging
        present = set(staging.entries())
        self._announced &= present
        fresh = iter(sorted(present - self._announced))
        while True:
            batch = list(islice(fresh, ANNOUNCE_BATCH))
            looked = [entry for entry in map(staging.look, batch) if entry is not None and not entry.quarantined]
            self._services.metadata.uploads.announce(staging.host_id, looked)
            self._announced.update(batch)
            if len(batch) < ANNOUNCE_BATCH:
                return

    def _reconcile_failures(self) -> None:
        staging = self._services.staging
        quarantined: list[StagedEntry] = list(staging.quarantined())
        self._services.metadata.failures.reconcile(staging.host_id, quarantined)

    def _grant_wishes(self) -> None:
        """The file moves first, then the row goes: a crash in between repeats a move that finds nothing to do."""
        staging = self._services.staging
        for failure in self._services.metadata.failures.wishes(staging.host_id):
            if failure.wish == "retry":
                staging.requeue(failure.id)
            else:
                staging.discard(failure.id)
            failpoint("sweep.after-wish")
            self._services.metadata.failures.remove(failure.id)
            log.info("a failure was settled", extra={"upload_id": str(failure.id), "wish": failure.wish})
