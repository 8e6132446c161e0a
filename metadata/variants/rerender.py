"""A variant whose bytes are lost is made again: it was made once, and its source is there.

In one transaction the variant is pending again, under a fence that no former holder has, and the replicas of what it
was are garbage, unless something else needs them. It waits for the blob and for no replica (metadata/locking.py): who
holds one is about to say something else of it. Of several who find the loss at once one does it, and the others see it
done.
"""

from __future__ import annotations

from sqlalchemy import Connection, Select, exists, func, or_, select, update

from core.failpoints import failpoint
from metadata import locking
from metadata.blobs.collection import discard_replicas
from metadata.schema import asset, blob, replica, variant

BATCH = 500
"""Variants that one transaction begins anew: any number of them may have come to the same bytes."""


def remake(connection: Connection, sha256: bytes) -> list[bytes]:
    """Make lost variants pending again, and return their sources; none while a copy is good or on its way."""
    if not _is_lost(connection, sha256):
        return []
    made = (variant.c.blob == sha256, variant.c.state == "ready")
    good = _good_ones(connection, select(variant.c.source).where(*made))
    some = select(variant.c.id).where(*made, variant.c.source.in_(good)).limit(BATCH)
    sources = connection.scalars(
        update(variant)
        .where(variant.c.id.in_(some.order_by(variant.c.id)), variant.c.state == "ready")
        .values(
            state="pending",
            blob=None,
            attempts=0,
            unfinished=0,
            fence=variant.c.fence + 1,
            lease_until=None,
            next_attempt_at=func.now(),
            finished_at=None,
        )
        .returning(variant.c.source)
    ).all()
    if sources and not _is_needed(connection, sha256):
        discard_replicas(connection, [sha256])
        connection.execute(update(blob).where(blob.c.sha256 == sha256).values(gc_after=func.now()))
    failpoint("remake.before-commit")
    return sorted(set(sources))


def _is_lost(connection: Connection, sha256: bytes) -> bool:
    """Return whether no copy is good or on its way, under locks on the blob and all its replicas."""
    held = select(blob.c.sha256).where(blob.c.sha256 == sha256).with_for_update()
    if connection.scalar(held) is None:
        return False
    if not locking.lock_free_replicas(connection, [sha256]):
        return False
    there = set(connection.scalars(select(replica.c.state).where(replica.c.blob == sha256)))
    return not there & {"healthy", "pending"}


def _good_ones(connection: Connection, sources: Select[tuple[bytes]]) -> set[bytes]:
    """Return those of the sources that have a good replica, which stays good until COMMIT. A replica that another
    transaction holds may be none."""
    good = select(replica.c.blob).where(replica.c.blob.in_(sources), replica.c.state == "healthy").limit(BATCH)
    return set(connection.scalars(good.with_for_update(read=True, skip_locked=True)))


def _is_needed(connection: Connection, sha256: bytes) -> bool:
    query = select(
        or_(
            exists().where(asset.c.blob == sha256),
            exists().where(variant.c.source == sha256),
            exists().where(variant.c.blob == sha256),
        )
    )
    return bool(connection.scalar(query))
