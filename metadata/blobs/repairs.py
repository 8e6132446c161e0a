"""Replicas that should hold their bytes and do not: wanted in the background, found missing, found corrupt.

Such a row is due at `next_check_at`. A process that takes it pushes that time away, so that several may work side by
side and a dead one is followed; nothing rests on its being alone, as the copy goes under a generation of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Text,
    and_,
    case,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.errors import NotFound, StoreUnavailable, Superseded
from core.model import Replica
from database.transactions import Database
from metadata import locking, rows
from metadata.blobs import blobs, collection, promotion
from metadata.schema import blob, garbage, generation_seq, replica, verify_event
from metadata.unnest import Rows

DUE = ("missing", "corrupt")
LEFT_TO_ITS_WRITER = timedelta(minutes=10)
"""So long repair waits for who has reserved what a rule asks for as well."""

DOUBLINGS = 8
DOUBLINGS_WITHOUT_SOURCE = 12
"""What cannot be repaired before a client or a person brings its bytes must not be tried as often as what can."""

Outcome = Literal["marked", "dropped"]
"""dropped: it was a copy for faster reading. It goes, and the next read may bring another one."""


class Repairs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, found: Replica, state: Literal["missing", "corrupt"], detail: str) -> Outcome | None:
        """Record that a healthy replica was found missing or corrupt. None: it is not the one that is recorded any
        more, or not healthy."""
        return self._database.run(_mark, found, state, detail)

    def due(self, limit: int, lease: timedelta) -> list[Replica]:
        """Return replicas to repair, the longest waiting first; no other process is given them before `lease` has
        passed."""
        return self._database.run(_take, limit, lease)

    def is_any_due(self) -> bool:
        """Return whether there is a replica to repair that no process was given."""
        due = select(replica.c.blob).where(replica.c.state.in_(DUE), replica.c.next_check_at <= func.now())
        return self._database.read(lambda connection: connection.execute(due.limit(1)).first() is not None)

    def begin(self, broken: Replica) -> Replica:
        """Return the place for a new copy: the same replica under a generation that was never used. The old key is
        garbage.

        Raises:
            StoreUnavailable: no other replica is healthy, so the bytes that are there may be the last of their kind.
            Superseded: another process began, or it is healthy or gone by now.
        """
        return self._database.run(_begin, broken)

    def ensure(self, sha256: bytes, store: str, lease: timedelta) -> tuple[Replica, bool]:
        """Return the replica of a blob in a store, wanted from now on if there was none, and whether it is healthy. One
        that is not, be it reserved by an upload that did not end, is left to the caller before `lease` has passed.

        Raises:
            NotFound: the blob is gone.
            StoreUnavailable: the store takes nothing new.
        """
        return self._database.run(_ensure, sha256, store, lease)

    def done(self, repaired: Replica) -> None:
        """Record that the object is in its store.

        Raises:
            Superseded: the replica is another by now; the object is garbage.
        """
        try:
            self._database.run(_done, repaired)
        except Superseded:
            self._database.run(blobs.abandon, [repaired])
            raise

    def verified(self, replica: Replica) -> None:
        """Record that its bytes were read and are right."""
        self._database.run(_verified, replica)

    def failed(self, broken: Replica, detail: str, delay: timedelta) -> None:
        """Record that a repair failed: it is due again after `delay`, twice as long after each further failure, up to
        256 times, or 4,096 where no healthy replica is left. A copy for faster reading is given up after a few
        failures. History hears of the first failure only."""
        self._database.run(_failed, broken, detail, delay)


_WANTED = Rows("wanted", column("blob", LargeBinary), column("store", Text))
_CLOSED = locking.closed(select(_WANTED.c.store))
_NEW = insert(replica).from_select(
    ["blob", "store", "generation", "state", "next_check_at"],
    select(_WANTED.c.blob, _WANTED.c.store, generation_seq.next_value(), literal("missing"), func.now())
    .where(~_CLOSED.exists())
    .order_by(_WANTED.c.blob, _WANTED.c.store),
)
_UNCERTAIN = replica.c.state == "pending"
_ADDED = (
    _NEW.on_conflict_do_update(
        index_elements=[replica.c.blob, replica.c.store],
        set_={
            "promoted_at": None,  # a rule asks for it from now on
            # Whether its writer comes to an end or not.
            "state": case((_UNCERTAIN, "missing"), else_=replica.c.state),
            "next_check_at": case((_UNCERTAIN, func.now() + LEFT_TO_ITS_WRITER), else_=replica.c.next_check_at),
        },
        where=or_(_UNCERTAIN, replica.c.promoted_at.is_not(None)),
    )
    .returning(replica.c.blob, replica.c.store, replica.c.generation)
    .cte("added")
)
_NOTED = (
    insert(verify_event)
    .from_select(["blob", "store", "generation", "result"], select(_ADDED, literal("wanted")))
    .cte("noted")
)
_WANT = _CLOSED.add_cte(_NOTED)


def want(connection: Connection, wanted: Sequence[tuple[bytes, str]]) -> None:
    """Ask these stores to hold these blobs, too; what they have already stays as it is, and is asked for by a rule. The
    caller shares the stores (`locking.share_stores`) and holds the blobs.

    Raises:
        Superseded: one of the stores takes nothing new any more.
    """
    if not wanted:
        return
    if closed := [str(name) for name in connection.scalars(_WANT, _WANTED.parameters(wanted))]:
        raise locking.refused(closed)


def _ensure(connection: Connection, sha256: bytes, name: str, lease: timedelta) -> tuple[Replica, bool]:
    locking.share_stores(connection, [name])
    known = select(blob.c.size).where(blob.c.sha256 == sha256)
    if connection.scalar(known.with_for_update(read=True, key_share=True)) is None:
        raise NotFound("the blob is gone")
    try:
        want(connection, [(sha256, name)])
    except Superseded:
        raise StoreUnavailable(f"{name!r} takes nothing new: say that it is active, or name another store") from None
    connection.execute(
        update(replica)
        .where(replica.c.blob == sha256, replica.c.store == name, replica.c.state.in_(DUE))
        .values(next_check_at=func.now() + lease)
    )
    row = connection.execute(rows.replicas().where(replica.c.blob == sha256, replica.c.store == name)).one()
    return rows.to_replica(row), row.state == "healthy"


def _mark(connection: Connection, found: Replica, state: str, detail: str) -> Outcome | None:
    locking.lock_blob(connection, found.blob.sha256)
    if promotion.discard(connection, and_(_is(found), replica.c.state == "healthy")):
        _note(connection, found, state, detail)
        return "dropped"
    marked = connection.execute(
        update(replica)
        .where(_is(found), replica.c.state == "healthy")
        .values(state=state, next_check_at=func.now(), failed_checks=0)
    )
    if not marked.rowcount:
        return None
    _note(connection, found, state, detail)
    good = select(replica.c.store).where(replica.c.blob == found.blob.sha256, replica.c.state == "healthy")
    if connection.execute(good.limit(1)).first() is None:
        collection.take_back(connection, found.blob.sha256)
    return "marked"


def _take(connection: Connection, limit: int, lease: timedelta) -> list[Replica]:
    due = (
        select(replica.c.blob, replica.c.store)
        .where(replica.c.state.in_(DUE), replica.c.next_check_at <= func.now())
        .order_by(replica.c.next_check_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    taken = (
        update(replica)
        .where(replica.c.blob == due.c.blob, replica.c.store == due.c.store, blob.c.sha256 == replica.c.blob)
        .values(next_check_at=func.now() + lease)
        .returning(*replica.c, blob.c.size, blob.c.media_type)
    )
    return [rows.to_replica(row) for row in connection.execute(taken)]


def _begin(connection: Connection, broken: Replica) -> Replica:
    locking.lock_replicas(connection, broken.blob.sha256)
    sources = select(replica.c.store).where(replica.c.blob == broken.blob.sha256, replica.c.state == "healthy")
    if connection.execute(sources.limit(1)).first() is None:
        raise StoreUnavailable(f"no healthy replica of {broken.key} is left to repair it from")
    generation = connection.scalar(
        update(replica)
        .where(_is(broken), replica.c.state.in_(DUE))
        .values(generation=generation_seq.next_value())
        .returning(replica.c.generation)
    )
    if generation is None:
        raise Superseded(f"{broken.key} in {broken.store} is not to be repaired any more")
    connection.execute(insert(garbage).values(store=broken.store, key=broken.key))
    return Replica(broken.blob, broken.store, generation)


def _done(connection: Connection, repaired: Replica) -> None:
    changed = connection.execute(
        update(replica)
        .where(_is(repaired), replica.c.state.in_(DUE))
        .values(state="healthy", last_verified_at=func.now(), next_check_at=None, failed_checks=0)
        .returning(replica.c.promoted_at)
    ).one_or_none()
    if changed is None:
        raise Superseded(f"{repaired.key} in {repaired.store} is another replica by now")
    if changed.promoted_at is None:  # copies for faster reading come and go, and are no history
        _note(connection, repaired, "repaired", None)


def _verified(connection: Connection, found: Replica) -> None:
    connection.execute(
        update(replica).where(_is(found), replica.c.state == "healthy").values(last_verified_at=func.now())
    )


def _failed(connection: Connection, broken: Replica, detail: str, delay: timedelta) -> None:
    locking.lock_replicas(connection, broken.blob.sha256)
    other = replica.alias("other")
    source = exists().where(other.c.blob == replica.c.blob, other.c.state == "healthy")
    doublings = case((source, DOUBLINGS), else_=DOUBLINGS_WITHOUT_SOURCE)
    changed = connection.execute(
        update(replica)
        .where(replica.c.blob == broken.blob.sha256, replica.c.store == broken.store, replica.c.state.in_(DUE))
        .values(
            next_check_at=func.now() + delay * func.power(2, func.least(replica.c.failed_checks, doublings)),
            failed_checks=replica.c.failed_checks + 1,
        )
        .returning(replica.c.promoted_at, replica.c.failed_checks)
    ).one_or_none()
    if changed is None:
        return
    if changed.promoted_at is None:
        if changed.failed_checks == 1:
            _note(connection, broken, "unrepaired", detail)
    elif changed.failed_checks >= promotion.ATTEMPTS:
        own = and_(replica.c.blob == broken.blob.sha256, replica.c.store == broken.store, replica.c.state.in_(DUE))
        promotion.discard(connection, own)


def _is(one: Replica) -> ColumnElement[bool]:
    return and_(replica.c.blob == one.blob.sha256, replica.c.store == one.store, replica.c.generation == one.generation)


def _note(connection: Connection, of: Replica, result: str, detail: str | None) -> None:
    values = {"blob": of.blob.sha256, "store": of.store, "generation": of.generation, "result": result}
    connection.execute(insert(verify_event).values(detail=detail, **values))
