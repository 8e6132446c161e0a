"""Bringing a database that was restored from a backup up to what its stores hold.

The stores went on after the backup was made. So they hold objects of generations that the database has not given out:
it goes beyond them, and no key is used twice. And objects of blobs that it knows lie under other names or in other
stores than it thinks, where something was moved or repaired since: they are taken, once their bytes were read. What is
left is what came after the backup: it is told, and stays until `gc`.

Nothing is removed, everything may be done twice, and a run that was cut short is simply begun again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from core.errors import Archived, NotFound, Superseded
from core.failpoints import failpoint
from core.model import Replica
from metadata.blobs.inventory import Named
from pipeline.replicas import sources
from pipeline.replicas.identification import require_ours
from pipeline.replicas.objects import BATCH, REACH, batches
from pipeline.services import Services
from storage.interface import ObjectStore, Stored
from storage.object_keys import named

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    listed: int = 0
    ahead: int = 0
    """Objects of generations that the database had not given out."""
    generation: int = 0
    """The last one that counts as given now."""
    taken: int = 0
    """Objects that are replicas again."""
    taken_bytes: int = 0
    archived: int = 0
    """Objects that would have been taken, and have to be restored from an archive before they can be read."""
    damaged: int = 0
    """Objects that would have been taken, but do not hold their bytes."""
    unknown: int = 0
    """Objects whose blob the database does not know: what came after the backup, and old orphans."""
    unknown_bytes: int = 0


def catch_up(
    services: Services, *, dry_run: bool = False, unknown: Callable[[str, Stored], None] = lambda store, one: None
) -> Iterator[CaughtUp]:
    """Yields how far it has come; `unknown` is called with each object that the database knows nothing of.

    Raises:
        Misconfigured: a store is not the one that this installation filled.
        Unavailable: a store does not answer. Begin again later.
    """
    for name in services.stores:
        require_ours(services, name)
    run = _Run(services, dry_run, unknown, CaughtUp(generation=services.metadata.inventory.last_generation()))
    for name in services.stores:
        for objects in batches(services.store(name).scan(), BATCH):
            run.look(name, objects)
            yield run.so_far
    yield run.so_far


@dataclass
class _Run:
    services: Services
    dry_run: bool
    unknown: Callable[[str, Stored], None]
    so_far: CaughtUp

    def look(self, name: str, objects: Sequence[Stored]) -> None:
        """First the sequence, then the rows: a row must not name a generation that may still be given out."""
        last = self.services.metadata.inventory.last_generation()
        said = ((one, named(one.key)) for one in objects)
        ours = {key: one for one, key in said if key is not None and key[1] <= last + REACH}
        ahead = [generation for _, generation in ours if generation > last]
        if ahead and not self.dry_run:
            last = self.services.metadata.restored.go_beyond(max(ahead))
            failpoint("catch-up.after-sequence", name)
        self.so_far = replace(self.so_far, generation=last)
        self._count(listed=len(objects), ahead=len(ahead))
        self._take_all(name, ours)

    def _take_all(self, name: str, ours: dict[Named, Stored]) -> None:
        restored = self.services.metadata.restored
        unnamed = self.services.metadata.inventory.unnamed(name, list(ours))
        known = restored.known({sha256 for sha256, _ in unnamed})
        for sha256, generation in unnamed:
            one, blob = ours[sha256, generation], known.get(sha256)
            if blob is None:
                self.unknown(name, one)
                self._count(unknown=1, unknown_bytes=one.size)
            elif one.size != blob.size:
                self._count(damaged=1)
            else:
                self._take(Replica(blob, name, generation))

    def _take(self, found: Replica) -> None:
        """Unless the replica that is recorded is there as well: then gc may have this one."""
        store = self.services.store(found.store)
        recorded = self.services.metadata.restored.held(found.store, [found.blob.sha256]).get(found.blob.sha256)
        if recorded is not None and _is_there(store, recorded):
            return
        if self.dry_run:
            self._count(taken=1, taken_bytes=found.blob.size)
        else:
            self._read_and_take(found, recorded)

    def _read_and_take(self, found: Replica, instead: Replica | None) -> None:
        try:
            whole = sources.is_whole(self.services, found)
        except Archived:
            self._count(archived=1)
            return
        if not whole:
            self._count(damaged=1)
        elif self._taken(found, instead):
            self._count(taken=1, taken_bytes=found.blob.size)

    def _taken(self, found: Replica, instead: Replica | None) -> bool:
        grace = timedelta(seconds=self.services.settings.work.gc_grace_seconds)
        if not self.services.metadata.restored.take(found, instead, grace):
            return False
        failpoint("catch-up.after-take", found.key)
        if not _is_there(self.services.store(found.store), found):
            return False  # gc was faster; the row says that it is missing
        try:
            self.services.metadata.repairs.done(found)
        except Superseded:
            return False
        self.services.lookups.forget_replicas(found.blob.sha256)
        log.info("an object is a replica again", extra={"store": found.store, "key": found.key})
        return True

    def _count(self, **more: int) -> None:
        self.so_far = replace(self.so_far, **{name: getattr(self.so_far, name) + count for name, count in more.items()})


def _is_there(store: ObjectStore, one: Replica) -> bool:
    try:
        return store.head(one.key).size == one.blob.size
    except NotFound:
        return False
