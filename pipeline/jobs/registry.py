"""Every kind of job there is. A new one is a generator over a cursor and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from core.errors import BadRequest, NotFound
from core.model import Job
from pipeline.jobs import applying, demotion, gc, migration, restoration, verification, verification_progress
from pipeline.jobs import runner as jobs
from pipeline.services import Services

KINDS: Final[Mapping[str, jobs.Kind]] = {
    applying.KIND: jobs.Kind(applying.run, applying.Application.check),
    migration.KIND: jobs.Kind(migration.run, migration.Move.check),
    demotion.KIND: jobs.Kind(demotion.run, demotion.Policy.check),
    verification.KIND: jobs.Kind(verification.run, verification_progress.Verification.check),
    gc.KIND: jobs.Kind(gc.run, gc.Collection.check),
    restoration.KIND: jobs.Kind(restoration.run, restoration.Restoration.check),
}

MAX_PAGE = 200


def create(services: Services, kind: str, arguments: Mapping[str, Any]) -> Job:
    """The unfinished job with these arguments: a new one, unless there is one.

    Raises:
        BadRequest: there is no such kind, or it cannot work with these arguments.
    """
    if kind not in KINDS:
        raise BadRequest(f"no kind of job is called {kind!r} (there is: {', '.join(KINDS)})")
    return services.metadata.jobs.create(kind, KINDS[kind].check(services, arguments))


def find(services: Services, job_id: UUID) -> Job:
    """
    Raises:
        NotFound: there is no such job.
    """
    job = services.metadata.jobs.find(job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def wish(services: Services, job_id: UUID, wish: jobs.Wish) -> Job:
    """Whoever works on the job comes to it soon; where nobody does it happens at once.

    Raises:
        NotFound: there is no such job.
    """
    job = services.metadata.jobs.wish(job_id, wish)
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job
