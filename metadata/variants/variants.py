"""Variants: asked for, leased, and settled. Every write of a lease holder carries its fence, so that one whose lease
was taken over changes nothing, whenever it wakes. Time is PostgreSQL's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Connection,
    LargeBinary,
    Uuid,
    column,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from core.errors import NotFound, Superseded
from core.failpoints import failpoint
from core.model import FailureReason, LeasedVariant, Replica, Variant, VariantState, WantedVariant
from database.session import with_next
from database.transactions import Database
from metadata import locking, rows
from metadata.blobs import blobs, repairs, undecodable
from metadata.journal import outbox
from metadata.schema import asset, asset_variant, blob, catalogue_event, failure, variant
from metadata.unnest import Rows
from metadata.variants import leases, rerender, variant_requests

SHOWING = 100
"""Assets that are looked at: a placeholder picture may have a million."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A variant whose bytes are in their stores; those named by `later` get them in the background."""

    leased: LeasedVariant
    replicas: Sequence[Replica]
    later: Sequence[str] = ()

    @property
    def sha256(self) -> bytes:
        return self.replicas[0].blob.sha256


class Variants:
    def __init__(self, database: Database) -> None:
        self._database = database

    def want(self, asset_id: UUID, source: bytes, want: WantedVariant) -> Variant:
        """Ask for a variant of an asset whose blob is `source`; however many ask, there is one.

        Raises:
            NotFound: the asset was deleted meanwhile.
        """
        return self._database.run(_want, asset_id, source, want)

    def of_asset(self, asset_id: UUID) -> list[Variant]:
        """Return one variant for each profile, and each set of parameters, that it was asked for with."""
        return self._database.read(of_asset, asset_id)

    def find(self, asset_id: UUID, recipe_hash: bytes) -> Variant | None:
        return self._database.read(_find, asset_id, recipe_hash)

    def path_of(self, source: bytes) -> str:
        """Return the path of the asset accepted last that shows a variant of this blob, as far as `SHOWING` of them
        tell; the root where none does any more."""
        return self._database.read(_path_of, source)

    def states(self, ids: Collection[UUID]) -> Mapping[UUID, VariantState]:
        """Return the states of those that exist."""
        query = select(variant.c.id, variant.c.state).where(variant.c.id.in_(ids))
        return self._database.read(
            lambda connection: {row.id: VariantState(row.state) for row in connection.execute(query)}
        )

    def due_sources(self, limit: int) -> list[bytes]:
        """Return blobs with a variant that is due and that no worker holds, the longest waiting first."""
        return self._database.read(leases.due_sources, limit)

    def lease(self, source: bytes, lease: timedelta, *, one: UUID | None = None) -> list[LeasedVariant]:
        """Lease all due variants of a blob that no worker tried yet; if there is none, one that was tried. So the first
        attempt shares one decode, and later ones do not fail each other. `one`: this variant, if it is due."""
        return self._database.write(leases.lease, source, lease, one)

    def renew(self, leased: Sequence[LeasedVariant], lease: timedelta) -> list[LeasedVariant]:
        """Renew the leases; return those that are still ours."""
        return self._database.run(leases.renew, leased, lease)

    def finish(self, done: Sequence[Stored]) -> int:
        """Make all of these ready, whose objects are there, in one transaction. Returns how many were still ours; bytes
        of those that were not are due for gc.

        Raises:
            Superseded: a reservation is gone, or one of the stores that get the bytes later takes nothing new any more;
                nothing was written.
        """
        try:
            finished = self._database.run(_finish, done)
        except Superseded:
            self._database.run(blobs.abandon, [replica for one in done for replica in one.replicas])
            raise
        failpoint("finish.after-commit")
        return finished

    def give_back(
        self, leased: Sequence[LeasedVariant], *, delay: timedelta, reason: FailureReason | None = None
    ) -> None:
        """Give leases back at an orderly end that is not the variants' fault: the attempt does not count."""
        self._database.run(leases.give_back, leased, delay, reason)

    def failed(self, leased: Sequence[LeasedVariant], reason: FailureReason, *, final: bool, delay: timedelta) -> None:
        """Record an error of the variants themselves: due again after `delay`, or, when `final`, failed and visibly
        so."""
        self._database.run(_fail, leased, reason, final, delay)

    def undecodable(self, source: bytes, reason: FailureReason, *, frames: bool) -> None:
        """Record that nothing can be made from these bytes, or nothing with all `frames`: one visible failure, and all
        that waits for it has failed."""
        self._database.run(undecodable.settle, source, reason, frames=frames)

    def remake(self, sha256: bytes) -> list[bytes]:
        """Make the variants that these bytes were pending again if no good copy of the bytes is left. Return the
        sources of these; of one whose source is lost, too, nothing can be made."""
        remade: set[bytes] = set()
        while batch := self._database.run(rerender.remake, sha256):
            remade.update(batch)
        return sorted(remade)

    def retry(self, variant_id: UUID) -> bool:
        """Start a failed variant anew. False: it is not failed."""
        return self._database.run(_retry, variant_id)

    def retry_source(self, failure_id: UUID) -> None:
        """Start anew all that failed because a source cannot be decoded."""
        self._database.run(undecodable.retry, failure_id)

    def forget_source(self, failure_id: UUID) -> None:
        self._database.run(undecodable.forget, failure_id)

    def forget(self, variant_id: UUID) -> None:
        """Delete a failed variant with its failure: a client that asks for it again starts anew."""
        self._database.run(_forget, variant_id)


