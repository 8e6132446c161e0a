"""Moving a blob's home in one store to another one, which then stands for it.

A home is a replica that is there because of a rule, so neither a reservation nor a copy for faster reading. A move
makes a replica in the other store that says from the start what it stands for, has it filled, and then drops the first.
Until then the second has no reason to stay while the first is healthy, so a move that no job ends leaves nothing behind
(`leave_to_gc`).

The last step locks the blob and all of its replicas and waits for none of them, exactly as gc does (see
metadata/locking.py), and asks once more whether the references agree. So an upload of the same bytes either has
its replica confirmed before, and keeps the home or finds it gone and begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from core.errors import NotFound, Superseded
from core.failpoints import failpoint
from core.model import Replica, StoreState
from database.transactions import Database
from metadata import locking, rows, rules
from metadata.blobs import collection, references, stretches
from metadata.blobs.collection import Held
from metadata.blobs.references import Reference
from metadata.blobs.stretches import Counted
from metadata.rules import Rules
from metadata.schema import blob, garbage, generation_seq, replica, verify_event


@dataclass(frozen=True, slots=True)
class Filter:
    """What can be said of a home without its assets. None: anything."""

    min_bytes: int | None
    max_bytes: int | None
    media_type: str
    """`*` stands for anything."""
    stored_before: datetime
    read_before: datetime


@dataclass(frozen=True, slots=True)
class Home:
    """A healthy replica that is there because of a rule."""

    replica: Replica
    place: str
    """The store that the rule names: its own, or the one it stands for."""
    stored_at: datetime
    read_at: datetime
    """Or stored, where no reading was written down."""
    others: Sequence[Held]
    """The blob's other homes, also those that are not healthy."""


@dataclass(frozen=True, slots=True)
class Move:
    """The home is to be in `target`, which then stands for `place`. `rule` counts from 1."""

    rule: int
    target: str
    place: str


Choice = Callable[[Home, Iterator[Reference], Mapping[str, StoreState] | None], Move | None]
"""Where a home is to move, seeing what holds its blob and what is said of stores; without that, by what the process
heard lately. Takes no more of the references than it needs. None: it stays."""


class Demotion:
    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, store: str, after: bytes, filters: Sequence[Filter]) -> Counted:
        """Count homes in the store that fit one of the filters, within one stretch."""
        home = and_(_IS_HOME, replica.c.state == "healthy")
        return self._database.read(stretches.count, store, after, and_(home, _fitting(filters)))

    def stretch(self, store: str, after: bytes, length: int) -> bytes | None:
        """Return the last hash of the next `length` replicas of a store, whether they fit or not. None: there is no
        further one."""
        return self._database.read(stretches.end, store, after, length)

    def homes(self, store: str, after: bytes, last: bytes, filters: Sequence[Filter]) -> list[Home]:
        """Return the homes that fit one of the filters, of hashes beyond `after` up to `last`, in their order."""
        return self._database.read(_homes, store, after, last, filters)

    def choose(self, home: Home, choice: Choice) -> Move | None:
        return self._database.read(_chosen, home, choice, None)

    def begin(self, home: Home, move: Move, lease: timedelta) -> tuple[Replica, bool]:
        """Return the replica that is to stand for the home, wanted from now on if there was none, and whether it is
        healthy. One that is not is left to the caller before `lease` has passed.

        Raises:
            NotFound: the blob is gone.
            Superseded: a process is putting it there, or it stands for another store; or the target takes nothing new.
        """
        return self._database.run(_begin, home, move, lease)

    def finish(self, home: Home, stays: Replica, move: Move, choice: Choice, own: Rules) -> bool:
        """Drop the home and make its object garbage, while `stays` is healthy and stands for it. False: one of them is
        another by now, another transaction holds the blob, the choice is another now, or other rules than `own` are in
        force; nothing changed."""
        return self._database.run(_finish, home, stays, move, choice, own)

    def leave_to_gc(self, store: str, after: bytes, last: bytes) -> int:
        """Make gc look soon at blobs of which another replica stands for this store while the store has the bytes
        itself. So goes what a move left that did not end, or that an upload of the same bytes took back."""
        return self._database.run(_leave_to_gc, store, after, last)


_IS_HOME = and_(replica.c.promoted_at.is_(None), replica.c.state != "pending")


def _fitting(filters: Sequence[Filter]) -> ColumnElement[bool]:
    return or_(*(_fits(one) for one in filters))


def _fits(one: Filter) -> ColumnElement[bool]:
    return and_(
        blob.c.created_at <= one.stored_before,
        func.coalesce(blob.c.last_read_at, blob.c.created_at) <= one.read_before,
        true() if one.min_bytes is None else blob.c.size >= one.min_bytes,
        true() if one.max_bytes is None else blob.c.size <= one.max_bytes,
        true() if one.media_type == "*" else blob.c.media_type.like(_like(one.media_type), escape="!"),
    )


def _like(pattern: str) -> str:
    """Return a pattern for LIKE that fits at least what this one fits: the choice looks again."""
    for sign in "!%_":
        pattern = pattern.replace(sign, "!" + sign)
    head, bracket, _ = pattern.partition("[")
    return (head + ("%" if bracket else "")).replace("*", "%").replace("?", "_")


