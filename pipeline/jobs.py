"""Doing jobs: a job is a generator that yields where it has come to, and whoever runs it writes that down.

A process that dies leaves its job to the next one, which goes on from the last cursor; so every step between two yields
may be done twice. A holder renews its lease from a thread while a step takes long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from core.errors import MillraceError, Superseded, Unavailable
from core.failpoints import failpoint
from core.model import Job, JobState
from pipeline.backoff import backoff
from pipeline.renewal import Renewal
from pipeline.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """Where to go on, and what people are told: `done`, `total`, `doneBytes`, `totalBytes` and more."""

    cursor: Mapping[str, Any]
    progress: Mapping[str, Any]


Work = Callable[[Services, Job], Iterator[Step]]


def run(
    services: Services,
    kinds: Mapping[str, Work],
    job_id: UUID | None = None,
    watch: Callable[[Job], None] = lambda job: None,
) -> Job | None:
    """Work on one job until it ends, waits, or is somebody else's. None: there is none to work on."""
    lease = timedelta(seconds=services.settings.work.lease_seconds)
    job = services.metadata.jobs.take(lease, job_id)
    if job is None:
        return None
    held = job
    with Renewal(services, lambda: services.metadata.jobs.renew(held, lease), {"job": str(job.id)}):
        try:
            return _run(services, kinds[job.kind], job, lease, watch)
        except Superseded:
            return services.metadata.jobs.find(job.id)
        except Unavailable as error:
            log.warning("a job waits", extra={"job": str(job.id), "reason": error.code})
            delay = backoff(services.settings, attempts=3)
            services.metadata.jobs.give_back(job, f"{error.code}: {error.detail}", delay)
            return services.metadata.jobs.find(job.id)
        except MillraceError as error:
            return services.metadata.jobs.settle(job, JobState.FAILED, f"{error.code}: {error.detail}")
        except Exception as error:
            log.exception("a job failed unexpectedly", extra={"job": str(job.id)})
            return services.metadata.jobs.settle(job, JobState.FAILED, f"internal: {type(error).__name__}: {error}")


def _run(services: Services, work: Work, job: Job, lease: timedelta, watch: Callable[[Job], None]) -> Job:
    watch(job)
    for step in work(services, job):
        job = services.metadata.jobs.advance(job, step.cursor, step.progress, lease)
        failpoint("job.after-step", str(job.id))
        watch(job)
        if job.wish is not None:
            state = JobState.PAUSED if job.wish == "pause" else JobState.CANCELLED
            return services.metadata.jobs.settle(job, state)
    return services.metadata.jobs.settle(job, JobState.DONE)
