"""What the database knows of stores, for comparing it with what they hold.

Reading changes nothing. The one write is `discard`: it names objects as garbage that nothing names and nothing ever
can, because their generation was given out before and no replica has it. Only catching up after a restore takes such
an object, under the same lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    cast,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert
from uuid_utils.compat import uuid7

from core.model import BlobFacts, Replica
from database.transactions import Database
from metadata import locking, rows
from metadata.blobs import stretches
from metadata.blobs.lost_originals import SICK
from metadata.blobs.stretches import Counted
from metadata.schema import asset, asset_variant, deleted_object, garbage, installation, replica, variant
from metadata.unnest import Rows

Named = tuple[bytes, int]
"""A hash and a generation: what the key of an object says."""

Place = tuple[datetime | None, bytes, str]
"""Of a replica among those that were not read lately: when it was read last, its blob, its store."""

PATHS = 3


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A blob of which no store has a good copy. What there is of it is kept."""

    blob: BlobFacts
    states: Mapping[str, str]
    """Of its replica in each store."""
    paths: Sequence[str]
    """A few assets that need it."""


class Inventory:
    def __init__(self, database: Database) -> None:
        self._database = database

    def installation(self) -> UUID | None:
        """Return the id of this database's installation. None: no process asked for it to have one."""
        return self._database.read(lambda connection: connection.scalar(select(installation.c.id)))

    def make_installation(self) -> UUID:
        """Return the id of this database's installation, given now if it has none."""
        return self.installation() or self._database.run(_make_installation)

    def stores(self) -> Sequence[str]:
        """Return the stores that any replica names."""
        named = select(replica.c.store).where(replica.c.state != "pending")
        return self._database.read(stretches.distinct, replica.c.store, named)

    def count(self, store: str, after: bytes) -> Counted:
        """Count replicas that are said to be healthy, within one stretch."""
        return self._database.read(stretches.count, store, after, replica.c.state == "healthy")

    def healthy(self, store: str, after: bytes, limit: int) -> list[Replica]:
        """Return healthy replicas in the order of their hashes."""
        chosen = select(replica).where(replica.c.store == store, replica.c.state == "healthy", replica.c.blob > after)
        return self._replicas(rows.page_of_replicas(chosen.limit(limit)))

    def stale(self, stores: Sequence[str], before: datetime, limit: int, after: Place | None = None) -> list[Replica]:
        """Return healthy replicas whose bytes were not read since `before`, the oldest first. `after` leads past those
        that stay so."""
        if not stores:
            return []
        found = [one for name in stores for one in _oldest(name, before, limit, after)]
        place = union_all(*(select(one.subquery()) for one in found)).subquery("place")
        order = place.c.last_verified_at.nulls_first(), place.c.blob, place.c.store
        page = select(place).order_by(*order).limit(limit).subquery("page")
        query = rows.of_page(page)
        return self._replicas(query.order_by(page.c.last_verified_at.nulls_first(), page.c.blob, page.c.store))

    def sick(self, stores: Sequence[str], after: tuple[bytes, str], limit: int) -> list[Replica]:
        """Return missing and corrupt replicas, in the order of their hashes and stores. Copies for faster reading are
        no loss."""
        chosen = select(replica).where(SICK, replica.c.store.in_(stores))
        chosen = chosen.where(tuple_(replica.c.blob, replica.c.store) > tuple_(literal(after[0]), literal(after[1])))
        return self._replicas(rows.page_of_replicas(chosen.limit(limit)))

    def is_sick(self, one: Replica) -> bool:
        """Return whether the blob's replica in this store is missing or corrupt, under any generation."""
        there = exists().where(replica.c.blob == one.blob.sha256, replica.c.store == one.store)
        return self._database.read(lambda connection: bool(connection.scalar(select(there.where(SICK)))))

    def quarantined(self, stores: Sequence[str], limit: int) -> list[Quarantined]:
        """Return blobs with a sick replica in one of these stores and no healthy one anywhere."""
        return self._database.read(_quarantined, stores, limit)

    def last_generation(self) -> int:
        """Return the highest generation that was ever given to a key. In a database that came from a backup there may
        be objects beyond it, and their keys may yet be given out."""
        query = text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM generation_seq")
        return self._database.read(lambda connection: int(connection.scalar(query) or 0))

    def unnamed(self, store: str, listed: Sequence[Named]) -> list[Named]:
        """Return the listed objects that neither a replica in any state nor `garbage` names."""
        return self._database.read(_unnamed, store, listed)

    def deleted(self, store: str, listed: Sequence[Named]) -> list[Named]:
        """Return the listed objects that were deleted before: the store comes from an older copy."""
        return self._database.read(_deleted, store, listed)

    def discard(self, store: str, listed: Sequence[Named]) -> list[Named]:
        """Turn the listed objects that are unnamed into garbage, and return these. Their generations were given out
        before: see `last_generation`."""
        return self._database.run(_discard, store, listed)

    def count_garbage(self, stores: Sequence[str]) -> int:
        """Count the garbage of these stores, in several statements."""
        return sum(self._database.read(_count_garbage, name) for name in stores)

    def _replicas(self, query: Select[tuple[object, ...]]) -> list[Replica]:
        return self._database.read(lambda connection: [rows.to_replica(row) for row in connection.execute(query)])


