"""The way out: what nothing refers to becomes rows of `garbage`, and only those name objects to delete.

It waits neither for a blob nor for a replica (metadata/locking.py). Who is about to refer to a blob holds a lock on it
until COMMIT (`blobs.CONFIRM`, `variants.want`): such a blob is skipped. Who comes after our lock finds its replica row
gone. References are counted, and what is said of stores is read, only under the locks, in statements of their own, so
that they see everything committed before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.failpoints import failpoint
from core.model import BlobFacts, StoreState
from metadata import locking, rows, stretches, undecodable
from metadata.schema import asset, asset_variant, blob, failure, garbage, replica, store, variant


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


Needed = Callable[[BlobFacts, Sequence[Held], Iterator[Reference], Mapping[str, StoreState]], frozenset[str]]
"""Of the stores that hold a blob, those whose replica one of the references has a reason to keep, by what is said of
stores. Takes no more of the references than it needs, and lets `ManyReferences` pass: then all of it stays."""


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
        looked_at = _drop_surplus(connection, sorted(referred), needed)
        connection.execute(update(blob).where(blob.c.sha256.in_(looked_at)).values(gc_after=None))
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
    for sha256, name in found:
        discard_replicas(connection, [sha256], name)
        # The blob itself goes the one way there is, after its references are counted.
        connection.execute(update(blob).where(blob.c.sha256 == sha256).values(gc_after=func.now()))
    return len(found)


def give_out(connection: Connection, limit: int, name: str | None) -> list[Garbage]:
    query = select(garbage.c.id).limit(limit).with_for_update()
    query = (
        query.order_by(garbage.c.id) if name is None else query.where(garbage.c.store == name).order_by(garbage.c.key)
    )
    chosen = query.cte("chosen")
    given = update(garbage).where(garbage.c.id == chosen.c.id).values(given_out=True)
    rows = connection.execute(given.returning(garbage.c.id, garbage.c.store, garbage.c.key))
    return sorted((Garbage(row.id, row.store, row.key) for row in rows), key=lambda one: (one.key, one.id))


def take_back(connection: Connection, sha256: bytes) -> None:
    """No good replica of a blob is left. What was one and is garbage, and was not given out, is missing now: it may be
    read again, and is due for that. The caller holds the blob (`locking.lock_blob`)."""
    connection.execute(_TAKE_BACK, {"hex": sha256.hex(), "whose": sha256})


_WHOSE = bindparam("whose", type_=LargeBinary)
_LOST = (
    select(garbage.c.id, garbage.c.store, cast(func.split_part(garbage.c.key, ".", 2), BigInteger).label("generation"))
    .where(func.split_part(garbage.c.key, ".", 1) == bindparam("hex", type_=Text), ~garbage.c.given_out)
    .with_for_update(skip_locked=True)
    .cte("lost")
)
_BACK = (
    insert(replica)
    .from_select(
        ["blob", "store", "generation", "state", "next_check_at"],
        select(_WHOSE, _LOST.c.store, func.max(_LOST.c.generation), literal("missing"), func.now()).group_by(
            _LOST.c.store
        ),
    )
    .on_conflict_do_nothing()
    .returning(replica.c.store, replica.c.generation)
    .cte("back")
)
_UNDONE = (
    delete(garbage)
    .where(garbage.c.id == _LOST.c.id, _LOST.c.store == _BACK.c.store, _LOST.c.generation == _BACK.c.generation)
    .cte("undone")
)
_TAKE_BACK = (
    update(blob)
    .where(blob.c.sha256 == _WHOSE, exists(select(_BACK.c.store)))
    .values(gc_after=func.coalesce(blob.c.gc_after, func.now()))  # it may be one that no rule asks for
    .add_cte(_UNDONE)
)


def garbage_stores(connection: Connection) -> list[str]:
    return stretches.distinct(connection, garbage.c.store, select(garbage.c.store))


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
    free = locking.lock_free_replicas(connection, due)
    return [sha256 for sha256 in due if sha256 in free]


def _drop_unwanted_variants(connection: Connection, sources: Sequence[bytes]) -> None:
    """Variants that no asset asks for any more; their bytes are due at once."""
    wanted = exists().where(asset_variant.c.variant_id == variant.c.id)
    dropped = connection.execute(
        delete(variant).where(variant.c.source.in_(sources), ~wanted).returning(variant.c.id, variant.c.blob)
    ).all()
    if not dropped:
        return
    connection.execute(delete(failure).where(failure.c.id.in_([row.id for row in dropped])))
    shared = [undecodable.mark(source, frames=frames) for source in sources for frames in (False, True)]
    connection.execute(delete(failure).where(failure.c.id.in_(shared), undecodable.without_variants()))
    outputs = sorted({row.blob for row in dropped if row.blob is not None})
    if outputs:
        connection.execute(
            update(blob).where(blob.c.sha256.in_(outputs), blob.c.gc_after.is_(None)).values(gc_after=func.now())
        )


def states(connection: Connection) -> Mapping[str, StoreState]:
    """Of the stores of which something was said."""
    query = select(store.c.name, store.c.state, store.c.successor)
    return {row.name: StoreState(*row) for row in connection.execute(query)}


REFERENCES = 500
"""In one statement."""
MOST_REFERENCES = 10_000
"""Of one blob. What has more of them stays where it is."""


class ManyReferences(Exception):
    """The blob is held by more assets than one transaction can look at."""


def _drop_surplus(connection: Connection, blobs: Sequence[bytes], needed: Needed) -> set[bytes]:
    """Replicas that no rule names, as long as one that stays is healthy. What was promoted goes another way. Returns
    those that were looked at: once they come to `MOST_REFERENCES` assets, the others are left to the next transaction.
    """
    query = rows.replicas().where(replica.c.blob.in_(blobs), replica.c.promoted_at.is_(None)).order_by(replica.c.blob)
    held: dict[bytes, list[Any]] = {}
    for row in connection.execute(query):
        held.setdefault(row.blob, []).append(row)
    looked_at, read, said = set(blobs), 0, states(connection)
    for sha256, replicas in held.items():
        if len(replicas) < 2:
            continue
        if read >= MOST_REFERENCES:
            looked_at.remove(sha256)
            continue
        facts = rows.to_replica(replicas[0]).blob
        rules = [Held(row.store, row.stands_for or row.store, row.state == "healthy") for row in replicas]
        counted = _Counted(references(connection, sha256))
        try:
            keep = needed(facts, rules, counted, said)
        except ManyReferences:
            continue
        finally:
            read += counted.count
        if any(row.state == "healthy" and row.store in keep for row in replicas):
            for row in replicas:
                if row.store not in keep:
                    discard_replicas(connection, [sha256], row.store)
    return looked_at


class _Counted(Iterator[Reference]):
    def __init__(self, references: Iterator[Reference]) -> None:
        self.count = 0
        self._references = references

    def __next__(self) -> Reference:
        found = next(self._references)
        self.count += 1
        return found


def references(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    """The assets that hold a blob, read as far as they are asked for; one may come several times.

    Raises:
        ManyReferences: when `MOST_REFERENCES` were asked for and there are more.
    """
    left = MOST_REFERENCES
    for reference in chain(_originals(connection, sha256), _shown(connection, sha256)):
        if not left:
            raise ManyReferences
        left -= 1
        yield reference


_FACTS = asset.c.id, asset.c.path_text, asset.c.accepted_at


def _originals(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    query = select(*_FACTS).where(asset.c.blob == sha256).order_by(asset.c.id).limit(REFERENCES)
    return _pages(connection, query, asset.c.id, is_variant=False)


def _shown(connection: Connection, sha256: bytes) -> Iterator[Reference]:
    """Variant by variant: over all of them at once, the holders of each would be read and sorted for every page."""
    variants = select(variant.c.id).where(variant.c.blob == sha256).order_by(variant.c.id).limit(MOST_REFERENCES + 1)
    for variant_id in connection.scalars(variants).all():
        query = select(*_FACTS).join_from(asset_variant, asset, asset.c.id == asset_variant.c.asset_id)
        own = query.where(asset_variant.c.variant_id == variant_id)
        page = own.order_by(asset_variant.c.asset_id).limit(REFERENCES)
        yield from _pages(connection, page, asset_variant.c.asset_id, is_variant=True)


def _pages(
    connection: Connection, page: Select[Any], place: ColumnElement[UUID], *, is_variant: bool
) -> Iterator[Reference]:
    after = UUID(int=0)
    while found := connection.execute(page.where(place > after)).all():
        for row in found:
            yield Reference(row.path_text, is_variant, row.accepted_at)
        if len(found) < REFERENCES:
            return
        after = found[-1].id


def discard_replicas(connection: Connection, blobs: Sequence[bytes], name: str | None = None) -> None:
    """The rows go, and their keys become garbage."""
    chosen = and_(replica.c.blob.in_(blobs), true() if name is None else replica.c.store == name)
    key = func.encode(replica.c.blob, "hex", type_=Text).concat(".").concat(cast(replica.c.generation, Text))
    connection.execute(insert(garbage).from_select(["store", "key"], select(replica.c.store, key).where(chosen)))
    connection.execute(delete(replica).where(chosen))
