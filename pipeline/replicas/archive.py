"""Bytes that only an archive has: a job asks for them (`pipeline/jobs/restoration.py`), and no process waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from core import clock
from core.errors import Archived, Unavailable
from core.model import Job
from pipeline.services import Services

KIND: Final = "restore"
LOOKS = 10
"""In the time that a restoration takes as a rule, but not more often than …"""
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=10)


class Restoring(Unavailable):
    """`job` restores the bytes; `retry_after` is when they are expected."""

    code = "restoring"

    def __init__(self, job: Job, *, retry_after: int) -> None:
        super().__init__("the bytes are being restored from an archive", retry_after=retry_after)
        self.job = job


def begin(services: Services, sha256: bytes, found: Archived) -> Restoring:
    """Return the job that restores a blob, a new one unless there is one. Does not talk to the archive."""
    job = services.metadata.jobs.create(KIND, {"sha256": sha256.hex()})
    return Restoring(job, retry_after=left(job, found.retry_after))


def interval(seconds: float) -> timedelta:
    """Between two looks at what takes so long as a rule."""
    return min(max(timedelta(seconds=seconds) / LOOKS, SHORTEST), LONGEST)


def left(job: Job, seconds: int) -> int:
    """Return the seconds left of what it takes as a rule; late, it may come any moment. The two clocks need not agree:
    this is only said."""
    gone = max(clock.now() - job.created_at, timedelta(0))
    return round(max(timedelta(seconds=seconds) - gone, interval(seconds)).total_seconds())
