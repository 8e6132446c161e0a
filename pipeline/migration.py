"""Moving what one store holds to another, while everything runs.

The source is drained first: whatever would have gone there goes to the target from then on. Then every replica of the
source gets a healthy one in the target, and with `deleteSource` the source's goes, row by row, each only when the
target's bytes were verified. It ends after a round over the whole source that found nothing left to do, when nobody who
may not have heard of the draining is still putting something there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from core.errors import BadRequest, NotFound
from core.failpoints import failpoint
from core.model import Job, Replica, StoreState
from pipeline.copying import check, try_copy
from pipeline.jobs import Step
from pipeline.services import STATES_SECONDS, Services
from storage.throttle import Throttle

KIND = "migrate"
BATCH = 20
RETRY = timedelta(seconds=30)
IN_FLIGHT_SECONDS = 300.0
"""So long a reservation in the source is waited for; one that is older has nobody any more."""


@dataclass(frozen=True, slots=True)
class Move:
    source: str
    target: str
    delete_source: bool = False
    max_mb_s: float | None = None
    """10^6 bytes a second."""

    @classmethod
    def check(cls, services: Services, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return asdict(cls.of(services, arguments))

    @classmethod
    def of(cls, services: Services, arguments: Mapping[str, Any]) -> Move:
        """
        Raises:
            BadRequest: what is wrong with the arguments.
        """
        try:
            move = cls(**arguments)
        except TypeError as error:
            raise BadRequest(f"a migration takes source, target, delete_source and max_mb_s: {error}") from None
        for name in (move.source, move.target):
            if name not in services.stores:
                raise BadRequest(f"no store is called {name!r} (there is: {', '.join(services.stores)})")
        if move.source == move.target:
            raise BadRequest(f"{move.source!r} is both source and target")
        if move.max_mb_s is not None and move.max_mb_s <= 0:
            raise BadRequest("max_mb_s must be more than 0")
        return move


@dataclass(frozen=True, slots=True)
class Progress:
    total: int = 0
    total_bytes: int = 0
    done: int = 0
    done_bytes: int = 0
    copied: int = 0
    removed: int = 0
    failed: int = 0
    """Of the last round: no healthy replica could be read, or the target did not take it."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)


def plan(services: Services, move: Move) -> Progress:
    """What a migration would have to look at. Changes nothing."""
    total, total_bytes = services.metadata.stores.count(move.source)
    return Progress(total=total, total_bytes=total_bytes)


def run(services: Services, job: Job) -> Iterator[Step]:
    move = Move.of(services, job.arguments)
    drained = StoreState(move.source, "draining", move.target)
    drained_at = time.monotonic() - services.metadata.stores.set_state(drained)
    failpoint("migrate.after-drain", str(job.id))
    throttle = Throttle(None if move.max_mb_s is None else move.max_mb_s * 1e6)
    progress = Progress(**job.progress) if job.progress else plan(services, move)
    after = bytes.fromhex(job.cursor.get("after", ""))
    changed = job.cursor.get("changed", True)  # since this round began
    while True:
        page = services.metadata.stores.page(move.source, after, BATCH)
        for one in page:
            before = progress.copied + progress.removed
            progress = _move(services, job, move, one, progress, throttle)
            changed = changed or progress.copied + progress.removed != before
        if page:
            after = page[-1].blob.sha256
            yield Step({"after": after.hex(), "changed": changed}, progress.to_json())
            continue
        if move.delete_source:
            _empty(services, move.source)
        heard = time.monotonic() - drained_at > 2 * STATES_SECONDS
        if heard and not changed and not services.metadata.stores.reserved(move.source, IN_FLIGHT_SECONDS):
            return
        if not changed:
            time.sleep(STATES_SECONDS)
        after, changed, progress = b"", not heard, replace(progress, failed=0)
        yield Step({"changed": changed}, progress.to_json())


def _move(services: Services, job: Job, move: Move, one: Replica, progress: Progress, throttle: Throttle) -> Progress:
    try:
        there, healthy = services.metadata.repairs.ensure(one.blob.sha256, move.target)
    except NotFound:
        return progress  # gc was faster
    if healthy and move.delete_source and not _verified_since(there, job):
        healthy = check(services, there, throttle=throttle)
    if not healthy:
        copied = try_copy(services, there, delay=RETRY, throttle=throttle)
        if copied is None:
            return replace(progress, failed=progress.failed + 1)
        there, progress = copied, replace(progress, copied=progress.copied + 1)
    failpoint("migrate.after-copy", one.key)
    if move.delete_source and services.metadata.stores.drop(one, there):
        services.lookups.forget_replicas(one.blob.sha256)
        progress = replace(progress, removed=progress.removed + 1)
    done = min(progress.done + 1, progress.total)
    return replace(progress, done=done, done_bytes=min(progress.done_bytes + one.blob.size, progress.total_bytes))


def _verified_since(replica: Replica, job: Job) -> bool:
    return replica.verified_at is not None and job.started_at is not None and replica.verified_at >= job.started_at


def _empty(services: Services, name: str) -> None:
    """What the rows of the source have left is deleted before the job ends."""
    blobs = services.metadata.blobs
    while items := blobs.garbage(BATCH * 10, name):
        services.store(name).delete([item.key for item in items])
        failpoint("migrate.after-delete", name)
        blobs.forget([item.id for item in items])
