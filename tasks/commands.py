"""The command lines of the background processes: one place for `millrace up`, the Procfile and the documentation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from core.settings import Settings
from storage.staging.staging import Staging
from tasks.celery_app import EAGER, INTERACTIVE, MAINTENANCE, ingest_queue

Worker = Literal["ingest", "variants"]


def celery() -> list[str]:
    """The console script beside this interpreter, so that the process shows as `celery`. Quiet, because a banner is
    no line of a JSON log."""
    return [str(Path(sys.executable).parent / "celery"), "--quiet", "-A", "tasks.celery_app"]


def worker(kind: Worker, settings: Settings) -> list[str]:
    work = settings.work
    if kind == "ingest":
        queues, processes = ingest_queue(Staging.open(settings).host_id), work.ingest_concurrency
    else:
        # Taken from in this order: what is left of a backlog must not keep the few short sweeps from running.
        queues, processes = f"{MAINTENANCE},{INTERACTIVE},{EAGER}", work.variants_concurrency
    name = ["-n", f"{kind}@%h", "-Q", queues, "-c", str(processes)]
    return [*celery(), "worker", *name, "-P", "prefork", "-O", "fair", "--without-gossip", "--without-mingle"]


def beat() -> list[str]:
    """With the scheduler that keeps its state in memory: the other one pickles it to disk, and every entry here may run
    once too often."""
    return [*celery(), "beat", "-S", "celery.beat:Scheduler"]
