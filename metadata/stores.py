"""What is said of stores while everything runs, and which replicas a store has left."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.model import Replica, StoreState
from database.transactions import Database
from metadata import locking, rows, rules
from metadata.blobs import collection, stretches
from metadata.blobs.stretches import Counted
from metadata.rules import Rules
from metadata.schema import blob, garbage, identified_store, replica, store

ABANDONED = 500
"""In one transaction."""


class Stores:
    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self) -> Mapping[str, StoreState]:
        """Return the state of each store of which something was said."""
        return self._database.read(collection.states)

    def set_state(self, wanted: StoreState) -> None:
        """Say what becomes of a store: from the COMMIT on no process begins anything there by what was said before.
        Waits for transactions that are at that just now, and later ones wait for this."""
        self._database.run(_set_state, wanted)

    def is_new(self, name: str) -> bool:
        """Return whether the store has no replica and never had a marker. A replica that is reserved or wanted is in no
        store yet."""
        return self._database.read(_is_new, name)

    def lacks_identity(self, name: str) -> bool:
        """Return whether the store has replicas, though the database never heard that it had a marker."""
        return self._database.read(_lacks_identity, name)

    def identified(self, name: str, own: Rules | None = None) -> None:
        """Note that the store has its marker, and is new no more. Where no rules are in force yet, `own` are from now
        on, and so before anything lies in it by them: a process with other rules that asks first would take that
        away."""
        self._database.run(_identified, name, own)

    def count(self, name: str, after: bytes) -> Counted:
        """Count replicas that are recorded in a store, reserved ones left out, within one stretch."""
        return self._database.read(stretches.count, name, after, true())

    def abandon(self, name: str) -> None:
        """Turn what is reserved and not confirmed in a store that takes nothing new into garbage; the process that
        reserved it plans again."""
        while self._database.run(_abandon, name):
            pass

    def page(self, name: str, after: bytes, limit: int) -> list[Replica]:
        """Return its recorded replicas in the order of their hashes, healthy or not."""
        return self._database.read(_page, name, after, limit)

    def drop(self, leaving: Replica, stays: Replica) -> bool:
        """Drop a replica and make its object garbage, while another one stays healthy and stands for what it stood for.
        False: that one is not healthy, or the first is another by now; nothing changed."""
        return self._database.run(_drop, leaving, stays)


def _identified(connection: Connection, name: str, own: Rules | None) -> None:
    connection.execute(insert(identified_store).values(name=name).on_conflict_do_nothing())
    if own is not None:
        rules.are_in_force(connection, own)


def _set_state(connection: Connection, wanted: StoreState) -> None:
    locking.take_store(connection, wanted.name)
    values = {"state": wanted.state, "successor": wanted.successor, "changed_at": func.now()}
    statement = insert(store).values(name=wanted.name, **values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[store.c.name],
            set_=values,
            where=or_(store.c.state != wanted.state, store.c.successor.is_distinct_from(wanted.successor)),
        )
    )


def _holds(name: str) -> ColumnElement[bool]:
    """Return the condition that the store has a healthy replica, to be looked up by the index: where nearly all of a
    table fits, PostgreSQL would look through it for the first that does."""
    here = select(true()).where(replica.c.store == name, replica.c.state == "healthy")
    return stretches.is_any(here.order_by(replica.c.blob))


def _was_identified(name: str) -> ColumnElement[bool]:
    return exists().where(identified_store.c.name == name)


def _is_new(connection: Connection, name: str) -> bool:
    return not connection.scalar(select(or_(_holds(name), _was_identified(name))))


def _lacks_identity(connection: Connection, name: str) -> bool:
    return bool(connection.scalar(select(and_(_holds(name), ~_was_identified(name)))))


def _abandon(connection: Connection, name: str) -> int:
    """Abandon some reservations, and return how many were looked at. No process reserves there any more, so one that is
    not confirmed when it is locked here never will be."""
    locking.share_stores(connection, [name])
    if not locking.closed_stores(connection, [name]):
        return 0  # it is open again
    reserved = (replica.c.store == name, replica.c.state == "pending")
    found = connection.scalars(select(replica.c.blob).where(*reserved).limit(ABANDONED)).all()
    held = select(blob.c.sha256).where(blob.c.sha256.in_(found)).order_by(blob.c.sha256)
    connection.execute(held.with_for_update(key_share=True)).all()
    left = select(replica.c.blob).where(*reserved, replica.c.blob.in_(found)).order_by(replica.c.blob)
    gone = connection.scalars(left.with_for_update()).all()
    collection.discard_replicas(connection, gone, name)
    connection.execute(update(blob).where(blob.c.sha256.in_(gone)).values(gc_after=func.now()))
    return len(found)


def _page(connection: Connection, name: str, after: bytes, limit: int) -> list[Replica]:
    chosen = select(replica).where(replica.c.store == name, replica.c.state != "pending", replica.c.blob > after)
    return [rows.to_replica(row) for row in connection.execute(rows.page_of_replicas(chosen.limit(limit)))]


def _drop(connection: Connection, leaving: Replica, stays: Replica) -> bool:
    locking.lock_replicas(connection, leaving.blob.sha256)
    heir = and_(
        replica.c.blob == stays.blob.sha256,
        replica.c.store == stays.store,
        replica.c.generation == stays.generation,
        replica.c.state == "healthy",
        replica.c.promoted_at.is_(None),
    )
    if connection.execute(select(replica.c.store).where(heir)).first() is None:
        return False
    dropped = connection.execute(
        delete(replica)
        .where(
            replica.c.blob == leaving.blob.sha256,
            replica.c.store == leaving.store,
            replica.c.generation == leaving.generation,
        )
        .returning(replica.c.stands_for)
    ).one_or_none()
    if dropped is None:
        return False
    connection.execute(insert(garbage).values(store=leaving.store, key=leaving.key))
    if dropped.stands_for not in (None, stays.store):
        free = update(replica).where(heir, replica.c.stands_for.is_(None))
        connection.execute(free.values(stands_for=dropped.stands_for))
    return True
