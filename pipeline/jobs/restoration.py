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
from core.errors import MillraceError, NotFound, Unavailable
from core.failpoints import failpoint
from core.model import Job, Replica
from pipeline.jobs.arguments import Arguments
from pipeline.jobs.flow import Heed
from pipeline.jobs.runner import Step
from pipeline.replicas import archive, sources
from pipeline.services import Services

KIND: Final = archive.KIND


class Restoration(Arguments):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the blob: which replica is asked for is seen when the job is worked on."""


def run(services: Services, job: Job, heed: Heed) -> Iterator[Step]:
    del heed  # it moves no bodies
    sha256 = bytes.fromhex(Restoration.of(services, job.arguments).sha256)
    while True:
        replica, seconds = _look(services, sha256)
        failpoint("restore.after-look", replica.key)
        if not seconds:
            yield Step({}, _progress(replica, done=True))
            return
        expected = clock.now() + timedelta(seconds=archive.left(job, seconds))
        waits_for = f"the archive of {replica.store!r}, until about {expected:%Y-%m-%d %H:%M} UTC"
        yield Step({}, {**_progress(replica, done=False), "waits_for": waits_for}, wait=archive.interval(seconds))


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


def _progress(replica: Replica, *, done: bool) -> dict[str, Any]:
    size = replica.blob.size
    return {"total": 1, "total_bytes": size, "done": int(done), "done_bytes": size * done}
