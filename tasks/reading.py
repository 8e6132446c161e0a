"""Says again and again that a queue is read, so that `/readyz` and `millrace doctor` can say which one no worker reads.

A worker's own loop says it, between two messages: no thread of it does, so a worker that is stopped, hangs, or has lost
Redis says nothing. It also forks, which a thread within a call to PostgreSQL would not survive well.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Any

from celery import bootsteps

from core import settings
from core.errors import Unavailable
from core.loops import Guard
from core.queues import BEAT
from core.settings import Settings
from metadata.facade import Metadata
from pipeline import connections
from storage.staging import host

SECONDS = 10.0
"""Between two words; see `core.queues.SILENT`."""
PATIENCE_SECONDS = 2.0
"""The loop stands still while PostgreSQL hangs: so long at most."""


class Reader:
    def __init__(self, configured: Settings, names: Collection[str]) -> None:
        self._settings = configured
        self._names = names
        works = BEAT not in names
        self._host = str(host.known(configured) or socket.gethostname()) if works else None
        self._connections = connections.of_worker(configured, names) if works else 0
        self._guard = Guard("queue-readers")

    def speak(self) -> None:
        """Never raises."""
        self._guard.call(self._speak)

    def _speak(self) -> None:
        """Over a connection that is there for this moment only: a host has others to spare for its work."""
        metadata = Metadata.open(self._settings, pool_size=1, deadline_seconds=PATIENCE_SECONDS)
        try:
            metadata.readers.note(self._names, self._host, self._connections)
        except Unavailable:
            return  # who looks there hears so
        finally:
            metadata.close()


class Speaking(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Of a worker's main process, from each connection to Redis to its loss."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        self._entry: Any = None
        super().__init__(consumer, **options)

    def start(self, consumer: Any) -> None:
        reader = Reader(settings.load(), list(consumer.app.amqp.queues.consume_from))
        reader.speak()
        self._entry = consumer.timer.call_repeatedly(SECONDS, reader.speak)

    def stop(self, consumer: Any) -> None:
        del consumer
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
