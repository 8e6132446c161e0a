"""Originals of which no good copy is left, as they are at this moment: no row says so by itself, and what comes back is
no failure any more. The cost grows with the replicas that are missing or corrupt just now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    Text,
    Uuid,
    and_,
    case,
    exists,
    func,
    literal,
    null,
    select,
    true,
    update,
)
from sqlalchemy import cast as as_type
from sqlalchemy.dialects.postgresql import aggregate_order_by

from core.model import Failure
from metadata import rows
from metadata.blobs.repairs import DUE
from metadata.schema import asset, blob, replica, verify_event

SUBJECT = "original"
KIND = "lost"
_LAST = UUID(int=2**128 - 1)

SICK = and_(replica.c.state.in_(DUE), replica.c.promoted_at.is_(None))
"""Copies for faster reading are no loss."""


def blobs() -> Select[tuple[bytes]]:
    """Select the blobs with a sick replica, and no healthy one in any store."""
    other = replica.alias()
    good = exists().where(other.c.blob == replica.c.blob, other.c.state == "healthy")
    return select(replica.c.blob).where(SICK, ~good).distinct()


def _since() -> ColumnElement[datetime]:
    """Select when the last of a blob's copies was found missing or corrupt; the history of that is kept for a while
    only."""
    found = select(func.max(verify_event.c.at)).where(
        verify_event.c.blob == blob.c.sha256, verify_event.c.result.in_(DUE)
    )
    return func.coalesce(found.scalar_subquery(), blob.c.created_at)


def _lost() -> Subquery:
    gone = blobs().subquery()
    since = _since().label("failed_at")
    return select(blob.c.sha256, since).join_from(gone, blob, blob.c.sha256 == gone.c.blob).subquery("lost")


def _as_failures(found: FromClause) -> Select[Any]:
    """Show each asset as its own failure, with its own id, in the shape of `rows.failures`."""
    own = replica.alias()
    where_it_was = func.string_agg(own.c.state + " in " + own.c.store, aggregate_order_by(literal(", "), own.c.store))
    said = select(literal("no good copy of the original is left: ") + where_it_was).where(own.c.blob == found.c.blob)
    return select(
        found.c.id,
        literal(SUBJECT).label("subject"),
        as_type(null(), Uuid).label("host_id"),
        found.c.path_text.label("shown_path"),
        literal(KIND).label("kind"),
        func.coalesce(said.scalar_subquery(), "").label("detail"),
        found.c.failed_at,
        as_type(null(), Text).label("wish"),
    )


def page(connection: Connection, after: tuple[datetime, UUID] | None, limit: int) -> Sequence[Failure]:
    """Return a page, newest first. Of each blob no more assets are read than a page has, however many hold it."""
    lost = _lost()
    held = select(asset.c.id, asset.c.path_text, asset.c.blob).where(asset.c.blob == lost.c.sha256)
    if after is not None:
        at, asset_id = after
        held = held.where(lost.c.failed_at <= at, asset.c.id < case((lost.c.failed_at == at, asset_id), else_=_LAST))
    few = held.order_by(asset.c.id.desc()).limit(limit).lateral("held")
    joined = select(few, lost.c.failed_at).join_from(lost, few, true())
    found = joined.order_by(lost.c.failed_at.desc(), few.c.id.desc()).limit(limit).subquery("found")
    query = _as_failures(found).order_by(found.c.failed_at.desc(), found.c.id.desc())
    return [rows.to_failure(row) for row in connection.execute(query)]


def find(connection: Connection, asset_id: UUID) -> Failure | None:
    lost = _lost()
    one = select(asset.c.id, asset.c.path_text, asset.c.blob, lost.c.failed_at)
    found = one.join_from(asset, lost, lost.c.sha256 == asset.c.blob).where(asset.c.id == asset_id).subquery("found")
    row = connection.execute(_as_failures(found)).one_or_none()
    return None if row is None else rows.to_failure(row)


def count(connection: Connection) -> tuple[int, int]:
    """Count blobs that are lost, and assets whose originals they are."""
    lost = blobs().cte("lost")
    held = select(func.count()).select_from(asset).where(asset.c.blob.in_(select(lost.c.blob)))
    query = select(select(func.count()).select_from(lost).scalar_subquery(), held.scalar_subquery())
    all_of_them, originals_of_them = connection.execute(query).one()
    return int(all_of_them), int(originals_of_them)


def hurry(connection: Connection, asset_id: UUID) -> None:
    """Make its replicas due at once: the bytes may be back."""
    sha256 = select(asset.c.blob).where(asset.c.id == asset_id).scalar_subquery()
    connection.execute(
        update(replica).where(replica.c.blob == sha256, replica.c.state.in_(DUE)).values(next_check_at=func.now())
    )
