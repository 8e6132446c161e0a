"""What every task shares: the services of its process, an orderly end, ids in the log."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any
from uuid import UUID

from celery import Task
from celery.signals import celeryd_init, setup_logging, worker_process_init, worker_process_shutdown

from core import logs, settings
from core.parent_death import die_with_parent
from pipeline.derive import scratch_root
from pipeline.scratch import remove_leftovers
from pipeline.services import Services, build
from tasks.celery_app import app
from tasks.hints import CeleryHints

SHA256_BYTES = 32

_services: Services | None = None


def services() -> Services:
    """Built on first use: after the fork, because neither connections nor libvips survive one."""
    global _services
    if _services is None:
        configured = settings.load()
        _services = build(configured, CeleryHints(app), pool_size=5)
        remove_leftovers(scratch_root(_services))  # of the process that this one may be the successor of
    return _services


class MillraceTask(Task):  # type: ignore[misc]  # celery has no types
    abstract = True

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with logs.bound(task_id=self.request.id, task=self.name):
            return super().__call__(*arguments, **options)


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
def _before_the_first_word(**_: object) -> None:
    """Celery's warnings become records; what it says past all logging, on standard output, is no line of a JSON log."""
    _configure_logging()
    sys.__stdout__ = None  # type: ignore[misc]  # documented as possible; celery looks before it writes


@setup_logging.connect  # type: ignore[untyped-decorator]  # celery has no types
def _configure_logging(**_: object) -> None:
    logs.configure(settings.load())


@worker_process_init.connect  # type: ignore[untyped-decorator]  # celery has no types
def _orderly_end(**_: object) -> None:
    """A pool child that is told to go raises SystemExit where it stands, so that the attempt is refunded. It goes at
    once when its worker is gone, in the middle of a task too."""
    die_with_parent(os.getppid())
    signal.signal(signal.SIGTERM, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # celery has no types
def _close(**_: object) -> None:
    if _services is not None:
        _services.close()
