"""Replicas that should hold their bytes and do not get them from one that does."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from core.errors import Superseded
from pipeline.backoff import backoff
from pipeline.replicas.copying import try_copy
from pipeline.replicas.rerender import make_again
from pipeline.services import Services

LEASE = timedelta(minutes=10)
BATCH = 20


def repair(services: Services, limit: int = BATCH) -> int:
    """Work on what is due; returns how many replicas are healthy again. What is not is due again later, so a task that
    asks for more as long as something is due comes to an end."""
    repaired = 0
    for _ in range(limit):
        due = services.metadata.repairs.due(1, LEASE)
        if not due:
            break
        delay = backoff(services.settings, attempts=1)
        with suppress(Superseded):  # somebody else does it, or the blob is gone
            if try_copy(services, due[0], delay=delay) is not None:
                repaired += 1
            else:
                make_again(services, due[0].blob.sha256)
    return repaired