def _candidates(store: str) -> Select[Any]:
    query = rows.replicas().add_columns(blob.c.created_at, blob.c.last_read_at)
    return query.where(replica.c.store == store, _IS_HOME, replica.c.state == "healthy")


def _homes(connection: Connection, store: str, after: bytes, last: bytes, filters: Sequence[Filter]) -> list[Home]:
    query = _candidates(store).where(*stretches.within(store, after, last), _fitting(filters))
    return _with_others(connection, store, connection.execute(query.order_by(replica.c.blob)).all())


def _with_others(connection: Connection, store: str, found: Sequence[Any]) -> list[Home]:
    if not found:
        return []
    others: dict[bytes, list[Held]] = {row.blob: [] for row in found}
    query = select(replica).where(replica.c.blob.in_(others), replica.c.store != store, replica.c.promoted_at.is_(None))
    for row in connection.execute(query):
        others[row.blob].append(Held(row.store, row.stands_for or row.store, row.state == "healthy"))
    return [
        Home(
            rows.to_replica(row),
            row.stands_for or row.store,
            row.created_at,
            row.last_read_at or row.created_at,
            others[row.blob],
        )
        for row in found
    ]


def _begin(connection: Connection, home: Home, move: Move, lease: timedelta) -> tuple[Replica, bool]:
    sha256 = home.replica.blob.sha256
    locking.share_stores(connection, [move.target])
    if closed := locking.closed_stores(connection, [move.target]):
        raise locking.refused(closed)
    known = select(blob.c.size).where(blob.c.sha256 == sha256)
    if connection.scalar(known.with_for_update(read=True, key_share=True)) is None:
        raise NotFound("the blob is gone")
    there = and_(replica.c.blob == sha256, replica.c.store == move.target)
    added = connection.execute(
        insert(replica)
        .values(
            blob=sha256,
            store=move.target,
            generation=generation_seq.next_value(),
            state="missing",
            stands_for=move.place,
            next_check_at=func.now() + lease,
        )
        .on_conflict_do_nothing()
        .returning(replica.c.blob, replica.c.store, replica.c.generation)
    ).one_or_none()
    if added is not None:
        connection.execute(insert(verify_event).values(result="wanted", **added._asdict()))
    else:
        promoted = update(replica).where(there, replica.c.promoted_at.is_not(None))
        connection.execute(promoted.values(promoted_at=None, stands_for=move.place))
        connection.execute(
            update(replica)
            .where(there, replica.c.state.in_(("missing", "corrupt")))
            .values(next_check_at=func.now() + lease)
        )
    row = connection.execute(rows.replicas().where(there)).one_or_none()
    if row is None or row.state == "pending" or row.stands_for not in (None, move.place):
        raise Superseded(f"{move.target} is getting it, or holds it for another store")
    return rows.to_replica(row), row.state == "healthy"


def _finish(connection: Connection, home: Home, stays: Replica, move: Move, choice: Choice, own: Rules) -> bool:
    sha256, store = home.replica.blob.sha256, home.replica.store
    if not locking.lock_free_blob(connection, sha256):
        return False
    leaving = _candidates(store).where(replica.c.blob == sha256, replica.c.generation == home.replica.generation)
    now = _with_others(connection, store, connection.execute(leaving).all())
    heir = and_(
        replica.c.blob == sha256,
        replica.c.store == stays.store,
        replica.c.generation == stays.generation,
        replica.c.state == "healthy",
        replica.c.promoted_at.is_(None),
    )
    if not now or connection.execute(select(replica.c.store).where(heir)).first() is None:
        return False
    if not rules.are_in_force(connection, own):
        return False
    if _chosen(connection, now[0], choice, collection.states(connection)) != move:
        return False
    connection.execute(delete(replica).where(replica.c.blob == sha256, replica.c.store == store))
    connection.execute(insert(garbage).values(store=store, key=home.replica.key))
    connection.execute(update(replica).where(heir).values(stands_for=move.place))
    failpoint("demote.before-commit", home.replica.key)
    return True


def _chosen(connection: Connection, home: Home, choice: Choice, said: Mapping[str, StoreState] | None) -> Move | None:
    """Return where a home is to move. None: it stays, as does what more assets hold than can be looked at."""
    try:
        return choice(home, references.of(connection, home.replica.blob.sha256), said)
    except references.ManyReferences:
        return None


def _leave_to_gc(connection: Connection, store: str, after: bytes, last: bytes) -> int:
    own = replica.alias()
    back = exists().where(
        own.c.blob == replica.c.blob,
        own.c.store == replica.c.stands_for,
        own.c.state == "healthy",
        own.c.promoted_at.is_(None),
    )
    idle = select(replica.c.blob).where(
        replica.c.stands_for == store, replica.c.blob > after, replica.c.blob <= last, back
    )
    due = update(blob).where(blob.c.sha256.in_(idle), blob.c.gc_after.is_(None)).values(gc_after=func.now())
    return connection.execute(due).rowcount
