"""Which variants are due, and who holds them: leases with fences, by PostgreSQL's clock."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_, update

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


def lease(connection: Connection, source: bytes, lease: timedelta, one: UUID | None) -> list[LeasedVariant]:
    due = select(variant.c.id).where(variant.c.source == source, _due()).with_for_update(skip_locked=True)
    if one is not None:
        return _take(connection, list(connection.scalars(due.where(variant.c.id == one))), lease)
    fresh = list(connection.scalars(due.where(variant.c.attempts == 0)))
    if fresh:
        return _take(connection, fresh, lease)
    tried = due.where(variant.c.attempts > 0).order_by(variant.c.attempts, variant.c.next_attempt_at).limit(1)
    return _take(connection, list(connection.scalars(tried)), lease)


def _take(connection: Connection, ids: Sequence[UUID], lease: timedelta) -> list[LeasedVariant]:
    if not ids:
        return []
    taken = connection.execute(
        update(variant)
        .where(variant.c.id.in_(ids))
        .values(
            fence=variant.c.fence + 1,
            attempts=variant.c.attempts + 1,
            unfinished=variant.c.unfinished + 1,
            lease_until=func.clock_timestamp() + lease,
        )
        .returning(*rows.LEASED)
    )
    return [rows.to_leased(row) for row in taken]


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
