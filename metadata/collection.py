"""The way out: what nothing refers to becomes rows of `garbage`, and only those name objects to delete.

Lock order: blob, then replica, and never a wait for either (`SKIP LOCKED`). Whoever is about to refer to a blob holds
a lock on its replica (`blobs.confirm`) or on the blob itself (`variants.want`) until COMMIT: such a blob is skipped.
Whoever comes after our lock finds its replica row gone. References are counted only under the locks, in a statement of
their own, so that it sees everything committed before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Text, and_, cast, delete, exists, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from core.failpoints import failpoint
from core.model import BlobFacts
from metadata import rows
from metadata.schema import asset, asset_variant, blob, failure, garbage, replica, variant


@dataclass(frozen=True, slots=True)
class Garbage:
    id: int
    store: str
    key: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An asset that holds a blob, as its original or as a variant that it shows."""

    path: str
    variant: bool
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """A replica that is there because of a rule."""

    store: str
    place: str
    """The store that the rule names: this one, or the one that it stands for."""
    healthy: bool


Needed = Callable[[BlobFacts, Sequence[Held], Iterator[Reference]], frozenset[str]]
"""Of the stores that hold a blob, those whose replica one of the references has a reason to keep. Takes no more of the
references than it needs."""


def collect(connection: Connection, limit: int, needed: Needed) -> tuple[int, int]:
    """Returns how many due blobs were looked at, and how many of them are gone now."""
    due = _lock_due(connection, limit)
    if not due:
        return 0, 0
    _drop_unwanted_variants(connection, due)
    referred = set(
        connection.scalars(
            select(blob.c.sha256).where(
                blob.c.sha256.in_(due),
                or_(
                    exists().where(asset.c.blob == blob.c.sha256),
                    exists().where(variant.c.source == blob.c.sha256),
                    exists().where(variant.c.blob == blob.c.sha256),
                ),
            )
        )
    )
    if referred:
        connection.execute(update(blob).where(blob.c.sha256.in_(referred)).values(gc_after=None))
        _drop_surplus(connection, sorted(referred), needed)
    gone = [sha256 for sha256 in due if sha256 not in referred]
    if gone:
        discard_replicas(connection, gone)
        connection.execute(delete(blob).where(blob.c.sha256.in_(gone)))
    failpoint("collect.before-commit")
    return len(due), len(gone)


def give_up_pending(connection: Connection, older_than: timedelta, limit: int) -> int:
    stale = (
        select(replica.c.blob, replica.c.store)
        .join_from(replica, blob, blob.c.sha256 == replica.c.blob)
        .where(replica.c.state == "pending", replica.c.reserved_at < func.now() - older_than)
        .order_by(replica.c.reserved_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = connection.execute(stale).all()
    for sha256, store in found:
        discard_replicas(connection, [sha256], store)
        # The blob itself goes the one way there is, after its references are counted.
        connection.execute(update(blob).where(blob.c.sha256 == sha256).values(gc_after=func.now()))
    return len(found)


def garbage_page(connection: Connection, limit: int, store: str | None) -> list[Garbage]:
    chosen = true() if store is None else garbage.c.store == store
    query = select(garbage.c.id, garbage.c.store, garbage.c.key).where(chosen).order_by(garbage.c.id).limit(limit)
    return [Garbage(row.id, row.store, row.key) for row in connection.execute(query)]


def garbage_stores(connection: Connection) -> list[str]:
    return list(connection.scalars(select(garbage.c.store).distinct().order_by(garbage.c.store)))


def forget(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(delete(garbage).where(garbage.c.id.in_(ids)))


def _lock_due(connection: Connection, limit: int) -> list[bytes]:
    """Due blobs that nobody else holds, with all their replicas, locked."""
    due = list(
        connection.scalars(
            select(blob.c.sha256)
            .where(blob.c.gc_after <= func.now())
            .order_by(blob.c.gc_after)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )
    if not due:
        return []
    own = select(replica.c.blob, replica.c.store).where(replica.c.blob.in_(due))
    everything = connection.execute(own).all()
    free = set(connection.execute(own.with_for_update(skip_locked=True)).all())
    busy = {row.blob for row in everything if row not in free}
    return [sha256 for sha256 in due if sha256 not in busy]


def _drop_unwanted_variants(connection: Connection, sources: Sequence[bytes]) -> None:
    """Variants that no asset asks for any more; their bytes are due at once."""
    wanted = exists().where(asset_variant.c.variant_id == variant.c.id)
    dropped = connection.execute(
        delete(variant).where(variant.c.source.in_(sources), ~wanted).returning(variant.c.id, variant.c.blob)
    ).all()
    if not dropped:
        return
    connection.execute(delete(failure).where(failure.c.id.in_([row.id for row in dropped])))
    outputs = sorted({row.blob for row in dropped if row.blob is not None})
    if outputs:
        connection.execute(
            update(blob).where(blob.c.sha256.in_(outputs), blob.c.gc_after.is_(None)).values(gc_after=func.now())
        )


REFERENCES = 500


def _drop_surplus(connection: Connection, blobs: Sequence[bytes], needed: Needed) -> None:
    """Replicas that nobody's rule names, as long as one that stays is healthy. What was promoted goes another way."""
    query = rows.replicas().where(replica.c.blob.in_(blobs), replica.c.promoted_at.is_(None)).order_by(replica.c.blob)
    held: dict[bytes, list[Any]] = {}
    for row in connection.execute(query):
        held.setdefault(row.blob, []).append(row)
    for sha256, replicas in held.items():
        if len(replicas) < 2:
            continue
        facts = rows.to_replica(replicas[0]).blob
        rules = [Held(row.store, row.stands_for or row.store, row.state == "healthy") for row in replicas]
        keep = needed(facts, rules, references(connection, sha256))
        if any(row.state == "healthy" and row.store in keep for row in replicas):
            for row in replicas:
                if row.store not in keep:
                    discard_replicas(connection, [sha256], row.store)


def references(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    """The assets that hold a blob, read as far as they are asked for; one may come several times."""
    facts = asset.c.id, asset.c.path_text, asset.c.accepted_at
    originals = select(*facts).where(asset.c.blob == sha256)
    shown = (
        select(*facts)
        .join_from(variant, asset_variant, asset_variant.c.variant_id == variant.c.id)
        .join(asset, asset.c.id == asset_variant.c.asset_id)
        .where(variant.c.blob == sha256)
    )
    for query, is_variant in ((originals, False), (shown, True)):
        after = UUID(int=0)
        while page := connection.execute(query.where(asset.c.id > after).order_by(asset.c.id).limit(REFERENCES)).all():
            for row in page:
                yield Reference(row.path_text, is_variant, row.accepted_at)
            after = page[-1].id


def discard_replicas(connection: Connection, blobs: Sequence[bytes], store: str | None = None) -> None:
    """The rows go, and their keys become garbage."""
    chosen = and_(replica.c.blob.in_(blobs), true() if store is None else replica.c.store == store)
    key = func.encode(replica.c.blob, "hex", type_=Text).concat(".").concat(cast(replica.c.generation, Text))
    connection.execute(insert(garbage).from_select(["store", "key"], select(replica.c.store, key).where(chosen)))
    connection.execute(delete(replica).where(chosen))
