"""Removing from stores what nothing needs: what the rows have let go, and orphans that only a listing finds.

An orphan is an object whose key looks like ours, that neither a replica in any state nor `garbage` names, that is older
than the grace time, and whose generation was given out before the job began. A reservation is a replica, so nothing
goes under a living upload; and as no generation is given twice, no row can come to name an orphan later. Orphans go the
way of all objects: into `garbage` first, by a transaction that asks for their names once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Final

from pydantic import Field

from core.errors import NoStore
from core.failpoints import failpoint
from core.model import Job
from metadata.blobs.inventory import Named
from pipeline import maintenance
from pipeline.jobs.arguments import Arguments, chosen
from pipeline.jobs.flow import Heed
from pipeline.jobs.runner import Step
from pipeline.journal.keys import is_segment
from pipeline.replicas.identification import require_ours
from pipeline.replicas.objects import BATCH, batches
from pipeline.services import Services
from storage.interface import Stored
from storage.object_keys import MARKER, named
from storage.recognised import bare

KIND: Final = "gc"
GRACE_SECONDS = 86_400.0


class Collection(Arguments):
    stores: Sequence[str] = ()
    """None given: all of them."""
    grace_seconds: float = Field(GRACE_SECONDS, ge=0, lt=1e9)

    def fitted(self, services: Services) -> Collection:
        return self.model_copy(update={"stores": chosen(services, self.stores)})


@dataclass(frozen=True, slots=True)
class Progress:
    done: int = 0
    """Objects that were listed."""
    orphans: int = 0
    orphan_bytes: int = 0
    young: int = 0
    """Orphans within the grace time."""
    ahead: int = 0
    """Objects of generations that were not given out yet: the database comes from a backup. They stay."""
    foreign: int = 0
    """Objects whose keys are not ours. They stay."""
    catalogue: int = 0
    """Segments of the catalogue. They stay."""
    removed: int = 0
    """Objects that are gone now: the orphans, and what the rows had let go."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    del heed  # it moves no bodies
    wanted = Collection.of(services, job.arguments)
    for name in wanted.stores:
        require_ours(services, name)
    ceiling = job.cursor.get("ceiling")
    if ceiling is None:
        ceiling = services.metadata.inventory.last_generation()
    sweep = _Sweep(services, wanted, ceiling, Progress(**job.progress))
    yield from sweep.let_go(job.cursor)
    yield from sweep.listed(job.cursor)


def survey(services: Services, wanted: Collection) -> tuple[Progress, int]:
    """What gc would find now, and how many objects the rows have let go already. Changes nothing, and needs no marker:
    it is how a person sees what identifying a store would mean."""
    sweep = _Sweep(services, wanted, services.metadata.inventory.last_generation(), Progress())
    for name in wanted.stores:
        with suppress(NoStore):  # nothing was put there yet; or it is not mounted, and not identified either
            for objects in batches(bare(services.store(name)).scan(), BATCH):
                sweep.orphans(name, objects)
    return sweep.progress, services.metadata.inventory.count_garbage(wanted.stores)


@dataclass
class _Sweep:
    services: Services
    wanted: Collection
    ceiling: int
    progress: Progress

    def let_go(self, cursor: Mapping[str, Any]) -> Iterator[Step]:
        """What the rows let go: nobody refers to it, or nobody confirmed it."""
        if "store" in cursor:
            return
        blobs = self.services.metadata.blobs
        maintenance.give_up_reservations(self.services)
        while blobs.collect(BATCH, self.services.keeping):
            yield self._step({})
        for name in self.wanted.stores:
            yield from self._emptied(name, {})
        yield self._step({"store": 0, "after": ""})

    def listed(self, cursor: Mapping[str, Any]) -> Iterator[Step]:
        """What neither a row nor `garbage` names."""
        first = int(cursor.get("store", 0))
        for number, name in list(enumerate(self.wanted.stores))[first:]:
            after = str(cursor.get("after", "")) if number == first else ""
            for objects in batches(self.services.store(name).scan(after=after), BATCH):
                orphans = self.orphans(name, objects)
                self.services.metadata.inventory.discard(name, orphans)
                failpoint("gc.after-discard", name)
                here = {"store": number, "after": objects[-1].key}
                yield self._step(here)
                yield from self._emptied(name, here)
            yield from self._emptied(name, {"store": number + 1})
            yield self._step({"store": number + 1})

    def orphans(self, name: str, objects: Sequence[Stored]) -> list[Named]:
        """Those that may go; the others are counted."""
        ours = {key: one for one in objects if (key := named(one.key)) is not None}
        given_out = [key for key in ours if key[1] <= self.ceiling]
        unnamed = self.services.metadata.inventory.unnamed(name, given_out)
        latest = self.services.metadata.now() - timedelta(seconds=self.wanted.grace_seconds)
        orphans = [key for key in unnamed if ours[key].modified_at <= latest]
        segments = sum(is_segment(one.key) for one in objects)
        foreign = sum(named(one.key) is None and one.key != MARKER for one in objects) - segments
        self.progress = replace(
            self.progress,
            done=self.progress.done + len(objects),
            orphans=self.progress.orphans + len(orphans),
            orphan_bytes=self.progress.orphan_bytes + sum(ours[key].size for key in orphans),
            young=self.progress.young + len(unnamed) - len(orphans),
            ahead=self.progress.ahead + len(ours) - len(given_out),
            foreign=self.progress.foreign + foreign,
            catalogue=self.progress.catalogue + segments,
        )
        return orphans

    def _emptied(self, name: str, cursor: Mapping[str, Any]) -> Iterator[Step]:
        """Delete all garbage of a store; a maintenance worker may be doing the same."""
        while removed := maintenance.delete_garbage(self.services, name):
            self.progress = replace(self.progress, removed=self.progress.removed + removed)
            yield self._step(cursor)

    def _step(self, cursor: Mapping[str, Any]) -> Step:
        return Step({**cursor, "ceiling": self.ceiling}, self.progress.to_json())