def _oldest(store: str, before: datetime, limit: int, after: Place | None) -> list[Select[Any]]:
    """Select the oldest replicas of one store, in the order of the index: those whose bytes were never read, and those
    whose were. Each query reads no more rows than the limit."""
    read_at, sha256 = replica.c.last_verified_at, replica.c.blob
    own = select(replica).where(replica.c.store == store, replica.c.state == "healthy")
    own = own.order_by(read_at.nulls_first(), sha256).limit(limit)  # to the letter the order of the index
    never, once = own.where(read_at.is_(None)), own.where(read_at < before)
    if after is None:
        return [never, once]
    at, last, last_store = after
    # Of the same blob in several stores the names decide.
    beyond = sha256 >= last if store > last_store else sha256 > last
    if at is None:
        return [never.where(beyond), once]
    place = tuple_(read_at, sha256)
    reached = tuple_(literal(at), literal(last))
    return [once.where(place >= reached if store > last_store else place > reached)]


def _count_garbage(connection: Connection, store: str) -> int:
    counted, after = 0, ""
    while True:
        page = select(garbage.c.key).where(garbage.c.store == store, garbage.c.key > after)
        found = page.order_by(garbage.c.key).limit(stretches.LENGTH).subquery()
        count, last = connection.execute(select(func.count(), func.max(found.c.key))).one()
        counted += int(count)
        if count < stretches.LENGTH:
            return counted
        after = last


def _make_installation(connection: Connection) -> UUID:
    connection.execute(insert(installation).values(id=uuid7()).on_conflict_do_nothing())
    found: UUID = connection.execute(select(installation.c.id)).scalar_one()
    return found


def _quarantined(connection: Connection, stores: Sequence[str], limit: int) -> list[Quarantined]:
    other = replica.alias()
    good = exists().where(other.c.blob == replica.c.blob, other.c.state == "healthy")
    here = replica.c.store.in_(stores)
    lost = select(replica.c.blob).where(SICK, here, ~good).distinct()
    found: dict[bytes, BlobFacts] = {}
    states: dict[bytes, dict[str, str]] = {}
    chosen = lost.order_by(replica.c.blob).limit(limit)
    query = rows.replicas().where(replica.c.blob.in_(chosen)).order_by(replica.c.blob, replica.c.store)
    for row in connection.execute(query):
        found[row.blob] = BlobFacts(row.blob, row.size, row.media_type)
        states.setdefault(row.blob, {})[row.store] = row.state
    return [Quarantined(facts, states[sha256], _paths(connection, sha256)) for sha256, facts in found.items()]


def _paths(connection: Connection, sha256: bytes) -> list[str]:
    originals = select(asset.c.path_text).where(asset.c.blob == sha256)
    shown = (
        select(asset.c.path_text)
        .join_from(variant, asset_variant, asset_variant.c.variant_id == variant.c.id)
        .join(asset, asset.c.id == asset_variant.c.asset_id)
        .where(variant.c.blob == sha256)
    )
    # Not as a union: that would read all holders to tell which are the same.
    found = [
        path for query in (originals, shown) for path in connection.scalars(query.order_by(asset.c.id).limit(PATHS))
    ]
    return list(dict.fromkeys(found))[:PATHS]


_LISTED = Rows("listed", column("blob", LargeBinary), column("generation", BigInteger))


def _key() -> ColumnElement[str]:
    return func.encode(_LISTED.c.blob, "hex", type_=Text).concat(".").concat(cast(_LISTED.c.generation, Text))


def _nameless(store: str) -> ColumnElement[bool]:
    as_replica = select(true()).where(
        replica.c.blob == _LISTED.c.blob, replica.c.store == store, replica.c.generation == _LISTED.c.generation
    )
    as_garbage = select(true()).where(garbage.c.store == store, garbage.c.key == _key())
    return ~or_(stretches.is_any(as_replica), stretches.is_any(as_garbage))


def _unnamed(connection: Connection, store: str, listed: Sequence[Named]) -> list[Named]:
    if not listed:
        return []
    query = select(_LISTED.c.blob, _LISTED.c.generation).select_from(_LISTED.table).where(_nameless(store))
    return [(row.blob, row.generation) for row in connection.execute(query, _LISTED.parameters(list(listed)))]


def _deleted(connection: Connection, store: str, listed: Sequence[Named]) -> list[Named]:
    if not listed:
        return []
    before = exists().where(deleted_object.c.store == store, deleted_object.c.generation == _LISTED.c.generation)
    query = select(_LISTED.c.blob, _LISTED.c.generation).select_from(_LISTED.table).where(before)
    return [(row.blob, row.generation) for row in connection.execute(query, _LISTED.parameters(list(listed)))]


def _discard(connection: Connection, store: str, listed: Sequence[Named]) -> list[Named]:
    locking.settle_names(connection)
    found = _unnamed(connection, store, listed)
    if found:
        keys = [{"store": store, "key": f"{sha256.hex()}.{generation}"} for sha256, generation in found]
        connection.execute(insert(garbage), keys)
    return found
