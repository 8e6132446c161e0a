"""Bringing what is there to where the rules in force say, while everything runs.

Goes through all blobs in the order of their hashes. A store that shall have one and does not gets a verified replica;
then gc looks at blobs of which some store has one that no rule names. Nothing is removed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pydantic import Field

from core.errors import Archived, BadRequest, MillraceError, NotFound, Superseded
from core.failpoints import failpoint
from core.model import BlobFacts, Job, Replica
from core.sections import Rate
from pipeline.jobs.amounts import Amounts
from pipeline.jobs.arguments import Arguments, require_in_force
from pipeline.jobs.flow import LARGE_BYTES, LEASE, RETRY, Flow, Heed, judge, settled
from pipeline.jobs.runner import Step
from pipeline.replicas.copying import copy
from pipeline.rules.in_force import Compared, OtherRules, compare, difference
from pipeline.services import Services

KIND: Final = "apply-rules"
PAGE = 200
STEP_SECONDS = 0.5


class Application(Arguments):
    rules: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """The hash of those that are applied. None given: of this process's, which are in force."""
    max_mb_s: Rate | None = None

    def fitted(self, services: Services) -> Application:
        if self.rules is not None:
            return self
        require_in_force(services)
        return self.model_copy(update={"rules": services.rules.fingerprint.hex()})


@dataclass(frozen=True, slots=True)
class Progress(Amounts):
    """`total`: blobs, as far as what was seen tells, since hashes are spread evenly."""

    copied: int = 0
    copied_bytes: int = 0
    left_to_gc: int = 0
    """Blobs of which gc is to remove a replica."""
    failed: int = 0
    """No good replica could be read, or the store did not take it."""
    failure: str = ""
    archived: int = 0
    """Only an archive has them."""


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    wanted = Application.of(services, job.arguments)
    work = _Work(services, wanted, Progress(**job.progress), heed)
    after = bytes.fromhex(job.cursor.get("after", ""))
    while True:
        _require(services, wanted)
        page = services.metadata.placing.page(after, PAGE)
        if not page:
            yield work.step(b"\xff" * 32)
            return
        by_hash = {one.blob.sha256: one for one in compare(services.metadata, services.placements, page)}
        for facts, _ in page:
            if facts.sha256 in by_hash:
                yield from work.settle(by_hash[facts.sha256], after)
            after = facts.sha256
            work.done(1)
        yield work.step(after)


def _require(services: Services, wanted: Application) -> None:
    """
    Raises:
        BadRequest: these rules are over.
        OtherRules: this process has others.
    """
    found = services.metadata.rules.in_force()
    if found is not None and found[0].fingerprint.hex() != wanted.rules:
        raise BadRequest("other rules were put in force meanwhile")
    if services.rules.fingerprint.hex() != wanted.rules:
        raise OtherRules(difference(services.metadata.rules, services.rules) or "this host has other rules")


class _Work:
    def __init__(self, services: Services, wanted: Application, progress: Progress, heed: Heed) -> None:
        self._services = services
        self._progress = progress
        self._flow = Flow(wanted.max_mb_s, heed)
        self._told = time.monotonic()

    def done(self, count: int) -> None:
        self._count(done=count)

    def step(self, after: bytes) -> Step:
        self._told = time.monotonic()
        passed = (int.from_bytes(after[:4], "big") + 1) / 2**32
        self._progress = replace(self._progress, total=max(self._progress.done, round(self._progress.done / passed)))
        return Step({"after": after.hex()}, self._progress.to_json(), live=self._live)

    def _live(self) -> Mapping[str, Any]:
        return replace(self._progress, copied_bytes=self._progress.copied_bytes + self._flow.flowed).to_json()

    def settle(self, one: Compared, after: bytes) -> Iterator[Step]:
        for name in one.lacking:
            if one.blob.size >= LARGE_BYTES or time.monotonic() - self._told > STEP_SECONDS:
                yield self.step(after)
            with suppress(NotFound, Superseded):  # gc was faster, or another worker is putting it there
                yield from settled(partial(self._fill, one.blob, name), partial(self.step, after))
            self._flow.rest()
        if one.surplus:
            self._services.metadata.placing.leave_to_gc([one.blob.sha256])
            self._count(left_to_gc=1)

    def _fill(self, blob: BlobFacts, store: str) -> None:
        there, healthy = self._services.metadata.repairs.ensure(blob.sha256, store, LEASE)
        failpoint("apply.after-want", there.key)
        if healthy:
            return
        self._flow.begin(blob.size)
        try:
            copy(self._services, there, throttle=self._flow.throttle)
        except Superseded:
            raise
        except MillraceError as error:
            self._failed(there, error)
        else:
            failpoint("apply.after-copy", there.key)
            self._count(copied=1, copied_bytes=blob.size)

    def _failed(self, there: Replica, error: MillraceError) -> None:
        self._services.metadata.repairs.failed(there, error.detail, RETRY)
        for source in self._services.metadata.blobs.replicas(there.blob.sha256):
            judge(self._services, source, there, error)
        if isinstance(error, Archived):
            self._count(archived=1)
        else:
            self._count(failed=1)
            self._progress = replace(self._progress, failure=error.detail)

    def _count(self, **more: int) -> None:
        self._progress = self._progress.plus(**more)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the rules of this process would change."""

    objects: int = 0
    copies: int = 0
    copied_bytes: int = 0
    surplus: int = 0


def survey(services: Services, watch: Callable[[int], None] = lambda looked_at: None) -> Survey:
    """Changes nothing; `watch` hears how many blobs were looked at so far."""
    found, after = Survey(), b""
    while page := services.metadata.placing.page(after, PAGE):
        for one in compare(services.metadata, services.placements, page):
            found = replace(
                found,
                copies=found.copies + len(one.lacking),
                copied_bytes=found.copied_bytes + len(one.lacking) * one.blob.size,
                surplus=found.surplus + one.surplus,
            )
        found = replace(found, objects=found.objects + len(page))
        watch(found.objects)
        after = page[-1][0].sha256
    return found
