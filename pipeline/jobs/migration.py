"""Moving what one store holds to another, while everything runs.

The source is drained first: what would have gone there goes to the target from then on, and what is reserved there
is abandoned, so that its writers plan again (metadata/locking.py). Then every replica of the source gets a healthy one
in the target, and with `deleteSource` the source's goes, row by row, each only when the target's bytes were verified.
It ends after a round over the whole source that found nothing left to do and nothing in other hands. The catalogue
comes last, and goes along.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from core.errors import Archived, BadRequest, MillraceError, NotFound, Superseded
from core.failpoints import failpoint
from core.model import Job, Replica, StoreState
from core.sections import Rate
from pipeline.jobs.amounts import Amounts
from pipeline.jobs.arguments import Arguments, require_stores
from pipeline.jobs.counting import COUNTING, Tally, count_all, counted
from pipeline.jobs.flow import LARGE_BYTES, LEASE, RETRY, Flow, Heed, judge, settled
from pipeline.jobs.runner import Step
from pipeline.journal.carrying import carry
from pipeline.maintenance import delete_garbage
from pipeline.replicas.copying import check, copy
from pipeline.services import Services

KIND = "migrate"
BATCH = 20
STEP_SECONDS = 0.5
PAUSE_SECONDS = 1.0
"""Before a round that follows one in which others were at something."""


class Move(Arguments):
    """The arguments of a migration."""

    source: str
    target: str
    delete_source: bool = False
    max_mb_s: Rate | None = None

    @classmethod
    def check(cls, services: Services, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        move = cls.of(services, arguments)
        for job in services.metadata.jobs.unfinished(KIND):
            other = job.arguments
            if other["source"] == move.target or other["target"] == move.source:
                raise BadRequest(f"the job {job.id} moves {other['source']!r} to {other['target']!r}: end it first")
        return move.model_dump()

    def fitted(self, services: Services) -> Move:
        require_stores(services, [self.source, self.target])
        if self.source == self.target:
            raise BadRequest(f"{self.source!r} is both source and target")
        state = services.placements.stores[self.target].state
        if state != "active":
            raise BadRequest(f"{self.target!r} is {state} in the settings, and takes nothing new")
        return self


@dataclass(frozen=True, slots=True)
class Progress(Amounts):
    copied: int = 0
    removed: int = 0
    failed: int = 0
    """Of the last round: no healthy replica could be read, or the target did not take it."""
    failure: str = ""
    """Why the last of them did."""
    archived: int = 0
    """Of the last round: only an archive has the bytes, or has them at the target, where they cannot be verified."""

    @property
    def moved(self) -> int:
        return self.copied + self.removed

    @property
    def left(self) -> int:
        return self.failed + self.archived


def plan(services: Services, move: Move) -> Progress:
    """What a migration would have to look at. Changes nothing."""
    tally = count_all([move.source], services.metadata.stores.count)
    return Progress(total=tally.total, total_bytes=tally.total_bytes)


def _told(tally: Tally) -> Mapping[str, Any]:
    return Progress(total=tally.total, total_bytes=tally.total_bytes).to_json()


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    move = Move.of(services, job.arguments)
    services.metadata.stores.set_state(StoreState(move.target, "active", None))
    services.metadata.stores.set_state(StoreState(move.source, "draining", move.target))
    services.placements.forget_states()
    failpoint("migrate.after-drain", str(job.id))
    services.metadata.stores.abandon(move.source)
    if job.progress and COUNTING not in job.cursor:
        progress = Progress(**job.progress)
    else:
        tally = yield from counted(job.cursor, [move.source], services.metadata.stores.count, _told)
        progress = Progress(total=tally.total, total_bytes=tally.total_bytes)
    current = _Round.resumed(_Work(services, job, move, heed), job, progress)
    while True:
        yield from current.run()
        if move.delete_source:
            while delete_garbage(services, move.source):
                yield current.step()
        if current.was_last:
            flow = current.flow.throttle
            for _ in carry(services, services.store(move.source), remove=move.delete_source, throttle=flow):
                yield current.step()
            return
        if current.met_others:
            time.sleep(PAUSE_SECONDS)
        current = current.next()
        yield current.step()


class _Round:
    """Once through what the source has. It is the last one if nothing was left to do."""

    def __init__(
        self, work: _Work, progress: Progress, number: int, after: bytes = b"", *, was_last: bool = True
    ) -> None:
        self._work = work
        self._progress = progress
        self._number = number
        self._after = after
        self.was_last = was_last
        self.met_others = False

    @classmethod
    def resumed(cls, work: _Work, job: Job, progress: Progress) -> _Round:
        number, after = job.cursor.get("round", 1), bytes.fromhex(job.cursor.get("after", ""))
        progress = replace(progress, done_bytes=job.cursor.get("done_bytes", progress.done_bytes))
        return cls(work, progress, number, after, was_last=job.cursor.get("last", True))

    def next(self) -> _Round:
        progress = replace(self._progress, failed=0, failure="", archived=0)
        return _Round(self._work, progress, self._number + 1)

    @property
    def flow(self) -> Flow:
        return self._work.flow

    def step(self) -> Step:
        cursor: dict[str, Any] = {"round": self._number, "after": self._after.hex(), "last": self.was_last}
        cursor["done_bytes"] = self._progress.done_bytes  # without those of a body that is not done
        return Step(cursor, self._progress.to_json(), live=self._live)

    def _live(self) -> Mapping[str, Any]:
        done_bytes = self._progress.done_bytes + self._work.flow.flowed
        return replace(self._progress, done_bytes=min(done_bytes, self._progress.total_bytes)).to_json()

    def run(self) -> Iterator[Step]:
        told = time.monotonic()
        while page := self._work.page(self._after):
            for one in page:
                if one.blob.size >= LARGE_BYTES:
                    yield self.step()  # a wish is heard before it begins
                yield from settled(partial(self._take, one), self.step)
                if time.monotonic() - told > STEP_SECONDS or one is page[-1]:
                    yield self.step()
                    told = time.monotonic()

    def _take(self, one: Replica) -> None:
        before = self._progress
        try:
            progress = self._work.move(one, before)
        except Superseded:  # who did it first has come further with it: each such round is one of progress
            progress = replace(before, failed=before.failed + 1, failure=f"{one.key} is in other hands")
            self.met_others, self.was_last = True, False
        self._work.flow.rest()
        moved = progress.moved != before.moved
        self.was_last = self.was_last and not moved
        if moved or (self._number == 1 and progress.left == before.left):
            done = min(progress.done + 1, progress.total)
            done_bytes = min(progress.done_bytes + one.blob.size, progress.total_bytes)
            progress = replace(progress, done=done, done_bytes=done_bytes)
        self._progress = progress
        self._after = one.blob.sha256


class _Work:
    """What is done with one replica of the source."""

    def __init__(self, services: Services, job: Job, move: Move, heed: Heed) -> None:
        self._services = services
        self._job = job
        self._move = move
        self.flow = Flow(move.max_mb_s, heed)

    def page(self, after: bytes) -> list[Replica]:
        return self._services.metadata.stores.page(self._move.source, after, BATCH)

    def move(self, one: Replica, progress: Progress) -> Progress:
        """
        Raises:
            Superseded: another process is at it.
            Unavailable: one of the stores does not answer.
        """
        services, move = self._services, self._move
        self.flow.begin(one.blob.size)
        if one.promoted and services.metadata.tiers.drop(one):  # a copy for faster reading is not worth moving
            services.lookups.forget_replicas(one.blob.sha256)
            return replace(progress, removed=progress.removed + 1)
        try:
            there, healthy = services.metadata.repairs.ensure(one.blob.sha256, move.target, LEASE)
        except NotFound:
            return progress  # gc was faster
        if healthy and move.delete_source and not self._is_verified(there):
            try:
                healthy = check(services, there, throttle=self.flow.throttle)
            except Archived:
                return replace(progress, archived=progress.archived + 1)
        if not healthy:
            try:
                there = copy(services, there, throttle=self.flow.throttle)
            except Superseded:
                raise
            except MillraceError as error:
                return self._failed(one, there, error, progress)
            progress = replace(progress, copied=progress.copied + 1)
        failpoint("migrate.after-copy", one.key)
        if move.delete_source:
            if not services.metadata.stores.drop(one, there):
                raise Superseded("one of the two is another replica by now")
            services.lookups.forget_replicas(one.blob.sha256)
            progress = replace(progress, removed=progress.removed + 1)
        return progress

    def _failed(self, one: Replica, there: Replica, error: MillraceError, progress: Progress) -> Progress:
        self._services.metadata.repairs.failed(there, error.detail, RETRY)
        judge(self._services, one, there, error)
        if isinstance(error, Archived):
            return replace(progress, archived=progress.archived + 1)
        return replace(progress, failed=progress.failed + 1, failure=error.detail)

    def _is_verified(self, replica: Replica) -> bool:
        """Since the job began."""
        began = self._job.started_at
        return replica.verified_at is not None and began is not None and replica.verified_at >= began
