"""Copies for faster reading: replicas that no rule asks for, in a hot store, within a bound.

The sum of their sizes in a store never passes the bound, however many processes promote: they take turns by a lock in
PostgreSQL. A copy starts as a row that is missing, and the primary key makes it one; repair fills it
(metadata/blobs/repairs.py), and follows a copier that died. A copy goes only while the blob has a healthy replica that
a rule asks for: its row first, and its key is garbage. What lies in a store may pass the bound until that is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

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

from core.model import Replica
from database.transactions import Database
from metadata import locking, rules
from metadata.rules import Rules
from metadata.schema import blob, garbage, generation_seq, promoted_bytes, replica

ATTEMPTS = 3
"""A copy that could not be filled so often is given up."""
EVICTED = 500
"""In one transaction."""
CHANGES = 1000
"""Of the sum over a store that are kept apart."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """Of some blobs to a store."""

    wanted: Sequence[bytes] = field(default_factory=list)
    """Those that are to be copied from now on."""
    there: Sequence[bytes] = field(default_factory=list)
    """Those that have a healthy replica there."""


class Tiers:
    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, blobs: Sequence[bytes], every: timedelta) -> None:
        """Note that these blobs were read just now, where that was not noted for as long as `every`."""
        self._database.run(_read, blobs, every)

    def promote(self, blobs: Sequence[bytes], name: str, *, up_to: int, max_bytes: int) -> Promotion:
        """Ask for copies of these blobs in a store, the first ones first. What was read longest ago makes room; what is
        not filled yet does not, so that a rush evicts no copy before it was read. What finds no room is left out, and
        so is everything while the store is said to take nothing new."""
        there = self._database.read(_there, blobs, name)
        absent = [sha256 for sha256 in blobs if sha256 not in there]
        wanted = self._database.run(_promote, absent, name, up_to, max_bytes) if absent else []
        return Promotion(wanted, [sha256 for sha256, state in there.items() if state == "healthy"])

    def evict(self, name: str, up_to: int, own: Rules) -> int:
        """Bring the copies in a store down to this size; returns how many went. Under other rules than `own`: none."""
        evicted = 0
        while gone := self._database.run(_evict_surplus, name, up_to, own):
            evicted += gone
        return evicted

    def drop(self, one: Replica) -> bool:
        """Drop a copy for faster reading. False: it is no copy that may go."""
        return self._database.run(_drop, one)


def _drop(connection: Connection, one: Replica) -> bool:
    locking.lock_replicas(connection, one.blob.sha256)
    return bool(discard(connection, _is(one)))


def discard(connection: Connection, chosen: ColumnElement[bool]) -> list[bytes]:
    """Drop those of the chosen replicas that are copies for faster reading, while one that a rule asks for is healthy;
    return their blobs. The caller has locked all replicas of these: the one that this rests on, too."""
    gone = connection.execute(
        delete(replica).where(chosen, _may_go()).returning(replica.c.blob, replica.c.store, replica.c.generation)
    ).all()
    if gone:
        keys = [{"store": row.store, "key": f"{row.blob.hex()}.{row.generation}"} for row in gone]
        connection.execute(insert(garbage), keys)
    return [row.blob for row in gone]


def _may_go() -> ColumnElement[bool]:
    other = replica.alias("other")
    asked_for = exists().where(
        other.c.blob == replica.c.blob, other.c.promoted_at.is_(None), other.c.state == "healthy"
    )
    return and_(replica.c.promoted_at.is_not(None), asked_for)


def _is(one: Replica) -> ColumnElement[bool]:
    return and_(replica.c.blob == one.blob.sha256, replica.c.store == one.store, replica.c.generation == one.generation)


def _read(connection: Connection, blobs: Sequence[bytes], every: timedelta) -> None:
    """Note the reading without waiting: for a blob that another transaction holds it is not so important."""
    due = (
        select(blob.c.sha256)
        .where(blob.c.sha256.in_(blobs), or_(blob.c.last_read_at.is_(None), blob.c.last_read_at < func.now() - every))
        .with_for_update(key_share=True, skip_locked=True)
        .cte("due")
    )
    connection.execute(update(blob).where(blob.c.sha256 == due.c.sha256).values(last_read_at=func.now()))
    copies = (
        select(replica.c.blob, replica.c.store)
        .where(replica.c.blob.in_(blobs), replica.c.promoted_at < func.now() - every)
        .with_for_update(key_share=True, skip_locked=True)
        .cte("copies")
    )
    used = update(replica).where(replica.c.blob == copies.c.blob, replica.c.store == copies.c.store)
    connection.execute(used.values(promoted_at=func.now()))


def _there(connection: Connection, blobs: Sequence[bytes], name: str) -> dict[bytes, str]:
    query = select(replica.c.blob, replica.c.state).where(replica.c.blob.in_(blobs), replica.c.store == name)
    return {row.blob: row.state for row in connection.execute(query)}


def _promote(connection: Connection, blobs: Sequence[bytes], name: str, up_to: int, max_bytes: int) -> list[bytes]:
    locking.take_promotions(connection, name)
    locking.share_stores(connection, [name])
    if locking.closed_stores(connection, [name]):
        return []
    sizes = _absent(connection, blobs, name, max_bytes)
    used, unfilled = _used(connection, name)
    chosen = _fitting([sha256 for sha256 in blobs if sha256 in sizes], sizes, up_to - unfilled)
    surplus = used + sum(sizes[sha256] for sha256 in chosen) - up_to
    if surplus > 0:
        used -= sum(_make_room(connection, name, surplus, replica.c.state == "healthy"))
        chosen = _fitting(chosen, sizes, up_to - used)
    if not chosen:
        return []
    added = connection.scalars(
        insert(replica)
        .values(
            generation=generation_seq.next_value(), state="missing", next_check_at=func.now(), promoted_at=func.now()
        )
        .on_conflict_do_nothing()
        .returning(replica.c.blob),
        [{"blob": sha256, "store": name} for sha256 in sorted(chosen)],  # in one order everywhere: no deadlocks
    )
    return list(added)


def _absent(connection: Connection, blobs: Sequence[bytes], name: str, max_bytes: int) -> dict[bytes, int]:
    """Return those of the blobs that are not in the store yet and may be, with their sizes in bytes. Gc cannot take
    them before COMMIT; what it is at already is left out."""
    there = exists().where(replica.c.blob == blob.c.sha256, replica.c.store == name)
    query = select(blob.c.sha256, blob.c.size).where(blob.c.sha256.in_(blobs), blob.c.size <= max_bytes, ~there)
    locked = query.order_by(blob.c.sha256).with_for_update(read=True, key_share=True, skip_locked=True)
    return {row.sha256: row.size for row in connection.execute(locked)}


def _used(connection: Connection, name: str) -> tuple[int, int]:
    """Return the bytes of all copies in a store, and of those that are not filled: the sum of all changes. Within a
    turn, many changes become one."""
    own = promoted_bytes.c.store == name
    sums = [func.coalesce(func.sum(promoted_bytes.c[column]), 0) for column in ("bytes", "unfilled")]
    row = connection.execute(select(*sums, func.count()).where(own)).one()
    if row[2] <= CHANGES:
        return int(row[0]), int(row[1])
    gone = delete(promoted_bytes).where(own).returning(promoted_bytes.c.bytes, promoted_bytes.c.unfilled)
    changes = connection.execute(gone).all()  # maybe more than were summed up
    used, unfilled = sum(row.bytes for row in changes), sum(row.unfilled for row in changes)
    connection.execute(insert(promoted_bytes).values(store=name, bytes=used, unfilled=unfilled))
    return used, unfilled


def _fitting(blobs: Sequence[bytes], sizes: Mapping[bytes, int], room: int) -> list[bytes]:
    chosen = []
    for sha256 in blobs:
        if sizes[sha256] <= room:
            room -= sizes[sha256]
            chosen.append(sha256)
    return chosen


def _evict_surplus(connection: Connection, name: str, up_to: int, own: Rules) -> int:
    locking.take_promotions(connection, name)
    used, _ = _used(connection, name)
    if used <= up_to or not rules.are_in_force(connection, own):
        return 0
    return len(_make_room(connection, name, used - up_to, true()))


def _make_room(connection: Connection, name: str, surplus: int, which: ColumnElement[bool]) -> list[int]:
    """Evict the copies that were read longest ago, as many as the surplus takes, and return their sizes in bytes. A
    copy stays where another transaction holds a replica of its blob. Where there are too many for one transaction the
    rest stays, too: the next one goes on."""
    own = and_(replica.c.store == name, replica.c.promoted_at.is_not(None), which)
    query = select(replica.c.blob, blob.c.size).join(blob, blob.c.sha256 == replica.c.blob).where(own, _may_go())
    sizes: dict[bytes, int] = {}
    for row in connection.execute(query.order_by(replica.c.promoted_at, replica.c.blob).limit(EVICTED)):
        if surplus <= 0:
            break
        sizes[row.blob] = row.size
        surplus -= row.size
    free = locking.lock_free_replicas(connection, sizes)
    return [sizes[sha256] for sha256 in discard(connection, and_(own, replica.c.blob.in_(free)))]
