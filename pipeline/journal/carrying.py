"""Taking the catalogue along when its store is emptied.

Each segment is put into the present home of the catalogue under a number of its own there: which number a line has says
nothing, its version does. A crash between leaves it in both, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from core.errors import NotFound
from core.failpoints import failpoint
from pipeline.journal import segments
from pipeline.journal.keys import Segment
from pipeline.journal.writing import home
from pipeline.scratch import scratch_root
from pipeline.services import Services
from storage.interface import ObjectStore
from storage.throttle import UNTHROTTLED, Throttle


def carry(
    services: Services, source: ObjectStore, *, remove: bool, throttle: Throttle = UNTHROTTLED
) -> Iterator[Segment]:
    """Out of a store that takes nothing new any more; yields what is carried. With `remove`, nothing of the catalogue
    is left there."""
    for one in segments.current(source):
        with segments.draft(scratch_root(services.settings)) as made:
            try:
                with source.open(one.key) as body:
                    made.copy(throttle.body(body))
            except NotFound:  # merged just now: that one comes in the next turn
                continue
            segments.append(home(services), made, throttle)
        failpoint("catalogue.after-carry", one.key)
        if remove:
            source.delete([one.key])
        yield one
    if remove and (left := segments.listed(source)):
        kept = segments.current(source)
        source.delete([one.key for one in left if one not in kept])
        if kept:
            yield from carry(services, source, remove=True, throttle=throttle)
