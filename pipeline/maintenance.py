"""What the whole fleet does once, from beat: expired leases, abandoned reservations, garbage, retention, lost hosts.

Each may run twice at the same time, be stopped in the middle and wake up late.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from core.errors import Unavailable
from core.failpoints import failpoint
from pipeline.services import Services

log = logging.getLogger(__name__)

BATCH = 500


def wake_variants(services: Services, limit: int) -> int:
    """Hints for sources with variants that are due: never leased, given back, or left by a holder that died."""
    sources = services.metadata.variants.due_sources(limit)
    for source in sources:
        services.hints.derive(source, interactive=False)
    return len(sources)


def give_up_reservations(services: Services) -> int:
    older_than = timedelta(seconds=services.settings.work.pending_grace_seconds)
    return services.metadata.blobs.give_up_pending(older_than, BATCH)


def collect_garbage(services: Services) -> int:
    """Turn what nothing refers to into garbage, then delete the objects that garbage names. Nothing can ever name a key
    in `garbage` again, so a run that wakes up late deletes nothing that lives."""
    services.metadata.blobs.collect(BATCH)
    failpoint("gc.after-collect")
    deleted = 0
    by_store: dict[str, list[tuple[int, str]]] = {}
    for item in services.metadata.blobs.garbage(BATCH):
        by_store.setdefault(item.store, []).append((item.id, item.key))
    for name, items in by_store.items():
        try:
            failpoint("gc.before-delete")
            services.store(name).delete([key for _, key in items])
        except Unavailable as error:
            log.warning("garbage stays for now", extra={"store": name, "reason": error.code})
            continue
        failpoint("gc.after-delete")
        services.metadata.blobs.forget([number for number, _ in items])
        deleted += len(items)
    return deleted


def sweep_stores(services: Services) -> int:
    """What writers left in the stores that died in the middle of a put."""
    swept = 0
    for name, store in services.stores.items():
        try:
            swept += store.sweep_unfinished()
        except Unavailable as error:
            log.warning("a store was not swept", extra={"store": name, "reason": error.code})
    return swept


def mark_lost_hosts(services: Services) -> int:
    silent = timedelta(seconds=services.settings.work.host_lost_seconds)
    return services.metadata.uploads.mark_lost_hosts(silent)


def forget_old(services: Services) -> int:
    """Records past their retention."""
    return services.metadata.retention.prune(services.settings.retention)
