"""Merging small segments into larger ones, so that there are few to read, and forgetting what nobody needs any more.

A run of neighbours of a like size becomes one segment that covers their numbers; then they are removed. A crash between
leaves covered ones, which count for nothing and go next time. Each line is written once for each step in size, and the
disk that a merger needs is bounded by `MOST_BYTES`: what is as large as that is merged no more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Final

from core.errors import AlreadyExists, Corrupt, NotFound, Unavailable
from core.failpoints import failpoint
from core.loops import each
from pipeline.journal import segments
from pipeline.journal.keys import Segment, uncovered
from pipeline.journal.lines import Line
from pipeline.journal.newest import NewestLines
from pipeline.scratch import scratch, scratch_root
from pipeline.services import Services
from storage.interface import ObjectStore

log = logging.getLogger(__name__)

RUN: Final = 8
"""So many neighbours make a merger worth its while; the next size is so many times larger."""
SMALLEST_BYTES: Final = 64 << 10
MOST_BYTES: Final = 1 << 30


def compact(services: Services) -> int:
    """In every store that has segments; returns how many were merged."""
    merged = 0

    def compact_one(name: str) -> None:
        nonlocal merged
        try:
            with services.turns.take(f"catalogue:{name}") as turn:
                merged += 0 if turn is None else _compact(services, services.store(name))
        except (Unavailable, NotFound, AlreadyExists, Corrupt) as error:
            log.warning("a catalogue is not compacted now", extra={"store": name, "reason": error.code})

    each(services.stores, compact_one)
    return merged


def _compact(services: Services, store: ObjectStore) -> int:
    merged = 0
    while True:
        listed = segments.listed(store)
        kept = uncovered(listed)
        store.delete([one.key for one in listed if one not in kept])
        run = chosen(kept)
        if not run:
            return merged
        _merge(services, store, run, from_the_beginning=run[0] == kept[0] and _is_alone(services, store))
        merged += len(run)


def chosen(kept: Sequence[Segment]) -> Sequence[Segment]:
    """The first run of neighbours, of the smallest size there is one of."""
    limit = SMALLEST_BYTES
    while limit <= MOST_BYTES:
        run: list[Segment] = []
        for one in [*kept, None]:
            if one is not None and one.size <= limit:
                run.append(one)
                continue
            if len(run) >= RUN:
                return _bounded(run)
            run = []
        limit *= RUN
    return []


def _bounded(run: Sequence[Segment]) -> Sequence[Segment]:
    total = accumulate(one.size for one in run)
    fits = [one for one, size in zip(run, total, strict=True) if size <= MOST_BYTES]
    return fits if len(fits) > 1 else []


def _is_alone(services: Services, store: ObjectStore) -> bool:
    """No other store has a catalogue, whose older lines what is dropped here would have overruled."""
    return not any(segments.listed(other) for other in services.stores.values() if other is not store)


def _merge(services: Services, store: ObjectStore, run: Sequence[Segment], *, from_the_beginning: bool) -> None:
    """
    Raises:
        Corrupt: one of them is damaged; all of them stay as they are.
    """
    with scratch(scratch_root(services.settings)) as directory, NewestLines(directory) as newest:
        for one in run:
            newest.add(map(Line.parse, segments.lines(store, one)))
        highest = max(newest.highest, *(segments.trailer(store, one).highest for one in run))
        if from_the_beginning:
            days = services.settings.retention.tombstones_days
            newest.drop_finished(services.metadata.now() - timedelta(days=days))
        with segments.draft(directory) as made:
            for text in newest.texts():
                made.write(text)
            made.end(highest)
            target = Segment(run[0].first, run[-1].last, made.size)
            segments.put(store, target, made)
    failpoint("catalogue.after-merge", target.key)
    store.delete([one.key for one in run])
    log.info("segments of the catalogue are merged", extra={"store": store.name, "key": target.key, "merged": len(run)})
