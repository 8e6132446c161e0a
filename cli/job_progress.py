"""A job on the command line: done in this process, or watched while another one does it.

Ctrl-C and TERM pause the job; killing this process leaves it to the workers, who go on when its lease has ended. The
result goes to the output stream, everything on the way to the error stream: bars on a terminal, else a line now and
then.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli.interruption import INTERRUPTED, interruptible
from cli.sanitize import printable
from core.errors import Unavailable
from core.model import Job, JobState
from pipeline.jobs import registry
from pipeline.jobs import runner as jobs
from pipeline.jobs.as_json import told
from pipeline.services import Services
from storage.registry import with_one_owner

POLL_SECONDS: Final = 0.5
LINE_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 60.0
"""So long PostgreSQL may be away before the command gives up. The job stays."""


def follow(services: Services, job: Job) -> Job:
    """Until it ended, or was paused. A paused one is gone on with; where a store has one owner, which is a worker and
    not this process, only watched.

    Raises:
        Unavailable: PostgreSQL does not answer for long.
    """
    try:
        with interruptible(), _Display(job) as display:
            registry.wish(services, job.id, "resume")
            return _to_the_end(services, job, display)
    except KeyboardInterrupt:
        return registry.wish(services, job.id, "pause")


def tell(job: Job, *, as_json: bool) -> None:
    """How it ended."""
    if as_json:
        click.echo(json.dumps(told(job), ensure_ascii=False))
    else:
        counts = {name: value for name, value in job.progress.items() if isinstance(value, int | float)}
        listed = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in counts.items())
        click.echo(f"{job.kind} {job.state.value}: {printable(listed) or 'nothing done yet'}")
    if job.progress.get("failure"):
        click.echo(f"the last that failed: {printable(str(job.progress['failure']))}", err=True)
    if job.error:
        click.echo(f"millrace: {printable(job.error)}", err=True)
    if not job.state.ended:
        word = "is paused" if job.state is JobState.PAUSED else f"was told to {job.wish or 'go on'}"
        resume = f"millrace storage jobs resume {job.id}"
        click.echo(f"The job {word}. Go on with the same command, or in the background: {resume}", err=True)


def exit_code(job: Job) -> int:
    """0: done, and nothing failed or was left in an archive."""
    if not job.state.ended:
        return INTERRUPTED
    left = job.progress.get("failed") or job.progress.get("archived")
    return 0 if job.state is JobState.DONE and not left else 1


def _to_the_end(services: Services, job: Job, display: _Display) -> Job:
    here = not with_one_owner(services.settings)
    answered = time.monotonic()
    while True:
        try:
            if here:
                jobs.run(services, registry.KINDS, job.id, watch=display.show)
            job = registry.find(services, job.id)
            answered = time.monotonic()
            display.show(job)
        except Unavailable as error:
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            display.say(f"waiting: {error.detail}")
        if job.state.ended or job.state is JobState.PAUSED:
            return job
        time.sleep(POLL_SECONDS)


class _Display:
    """Percent, MB/s and the time that is left, by bytes where the job counts them, else by items."""

    def __init__(self, job: Job) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task(job.kind, total=None, completed=_done(job), amount="", said="")
        self._next_line = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> _Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, job: Job) -> None:
        total = job.progress.get("total_bytes") or job.progress.get("total")
        failed = job.progress.get("failed")
        said = f"waiting: {job.error}" if job.error else f"{failed:,} failed" if failed else ""
        self._bars.update(self._task, total=total, completed=_done(job))
        self._bars.update(self._task, amount=self._amount(job))
        self.say(said)

    def say(self, said: str) -> None:
        said = printable(said)
        self._bars.update(self._task, said=said.replace("[", "\\["))
        if self._bars.disable and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            click.echo(f"{self._line()}{said and ', '}{said}", err=True)

    def _line(self) -> str:
        task = self._state
        left = f", {timedelta(seconds=int(task.time_remaining))} left" if task.time_remaining is not None else ""
        return f"{task.description}: {task.percentage:.0f} %, {task.fields['amount']}{left}"

    def _amount(self, job: Job) -> str:
        done, total = _done(job), job.progress.get("total_bytes")
        if not total:
            return f"{done:,}/{job.progress.get('total') or '?'}"
        speed = f", {self._state.speed / 1e6:,.1f} MB/s" if self._state.speed else ""
        return f"{done / 1e6:,.1f}/{total / 1e6:,.1f} MB{speed}"

    @property
    def _state(self) -> Task:
        return next(task for task in self._bars.tasks if task.id == self._task)


def _done(job: Job) -> int:
    return int(job.progress.get("done_bytes" if job.progress.get("total_bytes") else "done") or 0)


def end(job: Job, *, as_json: bool) -> None:
    """Tell it, and exit with its code."""
    tell(job, as_json=as_json)
    sys.exit(exit_code(job))
