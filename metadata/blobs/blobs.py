"""Blobs, their replicas, and the way in: reserve, put, confirm.

A reservation is a `pending` replica row with a generation that is never given twice. The transaction that first refers
to the blob confirms it (`CONFIRM`), and if gc took the row meanwhile, or a migration that empties its store, that
changes nothing and is `Superseded`: begin again. The way out is in metadata/blobs/collection.py, the order of locks in
metadata/locking.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Interval,
    LargeBinary,
    Row,
    Text,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.errors import Superseded
from core.failpoints import failpoint
from core.model import BlobFacts, Replica, Reservation
from database.transactions import Database
from metadata import locking, rows
from metadata.blobs import collection
from metadata.blobs.collection import Garbage, Keeping
from metadata.schema import blob, garbage, generation_seq, replica
from metadata.unnest import Rows

Place = tuple[BlobFacts, str]
"""A blob, and a store that shall hold it."""

RENEWED = timedelta(minutes=10)
"""So long a replica that was found missing is left to the process that found it."""


class Blobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, wanted: Sequence[Place], grace: timedelta) -> list[Reservation]:
        """Reserve a place for each of these (different) pairs of a blob and a store, in their order, or for none of
        them. A blob that is waiting for gc is spared for another `grace`.

        Raises:
            Superseded: one of the stores takes nothing new any more: plan again.
        """
        reserved = self._database.write(_reserve, wanted, grace)
        failpoint("reserve.after-commit")
        return reserved

    def renew(self, lost: Replica) -> Reservation:
        """Take a new generation, because the object of `lost` is missing or wrong, and leave the old key to gc. If
        another process did so already, this returns what there is now. What was confirmed once is repaired if no
        process confirms it again.

        Raises:
            Superseded: its store takes nothing new any more: plan again.
        """
        return self._database.run(_renew, lost)

    def placed(self, replicas: Sequence[Replica]) -> None:
        """Note that the bytes were put, but another store refused its own, so nothing refers to them yet. The next
        reservation says so. A replica that was missing is healthy again."""
        self._database.run(_placed, replicas)

    def known(self, hashes: Sequence[bytes]) -> frozenset[bytes]:
        """Return those of the hashes of which there is a blob."""
        query = select(blob.c.sha256).where(blob.c.sha256.in_(hashes))
        return self._database.read(lambda connection: frozenset(connection.scalars(query)))

    def replicas(self, sha256: bytes) -> list[Replica]:
        """Return the healthy replicas of a blob."""
        query = rows.replicas().where(replica.c.blob == sha256, replica.c.state == "healthy").order_by(replica.c.store)
        return self._database.read(lambda connection: [rows.to_replica(row) for row in connection.execute(query)])

    def give_up_pending(self, older_than: timedelta, limit: int) -> int:
        """Turn reservations that no process confirmed for `older_than` into garbage; return how many."""
        return self._database.run(collection.give_up_pending, older_than, limit)

    def collect(self, limit: int, keeping: Keeping) -> int:
        """Turn due blobs that nothing refers to into garbage, in several transactions; returns how many. What they led
        to (the outputs of their variants) goes in the same call. Of those that are referred to, the replicas go that
        `keeping` leaves out."""
        collected = 0
        while collected < limit:
            looked, gone = self._database.run(collection.collect, limit - collected, keeping)
            failpoint("collect.after-commit")
            collected += gone
            if not looked:
                break
        return collected

    def garbage(self, limit: int, store: str | None = None) -> list[Garbage]:
        """Return objects to delete, of one store or of all. Nothing names them, and from now on nothing ever will."""
        return self._database.write(collection.give_out, limit, store)

    def garbage_stores(self) -> list[str]:
        """Return the names of the stores that have garbage."""
        return self._database.read(collection.garbage_stores)

    def forget(self, ids: Sequence[int]) -> None:
        """Delete these rows of garbage, whose objects are deleted."""
        self._database.run(collection.forget, ids)


def _after(step: CTE) -> ColumnElement[bool]:
    """True, once all of `step` is done: what PostgreSQL does first within a statement is left to it otherwise."""
    return select(func.count()).select_from(step).scalar_subquery() >= 0


_ASKED = Rows("asked", column("blob", LargeBinary), column("store", Text), column("generation", BigInteger))
_HELD = (
    select(blob.c.sha256)
    .where(blob.c.sha256.in_(select(_ASKED.c.blob)))
    .order_by(blob.c.sha256)
    .with_for_update(key_share=True)
    .cte("held")
)
_LOCKED = (
    select(replica.c.blob, replica.c.store)
    .join(_ASKED.table, and_(*(replica.c[name] == _ASKED.c[name] for name in ("blob", "store", "generation"))))
    .where(_after(_HELD))
    .order_by(replica.c.blob, replica.c.store)
    .with_for_update(of=replica)
    .cte("locked")
)
CONFIRM = (
    update(replica)
    .where(replica.c.blob == _LOCKED.c.blob, replica.c.store == _LOCKED.c.store)
    .where(replica.c.state != "corrupt")  # found so since: its writer has the right bytes, and takes another key
    .values(
        state="healthy",
        # A healthy one was only asked for: that says nothing of its bytes.
        last_verified_at=case((replica.c.state == "healthy", replica.c.last_verified_at), else_=func.now()),
        next_check_at=None,
        failed_checks=0,
        promoted_at=None,  # a rule asks for it from now on
    )
)
"""Says in this transaction that the objects are there. From here to COMMIT gc leaves the blobs alone."""

CONFIRMED = (
    select(func.count())
    .select_from(replica)
    .join(_ASKED.table, and_(*(replica.c[name] == _ASKED.c[name] for name in ("blob", "store", "generation"))))
    .where(replica.c.state == "healthy")
    .scalar_subquery()
)
"""In a later statement of the transaction: how many it confirmed. `require_all` is asked whether that is right."""


def asked(replicas: Sequence[Replica]) -> dict[str, Any]:
    """Return the parameters of `CONFIRM` and `CONFIRMED`."""
    return _ASKED.parameters(list({(one.blob.sha256, one.store, one.generation) for one in replicas}))


def require_all(confirmed: int, replicas: Sequence[Replica]) -> None:
    """
    Raises:
        Superseded: one of the reservations is gone.
    """
    wanted = len({(one.blob.sha256, one.store, one.generation) for one in replicas})
    if confirmed != wanted:
        raise Superseded(f"{wanted - confirmed} of {wanted} reservations are gone")


_PLACED = (
    update(replica)
    .where(replica.c.blob == _LOCKED.c.blob, replica.c.store == _LOCKED.c.store)
    .where(replica.c.state.in_(["pending", "missing"]))
    .values(
        state=case((replica.c.state == "missing", "healthy"), else_=replica.c.state),
        last_verified_at=func.now(),
        next_check_at=None,
        failed_checks=0,
    )
)


def _placed(connection: Connection, replicas: Sequence[Replica]) -> None:
    wanted = {(one.blob.sha256, one.store, one.generation) for one in replicas}
    connection.execute(_PLACED, _ASKED.parameters(list(wanted)))


def abandon(connection: Connection, replicas: Sequence[Replica]) -> None:
    """Turn the objects into garbage once more after Superseded: they may have been put after gc deleted their keys."""
    locking.settle_names(connection)
    for one in replicas:
        named = exists().where(
            replica.c.blob == one.blob.sha256,
            replica.c.store == one.store,
            replica.c.generation == one.generation,
        )
        found = select(literal(one.store), literal(one.key)).where(~named)
        connection.execute(insert(garbage).from_select(["store", "key"], found))


_BLOBS = Rows("blobs", column("sha256", LargeBinary), column("size", BigInteger), column("media_type", Text))
_PLACES = Rows("places", column("blob", LargeBinary), column("store", Text))
_CLOSED = locking.closed(select(_PLACES.c.store)).exists()
_RESERVED_BLOBS = (
    insert(blob)
    .from_select(
        ["sha256", "size", "media_type"],
        select(_BLOBS.c.sha256, _BLOBS.c.size, _BLOBS.c.media_type).where(~_CLOSED).order_by(_BLOBS.c.sha256),
    )
    .on_conflict_do_update(  # locks the row, so that gc cannot take it before we commit
        index_elements=[blob.c.sha256],
        set_={"gc_after": func.greatest(blob.c.gc_after, func.now() + bindparam("grace", type_=Interval))},
        where=blob.c.gc_after.is_not(None),
    )
    .returning(blob.c.sha256)
    .cte("reserved_blobs")
)
_RESERVE = (
    insert(replica)
    .from_select(
        ["blob", "store", "generation", "state"],
        select(_PLACES.c.blob, _PLACES.c.store, generation_seq.next_value(), literal("pending"))
        .where(~_CLOSED, _after(_RESERVED_BLOBS))
        .order_by(_PLACES.c.blob, _PLACES.c.store),
    )
    .on_conflict_do_update(index_elements=[replica.c.blob, replica.c.store], set_={"reserved_at": func.now()})
    .returning(replica.c.blob, replica.c.store, replica.c.generation, replica.c.state, replica.c.last_verified_at)
)


def _reserve(connection: Connection, wanted: Sequence[Place], grace: timedelta) -> list[Reservation]:
    """Reserve in one message, which is a transaction by itself: the lock on the stores goes along and ends with it."""
    if not wanted:
        return []
    stores = {name for _, name in wanted}
    locking.share_stores(connection, stores)
    blobs = {(one.sha256, one.size, one.media_type) for one, _ in wanted}
    places = [(one.sha256, name) for one, name in wanted]
    given = {**_BLOBS.parameters(list(blobs)), **_PLACES.parameters(places), "grace": grace}
    found = {(row.blob, row.store): row for row in connection.execute(_RESERVE, given)}
    if not found:
        raise locking.refused(locking.closed_stores(connection, stores) or stores)  # one may be open again by now
    return [_reservation(one, name, found[one.sha256, name]) for one, name in wanted]


def _reservation(one: BlobFacts, name: str, row: Row[Any]) -> Reservation:
    replica = Replica(one, name, row.generation)
    return Reservation(
        replica,
        healthy=row.state == "healthy",
        corrupt=row.state == "corrupt",
        placed=row.state == "pending" and row.last_verified_at is not None,
    )


def _renew(connection: Connection, lost: Replica) -> Reservation:
    facts = lost.blob
    locking.share_stores(connection, [lost.store])
    if closed := locking.closed_stores(connection, [lost.store]):
        raise locking.refused(closed)
    renewed = connection.execute(
        update(replica)
        .where(replica.c.blob == facts.sha256, replica.c.store == lost.store, replica.c.generation == lost.generation)
        .values(
            generation=generation_seq.next_value(),
            state=case((replica.c.state == "pending", "pending"), else_="missing"),
            reserved_at=func.now(),
            last_verified_at=None,
            next_check_at=func.now() + RENEWED,
        )
        .returning(replica.c.generation)
    ).scalar()
    if renewed is None:
        [reservation] = _reserve(connection, [(facts, lost.store)], timedelta(0))
        return reservation
    connection.execute(insert(garbage).values(store=lost.store, key=lost.key))
    return Reservation(Replica(facts, lost.store, renewed), healthy=False)
