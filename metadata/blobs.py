"""Blobs, their replicas, and the way in: reserve, put, confirm.

A reservation is a `pending` replica row with a generation that is never given twice. The transaction that first refers
to the blob confirms it (`confirm`), and if gc took the row meanwhile, that changes nothing and is `Superseded`: begin
again. The way out is in metadata/collection.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import (
    BigInteger,
    Connection,
    Interval,
    LargeBinary,
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
from metadata import collection, rows
from metadata.arrays import Rows
from metadata.collection import Garbage, Needed
from metadata.schema import blob, garbage, generation_seq, replica

RENEWED = timedelta(minutes=10)
"""So long a replica that was found missing is left to whoever found it."""


class Blobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, blobs: Sequence[BlobFacts], store: str, grace: timedelta) -> list[Reservation]:
        """A place in `store` for each of the (different) blobs, in their order. A blob that is waiting for gc is spared
        for another `grace`."""
        reserved = self._database.run(_reserve, blobs, store, grace)
        failpoint("reserve.after-commit")
        return reserved

    def renew(self, lost: Replica) -> Reservation:
        """The object of `lost` is missing or wrong: take a new generation and leave the old key to gc. If somebody did
        so already, this returns what there is now. What was confirmed once is repaired if nobody confirms it again."""
        return self._database.run(_renew, lost)

    def placed(self, replicas: Sequence[Replica]) -> None:
        """Their bytes were put, but another store refused its own, so nothing refers to them yet. The next reservation
        says so. One that was missing is healthy again."""
        self._database.run(_placed, replicas)

    def replicas(self, sha256: bytes) -> list[Replica]:
        """The healthy ones."""
        query = rows.replicas().where(replica.c.blob == sha256, replica.c.state == "healthy").order_by(replica.c.store)
        return self._database.read(lambda connection: [rows.to_replica(row) for row in connection.execute(query)])

    def give_up_pending(self, older_than: timedelta, limit: int) -> int:
        """Reservations that nobody confirmed for so long become garbage; returns how many."""
        return self._database.run(collection.give_up_pending, older_than, limit)

    def collect(self, limit: int, needed: Needed) -> int:
        """Turn due blobs that nothing refers to into garbage, in several transactions; returns how many. What they led
        to (the outputs of their variants) goes in the same call. Of those that are referred to, the replicas go that
        `needed` leaves out."""
        collected = 0
        while collected < limit:
            looked, gone = self._database.run(collection.collect, limit - collected, needed)
            failpoint("collect.after-commit")
            collected += gone
            if not looked:
                break
        return collected

    def garbage(self, limit: int, store: str | None = None) -> list[Garbage]:
        """Objects to delete, of one store or of all. Nothing names them and nothing ever will."""
        return self._database.read(collection.garbage_page, limit, store)

    def garbage_stores(self) -> list[str]:
        """Those that have any."""
        return self._database.read(collection.garbage_stores)

    def forget(self, ids: Sequence[int]) -> None:
        """Their objects are deleted."""
        self._database.run(collection.forget, ids)


_ASKED = Rows("asked", column("blob", LargeBinary), column("store", Text), column("generation", BigInteger))
_LOCKED = (
    select(replica.c.blob, replica.c.store)
    .join(_ASKED.table, and_(*(replica.c[name] == _ASKED.c[name] for name in ("blob", "store", "generation"))))
    .order_by(replica.c.blob, replica.c.store)  # in one order everywhere: no deadlocks
    .with_for_update(of=replica, key_share=True)
    .cte("locked")
)
_CONFIRM = (
    update(replica)
    .where(replica.c.blob == _LOCKED.c.blob, replica.c.store == _LOCKED.c.store)
    .values(
        state="healthy",
        # A healthy one was only asked for: that says nothing of its bytes.
        last_verified_at=case((replica.c.state == "healthy", replica.c.last_verified_at), else_=func.now()),
        next_check_at=None,
        failed_checks=0,
        promoted_at=None,  # a rule asks for it from now on
    )
)


def confirm(connection: Connection, replicas: Sequence[Replica]) -> None:
    """Say in this transaction that the objects are there. From here to COMMIT gc leaves the blobs alone.

    Raises:
        Superseded: one of the reservations is gone.
    """
    wanted = {(one.blob.sha256, one.store, one.generation) for one in replicas}
    changed = connection.execute(_CONFIRM, _ASKED.parameters(list(wanted)))
    if changed.rowcount != len(wanted):
        raise Superseded(f"{len(wanted) - changed.rowcount} of {len(wanted)} reservations are gone")


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
    """After Superseded: the objects may have been put after gc deleted their keys, so delete them once more."""
    for one in replicas:
        named = exists().where(
            replica.c.blob == one.blob.sha256,
            replica.c.store == one.store,
            replica.c.generation == one.generation,
        )
        found = select(literal(one.store), literal(one.key)).where(~named)
        connection.execute(insert(garbage).from_select(["store", "key"], found))


_RESERVE_BLOB = insert(blob).on_conflict_do_update(  # locks the row, so that gc cannot take it before we commit
    index_elements=[blob.c.sha256],
    set_={"gc_after": func.greatest(blob.c.gc_after, func.now() + bindparam("grace", type_=Interval))},
    where=blob.c.gc_after.is_not(None),
)
_RESERVE_REPLICA = (
    insert(replica)
    .values(generation=generation_seq.next_value())
    .on_conflict_do_update(index_elements=[replica.c.blob, replica.c.store], set_={"reserved_at": func.now()})
    .returning(replica.c.blob, replica.c.generation, replica.c.state, replica.c.last_verified_at)
)


def _reserve(connection: Connection, blobs: Sequence[BlobFacts], store: str, grace: timedelta) -> list[Reservation]:
    if not blobs:
        return []
    ordered = sorted(blobs, key=lambda facts: facts.sha256)  # in one order everywhere: no deadlocks
    connection.execute(
        _RESERVE_BLOB,
        [{"sha256": one.sha256, "size": one.size, "media_type": one.media_type, "grace": grace} for one in ordered],
    )
    found = connection.execute(
        _RESERVE_REPLICA, [{"blob": one.sha256, "store": store, "state": "pending"} for one in ordered]
    )
    by_hash = {row.blob: row for row in found}
    return [
        Reservation(
            Replica(one, store, by_hash[one.sha256].generation),
            healthy=by_hash[one.sha256].state == "healthy",
            corrupt=by_hash[one.sha256].state == "corrupt",
            placed=by_hash[one.sha256].state == "pending" and by_hash[one.sha256].last_verified_at is not None,
        )
        for one in blobs
    ]


def _renew(connection: Connection, lost: Replica) -> Reservation:
    facts = lost.blob
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
        [reservation] = _reserve(connection, [facts], lost.store, timedelta(0))
        return reservation
    connection.execute(insert(garbage).values(store=lost.store, key=lost.key))
    return Reservation(Replica(facts, lost.store, renewed), healthy=False)
