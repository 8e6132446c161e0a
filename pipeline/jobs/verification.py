"""Comparing what the database says of stores with what they hold, and mending what differs.

Structure: every healthy replica is asked for by `head`, and every object that a listing shows is looked for among the
rows. Bytes: every replica is read and its hash compared, the one that was verified longest ago first. Then whatever is
missing or corrupt is made anew from a good replica. What has none and is a variant is rendered again; an original is in
quarantine: its rows keep saying so, what there is of its bytes stays, and `pipeline/replicas/quarantine.py` tells of
it.

Only what a store says counts: one that does not answer, or refuses, is asked again for a while and then left out, and
its replicas keep their states. A replica that changes while it is looked at is another one, and is not marked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, TypeVar

from core.errors import Archived, Forbidden, Interrupted, NotFound, StoreUnavailable, Superseded
from core.failpoints import failpoint
from core.model import Job, Replica
from metadata.blobs.inventory import Named, Place
from pipeline.jobs.counting import COUNTING, counted
from pipeline.jobs.flow import LARGE_BYTES, RETRY, Heed
from pipeline.jobs.heads import Heads
from pipeline.jobs.runner import Step
from pipeline.jobs.verification_progress import Progress, Verification
from pipeline.journal.keys import is_segment
from pipeline.maintenance import delete_garbage
from pipeline.replicas.copying import check, try_copy
from pipeline.replicas.objects import REACH
from pipeline.replicas.rerender import make_again
from pipeline.rules.in_force import compare
from pipeline.services import Services
from storage.object_keys import MARKER, named
from storage.throttle import Throttle, rest

log = logging.getLogger(__name__)

T = TypeVar("T")

KIND: Final = "verify"
ROWS = 100
OBJECTS = 500
STEP_SECONDS = 1.0
"""Of reading, or one replica, between two steps, so that a wish is soon heard."""
TRIES = 40
TRY_SECONDS = 3.0
"""A store is asked again so often, so far apart, before it is left out."""


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    wanted = Verification.of(services, job.arguments)
    if job.progress and COUNTING not in job.cursor:
        progress = Progress(**job.progress)
        progress = replace(progress, done_bytes=job.cursor.get("done_bytes", progress.done_bytes))
    else:
        tally = yield from counted(
            job.cursor, wanted.stores, services.metadata.inventory.count, lambda tally: wanted.planned(tally).to_json()
        )
        progress = wanted.planned(tally)
    began = job.started_at or job.created_at
    yield from _Run(services, wanted, began, progress, int(job.cursor.get("tries", 0)), heed).steps(job.cursor)


Phase = Callable[[str], Iterator[str]]
"""Goes on after a place and yields the places it comes to."""


@dataclass
class _Run:
    services: Services
    wanted: Verification
    began: datetime
    progress: Progress
    tries: int
    """That the store which is being asked did not answer, one after the other."""
    heed: Heed

    def __post_init__(self) -> None:
        rate = self.wanted.max_mb_s
        self.throttle = Throttle(None if rate is None else rate * 1e6, self.heed)
        self.inventory = self.services.metadata.inventory
        self.heads = Heads(self.heed)
        self.reading = 0
        self.passed = 0

    def steps(self, cursor: Mapping[str, Any]) -> Iterator[Step]:
        phases: list[Phase] = [
            partial(phase, name) for name in self.wanted.stores for phase in (self.rows, self.objects)
        ]
        phases += [self.placement, *([] if self.wanted.structure_only else [self.content]), self.repairs]
        first, after = int(cursor.get("phase", 0)), str(cursor.get("after", ""))
        with self.heads:
            for number, phase in list(enumerate(phases))[first:]:
                for place in phase(after):
                    yield self._step(number, place)
                after = ""
                yield self._step(number + 1, after)

    def rows(self, name: str, after: str) -> Iterator[str]:
        """Rows against the store."""
        while page := self.inventory.healthy(name, bytes.fromhex(after), ROWS):
            if not (yield from self._answer(name, partial(self._ask, page), after)):
                return
            after = page[-1].blob.sha256.hex()
            self._count(done=min(len(page), self.progress.total - self.progress.done))
            yield after

    def objects(self, name: str, after: str) -> Iterator[str]:
        """The store against rows."""
        while keys := (yield from self._answer(name, partial(self._list, name, after), after)):
            after = keys[-1]
            yield after

    def placement(self, after: str) -> Iterator[str]:
        """Rows against the rules."""
        services, metadata = self.services, self.services.metadata
        if not metadata.rules.are_in_force(services.rules):
            self.progress = replace(self.progress, other_rules=True)
            return
        while page := metadata.placing.page(bytes.fromhex(after), OBJECTS):
            for one in compare(metadata, services.placements, page):
                for name in set(one.unrecorded).intersection(self._answering()):
                    with suppress(NotFound):  # gc was faster
                        metadata.repairs.ensure(one.blob.sha256, name, timedelta(0))
                        self._count(wanted=1)
            after = page[-1][0].sha256.hex()
            yield after

    def content(self, after: str) -> Iterator[str]:
        """What was read has a younger date, so the place is in the rows, until something is met in an archive, which
        keeps its own: from then on it is a place among them. A store that is left out drops out."""
        while page := self.inventory.stale(self._answering(), self.began, ROWS, _place(after)):
            begun = time.monotonic()
            for one in page:
                if one.blob.size >= LARGE_BYTES:
                    yield after  # a wish is heard before it begins
                read = yield from self._answer(one.store, partial(self._read, one), after)
                if after:
                    after = f"{one.verified_at or ''}/{one.blob.sha256.hex()}/{one.store}"
                    if read is False:
                        self._done_with(one, archived=1)
                elif read is False:
                    after = FIRST
                    break
                if time.monotonic() - begun > STEP_SECONDS:
                    begun = time.monotonic()
                    yield after
            yield after

    def repairs(self, after: str) -> Iterator[str]:
        sha256, _, store = after.partition(" ")
        place = bytes.fromhex(sha256), store
        while page := self.inventory.sick(self._answering(), place, 1):
            [one] = page
            with suppress(Superseded):  # whoever has it in hand answers for it
                self._mend(one)
            failpoint("verify.after-repair", one.key)
            place = one.blob.sha256, one.store
            yield f"{one.blob.sha256.hex()} {one.store}"

    def _mend(self, one: Replica) -> None:
        if try_copy(self.services, one, delay=RETRY, throttle=self.throttle) is not None:
            self._count(repaired=1)
        elif make_again(self.services, one.blob.sha256):
            self._count(remade=1)
        elif self.inventory.is_sick(one):
            self._count(failed=1)

    def _ask(self, page: Sequence[Replica]) -> bool:
        for one, fault in self.heads.faults(self.services.store(page[0].store), page):
            failpoint("verify.before-mark", one.key)
            self._mark(one, *fault)
        return True

    def _list(self, name: str, after: str) -> list[str]:
        store = self.services.store(name)
        keys = [one.key for one in islice(store.scan(after=after), OBJECTS)]
        ours = {said: key for key in keys if (said := named(key)) is not None}
        last = self.inventory.last_generation()  # asked after the listing: what lives is not ahead of it
        given = [said for said in ours if said[1] <= last]
        unnamed = self.inventory.unnamed(name, given)
        removed = self._remove_again(name, unnamed)
        # Rows and objects that went since the listing are no orphans.
        orphans = len(self.heads.present(store, [ours[said] for said in unnamed if said not in removed]))
        ahead = sum(last < generation <= last + REACH for _, generation in ours)
        foreign = sum(map(_is_foreign, keys)) + len(ours) - len(given) - ahead
        self._count(
            orphans=orphans, removed=len(removed), ahead=ahead, foreign=foreign, catalogue=sum(map(is_segment, keys))
        )
        return keys

    def _remove_again(self, name: str, unnamed: Sequence[Named]) -> set[Named]:
        """Remove again what was deleted before, and is back with a store that comes from an older copy. Returns it."""
        back = self.inventory.discard(name, self.inventory.deleted(name, unnamed))
        while back and delete_garbage(self.services, name):
            pass
        return set(back)

    def _read(self, one: Replica) -> bool:
        self.passed, self.reading = self.throttle.passed, one.blob.size
        try:
            return self._read_whole(one)
        finally:
            self.reading = 0

    def _read_whole(self, one: Replica) -> bool:
        try:
            if not check(self.services, one, throttle=self.throttle) and self.inventory.is_sick(one):
                self.services.lookups.forget_replicas(one.blob.sha256)
                self._count(corrupt=1)
        except Archived:
            return False
        failpoint("verify.after-read", one.key)
        self._done_with(one)
        return True

    def _done_with(self, one: Replica, **more: int) -> None:
        self._count(done_bytes=min(one.blob.size, self.progress.total_bytes - self.progress.done_bytes), **more)

    def _mark(self, one: Replica, state: Literal["missing", "corrupt"], detail: str) -> None:
        self.services.recognitions[one.store].look()
        if self.services.metadata.repairs.mark(one, state, detail) == "marked":
            self.services.lookups.forget_replicas(one.blob.sha256)
            where = {"store": one.store, "key": one.key}
            log.error("a replica is marked", extra={**where, "state": state, "detail": detail})
            self._count(**{state: 1})

    def _answer(self, name: str, work: Callable[[], T], place: str) -> Generator[str, None, T | None]:
        """What the work comes to. None: the store is left out, as it did not answer for long. Wishes are heard while it
        waits."""
        while name not in self.progress.unanswered:
            try:
                done = work()
            except Interrupted:
                yield place  # what was counted since the last step is not counted again
                raise
            except (StoreUnavailable, Forbidden) as error:
                self.tries += 1
                log.warning("a store does not answer", extra={"store": name, "reason": error.code})
            else:
                self.tries = 0
                return done
            if self.tries >= TRIES:
                self.tries = 0
                self.progress = replace(self.progress, unanswered=[*self.progress.unanswered, name])
                break
            yield place
            rest(TRY_SECONDS, self.heed)
        return None

    def _answering(self) -> list[str]:
        return [name for name in self.wanted.stores if name not in self.progress.unanswered]

    def _count(self, **more: int) -> None:
        self.progress = self.progress.plus(**more)

    def _step(self, phase: int, after: str) -> Step:
        cursor = {"phase": phase, "after": after, "tries": self.tries, "done_bytes": self.progress.done_bytes}
        return Step(cursor, self.progress.to_json(), live=self._live)

    def _live(self) -> Mapping[str, Any]:
        flowed = min(self.throttle.passed - self.passed, self.reading)
        done_bytes = min(self.progress.done_bytes + flowed, self.progress.total_bytes)
        return replace(self.progress, done_bytes=done_bytes).to_json()


FIRST: Final = "//"
"""Of the places among those that are oldest."""


def _place(said: str) -> Place | None:
    if not said:
        return None
    read_at, sha256, store = said.split("/", 2)
    return datetime.fromisoformat(read_at) if read_at else None, bytes.fromhex(sha256), store


def _is_foreign(key: str) -> bool:
    return named(key) is None and key != MARKER and not is_segment(key)
