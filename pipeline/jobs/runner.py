"""Doing jobs: a job is a generator that yields where it has come to, and whoever runs it writes that down.

A process that dies leaves its job to the next one, which goes on from the last cursor; so every step between two yields
may be done twice. A holder renews its lease from a thread while a step takes long. A job that waits for something
outside says so and is held by nobody meanwhile.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from core.errors import Interrupted, MillraceError, Superseded, Unavailable
from core.failpoints import failpoint
from core.model import FailureReason, Job, JobState
from pipeline.backoff import backoff
from pipeline.jobs.flow import Heed
from pipeline.jobs.live_progress import Live, LiveProgress
from pipeline.leaving import given_back
from pipeline.renewal import Renewal
from pipeline.services import Services

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """Where to go on, and what people are told: `done`, `total`, `doneBytes`, `totalBytes` and more."""

    cursor: Mapping[str, Any]
    progress: Mapping[str, Any]
    live: Live | None = None
    """The progress within the next step, for one that may take long."""
    wait: timedelta | None = None
    """Nothing can be done before this has passed: back to the queue until then."""


Work = Callable[[Services, Job, Heed], Iterator[Step]]
Wish = Literal["pause", "cancel", "resume"]


@dataclass(frozen=True, slots=True)
class Kind:
    work: Work
    check: Callable[[Services, Mapping[str, Any]], Mapping[str, Any]]
    """The arguments with their defaults, always the same for the same work; or BadRequest."""


def run(
    services: Services,
    kinds: Mapping[str, Kind],
    job_id: UUID | None = None,
    *,
    watch: Callable[[Job], None] = lambda job: None,
    seconds: float = math.inf,
) -> Job | None:
    """Work on one job, or on the one that waits longest, until it ends, waits, is somebody else's, or `seconds` have
    passed: then it is back in the queue. A wish is heard in the middle of a step. Told to go, the process
    leaves it in the queue; Ctrl-C pauses it. None: there is none to work on."""
    lease = timedelta(seconds=services.settings.work.lease_seconds)
    job = services.metadata.jobs.take(lease, job_id)
    if job is None:
        return None
    with services.rests.start(f"job.{job.id}") as left:
        if not left:
            return _held(services, kinds, job, lease, watch, seconds)
    why = "it ended its process several times: it rests, and is tried again"
    services.metadata.jobs.give_back(job, why, timedelta(seconds=left))
    return services.metadata.jobs.find(job.id)


def _held(
    services: Services,
    kinds: Mapping[str, Kind],
    job: Job,
    lease: timedelta,
    watch: Callable[[Job], None],
    seconds: float,
) -> Job | None:
    held = job
    live = LiveProgress(services, job, lease, watch)

    def put_back() -> None:
        services.metadata.jobs.put_back(held, timedelta(0))

    with (
        given_back(put_back),
        Renewal(services, lambda: services.metadata.jobs.renew(held, lease), {"job": str(job.id)}),
    ):
        try:
            return _run(services, kinds[job.kind].work, live, watch, time.monotonic() + seconds)
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
            reason = FailureReason.unforeseen(error)
            return services.metadata.jobs.settle(job, JobState.FAILED, f"{reason.kind}: {reason.detail}")
        except KeyboardInterrupt:
            with suppress(MillraceError):
                services.metadata.jobs.settle(job, JobState.PAUSED)
            raise
        except BaseException:  # the process is told to go
            with suppress(MillraceError):
                put_back()
            raise


def _run(services: Services, work: Work, live: LiveProgress, watch: Callable[[Job], None], until: float) -> Job:
    job = live.job
    watch(job)
    try:
        with live:
            for number, step in enumerate(work(services, job, live.heed)):
                job = live.advance(step.cursor, step.progress, step.live)
                if number == 0:
                    services.rests.reset(f"job.{job.id}")
                failpoint("job.after-step", str(job.id))
                watch(job)
                if job.wish is not None or step.wait is not None or time.monotonic() > until:
                    return services.metadata.jobs.put_back(job, step.wait or timedelta(0))
    except Interrupted:
        return services.metadata.jobs.put_back(live.job, timedelta(0))
    return services.metadata.jobs.settle(job, JobState.DONE)
