"""Hints over Celery: published from a thread of their own, dropped when there are too many."""

from __future__ import annotations

import logging
import queue
from contextlib import suppress
from uuid import UUID

from celery import Celery
from kombu.exceptions import KombuError

from core.errors import BrokerUnavailable
from core.loops import Background, each
from core.queues import EAGER, INTERACTIVE, MAINTENANCE, ingest_queue
from core.settings import Settings
from tasks.queues import Queues

log = logging.getLogger(__name__)

CAPACITY = 1000

PAUSE_SECONDS = 0.05
"""A message costs the process as much as taking in an upload does, so a flood of uploads is not a flood of hints."""

AWAY_SECONDS = 1.0
"""After a hint that could not be sent."""

Hint = tuple[str, str, str]
"""Task, its argument if it takes one, queue."""


class CeleryHints:
    """For web processes and workers: every call returns at once. A hint that cannot be sent, or that would find its
    queue full, is forgotten: the sweep and beat find the work without it. Without `host_id` this process accepts no
    uploads."""

    def __init__(self, app: Celery, settings: Settings, host_id: UUID | None = None) -> None:
        self._app = app
        self._host_id = host_id
        self._processes = settings.work.ingest_concurrency
        self._queues = Queues(settings)
        self._waiting: queue.Queue[Hint] = queue.Queue(CAPACITY)
        self._publisher = Background(
            "hints", self._publish, seconds=PAUSE_SECONDS, first=0, fresh=self._forget, most_rest_seconds=5
        )

    def ingest(self, upload_id: UUID) -> None:
        if self._host_id is not None:
            self._offer("ingest", str(upload_id), ingest_queue(self._host_id))

    def derive(self, source: bytes, *, interactive: bool) -> None:
        self._offer("derive", source.hex(), INTERACTIVE if interactive else EAGER)

    def repair(self) -> None:
        self._offer("maintenance.repair_replicas", "", MAINTENANCE)

    def close(self) -> None:
        self._publisher.stop()
        self._queues.close()

    def _offer(self, task: str, argument: str, queue_name: str) -> None:
        self._publisher.start()
        try:
            self._waiting.put_nowait((task, argument, queue_name))
        except queue.Full:
            log.debug("a hint was dropped", extra={"task": task, "id": argument})

    def _forget(self) -> None:
        self._waiting = queue.Queue(CAPACITY)

    def _publish(self) -> float:
        rooms: dict[str, int] = {}
        away = False

        def send(hint: Hint) -> None:
            nonlocal away
            task, argument, queue_name = hint
            if away:
                return
            try:
                if queue_name not in rooms:
                    rooms[queue_name] = self._queues.room(queue_name)
                if rooms[queue_name] > 0:
                    publish(self._app, task, argument, queue_name)
                    rooms[queue_name] -= 1
            except BrokerUnavailable as error:
                log.warning("hints were not sent", extra={"detail": error.detail})
                away = True

        each(self._collect(), send)
        return AWAY_SECONDS if away else PAUSE_SECONDS

    def _collect(self) -> list[Hint]:
        """What has come since the last time, without what another hint says too: an ingest process goes on from the
        entry it is sent to the younger ones, so one of the oldest for each process stands for all."""
        found = {self._waiting.get(): None}
        with suppress(queue.Empty):
            while True:
                found[self._waiting.get_nowait()] = None
        ingests = [hint for hint in found if hint[0] == "ingest"]
        return [*sorted(ingests)[: self._processes], *(hint for hint in found if hint[0] != "ingest")]


class IngestQueue:
    """The sweep's view of its host's queue."""

    def __init__(self, app: Celery, settings: Settings, host_id: UUID) -> None:
        self._app = app
        self._name = ingest_queue(host_id)
        self._queues = Queues(settings)

    def room(self) -> int:
        return self._queues.room(self._name)

    def publish(self, upload_id: UUID) -> None:
        publish(self._app, "ingest", str(upload_id), self._name)


def publish(app: Celery, task: str, argument: str, queue_name: str) -> None:
    """
    Raises:
        BrokerUnavailable: Redis is away, hangs, is full, or refuses.
    """
    try:
        app.send_task(task, args=[argument] if argument else [], queue=queue_name, argsrepr="", ignore_result=True)
    except (KombuError, OSError) as error:
        raise BrokerUnavailable(f"Redis does not take a message: {type(error).__name__}") from None
