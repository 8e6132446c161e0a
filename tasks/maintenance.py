"""The fleet's recurring tasks, sent by beat."""

from __future__ import annotations

import time

from core.errors import BrokerUnavailable
from core.queues import EAGER
from pipeline import maintenance
from pipeline.jobs import demotion
from pipeline.jobs import runner as jobs
from pipeline.jobs.registry import KINDS
from pipeline.journal import compaction, writing
from pipeline.replicas import repair
from tasks.base import MillraceTask, RestingTask, services
from tasks.celery_app import app
from tasks.queues import Queues

TURN_SECONDS = 5.0
"""Of jobs, so that the other tasks and the end of a worker need not wait for them."""


@app.task(name="maintenance.wake_variants", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def wake_variants() -> None:
    queues = Queues(services().settings)
    try:
        room = queues.room(EAGER)
    except BrokerUnavailable:
        return  # the next round is soon
    finally:
        queues.close()
    if room:
        maintenance.wake_variants(services(), room)


@app.task(name="maintenance.collect_garbage", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def collect_garbage() -> None:
    maintenance.collect_garbage(services())


@app.task(name="maintenance.run_jobs", base=MillraceTask)  # type: ignore[untyped-decorator]  # celery has no types
def run_jobs() -> None:
    """Many of them only look whether something has come, and are not to wait for a turn each. A job rests by itself."""
    ends = time.monotonic() + TURN_SECONDS
    while (left := ends - time.monotonic()) > 0 and jobs.run(services(), KINDS, seconds=left):
        pass


@app.task(name="maintenance.start_policy", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def start_policy() -> None:
    demotion.start(services())


@app.task(name="maintenance.repair_replicas", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def repair_replicas() -> None:
    """Repair again as long as any is due, even if none was mended: others may wait behind what nothing can repair."""
    repair.repair(services())
    if services().metadata.repairs.is_any_due():
        services().hints.repair()


@app.task(name="maintenance.evict_copies", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def evict_copies() -> None:
    maintenance.evict_copies(services())


@app.task(name="maintenance.sweep_stores", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def sweep_stores() -> None:
    maintenance.sweep_stores(services())


@app.task(name="maintenance.mark_lost_hosts", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def mark_lost_hosts() -> None:
    maintenance.mark_lost_hosts(services())


@app.task(name="maintenance.give_up_reservations", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def give_up_reservations() -> None:
    while maintenance.give_up_reservations(services()) == maintenance.BATCH:
        pass


@app.task(name="maintenance.forget_old", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def forget_old() -> None:
    maintenance.forget_old(services())


@app.task(name="maintenance.write_catalogue", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def write_catalogue() -> None:
    writing.write(services())


@app.task(name="maintenance.compact_catalogue", base=RestingTask)  # type: ignore[untyped-decorator]  # celery has no types
def compact_catalogue() -> None:
    compaction.compact(services())
