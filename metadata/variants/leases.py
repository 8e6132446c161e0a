"""Which variants are due, and who holds them: leases with fences, by PostgreSQL's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Interval,
    LargeBinary,
    Uuid,
    and_,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    union,
    update,
)

from core.model import FailureReason, LeasedVariant
from metadata import rows
from metadata.schema import variant


def _due() -> ColumnElement[bool]:
    free = or_(variant.c.lease_until.is_(None), variant.c.lease_until < func.now())
    return and_(variant.c.state == "pending", variant.c.next_attempt_at <= func.now(), free)


def ours(leased: Sequence[LeasedVariant]) -> ColumnElement[bool]:
    """Those of which nobody else holds a later lease."""
    return and_(
        variant.c.state == "pending",
        tuple_(variant.c.id, variant.c.fence).in_([(one.id, one.fence) for one in leased]),
    )


def due_sources(connection: Connection, limit: int) -> list[bytes]:
    """Reads a bounded piece of the index whatever waits: several variants of one source come as neighbours."""
    waiting = select(variant.c.source).where(_due()).order_by(variant.c.next_attempt_at).limit(limit * 8)
    return list(dict.fromkeys(connection.scalars(waiting)))[:limit]


_SOURCE = bindparam("of_source", type_=LargeBinary)
_ONE = bindparam("one", type_=Uuid)
_UNTIL = func.clock_timestamp() + bindparam("lease", type_=Interval)
_OPEN = (
    select(variant.c.id, variant.c.attempts, variant.c.next_attempt_at)
    .where(variant.c.source == _SOURCE, _due(), or_(_ONE.is_(None), variant.c.id == _ONE))
    .with_for_update(skip_locked=True)
    .cte("open")
)
_FRESH = select(_OPEN.c.id).where(_OPEN.c.attempts == 0)
_TRIED = (
    select(_OPEN.c.id)
    .where(or_(~_FRESH.exists(), _ONE.is_not(None)))
    .order_by(_OPEN.c.attempts, _OPEN.c.next_attempt_at)
    .limit(1)
)
_CHOSEN = union(_FRESH, select(_TRIED.subquery("tried").c.id)).cte("chosen")
_OTHERS = select(func.count()).select_from(_OPEN).scalar_subquery() > (
    select(func.count()).select_from(_CHOSEN).scalar_subquery()
)
_TAKE = (
    update(variant)
    .where(variant.c.id == _CHOSEN.c.id)
    .values(
        fence=variant.c.fence + 1,
        attempts=variant.c.attempts + 1,
        unfinished=variant.c.unfinished + 1,
        lease_until=_UNTIL,
    )
    .returning(*rows.LEASED, _OTHERS.label("more"))
)


def lease(connection: Connection, source: bytes, lease: timedelta, one: UUID | None) -> list[LeasedVariant]:
    """Lease due variants of a source in one statement, so in one round trip."""
    taken = connection.execute(_TAKE, {"of_source": source, "lease": lease, "one": one})
    return [replace(rows.to_leased(row), more=row.more) for row in taken]


def renew(connection: Connection, leased: Sequence[LeasedVariant], lease: timedelta) -> list[LeasedVariant]:
    renewed = connection.scalars(
        update(variant).where(ours(leased)).values(lease_until=func.clock_timestamp() + lease).returning(variant.c.id)
    )
    held = set(renewed)
    return [one for one in leased if one.id in held]


def give_back(
    connection: Connection, leased: Sequence[LeasedVariant], delay: timedelta, reason: FailureReason | None
) -> None:
    connection.execute(
        update(variant)
        .where(ours(leased))
        .values(
            attempts=func.greatest(variant.c.attempts - 1, 0),
            unfinished=func.greatest(variant.c.unfinished - 1, 0),
            lease_until=None,
            next_attempt_at=func.now() + delay,
            error_kind=reason.kind if reason else None,
            error_detail=reason.detail if reason else None,
        )
    )
