"""What a database needs that was restored from a backup beside stores that went on: they hold objects of generations
that it has not given out, and lack objects that it names.

A key is never used twice, so the sequence goes beyond everything that was ever found. An object that no row names may
be taken for a blob that has none in that store; gc, which removes such objects, is kept away by a lock that both hold
to their COMMIT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from sqlalchemy import Connection, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from core.model import BlobFacts, Replica
from database.transactions import Database
from metadata import locking, rows
from metadata.schema import blob, garbage, replica, verify_event

MARGIN = 1 << 20
"""`setval` after a look at the sequence is no atomic step, and reservations may go on meanwhile: not so many."""
LEFT_ALONE = timedelta(minutes=10)
"""So long the repair of replicas leaves one that is being taken to whoever takes it."""


class Restored:
    def __init__(self, database: Database) -> None:
        self._database = database

    def go_beyond(self, generation: int) -> int:
        """No generation up to this one is given out from now on; returns the last one that counts as given."""
        return self._database.run(_go_beyond, generation)

    def known(self, hashes: Collection[bytes]) -> Mapping[bytes, BlobFacts]:
        """Those that there are blobs of."""
        query = select(blob.c.sha256, blob.c.size, blob.c.media_type).where(blob.c.sha256.in_(hashes))
        return self._database.read(
            lambda connection: {row.sha256: BlobFacts(*row) for row in connection.execute(query)}
        )

    def held(self, store: str, hashes: Collection[bytes]) -> Mapping[bytes, Replica]:
        """Their replicas in this store, in whatever state."""
        query = rows.replicas().where(replica.c.store == store, replica.c.blob.in_(hashes))
        return self._database.read(
            lambda connection: {row.blob: rows.to_replica(row) for row in connection.execute(query)}
        )

    def take(self, found: Replica, instead: Replica | None, grace: timedelta) -> bool:
        """An object that no row names is the blob's replica in its store from now on, still to be confirmed by
        `repairs.done`; `instead` of one whose object is not there. After `grace` gc looks whether a rule asks for it.
        False: something names it by now, the blob is gone, or its replica is another; or its store takes nothing new,
        and another one has a good copy: the last one is taken wherever it lies."""
        return self._database.run(_take, found, instead, grace)


def _go_beyond(connection: Connection, generation: int) -> int:
    raised = text(
        "SELECT setval('generation_seq', greatest(last_value, :generation) + :margin) FROM generation_seq"
        " WHERE last_value < :generation OR NOT is_called"
    )
    connection.execute(raised, {"generation": generation, "margin": MARGIN})
    return int(connection.scalar(text("SELECT last_value FROM generation_seq")) or 0)


def _take(connection: Connection, found: Replica, instead: Replica | None, grace: timedelta) -> bool:
    locking.settle_names(connection)
    locking.share_stores(connection, [found.store])
    sha256 = found.blob.sha256
    spared = (
        update(blob)
        .where(blob.c.sha256 == sha256, blob.c.size == found.blob.size)
        .values(gc_after=func.coalesce(blob.c.gc_after, func.now() + grace))
    )
    if not connection.execute(spared).rowcount or _is_named(connection, found):
        return False
    if locking.closed_stores(connection, [found.store]) and _has_another(connection, found):
        return False
    values = {"generation": found.generation, "state": "missing", "next_check_at": func.now() + LEFT_ALONE}
    if instead is None:
        statement = insert(replica).values(blob=sha256, store=found.store, **values)
        taken = connection.execute(statement.on_conflict_do_nothing().returning(replica.c.blob)).first()
    else:
        same = (replica.c.blob == sha256, replica.c.store == found.store, replica.c.generation == instead.generation)
        statement = update(replica).where(*same).values(last_verified_at=None, **values)  # type: ignore[assignment]  # another statement
        taken = connection.execute(statement.returning(replica.c.blob)).first()
        if taken is not None:
            connection.execute(insert(garbage).values(store=instead.store, key=instead.key))
    if taken is None:
        return False
    event = {"blob": sha256, "store": found.store, "generation": found.generation}
    connection.execute(insert(verify_event).values(result="wanted", detail="found in its store", **event))
    return True


def _has_another(connection: Connection, found: Replica) -> bool:
    """Another store has a good copy, which stays good until COMMIT."""
    locking.lock_replicas(connection, found.blob.sha256)
    good = (replica.c.blob == found.blob.sha256, replica.c.store != found.store, replica.c.state == "healthy")
    return bool(connection.scalar(select(exists().where(*good, replica.c.promoted_at.is_(None)))))


def _is_named(connection: Connection, found: Replica) -> bool:
    as_replica = exists().where(
        replica.c.blob == found.blob.sha256, replica.c.store == found.store, replica.c.generation == found.generation
    )
    as_garbage = exists().where(garbage.c.store == found.store, garbage.c.key == found.key)
    return bool(connection.scalar(select(as_replica | as_garbage)))
