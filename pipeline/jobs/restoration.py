"""Bytes that only an archive has: a job asks for them, and no process waits meanwhile.

Whoever finds a blob archived makes the job, or finds the one that is under way: one insert into PostgreSQL. A worker
asks the archive and looks again from time to time; each look begins with what is recorded then, so that a replica may
come, go or move while the job waits. It ends when the bytes can be read, or when nobody has them any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from pydantic import Field

from core import clock
from core.errors import Archived, MillraceError, NotFound, Unavailable
from core.failpoints import failpoint
from core.model import Job, Replica
from pipeline.jobs.arguments import Arguments
from pipeline.jobs.flow import Heed
from pipeline.jobs.running import Step
from pipeline.replicas import sources
from pipeline.services import Services

KIND: Final = "restore"
LOOKS = 10
"""In the time that a restoration takes as a rule, but not more often than …"""
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=10)


class Restoration(Arguments):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the blob: which replica is asked for is seen when the job is worked on."""


class Restoring(Unavailable):
    """`job` restores the bytes; `retry_after` is when they are expected."""

    code = "restoring"

    def __init__(self, job: Job, *, retry_after: int) -> None:
        super().__init__("the bytes are being restored from an archive", retry_after=retry_after)
        self.job = job


def begin(services: Services, sha256: bytes, found: Archived) -> Restoring:
    """The job that restores a blob, a new one unless there is one. Does not talk to the archive."""
    job = services.metadata.jobs.create(KIND, Restoration(sha256=sha256.hex()).model_dump())
    return Restoring(job, retry_after=_left(job, found.retry_after))


def interval(seconds: float) -> timedelta:
    """Between two looks at what takes so long as a rule."""
    return min(max(timedelta(seconds=seconds) / LOOKS, SHORTEST), LONGEST)


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    del heed  # it moves no bodies
    sha256 = bytes.fromhex(Restoration.of(services, job.arguments).sha256)
    while True:
        replica, seconds = _look(services, sha256)
        failpoint("restore.after-look", replica.key)
        if not seconds:
            yield Step({}, _progress(replica, done=True))
            return
        expected = clock.now() + timedelta(seconds=_left(job, seconds))
        waits_for = f"the archive of {replica.store!r}, until about {expected:%Y-%m-%d %H:%M} UTC"
        yield Step({}, {**_progress(replica, done=False), "waits_for": waits_for}, wait=interval(seconds))


def _look(services: Services, sha256: bytes) -> tuple[Replica, int]:
    """Ask for the replica that would be read first, and after how many seconds it can be: 0: it can. No other is asked
    for, since every restoration costs.

    Raises:
        NotFound: nobody has the bytes any more.
        Unavailable: their stores do not answer.
    """
    problem: MillraceError = NotFound("no healthy replica is recorded")
    for replica in services.placements.in_reading_order(services.metadata.blobs.replicas(sha256)):
        try:
            return replica, services.store(replica.store).restore(replica.key)
        except NotFound as error:
            sources.miss(services, replica, error)
            services.lookups.forget_replicas(sha256)
        except Unavailable as error:
            problem = error
    raise problem


def _left(job: Job, seconds: int) -> int:
    """Of the time that it takes as a rule; late, it may come any moment. The two clocks need not agree: this is only
    said."""
    gone = max(clock.now() - job.created_at, timedelta(0))
    return round(max(timedelta(seconds=seconds) - gone, interval(seconds)).total_seconds())


def _progress(replica: Replica, *, done: bool) -> dict[str, Any]:
    size = replica.blob.size
    return {"total": 1, "total_bytes": size, "done": int(done), "done_bytes": size * done}
