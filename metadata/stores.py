"""What is said of stores while everything runs, and which replicas a store has left."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, exists, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from core.model import Replica, StoreState
from database.transactions import Database
from metadata import rows, stretches
from metadata.schema import blob, garbage, replica, store
from metadata.stretches import Counted


class Stores:
    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self) -> Mapping[str, StoreState]:
        """Of the stores of which something was said."""
        query = select(store.c.name, store.c.state, store.c.successor)
        return self._database.read(lambda connection: {row.name: StoreState(*row) for row in connection.execute(query)})

    def set_state(self, wanted: StoreState) -> float:
        """Returns for how many seconds that has been said already."""
        return self._database.run(_set_state, wanted)

    def count(self, name: str, after: bytes) -> Counted:
        """Replicas that are recorded in a store, reserved ones left out, within one stretch."""
        return self._database.read(stretches.count, name, after, true())

    def reserved(self, name: str, seconds: float) -> int:
        """Replicas that somebody began to put there in the last `seconds` and did not confirm."""
        return self._database.read(_reserved, name, seconds)

    def page(self, name: str, after: bytes, limit: int) -> list[Replica]:
        """Its recorded replicas in the order of their hashes, healthy or not."""
        return self._database.read(_page, name, after, limit)

    def drop(self, leaving: Replica, stays: Replica) -> bool:
        """The replica goes, and its object is garbage, while another one stays healthy and stands for what it stood
        for. False: that one is not, or the first is another by now; nothing changed."""
        return self._database.run(_drop, leaving, stays)


def _set_state(connection: Connection, wanted: StoreState) -> float:
    values = {"state": wanted.state, "successor": wanted.successor, "changed_at": func.now()}
    statement = insert(store).values(name=wanted.name, **values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[store.c.name],
            set_=values,
            where=or_(store.c.state != wanted.state, store.c.successor.is_distinct_from(wanted.successor)),
        )
    )
    since = select(func.extract("epoch", func.now() - store.c.changed_at)).where(store.c.name == wanted.name)
    return float(connection.scalar(since) or 0)


def _reserved(connection: Connection, name: str, seconds: float) -> int:
    lately = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    query = select(func.count()).select_from(replica)
    query = query.where(replica.c.store == name, replica.c.state == "pending", replica.c.reserved_at > lately)
    return int(connection.scalar(query) or 0)


def _page(connection: Connection, name: str, after: bytes, limit: int) -> list[Replica]:
    query = rows.replicas().where(replica.c.store == name, replica.c.state != "pending", replica.c.blob > after)
    return [rows.to_replica(row) for row in connection.execute(query.order_by(replica.c.blob).limit(limit))]


def _drop(connection: Connection, leaving: Replica, stays: Replica) -> bool:
    held = select(replica.c.state).where(
        replica.c.blob == stays.blob.sha256,
        replica.c.store == stays.store,
        replica.c.generation == stays.generation,
        replica.c.promoted_at.is_(None),
    )
    if connection.scalar(held.with_for_update(read=True, key_share=True)) != "healthy":
        return False
    dropped = connection.execute(
        delete(replica)
        .where(
            replica.c.blob == leaving.blob.sha256,
            replica.c.store == leaving.store,
            replica.c.generation == leaving.generation,
            exists().where(blob.c.sha256 == replica.c.blob),
        )
        .returning(replica.c.stands_for)
    ).one_or_none()
    if dropped is None:
        return False
    connection.execute(insert(garbage).values(store=leaving.store, key=leaving.key))
    if dropped.stands_for not in (None, stays.store):
        heir = update(replica).where(replica.c.blob == stays.blob.sha256, replica.c.store == stays.store)
        heir = heir.where(replica.c.stands_for.is_(None), replica.c.promoted_at.is_(None))
        connection.execute(heir.values(stands_for=dropped.stands_for))
    return True
