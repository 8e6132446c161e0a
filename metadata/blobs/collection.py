"""The way out: what nothing refers to becomes rows of `garbage`, and only those name objects to delete.

It waits neither for a blob nor for a replica (metadata/locking.py). Who is about to refer to a blob holds a lock on it
until COMMIT (`blobs.CONFIRM`, `variants.want`): such a blob is skipped. Who comes after our lock finds its replica row
gone. References are counted, and what is said of stores is read, only under the locks, in statements of their own, so
that they see everything committed before them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
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
from metadata import locking, rows, rules
from metadata.blobs import references, stretches, undecodable
from metadata.blobs.references import ManyReferences, Reference
from metadata.rules import Rules
from metadata.schema import asset, asset_variant, blob, deleted_object, failure, garbage, replica, store, variant

LEFT_TO_OTHERS = timedelta(minutes=5)
"""So long a worker with other rules than those in force looks at nothing that it may not decide."""


@dataclass(frozen=True, slots=True)
class Garbage:
    id: int
    store: str
    key: str


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


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a process has to say of replicas that are in question: its rules, and what follows from them."""

    rules: Rules
    needed: Needed


REFERRING = asset.c.blob, variant.c.source, variant.c.blob


def collect(connection: Connection, limit: int, keeping: Keeping) -> tuple[int, int]:
    """Collect due blobs; return how many were looked at, and how many of them are gone now. What nothing refers to goes
    under any rules; where others than these are in force, they alone decide of what is referred to."""
    due = _lock_due(connection, limit)
    if not due:
        return 0, 0
    _drop_unwanted_variants(connection, due)
    referred = set(
        connection.scalars(
            select(blob.c.sha256).where(
                blob.c.sha256.in_(due),
                or_(*(stretches.is_any(select(true()).where(blob.c.sha256 == one)) for one in REFERRING)),
            )
        )
    )
    if referred:
        mine = rules.are_in_force(connection, keeping.rules)
        settled = _drop_surplus(connection, sorted(referred), keeping.needed) if mine else _single(connection, referred)
        connection.execute(update(blob).where(blob.c.sha256.in_(settled)).values(gc_after=None))
        if not mine:
            others = update(blob).where(blob.c.sha256.in_(referred - settled))
            connection.execute(others.values(gc_after=func.now() + LEFT_TO_OTHERS))
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
    """Turn this blob's garbage that was not given out back into missing replicas, because no good replica is left: they
    may be read again, and are due for that. The caller holds the blob (`locking.lock_blob`).

    It shares no store's lock: what may be the last of its kind comes back wherever it lies, as in catching up, also in
    a store that takes nothing new, where another migration finds it."""
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
    """Delete these rows of garbage, and remember which they were in the same statement: a store may come back from an
    older copy."""
    gone = delete(garbage).where(garbage.c.id.in_(ids)).returning(garbage.c.store, garbage.c.key).cte("gone")
    generation = cast(func.split_part(gone.c.key, ".", 2), BigInteger)
    noted = insert(deleted_object).from_select(["generation", "store"], select(generation, gone.c.store))
    connection.execute(noted.on_conflict_do_nothing())


def _lock_due(connection: Connection, limit: int) -> list[bytes]:
    """Lock due blobs that no other transaction holds, with all their replicas; return their hashes."""
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
    """Delete variants that no asset asks for any more; their bytes are due at once."""
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
    """Return the state of each store of which something was said."""
    query = select(store.c.name, store.c.state, store.c.successor)
    return {row.name: StoreState(*row) for row in connection.execute(query)}


def _single(connection: Connection, blobs: Collection[bytes]) -> set[bytes]:
    """Return those of the blobs of which no rule could drop a replica."""
    several = select(replica.c.blob).where(replica.c.blob.in_(blobs), replica.c.promoted_at.is_(None))
    return {*blobs} - set(connection.scalars(several.group_by(replica.c.blob).having(func.count() > 1)))


def _drop_surplus(connection: Connection, blobs: Sequence[bytes], needed: Needed) -> set[bytes]:
    """Drop replicas that no rule names, as long as one that stays is healthy. What was promoted goes another way.
    Return the blobs that were looked at: once they come to `references.MOST` assets, the others are left to the next
    transaction."""
    query = rows.replicas().where(replica.c.blob.in_(blobs), replica.c.promoted_at.is_(None)).order_by(replica.c.blob)
    held: dict[bytes, list[Any]] = {}
    for row in connection.execute(query):
        held.setdefault(row.blob, []).append(row)
    looked_at, read, said = set(blobs), 0, states(connection)
    for sha256, replicas in held.items():
        if len(replicas) < 2:
            continue
        if read >= references.MOST:
            looked_at.remove(sha256)
            continue
        facts = rows.to_replica(replicas[0]).blob
        places = [Held(row.store, row.stands_for or row.store, row.state == "healthy") for row in replicas]
        counted = _Counted(references.of(connection, sha256))
        try:
            keep = needed(facts, places, counted, said)
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


def discard_replicas(connection: Connection, blobs: Sequence[bytes], name: str | None = None) -> None:
    """Delete replicas of these blobs, in one store or in all, and make their keys garbage."""
    chosen = and_(replica.c.blob.in_(blobs), true() if name is None else replica.c.store == name)
    key = func.encode(replica.c.blob, "hex", type_=Text).concat(".").concat(cast(replica.c.generation, Text))
    connection.execute(insert(garbage).from_select(["store", "key"], select(replica.c.store, key).where(chosen)))
    connection.execute(delete(replica).where(chosen))
