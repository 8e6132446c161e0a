"""What one host does for its own staging, again and again, whether or not anybody sent it a message.

Every step stands alone: with PostgreSQL away the hints still go out, with Redis away the entries are ingested right
here, one at a time. A step that fails in a way that no code foresaw rests while the others go on. The heartbeat is no
step: an entry that is ingested here may take half an hour.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Protocol
from uuid import UUID

from core import clock
from core.errors import BrokerUnavailable, Unavailable
from core.failpoints import failpoint
from core.loops import Background, Guard, each
from core.model import Failure, StagedEntry
from pipeline import connections
from pipeline.services import Services
from pipeline.uploads.ingest import Outcome, ingest

log = logging.getLogger(__name__)

ANNOUNCE_BATCH = 1000
ANNOUNCE_SECONDS = 1.0
"""Between two heartbeats, which tell of what is new: so long a 202 may be unknown to others when its host dies."""
LISTING_SHARE = 0.05
"""Of the time for looking at the disk, if it comes often enough so: a backlog of 100,000 takes a while to list."""
BATCH = 32
"""Entries that are listed at a time: a listing of 100,000 costs something."""
TRASH_AGE = timedelta(minutes=1)
"""Long enough that a host can still say `stored` from the trash when PostgreSQL went away right after."""


class Queue(Protocol):
    """The queue of this host's ingest hints. Both raise BrokerUnavailable."""

    def room(self) -> int:
        """Return how many more hints it takes."""

    def publish(self, upload_id: UUID) -> None: ...


class Sweep:
    def __init__(self, services: Services, queue: Queue) -> None:
        self._services = services
        self._queue = queue
        self._announced: set[UUID] = set()
        self._told_until: datetime | None = None
        self._listing_seconds = 0.0
        self._broker_seen = time.monotonic()
        staging, work = services.staging, services.settings.work
        grace = timedelta(seconds=work.incoming_grace_seconds)
        self._steps: list[tuple[Guard, Callable[[], object]]] = [
            (Guard("sweep.hint"), self._hint),
            (Guard("sweep.broken"), staging.set_broken_aside),
            (Guard("sweep.incoming"), lambda: staging.sweep_incoming(grace)),
            (Guard("sweep.trash"), lambda: staging.empty_trash(TRASH_AGE)),
            (Guard("sweep.failures"), self._reconcile_failures),
            (Guard("sweep.wishes"), self._grant_wishes),
        ]
        most = work.sweep_seconds
        self.heartbeat = Background(
            "heartbeat", self.announce, seconds=ANNOUNCE_SECONDS, first=0, most_rest_seconds=most
        )

    def run(self) -> None:
        """Do one round. Never raises."""
        for guard, step in self._steps:
            guard.call(partial(_unless_away, step))
            failpoint("sweep.after-step")

    def announce(self) -> float:
        """Tell the fleet that this host lives, and what it holds that is not recorded yet. Returns seconds until the
        next time: soon however long PostgreSQL was waited for, and before the host is taken for lost however long its
        backlog is."""
        self._listing_seconds = 0.0
        _unless_away(self._announce)
        shared = max(ANNOUNCE_SECONDS, self._listing_seconds / LISTING_SHARE)
        return min(shared, self._services.settings.work.sweep_seconds)

    def _hint(self) -> None:
        """Keep the queue filled with the oldest due entries, up to a window: a backlog is fed, never sent whole."""
        work = self._services.settings.work
        try:
            for upload_id in self._services.staging.due(self._queue.room(), clock.now()):
                self._queue.publish(upload_id)
            self._broker_seen = time.monotonic()
        except BrokerUnavailable:
            if time.monotonic() - self._broker_seen >= work.broker_patience_seconds:
                self._ingest_here()

    def _ingest_here(self) -> None:
        """Ingest until the next round is due, or a dependency of the entries themselves is away."""
        ends = time.monotonic() + self._services.settings.work.sweep_seconds
        last: UUID | None = None
        while due := self._services.staging.due(BATCH, clock.now(), after=last):
            for last in due:
                # One that is gone is at work in another process, perhaps for long: the younger ones do not wait for it.
                if time.monotonic() >= ends or ingest(self._services, last) is Outcome.WAITING:
                    return

    def _announce(self) -> None:
        staging = self._services.staging
        began = self._services.metadata.uploads.announce(  # the host lives, even if its disk fails
            staging.host_id,
            [],
            connections=connections.of_host(self._services.settings),
            told_until=self._told_until,
        )
        listing = time.monotonic()
        present = set(staging.entries())
        self._listing_seconds = time.monotonic() - listing
        self._announced &= present
        fresh = iter(sorted(present - self._announced))
        while batch := list(islice(fresh, ANNOUNCE_BATCH)):
            looked = [entry for entry in map(staging.look, batch) if entry is not None and not entry.quarantined]
            self._services.metadata.uploads.announce(staging.host_id, looked)
            self._announced.update(batch)
        self._told_until = began  # goes with the next word

    def _reconcile_failures(self) -> None:
        staging = self._services.staging
        quarantined: list[StagedEntry] = list(staging.quarantined())
        self._services.metadata.failures.reconcile(staging.host_id, quarantined)

    def _grant_wishes(self) -> None:
        each(self._services.metadata.failures.wishes(self._services.staging.host_id), self._grant)

    def _grant(self, failure: Failure) -> None:
        """Move the file first, then remove the row: a crash in between repeats a move that finds nothing to do."""
        staging = self._services.staging
        if failure.wish == "retry":
            staging.requeue(failure.id)
        else:
            staging.discard(failure.id)
        failpoint("sweep.after-wish")
        self._services.metadata.failures.remove(failure.id)
        log.info("a failure was settled", extra={"upload_id": str(failure.id), "wish": failure.wish})


def _unless_away(step: Callable[[], object]) -> None:
    """Call the step, and wait for a dependency that is away: the next round is soon."""
    try:
        step()
    except Unavailable as error:
        log.warning("a step of the sweep waits", extra={"reason": error.code, "detail": error.detail})
