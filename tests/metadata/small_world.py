"""A few rows, and everything that may be done to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import psycopg2

from core.model import BlobFacts, FailureReason, Replica, StoreState, WantedVariant
from core.sections import Retention
from database.transactions import Database
from metadata.blobs import undecodable
from metadata.blobs.collection import Held, Keeping
from metadata.blobs.demotion import Home, Move
from metadata.blobs.references import Reference
from metadata.facade import Metadata
from tests.metadata.made import HOUR, LEASE, NO_TIME, RULES, Ingester, manifest, want

BODY = b"what all of it is about"
BLOB = BlobFacts(hashlib.sha256(BODY).digest(), len(BODY), "image/png")
EMPTIED = "emptied"
"""The store that a migration or an operator says takes nothing new any more."""
PLAIN = manifest("/first", BODY, id=UUID(int=1), asset_id=UUID(int=1))
WANTED = want("thumb")
MOVING, MOVING_TOO = (replace(want(name), recipe={"animated": True}) for name in ("moving", "moving too"))
BROKEN = FailureReason("bad-image", "it breaks off")
UNNAMED = Replica(BLOB, EMPTIED, 1)
"""Lies there, and no row knows it."""

KEPT = ("blob", "asset", "variant", "failure")
CHANGED = ("garbage", "verify_event", "catalogue_event", "upload", "replica", "promoted_bytes", "path_counter", "store")
RESET = "".join(
    [f"DELETE FROM {name};" for name in (*CHANGED, *reversed(KEPT))]
    + [f"INSERT INTO {name} TABLE kept_{name};" for name in KEPT]
)
"""In one message. What asked for the variant goes with its asset, and does not come back with it."""

Rows = Mapping[str, tuple[str, bool]]
"""Of each store: the state of its replica, and whether that is a copy for faster reading."""


@dataclass
class World:
    metadata: Metadata
    sql: Callable[..., list[tuple[object, ...]]]
    failed: UUID
    rows: Rows = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    sequels: list[Callable[[], object]] = field(default_factory=list)
    """What an act does next that began something in a race."""
    seen: set[str] | None = None
    """By the migration that empties a store, where there is one: it lies there, and will be moved."""

    @classmethod
    def open(cls, url: str) -> World:
        """An asset, a variant of it that failed, and one that failed because the source is no whole animation, to begin
        with again and again."""
        connection = psycopg2.connect(url)
        connection.autocommit = True

        def sql(statement: str, *values: object) -> list[tuple[object, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

        metadata = Metadata.of(Database(url, pool_size=8, deadline_seconds=120))
        Ingester(metadata).ingest(PLAIN)
        failed = metadata.variants.want(PLAIN.asset_id, BLOB.sha256, WANTED).id
        leased = metadata.variants.lease(BLOB.sha256, LEASE)
        metadata.variants.failed(leased, FailureReason("bad-image", "it is none"), final=True, delay=NO_TIME)
        metadata.variants.want(PLAIN.asset_id, BLOB.sha256, MOVING)
        metadata.variants.undecodable(BLOB.sha256, BROKEN, frames=True)
        sql("UPDATE failure SET failed_at = now() - interval '1 day'; UPDATE blob SET gc_after = now()")
        sql("".join(f"CREATE TABLE kept_{name} AS TABLE {name};" for name in KEPT))
        return cls(metadata, sql, failed)

    def begin(self, rows: Rows) -> None:
        """The blob has these replicas, and gc is to look at it."""
        self.rows, self.sequels, self.seen = rows, [], None
        found = self.sql(
            RESET + "INSERT INTO replica (blob, store, generation, state, promoted_at, next_check_at)"
            " SELECT %s, store, nextval('generation_seq'), state, CASE WHEN promoted THEN now() END, now()"
            " FROM unnest(%s, %s, %s) AS given (store, state, promoted) RETURNING store, generation",
            *(BLOB.sha256, list(rows), [state for state, _ in rows.values()], [copy for _, copy in rows.values()]),
        )
        self.generations = {str(store): int(str(generation)) for store, generation in found}

    def replica(self, store: str) -> Replica:
        return Replica(BLOB, store, self.generations[store])

    def held(self) -> dict[str, tuple[str, int, bool]]:
        found = self.sql("SELECT store, state, generation, promoted_at IS NOT NULL FROM replica")
        return {str(store): (str(state), int(str(number)), bool(copy)) for store, state, number, copy in found}

    def is_good(self) -> bool:
        return self.sql("SELECT 1 FROM replica WHERE state = 'healthy' LIMIT 1") != []

    def close(self) -> None:
        self.metadata.close()

    # -- what may be done

    def reserve(self) -> object:
        """As an upload of the same bytes that was planned while all stores took what came."""
        found = self.metadata.blobs.reserve([(BLOB, "main"), (BLOB, EMPTIED)], NO_TIME)
        self.sequels.append(lambda: self._record([one.replica for one in found], ()))
        return found

    def confirm(self) -> object:
        return self._record([self.replica("main"), *self._reserved()], ())

    def confirm_and_want(self) -> object:
        return self._record([self.replica("main")], [EMPTIED])

    def _reserved(self) -> list[Replica]:
        return [self.replica(store) for store, (state, _) in self.rows.items() if state == "pending"]

    def _record(self, replicas: Sequence[Replica], later: Sequence[str]) -> object:
        made = manifest("/second", BODY)
        return self.metadata.assets.record(made, replicas, [WANTED], later=later)

    def give_up(self) -> object:
        return self.metadata.blobs.give_up_pending(NO_TIME, 10)

    def abandon(self) -> object:
        """As who finds its reservation gone, after an object of it was found where no row knows it."""
        return self.metadata.repairs.done(UNNAMED)

    def want(self) -> object:
        there, _ = self.metadata.repairs.ensure(BLOB.sha256, EMPTIED, LEASE)
        self.sequels.append(lambda: self.metadata.repairs.done(there))
        return there

    def begin_repair(self) -> object:
        fresh = self.metadata.repairs.begin(self.replica("sick"))
        self.sequels.append(lambda: self.metadata.repairs.done(fresh))
        return fresh

    def _home(self, store: str) -> Home:
        others = [Held(name, name, state == "healthy") for name, (state, copy) in self.rows.items() if not copy]
        now = datetime.now(UTC)
        return Home(self.replica(store), store, now, now, [one for one in others if one.store != store])

    def finish(self, store: str, stays: str) -> object:
        move = Move(1, stays, store)
        return self.metadata.demotion.finish(self._home(store), self.replica(stays), move, lambda *_: move, RULES)

    def demote(self) -> object:
        there, _ = self.metadata.demotion.begin(self._home("main"), Move(1, EMPTIED, "main"), LEASE)
        self.sequels.append(lambda: self.metadata.repairs.done(there))
        return there

    def drop(self, store: str, stays: str) -> object:
        return self.metadata.stores.drop(self.replica(store), self.replica(stays))

    def discard(self) -> object:
        return self.metadata.tiers.drop(self.replica("hot"))

    def evict(self) -> object:
        return self.metadata.tiers.evict("hot", 0, RULES)

    def collect(self, keep: str) -> object:
        def needed(_: BlobFacts, held: Sequence[Held], references: Iterator[Reference], said: object) -> frozenset[str]:
            return frozenset({keep})

        return self.metadata.blobs.collect(1, Keeping(RULES, needed))

    def mark(self, store: str) -> object:
        return self.metadata.repairs.mark(self.replica(store), "corrupt", "its bytes are wrong")

    def renew(self) -> object:
        return self.metadata.blobs.renew(self.replica("main"))

    def promote(self) -> object:
        return self.metadata.tiers.promote([BLOB.sha256], EMPTIED, up_to=1 << 20, max_bytes=1 << 20)

    def set_state(self) -> object:
        """As a migration does."""
        self.metadata.stores.set_state(StoreState(EMPTIED, "draining", "main"))
        self.metadata.stores.abandon(EMPTIED)
        self.seen = {one.store for one in self.metadata.stores.page(EMPTIED, b"", 10)}
        return self.seen

    def catch_up(self) -> object:
        taken = self.metadata.restored.take(UNNAMED, None, HOUR)
        self.sequels.append(lambda: taken and self.metadata.repairs.done(UNNAMED))
        return taken

    def ask(self) -> object:
        return self.metadata.variants.want(PLAIN.asset_id, BLOB.sha256, WANTED)

    def ask_for(self, wanted: WantedVariant) -> object:
        return self.metadata.variants.want(PLAIN.asset_id, BLOB.sha256, wanted)

    def settle(self, *, frames: bool) -> object:
        """As who tried to decode the source."""
        return self.metadata.variants.undecodable(BLOB.sha256, BROKEN, frames=frames)

    def retry_source(self) -> object:
        return self.metadata.variants.retry_source(undecodable.mark(BLOB.sha256, frames=True))

    def forget_source(self) -> object:
        return self.metadata.variants.forget_source(undecodable.mark(BLOB.sha256, frames=True))

    def forget(self) -> object:
        return self.metadata.variants.forget(self.failed)

    def prune(self) -> object:
        return self.metadata.retention.prune(Retention(failures_days=1e-9))
