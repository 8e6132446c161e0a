"""What a job shows while one of its steps takes long: how far that step has come, written down now and then.

The cursor stays that of the last step, so whoever takes the job over does this one again from its beginning.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

from core.errors import MillraceError
from core.loops import Background
from core.model import Job
from pipeline.services import Services

LIVE_SECONDS = 1.0

Live = Callable[[], Mapping[str, Any]]
"""The progress as it is at this moment. Called from another thread than the work."""


class LiveProgress:
    """Asks `live` of the last step from a thread of its own, until it is left. What it writes never comes after the
    next step, nor does it change anything in other hands."""

    def __init__(self, services: Services, job: Job, lease: timedelta, watch: Callable[[Job], None]) -> None:
        self._jobs = services.metadata.jobs
        self._job = job
        self._lease = lease
        self._watch = watch
        self._live: Live | None = None
        self._cursor: Mapping[str, Any] = job.cursor
        self._told: Mapping[str, Any] = {}
        self._turn = threading.Lock()
        self._thread = Background("live-progress", self._run, seconds=LIVE_SECONDS)

    def __enter__(self) -> LiveProgress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.close()

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
        with suppress(MillraceError):  # the next step says it
            self._tell()

    def _tell(self) -> None:
        with self._turn:
            progress = self._told if self._live is None or self._thread.is_stopped else self._live()
            if progress == self._told:
                return
            told = self._jobs.advance(self._job, self._cursor, progress, self._lease)
            self._told = progress
        self._watch(told)
