"""Hints over Celery: published from a thread of their own, dropped when there are too many."""

from __future__ import annotations

import logging
import os
import queue
import threading
from uuid import UUID

from celery import Celery
from kombu.exceptions import KombuError

from coordination.broker import Broker
from core.errors import BrokerUnavailable
from core.settings import Settings
from tasks.celery_app import EAGER, INTERACTIVE, ingest_queue

log = logging.getLogger(__name__)

CAPACITY = 1000


class CeleryHints:
    """For web processes and workers: `ingest` and `derive` return at once. A hint that cannot be sent is forgotten: the
    sweep and beat find the work without it. Without `host_id` this process accepts no uploads."""

    def __init__(self, app: Celery, host_id: UUID | None = None) -> None:
        self._app = app
        self._host_id = host_id
        self._waiting: queue.Queue[tuple[str, str, str]] = queue.Queue(CAPACITY)
        self._start = threading.Lock()
        self._pid = 0

    def ingest(self, upload_id: UUID) -> None:
        if self._host_id is not None:
            self._offer("ingest", str(upload_id), ingest_queue(self._host_id))

    def derive(self, source: bytes, *, interactive: bool) -> None:
        self._offer("derive", source.hex(), INTERACTIVE if interactive else EAGER)

    def close(self) -> None: ...

    def _offer(self, task: str, argument: str, queue_name: str) -> None:
        self._ensure_publisher()
        try:
            self._waiting.put_nowait((task, argument, queue_name))
        except queue.Full:
            log.debug("a hint was dropped", extra={"task": task, "id": argument})

    def _ensure_publisher(self) -> None:
        """The thread belongs to the process that uses it: a fork leaves it behind."""
        if self._pid == os.getpid():
            return
        with self._start:
            if self._pid != os.getpid():
                self._waiting = queue.Queue(CAPACITY)
                threading.Thread(target=self._publish_all, name="hints", daemon=True).start()
                self._pid = os.getpid()

    def _publish_all(self) -> None:
        while True:
            task, argument, queue_name = self._waiting.get()
            try:
                publish(self._app, task, argument, queue_name)
            except BrokerUnavailable as error:
                log.warning("a hint was not sent", extra={"task": task, "id": argument, "detail": error.detail})


class IngestQueue:
    """The sweep's view of its host's queue."""

    def __init__(self, app: Celery, settings: Settings, host_id: UUID) -> None:
        if settings.redis_url is None:
            raise BrokerUnavailable("redis_url is not set")
        self._app = app
        self._name = ingest_queue(host_id)
        self._broker = Broker(settings.redis_url, key_prefix=settings.key_prefix, seconds=3)

    def depth(self) -> int:
        return self._broker.depth(self._name)

    def publish(self, upload_id: UUID) -> None:
        publish(self._app, "ingest", str(upload_id), self._name)


def publish(app: Celery, task: str, argument: str, queue_name: str) -> None:
    """
    Raises:
        BrokerUnavailable: Redis is away, hangs, is full, or refuses.
    """
    try:
        app.send_task(task, args=[argument], queue=queue_name, argsrepr="", ignore_result=True)
    except (KombuError, OSError) as error:
        raise BrokerUnavailable(f"Redis does not take a message: {type(error).__name__}") from None
