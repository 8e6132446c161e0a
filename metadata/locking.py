"""The one order in which transactions take locks, and the ways to take them.

    1. an asset: its id (advisory), then its row
    2. turns (advisory): of who decides about objects that nothing names, of who promotes to one store
    3. stores (advisory): shared by who begins anything new there, alone for who says what becomes of the store
    4. blobs, in the order of their hashes
    5. replicas, in the order of their hashes and stores
    6. variants, who shows them, failures; garbage
    7. the counter of a path
    8. the rules in force: shared by who removes a replica by them; who changes them holds nothing else

Who decides by a row has locked it before, and reads it after that: a statement sees nothing that was committed after
it began, so locks are taken in one statement and rows are read in a later one, which may travel in the same message
(`with_next`). Who will write a row locks it for that
at once: two who share a lock and then both want more wait for each other. Gc, moves and evictions go against the
stream of writers: they wait for no row (`SKIP LOCKED`), and leave what another transaction holds.

Stores are locked by name, so they need no row, and in PostgreSQL's own lock table, whose waiters stand in a queue: no
other transaction overtakes one that wants a store alone. Row locks have no such queue, and sharers who come and go
would keep such a one waiting for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    column,
    func,
    select,
    text,
)

from core.errors import Superseded
from database.session import with_next
from metadata.schema import blob, replica, store

_STORES = 0x73746F72
"""A key space apart from those of asset ids and of migrations: "stor"."""


def store_keys(names: Collection[str]) -> list[int]:
    """Return the keys of these stores in the order in which they are to be locked. Stores that share a key by chance
    share a lock, which does no harm."""
    hashes = (hashlib.sha256(name.encode()).digest() for name in names)
    return sorted({int.from_bytes(digest[:4], "big", signed=True) for digest in hashes})


_NAMES_ARE_SETTLED = text("SELECT pg_advisory_xact_lock(hashtext('millrace unnamed objects'))")
_KEYS = (
    func.unnest(cast(bindparam("store_keys"), ARRAY(Integer)))
    .table_valued(column("key", Integer), name="wanted")
    .render_derived()
)
_SHARED = select(func.pg_advisory_xact_lock_shared(_STORES, _KEYS.c.key)).select_from(_KEYS)


def settle_names(connection: Connection) -> None:
    """Keep other transactions until COMMIT from deciding about objects that nothing names."""
    with_next(connection, _NAMES_ARE_SETTLED)


def take_promotions(connection: Connection, name: str) -> None:
    """Keep other transactions until COMMIT from promoting to this store, and from evicting what is too much."""
    key = int.from_bytes(hashlib.sha256(f"promote:{name}".encode()).digest()[:8], "big", signed=True)
    with_next(connection, select(func.pg_advisory_xact_lock(key)))


def share_stores(connection: Connection, names: Collection[str]) -> None:
    """Keep other transactions until COMMIT from saying anything else of these stores."""
    if names:
        with_next(connection, _SHARED, {"store_keys": store_keys(names)})


def take_store(connection: Connection, name: str) -> None:
    """Wait until what transactions began in this store has ended, and keep others from beginning anything until
    COMMIT."""
    [key] = store_keys([name])
    with_next(connection, select(func.pg_advisory_xact_lock(_STORES, key)))


def closed(names: Select[tuple[str]]) -> Select[tuple[str]]:
    """Select those of these stores that take nothing new."""
    return select(store.c.name).where(store.c.name.in_(names), store.c.state != "active").order_by(store.c.name)


_NAMES = (
    func.unnest(cast(bindparam("names"), ARRAY(Text)))
    .table_valued(column("name", Text), name="wanted")
    .render_derived()
)
_CLOSED = closed(select(_NAMES.c.name))


def closed_stores(connection: Connection, names: Collection[str]) -> list[str]:
    """Return those of these stores that take nothing new. To be believed where `share_stores` came before."""
    return list(connection.scalars(_CLOSED, {"names": sorted(names)}))


def refused(names: Collection[str]) -> Superseded:
    return Superseded(f"{', '.join(sorted(names))} takes nothing new any more: plan again")


def lock_replicas(connection: Connection, sha256: bytes) -> None:
    """Lock all replicas of a blob, for any change of them."""
    own = select(replica.c.store).where(replica.c.blob == sha256).order_by(replica.c.store)
    with_next(connection, own.with_for_update())


def lock_blob(connection: Connection, sha256: bytes) -> None:
    """Lock a blob and all its replicas."""
    with_next(connection, select(blob.c.sha256).where(blob.c.sha256 == sha256).with_for_update(key_share=True))
    lock_replicas(connection, sha256)


def lock_free_replicas(connection: Connection, blobs: Collection[bytes]) -> set[bytes]:
    """Lock, without waiting, all replicas of those blobs of which no other transaction holds one; return these
    blobs."""
    own = select(replica.c.blob, replica.c.store).where(replica.c.blob.in_(blobs))
    everything = connection.execute(own).all()
    free = set(connection.execute(own.with_for_update(skip_locked=True)).all())
    return set(blobs) - {row.blob for row in everything if row not in free}


def lock_free_blob(connection: Connection, sha256: bytes) -> bool:
    """Lock the blob and its replicas without waiting. False: another transaction holds one of them, or the blob is
    gone."""
    own = select(blob.c.sha256).where(blob.c.sha256 == sha256)
    if connection.execute(own.with_for_update(skip_locked=True)).first() is None:
        return False
    return sha256 in lock_free_replicas(connection, [sha256])
