"""How many connections to PostgreSQL the processes of one host may open at once.

What is not in use goes back by itself (`database/connections.py`), so these are bounds and not what is held. Web
processes get a part of them that is bounded by itself: however many read, what workers need is left.
"""

from __future__ import annotations

from core.errors import Misconfigured
from core.settings import Settings
from pipeline.replicas import accesses
from storage import registry

SWEEP = 2
"""Its rounds, and the heartbeat."""
_BESIDE_TASKS = 2
"""Of a worker process: the second lane of an ingest, and the renewal of a lease."""


def of_worker(tasks: int) -> int:
    """Of one process that works on so many tasks at once."""
    return tasks + _BESIDE_TASKS


def of_host(settings: Settings) -> int:
    """Of all processes of a host (see app/wsgi.py, tasks/base.py, cli/sweep.py)."""
    web, tasks = settings.web.workers, settings.work.ingest_concurrency + settings.work.variants_concurrency
    workers = 1 if registry.with_one_owner(settings) else tasks
    of_workers = workers * _BESIDE_TASKS + tasks
    return web * settings.web.pool + of_workers + SWEEP + (web + workers + 1) * _of_stores(settings)


def _of_stores(settings: Settings) -> int:
    """What a process opens at most for stores in the database of the metadata, and to write down what is read."""
    try:
        found = registry.describe(settings).values()
        noting = accesses.are_wanted(settings, registry.options_of(settings))
    except Misconfigured:  # said of the store itself
        return 0
    here = [options for options in found if options["kind"] == "postgres" and options["url"] is None]
    return sum((int(options["pool_size"]) + int(options["reader_snapshots"]) for options in here), int(noting))
