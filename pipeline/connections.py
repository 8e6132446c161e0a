"""How many connections to PostgreSQL the processes of one host may open at once.

What is not in use goes back by itself (`database/connections.py`), so these are bounds and not what is held. Web
processes get a part of them that is bounded by itself: however many read, what workers need is left. Not counted is
what beat and the main process of a worker open for some milliseconds every ten seconds, to say that they read their
queues (tasks/reading.py): where there is no room it is left for the next time.
"""

from __future__ import annotations

from collections.abc import Collection

from core import queues
from core.errors import Misconfigured
from core.settings import Settings
from pipeline.stores import read_tracking
from storage import registry

SWEEP = 2
"""Its rounds, and the heartbeat."""
INGEST = 3
"""Of one ingest process: two entries, and the renewal of a lease."""
RENDERING = 2
"""Of one process that renders: its task, and the renewal of its lease."""
MAINTENANCE = 3
"""Of the one process of jobs, repair and gc: many threads, which mostly wait for stores."""


def of_all_in_one(settings: Settings) -> int:
    """Return the bound of one process that does everything."""
    work = settings.work
    return MAINTENANCE + INGEST + work.ingest_concurrency + work.interactive_concurrency + work.variants_concurrency


def of_host(settings: Settings) -> int:
    """Return the bound of all processes of a host (see app/wsgi.py, tasks/base.py, cli/sweep.py)."""
    web = settings.web.workers
    workers = of_worker(settings, [queues.ingest_queue(""), queues.INTERACTIVE, queues.EAGER, queues.MAINTENANCE])
    return web * settings.web.pool + workers + SWEEP + (web + 1) * _of_stores(settings)


def of_worker(settings: Settings, names: Collection[str]) -> int:
    """Return the bound of the one worker that reads these queues (see tasks/commands.py)."""
    work, of_stores = settings.work, _of_stores(settings)
    if _one_process_works(settings):
        return of_all_in_one(settings) + of_stores
    ingest = work.ingest_concurrency if any(name.startswith(queues.ingest_queue("")) for name in names) else 0
    maintenance = int(queues.MAINTENANCE in names)
    rendering = work.variants_concurrency if queues.EAGER in names else 0
    if queues.INTERACTIVE in names and (maintenance or not rendering):
        rendering += work.interactive_concurrency
    processes = ingest + rendering + maintenance
    return INGEST * ingest + RENDERING * rendering + MAINTENANCE * maintenance + processes * of_stores


def _one_process_works(settings: Settings) -> bool:
    try:
        return bool(registry.with_one_owner(settings))
    except Misconfigured:  # said of the store itself
        return False


def _of_stores(settings: Settings) -> int:
    """Return what a process opens at most for stores in the metadata's database, and to write down what is read."""
    try:
        found = registry.describe(settings).values()
        noting = read_tracking.are_wanted(settings, registry.options_of(settings))
    except Misconfigured:  # said of the store itself
        return 0
    here = [options for options in found if options["kind"] == "postgres" and options["url"] is None]
    return sum((int(options["pool_size"]) + int(options["reader_snapshots"]) for options in here), int(noting))
