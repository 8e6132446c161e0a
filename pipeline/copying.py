"""Making one more replica of a blob from those that are there, and checking one that is."""

from __future__ import annotations

import logging
from datetime import timedelta

from core.errors import Corrupt, MillraceError, Superseded
from core.failpoints import failpoint
from core.model import Replica
from pipeline import sources
from pipeline.services import Services
from storage.throttle import UNTHROTTLED, Throttle

log = logging.getLogger(__name__)


def copy(services: Services, wanted: Replica, *, throttle: Throttle = UNTHROTTLED) -> Replica:
    """Fill a replica that is recorded as missing or corrupt from a healthy one; returns what it is now. One that turns
    out to be right recovers as it is.

    A crash leaves at most an object that `garbage` names or that the row names as missing.

    Raises:
        Superseded: somebody else did it, or the blob is gone.
        StoreUnavailable: no healthy replica can be read, or the store of this one does not take it.
    """
    blob = wanted.blob
    store = services.store(wanted.store)
    if sources.is_whole(services, wanted, throttle=throttle):
        services.metadata.repairs.done(wanted)
        return wanted
    fresh = services.metadata.repairs.begin(wanted)
    failpoint("copy.after-begin", wanted.key)
    try:
        with sources.stream(services, blob.sha256) as body:
            flow = throttle.body(body)
            store.put(fresh.key, flow, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
    except Corrupt as error:
        for source in services.metadata.blobs.replicas(blob.sha256):
            sources.doubt(services, source, error)
        raise
    failpoint("copy.after-put", wanted.key)
    services.metadata.repairs.done(fresh)
    services.lookups.forget_replicas(blob.sha256)
    log.info("a replica has its bytes", extra={"store": fresh.store, "key": fresh.key})
    return fresh


def try_copy(
    services: Services, wanted: Replica, *, delay: timedelta, throttle: Throttle = UNTHROTTLED
) -> Replica | None:
    """`copy`, where what goes wrong is written on the row and tried again after `delay`."""
    try:
        return copy(services, wanted, throttle=throttle)
    except Superseded:
        return None
    except MillraceError as error:
        log.warning("a replica is not copied yet", extra={"store": wanted.store, "key": wanted.key})
        services.metadata.repairs.failed(wanted, error.detail, delay)
        return None


def check(services: Services, replica: Replica, *, throttle: Throttle = UNTHROTTLED) -> bool:
    """Read a replica and compare its hash. One that is twice found missing or wrong is marked so.

    Raises:
        Unavailable: its store does not answer; nothing is known.
    """
    for _ in range(2):
        if sources.is_whole(services, replica, throttle=throttle):
            services.metadata.repairs.verified(replica)
            return True
    sources.mark(services, replica, "corrupt", "its bytes are missing or wrong")
    return False
