"""Replicas that should hold their bytes and do not get them from one that does."""

from __future__ import annotations

import logging
from datetime import timedelta

from core.errors import MillraceError, Superseded
from core.failpoints import failpoint
from core.model import Replica
from pipeline import sources
from pipeline.backoff import backoff
from pipeline.services import Services

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=10)
BATCH = 20


def repair(services: Services, limit: int = BATCH) -> int:
    """Work on what is due; returns how many replicas are healthy again."""
    repaired = 0
    for _ in range(limit):
        due = services.metadata.repairs.due(1, LEASE)
        if not due:
            break
        repaired += _repair(services, due[0])
    return repaired


def _repair(services: Services, broken: Replica) -> bool:
    blob = broken.blob
    try:
        store = services.store(broken.store)
        if sources.is_whole(services, broken):
            services.metadata.repairs.done(broken)
            return True
        fresh = services.metadata.repairs.begin(broken)
        failpoint("repair.after-begin", broken.key)
        with sources.stream(services, blob.sha256) as body:
            store.put(fresh.key, body, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
        failpoint("repair.after-put", broken.key)
        services.metadata.repairs.done(fresh)
    except Superseded:
        return False
    except MillraceError as error:
        log.warning("a replica is not repaired yet", extra={"store": broken.store, "key": broken.key})
        services.metadata.repairs.failed(broken, error.detail, backoff(services.settings, attempts=1))
        return False
    log.info("a replica has its bytes", extra={"store": broken.store, "key": fresh.key})
    return True
