"""Reading every segment of the catalogue and listing every store. Changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from core.errors import Corrupt, Misconfigured, NoStore, NotFound, Unavailable
from pipeline.journal import segments
from pipeline.journal.keys import Segment
from pipeline.journal.lines import Line
from pipeline.recovery.gathered import Gathered
from pipeline.replicas.objects import BATCH, batches
from pipeline.services import Services
from pipeline.stores.recognition import marker_of
from storage.interface import ObjectStore
from storage.object_keys import named
from storage.recognised import bare

log = logging.getLogger(__name__)

Told = Callable[[str, int, int | None], None]
"""What is being done, how much of it is, and of how much, where that is known."""

TRIES = 5


@dataclass
class Sources:
    """What was read."""

    segments: int = 0
    lines: int = 0
    objects: int = 0
    damaged: list[str] = field(default_factory=list)
    """Segments of which something could not be read. What could be is counted in."""
    installations: dict[str, UUID] = field(default_factory=dict)
    """Whose each store says it is."""


def gather(services: Services, into: Gathered, told: Told) -> Sources:
    """
    Raises:
        Unavailable, Forbidden: a store does not answer; without it, what it holds would be missing.
        Misconfigured: a newer Millrace wrote the catalogue, or there is something else in the place of a marker.
    """
    sources = Sources()
    stores = {name: bare(store) for name, store in services.stores.items()}  # whose they are is what they tell
    for store in stores.values():
        try:
            _read_catalogue(store, into, sources, told)
        except NoStore as error:
            raise NoStore(f"{error.detail} If it is a new one, name it in the settings after the rebuild") from None
    for name, store in stores.items():
        for batch in batches(store.scan(), BATCH):
            ours = [(*key, one) for one in batch if (key := named(one.key)) is not None]
            into.add_objects(name, ours)
            sources.objects += len(ours)
            told("listing the stores", sources.objects, None)
        marker = marker_of(store)
        if marker is not None:
            sources.installations[name] = marker.installation
    into.complete()
    return sources


def installation(services: Services, sources: Sources) -> UUID | None:
    """The one that the stores belong to.

    Raises:
        Misconfigured: they belong to several.
    """
    found = set(sources.installations.values())
    if len(found) > 1:
        listed = ", ".join(f"{name}: {whose}" for name, whose in sorted(sources.installations.items()))
        raise Misconfigured(f"the stores belong to different installations ({listed}): name only those of one")
    return found.pop() if found else None


def _read_catalogue(store: ObjectStore, into: Gathered, sources: Sources, told: Told) -> None:
    """A segment may be merged while it is read, where others are at work: then there is another one that covers it."""
    read: set[Segment] = set()
    for _ in range(TRIES):
        waiting = [one for one in segments.current(store) if one not in read]
        for number, one in enumerate(waiting):
            told(f"reading the catalogue in {store.name}", number, len(waiting))
            try:
                sources.lines += into.add_lines(_readable(store, one, sources))
            except NotFound:
                break
            read.add(one)
            sources.segments += 1
        else:
            return
    raise Unavailable(f"the catalogue in {store.name!r} changes all the time: try again")


def _readable(store: ObjectStore, segment: Segment, sources: Sources) -> Iterator[Line]:
    """What can be read of it; the rest is another's loss and not that of these lines."""
    damaged = False
    try:
        for text in segments.lines(store, segment):
            try:
                yield Line.parse(text)
            except Corrupt:
                damaged = True
    except Corrupt:
        damaged = True
    if damaged:
        log.error("a segment of the catalogue is damaged", extra={"store": store.name, "key": segment.key})
        sources.damaged.append(f"{store.name}: {segment.key}")
