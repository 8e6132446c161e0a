"""A limit on time that also holds inside a C library: the process ends itself.

An exception raised from a signal waits until the decoder returns, which a hung one never does. The kill counts as an
unfinished start; after a few of those the work runs alone and its time-out is what the failure says.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

log = logging.getLogger(__name__)


@contextmanager
def time_limit(limit: timedelta) -> Iterator[None]:
    timer = threading.Timer(limit.total_seconds(), _end, args=(limit,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(limit: timedelta) -> None:
    log.critical("an attempt ran for %s and did not end: this process ends itself", limit)
    os.kill(os.getpid(), signal.SIGKILL)
