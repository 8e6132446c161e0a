"""Rows to values: the one place that knows which columns make which dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Subquery, Text, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by

from core.model import (
    Asset,
    BlobFacts,
    Details,
    Failure,
    FailureReason,
    ImageFacts,
    Job,
    JobState,
    LeasedVariant,
    Replica,
    Variant,
    VariantState,
)
from metadata.schema import asset, asset_variant, blob, failure, label, replica, tag, variant

AnyRow = Row[Any]


def assets() -> Select[Any]:
    labels = select(func.jsonb_object_agg(label.c.key, label.c.value, type_=JSONB)).where(
        label.c.asset_id == asset.c.id
    )
    tags = select(func.array_agg(aggregate_order_by(tag.c.value, tag.c.value), type_=ARRAY(Text))).where(
        tag.c.asset_id == asset.c.id
    )
    return select(
        asset,
        blob.c.size,
        blob.c.media_type,
        labels.scalar_subquery().label("labels"),
        tags.scalar_subquery().label("tags"),
    ).join_from(asset, blob, blob.c.sha256 == asset.c.blob)


def to_asset(row: AnyRow) -> Asset:
    image = ImageFacts(row.media_type, row.width, row.height, row.frames, row.orientation, row.has_alpha)
    return Asset(
        id=row.id,
        path=row.path_text,
        entry=row.entry,
        blob=BlobFacts(row.blob, row.size, row.media_type),
        width=row.width,
        height=row.height,
        frames=row.frames,
        details=Details(row.alt, row.labels or {}, tuple(row.tags or ())),
        accepted_at=row.accepted_at,
        accepted_by_host_at=row.accepted_by_host_at,
        created_at=row.created_at,
        image=image,
    )


def variants() -> Select[Any]:
    """One row for each way in which an asset asked for a variant."""
    return (
        select(variant, asset_variant.c.profile, asset_variant.c.eager, blob.c.size, blob.c.media_type)
        .join_from(asset_variant, variant, variant.c.id == asset_variant.c.variant_id)
        .outerjoin(blob, blob.c.sha256 == variant.c.blob)
    )


def to_variant(row: AnyRow) -> Variant:
    failed = FailureReason(row.error_kind, row.error_detail or "") if row.error_kind else None
    return Variant(
        id=row.id,
        source=row.source,
        profile=row.profile or None,
        eager=row.eager,
        recipe=row.recipe,
        recipe_hash=row.recipe_hash,
        state=VariantState(row.state),
        attempts=row.attempts,
        blob=BlobFacts(row.blob, row.size, row.media_type) if row.blob is not None else None,
        failure=failed if row.state == VariantState.FAILED else None,
    )


LEASED: Sequence[ColumnElement[Any]] = (
    variant.c.id,
    variant.c.source,
    variant.c.recipe,
    variant.c.fence,
    variant.c.attempts,
    variant.c.unfinished,
)


def to_leased(row: AnyRow) -> LeasedVariant:
    return LeasedVariant(row.id, row.source, row.recipe, row.fence, row.attempts, row.unfinished)


def replicas() -> Select[Any]:
    return select(replica, blob.c.size, blob.c.media_type).join_from(replica, blob, blob.c.sha256 == replica.c.blob)


def page_of_replicas(chosen: Select[Any]) -> Select[Any]:
    """`replicas` for some rows of `replica`, in the order of their hashes and stores."""
    page = chosen.order_by(replica.c.blob, replica.c.store).subquery("page")
    return of_page(page).order_by(page.c.blob, page.c.store)


def of_page(page: Subquery) -> Select[Any]:
    """`replicas` for rows of `replica` that were chosen before they meet their blobs: where PostgreSQL joins first, it
    may begin with the first blob of all for a page in the middle."""
    return select(page, blob.c.size, blob.c.media_type).join_from(page, blob, blob.c.sha256 == page.c.blob)


def to_replica(row: AnyRow) -> Replica:
    facts = BlobFacts(row.blob, row.size, row.media_type)
    return Replica(facts, row.store, row.generation, row.last_verified_at, row.promoted_at is not None)


def failures() -> Select[Any]:
    """Select failures with their paths: of a variant's failure that of an asset that shows the variant; of a source's,
    that of an asset that has it."""
    shown = (
        select(asset.c.path_text)
        .join_from(asset_variant, asset, asset.c.id == asset_variant.c.asset_id)
        .where(asset_variant.c.variant_id == failure.c.id, failure.c.subject == "variant")
        .order_by(asset_variant.c.asset_id)  # any will do, and this one costs the same however many there are
        .limit(1)
        .scalar_subquery()
    )
    holder = select(asset.c.path_text).where(asset.c.blob == failure.c.source).limit(1).scalar_subquery()
    return select(failure, func.coalesce(failure.c.path_text, shown, holder).label("shown_path"))


def to_failure(row: AnyRow) -> Failure:
    reason = FailureReason(row.kind, row.detail)
    return Failure(row.id, row.subject, row.host_id, row.shown_path, reason, row.failed_at, row.wish)


def to_job(row: AnyRow) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        arguments=row.arguments,
        state=JobState(row.state),
        wish=row.wish,
        cursor=row.cursor,
        progress=row.progress,
        error=row.error,
        fence=row.fence,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