def of_asset(connection: Connection, asset_id: UUID) -> list[Variant]:
    query = rows.variants().where(asset_variant.c.asset_id == asset_id)
    query = query.order_by(asset_variant.c.eager.desc(), asset_variant.c.profile, variant.c.created_at, variant.c.id)
    return [rows.to_variant(row) for row in connection.execute(query)]


def _find(connection: Connection, asset_id: UUID, recipe_hash: bytes) -> Variant | None:
    query = rows.variants().where(asset_variant.c.asset_id == asset_id, variant.c.recipe_hash == recipe_hash)
    row = connection.execute(query.order_by(asset_variant.c.profile.desc()).limit(1)).one_or_none()
    return None if row is None else rows.to_variant(row)


def _path_of(connection: Connection, source: bytes) -> str:
    holders = select(asset.c.path_text, asset.c.accepted_at).where(asset.c.blob == source)
    some = holders.order_by(asset.c.id).limit(SHOWING).subquery()
    return connection.scalar(select(some.c.path_text).order_by(some.c.accepted_at.desc()).limit(1)) or "/"


def _want(connection: Connection, asset_id: UUID, source: bytes, want: WantedVariant) -> Variant:
    """The locks keep the asset from being deleted, and gc from the variants of its blob, until COMMIT."""
    live = select(asset.c.id).where(asset.c.id == asset_id, asset.c.blob == source)
    if connection.scalar(live.with_for_update(read=True, key_share=True)) is None:
        raise NotFound("the asset was deleted meanwhile")
    held = select(blob.c.size).where(blob.c.sha256 == source)
    connection.execute(held.with_for_update(read=True, key_share=True))
    variant_requests.link(connection, asset_id, source, [want], None)
    found = _find(connection, asset_id, want.recipe_hash)
    assert found is not None, "linked in this transaction"
    outbox.note(connection, asset_id=asset_id, variant_id=found.id)
    return found


_MADE = Rows("made", column("id", Uuid), column("fence", BigInteger), column("blob", LargeBinary))
_FINISHED = (
    update(variant)
    .where(variant.c.state == "pending", variant.c.id == _MADE.c.id, variant.c.fence == _MADE.c.fence)
    .values(
        state="ready",
        blob=_MADE.c.blob,
        finished_at=func.now(),
        lease_until=None,
        unfinished=0,
        error_kind=None,
        error_detail=None,
    )
    .returning(variant.c.id)
    .cte("finished")
)
_NOTED = insert(catalogue_event).from_select(["variant_id"], select(_FINISHED.c.id)).cte("noted")
_FINISH = select(func.array_agg(_FINISHED.c.id).label("ids"), blobs.CONFIRMED.label("confirmed")).add_cte(_NOTED)


def _finish(connection: Connection, done: Sequence[Stored]) -> int:
    wanted = list({(one.sha256, name): None for one in done for name in one.later})
    replicas = [replica for one in done for replica in one.replicas]
    locking.share_stores(connection, {name for _, name in wanted})
    with_next(connection, blobs.CONFIRM, blobs.asked(replicas))
    repairs.want(connection, wanted)
    made = _MADE.parameters([(one.leased.id, one.leased.fence, one.sha256) for one in done])
    found = connection.execute(_FINISH, {**made, **blobs.asked(replicas)}).one()
    blobs.require_all(found.confirmed, replicas)
    finished = set(found.ids or ())
    stale = [one.sha256 for one in done if one.leased.id not in finished]
    if stale:
        look = update(blob).where(blob.c.sha256.in_(stale), blob.c.gc_after.is_(None))
        connection.execute(look.values(gc_after=func.now()))
    failpoint("finish.before-commit")
    return len(finished)


def _fail(
    connection: Connection, leased: Sequence[LeasedVariant], reason: FailureReason, final: bool, delay: timedelta
) -> None:
    settled = list(
        connection.scalars(
            update(variant)
            .where(leases.ours(leased))
            .values(
                state="failed" if final else "pending",
                finished_at=func.now() if final else None,
                unfinished=func.greatest(variant.c.unfinished - 1, 0),
                lease_until=None,
                next_attempt_at=func.now() + delay,
                error_kind=reason.kind,
                error_detail=reason.detail,
            )
            .returning(variant.c.id)
        )
    )
    if final and settled:
        what = {"subject": "variant", "kind": reason.kind, "detail": reason.detail, "failed_at": func.now()}
        statement = insert(failure).values(what)
        statement = statement.on_conflict_do_update(index_elements=[failure.c.id], set_={**what, "wish": None})
        connection.execute(statement, [{"id": variant_id} for variant_id in settled])


def _retry(connection: Connection, variant_id: UUID) -> bool:
    revived = connection.execute(
        update(variant)
        .where(variant.c.id == variant_id, variant.c.state == "failed")
        .values(
            state="pending",
            attempts=0,
            unfinished=0,
            lease_until=None,
            next_attempt_at=func.now(),
            finished_at=None,
            error_kind=None,
            error_detail=None,
        )
    )
    connection.execute(delete(failure).where(failure.c.id == variant_id, failure.c.subject == "variant"))
    return revived.rowcount == 1


def _forget(connection: Connection, variant_id: UUID) -> None:
    connection.execute(delete(variant).where(variant.c.id == variant_id, variant.c.state == "failed"))
    connection.execute(delete(failure).where(failure.c.id == variant_id, failure.c.subject == "variant"))
