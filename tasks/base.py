"""What every task shares: the services of its process, an orderly end, ids in the log."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from threading import Lock, Timer, local
from types import FrameType
from typing import Any
from uuid import UUID

from celery import Task
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from core import logs, settings
from core.errors import MillraceError, Misconfigured, Unavailable
from core.loops import Guard
from core.parent_death import die_with_parent
from core.queues import ingest_queue
from core.settings import Settings
from pipeline import connections
from pipeline.copies import keeper
from pipeline.leaving import give_everything_back
from pipeline.scratch import remove_leftovers, scratch_root
from pipeline.services import Services, build
from storage.registry import with_one_owner
from storage.staging import host
from tasks import commands
from tasks.celery_app import app
from tasks.hints import CeleryHints
from tasks.lanes import Lanes, Work

log = logging.getLogger(__name__)

SHA256_BYTES = 32

PATIENCE_SECONDS = 7.0
"""After a process with work in threads is told to go: a second before `worker_soft_shutdown_timeout` cuts them off."""

_WORKER = os.getpid()
"""Of the process that loads this, and forks the pool. A child that asked for its parent later might find another."""
_guards = local()
_services: Services | None = None
_connections = connections.INGEST
"""To PostgreSQL, of one process of this worker."""
_building = Lock()
_lanes: Lanes | None = None
"""Of a process with threads; in one that a worker forked a task is done where it stands."""


def services() -> Services:
    """Built on first use: after the fork, because neither connections nor libvips survive one. Tasks in threads share
    them."""
    global _services
    with _building:
        if _services is None:
            configured = settings.load()
            _services = build(configured, CeleryHints(app, configured), pool_size=_connections, owns_stores=True)
            remove_leftovers(scratch_root(_services.settings))  # of the process that this one may be the successor of
        return _services


class MillraceTask(Task):  # type: ignore[misc]  # celery has no types
    abstract = True

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Do it here, or where there are lanes, put it into its own."""
        del options
        queue = str((self.request.delivery_info or {}).get("routing_key"))
        work = partial(self._logged, {"task_id": self.request.id, "task": self.name}, self.work(queue, arguments))
        if _lanes is None:
            work()
        else:
            _lanes.put(self.lane(queue), (self.name, arguments), work)

    def lane(self, queue: str) -> str:
        """Return the lane of a message that comes from this queue."""
        del queue
        return str(self.name)

    def work(self, queue: str, arguments: tuple[Any, ...]) -> Work:
        del queue
        return partial(self.run, *arguments)

    def _logged(self, said: Mapping[str, str], work: Work) -> None:
        """Do the work; log an error that no code foresaw, which shows where one process meets it again and again. What
        the task was sent for is found again by the sweep and beat."""
        with logs.bound(**said):
            self._guard().call(partial(_unless_away, work))

    def _guard(self) -> Guard:
        """Return the guard of this thread. It has no rest: other work of the same task is not to wait."""
        if not hasattr(_guards, self.name):
            setattr(_guards, self.name, Guard(f"task.{self.name}", most_rest_seconds=0))
        found: Guard = getattr(_guards, self.name)
        return found


class RestingTask(MillraceTask):
    """Of the fleet: beat sends it again all the time. Where it ends its process, or fails in a way that no code
    foresaw, again and again, its message is dropped for a while."""

    abstract = True

    def work(self, queue: str, arguments: tuple[Any, ...]) -> Work:
        return partial(self._do_or_rest, super().work(queue, arguments))

    def _do_or_rest(self, work: Work) -> None:
        with services().rests.start(f"task.{self.name}") as left:
            if not left:
                work()
                return
        log.warning("a task rests", extra={"task": self.name, "seconds": round(left)})


def _unless_away(work: Work) -> None:
    try:
        work()
    except Unavailable as error:
        log.warning("a task waits", extra={"reason": error.code, "detail": error.detail})


def as_upload_id(text: object) -> UUID | None:
    """A message is input too: what is no id is dropped, not retried."""
    try:
        return UUID(str(text))
    except ValueError:
        return None


def as_blob_hash(text: object) -> bytes | None:
    try:
        sha256 = bytes.fromhex(str(text))
    except ValueError:
        return None
    return sha256 if len(sha256) == SHA256_BYTES else None


@celeryd_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def _before_the_first_word(options: Mapping[str, Any], **_: object) -> None:
    """Celery's warnings become records; what it says past all logging, on standard output, is no line of a JSON log."""
    global _connections
    _configure_logging()
    try:
        configured, pool = settings.load(), str(options.get("pool_cls") or options.get("pool"))
        commands.require_owner(configured, pool, options.get("concurrency"))
        _connections = _of_process(configured, str(options.get("queues")), threads="thread" in pool)
    except Misconfigured as error:
        log.critical(error.detail)
        sys.exit(2)  # any other exception would be swallowed with its signal
    sys.__stdout__ = None  # type: ignore[misc]  # documented as possible; celery looks before it writes


def _of_process(configured: Settings, queues: str, *, threads: bool) -> int:
    ingests = ingest_queue("") in queues
    if threads:
        return connections.of_all_in_one(configured) if ingests else connections.MAINTENANCE
    return connections.INGEST if ingests else connections.RENDERING


@setup_logging.connect  # type: ignore[untyped-decorator]  # celery has no types
def _configure_logging(**_: object) -> None:
    configured = settings.load()
    logs.configure(configured, host.known(configured))


@worker_process_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def _orderly_end(**_: object) -> None:
    """A pool child that is told to go raises SystemExit where it stands, so that the attempt is refunded. It goes at
    once when its worker is gone, in the middle of a task too."""
    die_with_parent(_WORKER)
    signal.signal(signal.SIGTERM, _leave)
    _take_over_stores()
    keeper(services()).start()


@worker_ready.connect  # type: ignore[untyped-decorator]  # celery has no types
def _with_threads(sender: Any, **_: object) -> None:
    """Only a pool of threads does its work in the process that hears this."""
    global _lanes
    if "thread" in type(sender.pool).__module__:
        _lanes = Lanes(settings.load())
        _take_over_stores()
        keeper(services()).start()


def _take_over_stores() -> None:
    """Open what this process owns before the first task, so that others find something to read."""
    for name in with_one_owner(settings.load()):
        try:
            services().store(name).sweep_unfinished()
        except MillraceError as error:
            log.error("a store cannot be written to: %s", error.detail)  # noqa: TRY400 - the detail says it all


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]  # celery has no types
def _give_back_in_time(**_: object) -> None:
    """Give back what threads hold: no exception reaches a pool's. A worker with processes has begun nothing itself."""
    giving_back = Timer(PATIENCE_SECONDS, give_everything_back)
    giving_back.daemon = True
    giving_back.start()


@worker_shutdown.connect  # type: ignore[untyped-decorator]  # celery has no types
@worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # celery has no types
def _close(**_: object) -> None:
    if _lanes is not None:
        _lanes.close(PATIENCE_SECONDS)
    give_everything_back()
    if _services is not None:
        _services.close()
