"""What the whole fleet does once, from beat: expired leases, abandoned reservations, garbage, retention, lost hosts.

Each may run twice at the same time, be stopped in the middle and wake up late. What talks to a store takes turns, so
that two workers do not do the same; nothing rests on that.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from coordination.locks import Lease
from core.errors import Unavailable
from core.failpoints import failpoint
from core.loops import each
from pipeline.rules.in_force import difference
from pipeline.rules.promotion import surplus_bound
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
    """Turn what nothing refers to into garbage, and delete the objects that garbage names, until there is no more.
    A key that `garbage` gave out is never named again, so a run that wakes up late deletes nothing that lives."""
    deleted = 0
    other = difference(services.metadata.rules, services.rules)
    if other is not None:
        log.warning("%s; see `millrace storage apply-rules`", other)

    def empty(name: str) -> None:
        nonlocal deleted
        with services.turns.take(f"gc:{name}") as turn:
            if turn is None:
                return
            try:
                deleted += _empty(services, name, turn)
            except Unavailable as error:
                log.warning("garbage stays for now", extra={"store": name, "reason": error.code})

    while True:
        collected = services.metadata.blobs.collect(BATCH, services.keeping)
        failpoint("gc.after-collect")
        each(services.metadata.blobs.garbage_stores(), empty)
        if collected < BATCH:
            return deleted


def _empty(services: Services, name: str, turn: Lease) -> int:
    """Delete the garbage of one store. What is to be deleted is read within the turn: before it, it would be what the
    last one is deleting."""
    deleted = 0
    while not turn.lost.is_set():
        removed = delete_garbage(services, name)
        deleted += removed
        if removed < BATCH:
            break
    return deleted


def delete_garbage(services: Services, name: str) -> int:
    """Delete the objects of one page of a store's garbage, then forget it; returns how many, 0 when there is none. The
    only way in which objects with a row go."""
    store, blobs = services.store(name), services.metadata.blobs
    items = blobs.garbage(BATCH, name)
    if items:
        failpoint("gc.before-delete")
        store.delete([item.key for item in items])
        failpoint("gc.after-delete")
        blobs.forget([item.id for item in items])
    return len(items)


def evict_copies(services: Services) -> int:
    """Copies for faster reading that are too many: the bound became lower, their store takes none any more, or it is
    being emptied."""
    bounds = {name: surplus_bound(services.placements, name) for name in services.stores}
    tiers = services.metadata.tiers
    return sum(tiers.evict(name, up_to, services.rules) for name, up_to in bounds.items() if up_to is not None)


def sweep_stores(services: Services) -> int:
    """What writers left in the stores that died in the middle of a put."""
    swept = 0

    def sweep(name: str) -> None:
        nonlocal swept
        try:
            with services.turns.take(f"sweep:{name}") as turn:
                swept += 0 if turn is None else services.store(name).sweep_unfinished()
        except Unavailable as error:
            log.warning("a store was not swept", extra={"store": name, "reason": error.code})

    each(services.stores, sweep)
    return swept


def mark_lost_hosts(services: Services) -> int:
    silent = timedelta(seconds=services.settings.work.host_lost_seconds)
    return services.metadata.uploads.mark_lost_hosts(silent)


def forget_old(services: Services) -> int:
    """Records past their retention."""
    return services.metadata.retention.prune(services.settings.retention)
