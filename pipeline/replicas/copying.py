"""Making one more replica of a blob from those that are there, and checking one that is."""

from __future__ import annotations

import logging
from datetime import timedelta

from core.errors import Archived, Corrupt, MillraceError, NotFound, Superseded
from core.failpoints import failpoint
from core.model import Replica
from pipeline.replicas import sources
from pipeline.services import Services
from pipeline.stores.failover import writing
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
    with writing(services.silence(wanted.store), wanted.blob.size):
        return _copy(services, wanted, throttle)


def _copy(services: Services, wanted: Replica, throttle: Throttle) -> Replica:
    if _is_back(services, wanted, throttle):
        services.metadata.repairs.done(wanted)
        return wanted
    fresh = services.metadata.repairs.begin(wanted)
    failpoint("copy.after-begin", wanted.key)
    ways = (_copied_by_the_service, _copied_from_this_host)
    if not any(way(services, fresh, throttle) for way in ways):
        _stream(services, fresh, throttle)
    failpoint("copy.after-put", wanted.key)
    services.metadata.repairs.done(fresh)
    services.lookups.forget_replicas(fresh.blob.sha256)
    log.info("a replica has its bytes", extra={"store": fresh.store, "key": fresh.key})
    return fresh


def _is_back(services: Services, wanted: Replica, throttle: Throttle) -> bool:
    try:
        return sources.is_whole(services, wanted, throttle=throttle)
    except Archived:
        return False  # nothing is known of what lies there; where there is a healthy one, another can be made


def _copied_by_the_service(services: Services, fresh: Replica, throttle: Throttle) -> bool:
    """Within one provider: the bytes need not come here to get there. They are read back, as a service copies what is
    wrong as well as what is right. After any error the key is left alone, since a `put` may take what lies there for
    its own: the next attempt has another one."""
    target = services.store(fresh.store)
    for source in services.placements.in_reading_order(services.metadata.blobs.replicas(fresh.blob.sha256)):
        if source.store not in services.stores:
            continue
        try:
            copied = target.copy_from(services.store(source.store), source.key, fresh.key)
        except (NotFound, Archived):
            continue  # streaming says so
        if copied is None:
            continue
        if sources.is_whole(services, fresh, throttle=throttle):
            return True
        error = Corrupt(f"a copy of {source.key} within its service has other bytes")
        sources.doubt(services, source, error, throttle=throttle)
        raise error
    return False


def _copied_from_this_host(services: Services, fresh: Replica, throttle: Throttle) -> bool:
    """From what this host's workers render from: no host downloads an object twice."""
    blob = fresh.blob
    file = services.copies.at_hand(blob.sha256, blob.size)
    if file is None:
        return False
    with file:
        try:
            store, flow = services.store(fresh.store), throttle.body(file)
            store.put(fresh.key, flow, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
        except Corrupt:
            services.copies.remove(blob.sha256)  # the disk's fault, and none of any replica
            return False
    return True


def _stream(services: Services, fresh: Replica, throttle: Throttle) -> None:
    blob = fresh.blob
    try:
        with sources.stream(services, blob.sha256, noted=False) as body:
            flow = throttle.body(body)
            store = services.store(fresh.store)
            store.put(fresh.key, flow, size=blob.size, sha256=blob.sha256, media_type=blob.media_type)
    except Corrupt as error:
        for source in services.metadata.blobs.replicas(blob.sha256):
            sources.doubt(services, source, error, throttle=throttle)
        raise


def try_copy(
    services: Services, wanted: Replica, *, delay: timedelta, throttle: Throttle = UNTHROTTLED
) -> Replica | None:
    """`copy`, where what goes wrong is written on the row and tried again after `delay`.

    Raises:
        Superseded: as `copy`.
    """
    try:
        return copy(services, wanted, throttle=throttle)
    except Superseded:
        raise
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
