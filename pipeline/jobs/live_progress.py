"""What a job shows and hears while one of its steps takes long: how far that step has come is written down now and
then, and a wish, or that the job is in other hands by now, ends the step where it is.

The cursor stays that of the last step, so whoever takes the job over does this one again from its beginning.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

from core.errors import Interrupted, MillraceError, Superseded
from core.loops import Background
from core.model import Job, JobState
from pipeline.services import Services

LIVE_SECONDS = 1.0

Live = Callable[[], Mapping[str, Any]]
"""The progress as it is at this moment. Called from another thread than the work."""


class LiveProgress:
    """Asks `live` of the last step, and PostgreSQL for the job, from a thread of its own, until it is left. What it
    writes never comes after the next step, nor does it change anything in other hands."""

    def __init__(self, services: Services, job: Job, lease: timedelta, watch: Callable[[Job], None]) -> None:
        self._jobs = services.metadata.jobs
        self._job = job
        self._lease = lease
        self._watch = watch
        self._live: Live | None = None
        self._cursor: Mapping[str, Any] = job.cursor
        self._told: Mapping[str, Any] = {}
        self._turn = threading.Lock()
        self._heard = False
        self._thread = Background("live-progress", self._run, seconds=LIVE_SECONDS)

    def __enter__(self) -> LiveProgress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.close()

    @property
    def job(self) -> Job:
        """Return the job as it was seen last."""
        with self._turn:
            return self._job

    def heed(self) -> None:
        """Raise where the work is to end, within a step.

        Raises:
            Interrupted: a wish asks for it, or the job is in other hands.
        """
        if self._heard:
            raise Interrupted

    def advance(self, cursor: Mapping[str, Any], progress: Mapping[str, Any], live: Live | None) -> Job:
        """A step is done, and the next begins.

        Raises:
            Superseded: the job is in other hands.
        """
        with self._turn:
            self._job = self._jobs.advance(self._job, cursor, progress, self._lease)
            self._cursor, self._told, self._live = cursor, progress, live
            return self._job

    def _run(self) -> None:
        try:
            self._tell()
        except Superseded:
            self._heard = True
        except MillraceError:
            pass  # PostgreSQL is away: soon again

    def _tell(self) -> None:
        """
        Raises:
            Superseded: the job is in other hands.
        """
        with self._turn:
            if self._thread.is_stopped:
                return
            progress = self._told if self._live is None else self._live()
            shows = progress != self._told
            self._job = self._advanced(progress) if shows else self._found()
            self._told = progress
            self._heard = self._heard or self._job.wish is not None
        if shows:
            self._watch(self._job)

    def _advanced(self, progress: Mapping[str, Any]) -> Job:
        return self._jobs.advance(self._job, self._cursor, progress, self._lease)

    def _found(self) -> Job:
        found = self._jobs.find(self._job.id)
        if found is None or (found.fence, found.state) != (self._job.fence, JobState.RUNNING):
            raise Superseded(f"the job {self._job.id} is in other hands")
        return found
