"""Moving bytes to colder stores as the `[[demotion]]` rules say, while everything runs.

Goes through every store that rules move from, in the order of hashes. Each home that is to move gets a verified replica
in the colder store, which stands for the first from then on; then the first goes, in one transaction that asks once
more whether it may. What cannot move now stays where it is, and the next run finds it again.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from core.errors import Archived, BadRequest, MillraceError, NotFound, StoreFull, Superseded
from core.failpoints import failpoint
from core.model import Job, Replica, StoreState
from core.sections import Rate
from metadata.blobs.demotion import Choice, Filter, Home, Move
from metadata.blobs.references import Reference
from metadata.blobs.stretches import Counted
from pipeline.jobs.amounts import Amounts
from pipeline.jobs.arguments import Arguments, require_in_force
from pipeline.jobs.counting import COUNTING, Tally, counted
from pipeline.jobs.flow import LARGE_BYTES, LEASE, RETRY, Flow, Heed, judge, settled
from pipeline.jobs.runner import Step
from pipeline.maintenance import delete_garbage
from pipeline.replicas.copying import check, copy
from pipeline.rules.in_force import OtherRules, difference
from pipeline.services import Services

KIND: Final = "demotion"
STRETCH = 1000
"""Replicas of a store that are looked at together."""
STEP_SECONDS = 0.5


class Policy(Arguments):
    """The arguments of a run. What moves is in the settings."""

    max_mb_s: Rate | None = None

    @classmethod
    def check(cls, services: Services, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        require_in_force(services)
        return super().check(services, arguments)

    def fitted(self, services: Services) -> Policy:
        if not services.demotions.rules:
            raise BadRequest("the settings have no [[demotion]] rules")
        return self


@dataclass(frozen=True, slots=True)
class Progress(Amounts):
    """`total`: what fits a rule as far as that is seen without looking at its assets."""

    moved: int = 0
    moved_bytes: int = 0
    postponed: int = 0
    """Somebody else was at them, or they were read or uploaded meanwhile."""
    archived: int = 0
    """They lie in an archive, or what stands for them does, and cannot be read now."""
    failed: int = 0
    """No good replica could be read, or the target did not take it."""
    failure: str = ""
    """Why the last of them did."""


def start(services: Services) -> Job | None:
    """A new run if the last one ended long enough ago. None: there is nothing to do yet."""
    work = services.settings.work
    if not services.demotions.rules or not services.metadata.jobs.rested(KIND, work.policy_seconds):
        return None
    if not services.metadata.rules.are_in_force(services.rules):
        return None
    arguments = Policy.check(services, {"max_mb_s": work.policy_max_mb_s})
    return services.metadata.jobs.create(KIND, arguments)


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    policy = Policy.of(services, job.arguments)
    if not services.metadata.rules.are_in_force(services.rules):
        raise OtherRules(difference(services.metadata.rules, services.rules) or "this host has other rules")
    sources = services.demotions.sources()
    work = _Work(services, policy, job.started_at or job.created_at, heed)
    if job.progress and COUNTING not in job.cursor:
        work.progress = Progress(**{**job.progress, "done_bytes": job.cursor.get("done_bytes", 0)})
    else:
        work.progress = yield from work.planned(job.cursor, sources)
    store, after = job.cursor.get("store"), bytes.fromhex(job.cursor.get("after", ""))
    if store not in sources:  # the beginning, or other settings than before
        store, after = sources[0], b""
    yield work.step(store, after)
    for name in sources[sources.index(store) :]:
        yield from work.through(name, after)
        after = b""


def choice(services: Services, at: datetime) -> Choice:
    def choose(home: Home, references: Iterator[Reference], said: Mapping[str, StoreState] | None) -> Move | None:
        return services.demotions.choose(home, references, at, said)

    return choose


def filters(services: Services, name: str, at: datetime) -> Sequence[Filter]:
    return [rule.filter(at) for rule in services.demotions.of(name)]


def _planned(tally: Tally) -> Progress:
    return Progress(total=tally.total, total_bytes=tally.total_bytes)


class _Work:
    def __init__(self, services: Services, policy: Policy, at: datetime, heed: Heed) -> None:
        self.progress = Progress()
        self._services = services
        self._demotion = services.metadata.demotion
        self._at = at
        self._choice = choice(services, at)
        self._flow = Flow(policy.max_mb_s, heed)

    def planned(self, cursor: Mapping[str, Any], sources: Sequence[str]) -> Generator[Step, None, Progress]:
        wanted = {name: filters(self._services, name, self._at) for name in sources}

        def count(name: str, after: bytes) -> Counted:
            return self._demotion.count(name, after, wanted[name]) if wanted[name] else Counted(0, 0, None)

        tally = yield from counted(cursor, sources, count, lambda tally: _planned(tally).to_json())
        return _planned(tally)

    def through(self, name: str, after: bytes) -> Iterator[Step]:
        """Once through a store."""
        told = time.monotonic()
        while fitting := filters(self._services, name, self._at):
            last = self._demotion.stretch(name, after, STRETCH)
            if last is None:
                break
            come_to = after
            for home in self._demotion.homes(name, after, last, fitting):
                if home.replica.blob.size >= LARGE_BYTES:
                    yield self.step(name, come_to)  # a wish is heard before it begins
                yield from settled(partial(self._take, home), partial(self.step, name, come_to))
                come_to = home.replica.blob.sha256
                if time.monotonic() - told > STEP_SECONDS:
                    yield self.step(name, come_to)
                    told = time.monotonic()
            self._demotion.leave_to_gc(name, after, last)
            after = last
            yield self.step(name, after)
        while delete_garbage(self._services, name):
            yield self.step(name, after)

    def step(self, name: str, after: bytes) -> Step:
        cursor: dict[str, Any] = {"store": name, "after": after.hex()}
        cursor["done_bytes"] = self.progress.done_bytes  # without those of a body that is not done
        return Step(cursor, self.progress.to_json(), live=self._live)

    def _live(self) -> Mapping[str, Any]:
        done_bytes = min(self.progress.done_bytes + self._flow.flowed, self.progress.total_bytes)
        return replace(self.progress, done_bytes=done_bytes).to_json()

    def _take(self, home: Home) -> None:
        size = home.replica.blob.size
        self._flow.begin(size)
        move = self._demotion.choose(home, self._choice)
        if move is not None:
            try:
                self._move(home, move)
            except Superseded:  # somebody else is putting it there
                self._count(postponed=1)
        self._flow.rest()
        known = self.progress
        self._count(done=min(1, known.total - known.done), done_bytes=min(size, known.total_bytes - known.done_bytes))

    def _move(self, home: Home, move: Move) -> None:
        """
        Raises:
            Superseded: the target is in other hands.
            Unavailable: one of the stores does not answer.
        """
        try:
            there, healthy = self._demotion.begin(home, move, LEASE)
        except NotFound:
            return  # gc was faster
        failpoint("demote.after-begin", home.replica.key)
        try:
            there = self._filled(there, healthy)
        except Superseded:
            raise
        except MillraceError as error:
            self._failed(home.replica, there, error)
            return
        failpoint("demote.after-copy", home.replica.key)
        if self._demotion.finish(home, there, move, self._choice, self._services.rules):
            failpoint("demote.after-commit", home.replica.key)
            self._services.lookups.forget_replicas(home.replica.blob.sha256)
            self._count(moved=1, moved_bytes=home.replica.blob.size)
        else:
            self._count(postponed=1)

    def _filled(self, there: Replica, healthy: bool) -> Replica:
        """Believed are bytes that were verified since this run began."""
        if healthy and (there.verified_at is None or there.verified_at < self._at):
            healthy = check(self._services, there, throttle=self._flow.throttle)
        return there if healthy else copy(self._services, there, throttle=self._flow.throttle)

    def _failed(self, home: Replica, there: Replica, error: MillraceError) -> None:
        """A store that is full must stop the others, too."""
        self._services.metadata.repairs.failed(there, error.detail, RETRY)
        if isinstance(error, StoreFull):
            raise error
        judge(self._services, home, there, error)
        if isinstance(error, Archived):
            self._count(archived=1)
            return
        self._count(failed=1)
        self.progress = replace(self.progress, failure=error.detail)

    def _count(self, **more: int) -> None:
        self.progress = self.progress.plus(**more)
