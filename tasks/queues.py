"""The queues of this installation, as they look from outside Celery: how many hints wait, and how many may.

A hint says only that there is something to do, so a few of them say it all: each queue has a window, and what would go
beyond it is not sent. The window is what bounds Redis, however long the workers are away. Two senders that look at once
may pass it by what each of them sends.
"""

from __future__ import annotations

import threading

from coordination.broker import Broker
from core.errors import BrokerFull, BrokerUnavailable
from core.queues import EAGER, INTERACTIVE, MAINTENANCE
from core.settings import Settings
from pipeline.installation import redis_prefix

WINDOWS = {INTERACTIVE: 200, EAGER: 200, MAINTENANCE: 24}
"""What goes beyond is found without a hint: variants that are due by beat, and what beat sends comes again."""
ANSWER_SECONDS = 3


def window(settings: Settings, name: str) -> int:
    """Return how many hints may wait in this queue."""
    work = settings.work
    return WINDOWS.get(name, work.window_factor * work.ingest_concurrency)


class Queues:
    """Connects on first use. Safe for threads, and after a fork that came before the first use.

    Every method may raise BrokerUnavailable: Redis is away, hangs, or refuses; or this host has never heard which
    installation it belongs to, and so does not know its queues."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._broker: Broker | None = None

    def depth(self, name: str) -> int:
        return self._open().depth(name)

    def room(self, name: str) -> int:
        """Return how many hints this queue still takes. Where Redis is full, what waits beyond the windows goes first:
        a full Redis takes no message and gives none away, so it would stay full."""
        try:
            waiting = self.depth(name)
        except BrokerFull:
            self._trim(name)
            waiting = self.depth(name)
        return max(0, window(self._settings, name) - waiting)

    def close(self) -> None:
        if self._broker is not None:
            self._broker.close()

    def _trim(self, name: str) -> None:
        for one in {name, *WINDOWS}:
            self._open().trim(one, window(self._settings, one))

    def _open(self) -> Broker:
        with self._opening:
            if self._broker is None:
                if self._settings.redis_url is None:
                    raise BrokerUnavailable("redis_url is not set")
                prefix = redis_prefix(self._settings)
                if prefix is None:
                    raise BrokerUnavailable("this host has not heard yet which installation it belongs to")
                self._broker = Broker(self._settings.redis_url, key_prefix=prefix, seconds=ANSWER_SECONDS)
            return self._broker
