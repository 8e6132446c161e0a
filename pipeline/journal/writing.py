"""Writing down what the outbox holds, as one more segment.

Order: the segment is put, then its events are forgotten. A crash between writes the same things twice, which changes
nothing. One writer at a time has the turn, from PostgreSQL, or every beat of a fleet would have the same events written
again; after one that died the turn is free when its lease ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from core.errors import Corrupt, NotFound, Unavailable
from core.failpoints import failpoint
from pipeline.journal import segments
from pipeline.journal.lines import Line
from pipeline.journal.segments import Draft
from pipeline.renewal import Renewal
from pipeline.scratch import scratch_root
from pipeline.services import Services
from storage.interface import ObjectStore

log = logging.getLogger(__name__)

TURN = "catalogue"
PAGE = 1000
"""Facts in memory."""
EVENTS = 20_000
"""In one segment at most."""


def write(services: Services) -> int:
    """Until no event waits, or the next turn is due; returns how many were written down."""
    until = time.monotonic() + services.settings.catalogue.seconds
    lease = timedelta(seconds=services.settings.work.lease_seconds)
    turns = services.metadata.turns
    token = turns.take(TURN, lease)
    if token is None:
        return 0
    try:
        with Renewal(services, lambda: turns.renew(TURN, token, lease), {"turn": TURN}):
            return _write(services, until)
    finally:
        with suppress(Unavailable):  # it ends by itself
            turns.free(TURN, token)


def _write(services: Services, until: float) -> int:
    if not _begun(services):
        return 0
    written = count = _write_segment(services)
    while count == EVENTS and time.monotonic() < until:
        count = _write_segment(services)
        written += count
    return written


def home(services: Services) -> ObjectStore:
    """Where segments go: the store that settings name, or who takes its place."""
    name = services.settings.catalogue.store or services.settings.default_store
    return services.store(services.placements.heir(name, services.metadata.stores.states()))


def _begun(services: Services) -> bool:
    """A catalogue that is not there, or not any more, is begun with everything there is. False: somebody else is at
    that. Nobody puts a first segment before all that is noted, or a crash would leave a catalogue with a gap."""
    if segments.listed(home(services)) or any(segments.listed(store) for store in services.stores.values()):
        return True
    return _refilled(services, "the catalogue is begun")


def _refilled(services: Services, why: str) -> bool:
    with services.turns.take("catalogue-refill") as turn:
        if turn is None:
            return False
        filled = services.metadata.outbox.refill()
    if filled:
        log.warning("%s with everything there is", why, extra={"events": filled})
    return True


def _write_segment(services: Services) -> int:
    highest = _catch_up(services)
    if highest is None:
        return 0
    with segments.draft(scratch_root(services.settings)) as made:
        written: list[int] = []
        for ids in _fill(services, made):
            written += ids
        if not written:
            return 0
        if made.lines:
            made.end(max(highest, written[-1]))
            _append(services, made)
    services.metadata.outbox.forget(written)
    failpoint("catalogue.after-forget")
    return len(written)


def _append(services: Services, made: Draft) -> None:
    """Into its home, or, where that began to be emptied meanwhile, into the next one: this may have come too late to be
    taken along."""
    store = home(services)
    segment = segments.append(store, made)
    log.info("the catalogue goes on", extra={"store": store.name, "key": segment.key, "lines": made.lines})
    if home(services) is not store:
        _append(services, made)
        store.delete([segment.key])


def _catch_up(services: Services) -> int | None:
    """The highest version of the catalogue, which what is written now must exceed. Where the database has not come to
    it, it was taken from a backup: what it says is true again, and overrules what the catalogue was told since. None:
    somebody else is at that."""
    highest = _highest(home(services))
    outbox = services.metadata.outbox
    if highest > outbox.last():
        if not _refilled(services, "the catalogue is ahead of the database, and goes on"):
            return None
        outbox.advance(highest)
    outbox.renumber(highest)  # also of those that were written by one who died before they were forgotten
    return highest


def _highest(store: ObjectStore) -> int:
    for segment in reversed(segments.current(store)):
        try:
            return segments.trailer(store, segment).highest
        except (Corrupt, NotFound):  # damaged, or merged just now
            log.exception("a segment of the catalogue has no end", extra={"store": store.name, "key": segment.key})
    return 0


def _fill(services: Services, made: Draft) -> Iterator[list[int]]:
    after = 0
    for _ in range(EVENTS // PAGE):
        events = services.metadata.outbox.page(after, PAGE)
        if not events:
            return
        for version, fact in services.metadata.outbox.facts(events):
            made.write(Line(version, fact).text)
        after = events[-1].id
        yield [event.id for event in events]
