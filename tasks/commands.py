"""The command lines of the background processes: one place for `millrace up`, the Procfile and the documentation."""

from __future__ import annotations

import sys
from typing import Literal

from core.errors import Misconfigured
from core.queues import EAGER, INTERACTIVE, MAINTENANCE, ingest_queue
from core.settings import Settings
from storage.registry import with_one_owner
from storage.staging.staging import Staging

Worker = Literal["ingest", "interactive", "variants", "maintenance", "all"]
"""`interactive` renders what a request waits for and nothing else, `variants` that and every backlog; `maintenance`
does jobs, repair and gc. `all` does the work of all of them, in one process: with threads it can own a store that has
one owner."""

Pool = Literal["prefork", "threads"]

RECEIVERS = 2
"""Threads that only put what a message asks for into its lane (tasks/lanes.py)."""


def celery() -> list[str]:
    """Return a command for any directory: a folder in it that is called `tasks` or `core` is not ours."""
    return [sys.executable, "-Pm", "tasks.celery_program"]


def worker(kind: Worker, settings: Settings, pool: Pool = "prefork") -> list[str]:
    """
    Raises:
        Misconfigured: several processes, and a store that only one can write to.
    """
    work = settings.work
    pool = "threads" if kind == "maintenance" else pool
    if kind == "ingest":
        queues, size = [ingest_queue(Staging.open(settings).host_id)], work.ingest_concurrency
    elif kind == "interactive":
        queues, size = [INTERACTIVE], work.interactive_concurrency
    elif kind == "variants":
        queues, size = [INTERACTIVE, EAGER], work.variants_concurrency
    elif kind == "maintenance":
        queues, size = [MAINTENANCE], RECEIVERS
    else:
        queues = [MAINTENANCE, INTERACTIVE, ingest_queue(Staging.open(settings).host_id), EAGER]
        processes = work.interactive_concurrency + work.variants_concurrency + work.ingest_concurrency
        size = RECEIVERS if pool == "threads" else processes
    require_owner(settings, pool, size)
    name = ["-n", f"{kind}@%h", "-Q", ",".join(queues), "-c", str(size)]
    return [*celery(), "worker", *name, "-P", pool, "-O", "fair", "--without-gossip", "--without-mingle"]


def require_owner(settings: Settings, pool: str, size: int | None) -> None:
    """
    Raises:
        Misconfigured: this worker would be several processes, and a store has one owner.
    """
    owned = with_one_owner(settings)
    if owned and "prefork" in pool and size != 1:
        raise Misconfigured(
            f"stores.{owned[0]}: one process can write to such a store, and this worker would be several: run"
            " `millrace worker all --pool threads` in place of all other workers"
        )


def beat() -> list[str]:
    """With the scheduler that keeps its state in memory: the other one pickles it to disk, and every entry here may run
    once too often."""
    return [*celery(), "beat", "-S", "tasks.clock:Clock"]
