"""Filling an empty database with what a catalogue and the stores say.

Guarantees: it is one transaction, so a rebuild that is killed leaves the database as empty as it was; and nobody else
writes meanwhile, since every table that counts is locked before it is looked at. Who wants to write waits or comes
again, and uploads stay staged. Rolling back costs PostgreSQL nothing, however much was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import (
    Boolean,
    Connection,
    LargeBinary,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, Insert
from sqlalchemy.dialects.postgresql import insert as upsert

from core.errors import AlreadyExists
from core.model import BlobFacts, Replica, WantedVariant
from database.transactions import Database
from metadata.journal import journal_rows, outbox
from metadata.journal.journal_records import Counter, Deleted, Recorded, Rendered
from metadata.paths import hash_of
from metadata.schema import (
    asset,
    asset_variant,
    blob,
    garbage,
    generation_seq,
    installation,
    label,
    path_counter,
    replica,
    tag,
    tombstone,
    upload,
    variant,
)
from metadata.unnest import Rows

T = TypeVar("T")

COUNTED: Final = (asset, tombstone, blob, replica, variant, path_counter, garbage)
"""What no rebuild may find anything in. Other tables fill by themselves where processes are already running."""

Link = tuple[UUID, bytes, WantedVariant]
"""An asset, its blob, and what it asked for."""


class Rebuilding:
    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, feed: Callable[[Loader], T]) -> T:
        """Everything that `feed` gives to the loader, or nothing. It is called once more where the server breaks the
        transaction off.

        Raises:
            AlreadyExists: the database is not empty.
        """
        return self._database.run(_load, feed)


def _load(connection: Connection, feed: Callable[[Loader], T]) -> T:
    names = ", ".join(table.name for table in COUNTED)
    connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    # Deferred checks would be kept in memory until COMMIT, one for each row.
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    for table in COUNTED:
        if connection.execute(select(table).limit(1)).first() is not None:
            raise AlreadyExists(f"the database is not empty: {table.name} has rows")
    return feed(Loader(connection))


_LINK = Rows(
    "link",
    column("asset_id", Uuid),
    column("source", LargeBinary),
    column("recipe_hash", LargeBinary),
    column("recipe", Text),
    column("profile", Text),
    column("eager", Boolean),
    column("id", Uuid),
)
_LIVE = _LINK.table.join(asset, and_(asset.c.id == _LINK.c.asset_id, asset.c.blob == _LINK.c.source))
_VARIANT = variant.c.source == _LINK.c.source, variant.c.recipe_hash == _LINK.c.recipe_hash
_ASKED_FOR = (
    upsert(variant)
    .from_select(
        ["id", "source", "recipe_hash", "recipe", "state", "attempts", "unfinished", "fence"],
        select(
            _LINK.c.id,
            _LINK.c.source,
            _LINK.c.recipe_hash,
            cast(_LINK.c.recipe, JSONB),
            text("'pending'"),
            *(text("0"), text("0"), text("0")),
        ).select_from(_LIVE),
    )
    .on_conflict_do_nothing()
)
_LINKED = (
    upsert(asset_variant)
    .from_select(
        ["asset_id", "variant_id", "profile", "eager"],
        select(_LINK.c.asset_id, variant.c.id, _LINK.c.profile, _LINK.c.eager).select_from(
            _LIVE.join(variant, and_(*_VARIANT))
        ),
    )
    .on_conflict_do_nothing()
)
_MADE = Rows("made", column("source", LargeBinary), column("recipe_hash", LargeBinary))
_WANTED = select(variant.c.id, variant.c.source, variant.c.recipe_hash).join_from(
    variant, _MADE.table, and_(variant.c.source == _MADE.c.source, variant.c.recipe_hash == _MADE.c.recipe_hash)
)
_OUTPUT = Rows("output", column("id", Uuid), column("blob", LargeBinary))
_READY = (
    update(variant)
    .where(variant.c.id == _OUTPUT.c.id)
    .values(state="ready", blob=_OUTPUT.c.blob, finished_at=func.now())
)


_STAND = (
    update(replica)
    .where(replica.c.blob == bindparam("sha256"), replica.c.store == bindparam("name"), replica.c.stands_for.is_(None))
    .values(stands_for=bindparam("place"))
)


class Loader:
    """Takes any number of each, in this order: `begin`, assets with their blobs, the rest, `end`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self, *, generation: int, version: int, installed: UUID | None) -> None:
        """Keys above `generation` and events above `version` were never given; the stores belong to `installed`."""
        if generation:
            self._connection.execute(select(func.setval(generation_seq.name, generation)))
        outbox.advance(self._connection, version)
        if installed is not None:
            made = upsert(installation).values(id=installed)
            found = made.on_conflict_do_update(index_elements=[installation.c.one], set_={"id": installed})
            self._connection.execute(found)

    def assets(self, recorded: Sequence[Recorded]) -> None:
        self.blobs([one.asset.blob for one in recorded])
        self._insert(upsert(asset), map(journal_rows.of_asset, recorded))
        self._insert(upsert(label), journal_rows.labels(recorded))
        self._insert(upsert(tag), journal_rows.tags(recorded))
        uploads = [journal_rows.of_upload(one) for one in recorded if one.host_id is not None]
        self._insert(upsert(upload).on_conflict_do_nothing(), uploads)
        self.links([(one.asset.id, one.asset.blob.sha256, want) for one in recorded for want in one.eager])

    def next_entry(self, path: str) -> int:
        """For an asset whose number another one has."""
        path_hash = hash_of(path)
        taken = union_all(
            select(asset.c.entry).where(asset.c.path_hash == path_hash),
            select(tombstone.c.entry).where(tombstone.c.path_hash == path_hash),
            select(path_counter.c.next - 1).where(path_counter.c.path_hash == path_hash),
        ).subquery()
        return int(self._connection.scalar(select(func.coalesce(func.max(taken.c.entry) + 1, 0))) or 0)

    def note(self, asset_id: UUID) -> None:
        """It is other than its line says."""
        outbox.note(self._connection, asset_id=asset_id)

    def links(self, links: Sequence[Link]) -> None:
        """Of those assets that are there. What was asked for is to be made, until it is said to be `rendered`."""
        found = [
            (asset_id, source, want.recipe_hash, json.dumps(dict(want.recipe)), want.profile or "", want.eager, uuid4())
            for asset_id, source, want in links
        ]
        if found:
            self._connection.execute(_ASKED_FOR, _LINK.parameters(found))
            self._connection.execute(_LINKED, _LINK.parameters(found))

    def rendered(self, made: Sequence[Rendered]) -> list[Rendered]:
        """Those that somebody asked for are ready; returns them."""
        by_name = {(one.source, one.want.recipe_hash): one for one in made}
        wanted = self._connection.execute(_WANTED, _MADE.parameters(list(by_name))).all()
        ready = [by_name[row.source, row.recipe_hash] for row in wanted]
        self.blobs([one.output for one in ready])
        outputs = [(row.id, one.output.sha256) for row, one in zip(wanted, ready, strict=True)]
        self._connection.execute(_READY, _OUTPUT.parameters(outputs))
        return ready

    def tombstones(self, deleted: Sequence[Deleted]) -> None:
        self._insert(upsert(tombstone), map(journal_rows.of_tombstone, deleted))

    def replicas(self, found: Sequence[Replica]) -> None:
        """Objects that are there, as far as their size says; their bytes are to be verified."""
        rows = [
            {"blob": one.blob.sha256, "store": one.store, "generation": one.generation, "state": "healthy"}
            for one in found
        ]
        self._insert(upsert(replica).on_conflict_do_nothing(), rows)

    def lacking(self, wanted: Sequence[tuple[bytes, str]]) -> None:
        """Blobs, and stores that should have them and have not."""
        rows = [{"blob": sha256, "store": store} for sha256, store in wanted]
        statement = upsert(replica).values(
            generation=generation_seq.next_value(), state="missing", next_check_at=func.now() + timedelta(minutes=1)
        )
        self._insert(statement.on_conflict_do_nothing(), rows)

    def standing(self, found: Mapping[tuple[bytes, str], str]) -> None:
        """Blobs in stores that no rule names, and the store whose place each of them takes."""
        rows = [{"sha256": sha256, "name": store, "place": place} for (sha256, store), place in found.items()]
        if rows:
            self._connection.execute(_STAND, rows)

    def counters(self, counters: Sequence[Counter]) -> None:
        """Entries of a path that nothing else tells of any more."""
        for one in counters:
            self._count(upsert(path_counter).values(path_hash=one.path_hash, next=one.next))

    def end(self) -> int:
        """No entry is given twice. Returns how many variants are to be made."""
        entries = union_all(
            select(asset.c.path_hash, asset.c.entry),
            select(tombstone.c.path_hash, tombstone.c.entry).where(tombstone.c.path_hash.is_not(None)),
        ).subquery()
        following = select(entries.c.path_hash, func.max(entries.c.entry) + 1).group_by(entries.c.path_hash)
        self._count(upsert(path_counter).from_select(["path_hash", "next"], following))
        waiting = select(func.count()).select_from(variant).where(variant.c.state == "pending")
        return int(self._connection.scalar(waiting) or 0)

    def blobs(self, facts: Iterable[BlobFacts]) -> None:
        distinct = {one.sha256: one for one in facts}.values()
        rows = [{"sha256": one.sha256, "size": one.size, "media_type": one.media_type} for one in distinct]
        self._insert(upsert(blob).on_conflict_do_nothing(), rows)

    def _count(self, statement: Any) -> None:
        highest = func.greatest(path_counter.c.next, statement.excluded.next)
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=[path_counter.c.path_hash], set_={"next": highest})
        )

    def _insert(self, statement: Insert, rows: Iterable[dict[str, Any]]) -> None:
        """Only what returns something goes as many rows in one statement; else each is a round trip."""
        found = list(rows)
        if found:
            self._connection.execute(statement.returning(literal_column("1")), found).all()
