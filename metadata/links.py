"""Which asset asks for which variant. A variant belongs to its source blob: one that exists is only linked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, func, null, or_, select
from sqlalchemy.dialects.postgresql import insert

from core.model import LeasedVariant, WantedVariant
from metadata import rows
from metadata.schema import asset_variant, variant

_KEY = [asset_variant.c.asset_id, asset_variant.c.variant_id, asset_variant.c.profile]
_INSERT = insert(asset_variant)
_ASK_EAGERLY = _INSERT.on_conflict_do_update(
    index_elements=_KEY, set_={"eager": or_(asset_variant.c.eager, _INSERT.excluded.eager)}
)
_ASK = _INSERT.on_conflict_do_nothing(index_elements=_KEY)  # does not lock what is there


def link(
    connection: Connection, asset_id: UUID, source: bytes, wants: Sequence[WantedVariant], lease: timedelta | None
) -> list[LeasedVariant]:
    """Make the variants that do not exist, leased to the caller if `lease` is given, and link all of them. Returns the
    leased ones. The caller holds what keeps gc from the source (`metadata/collection.py`)."""
    if not wants:
        return []
    distinct = {want.recipe_hash: want for want in wants}
    made = connection.execute(
        insert(variant)
        .values(lease_until=null() if lease is None else func.clock_timestamp() + lease)
        .on_conflict_do_nothing(index_elements=[variant.c.source, variant.c.recipe_hash])
        .returning(*rows.LEASED, variant.c.recipe_hash),
        [_row(source, distinct[key], started=int(lease is not None)) for key in sorted(distinct)],
    ).all()
    ids = {row.recipe_hash: row.id for row in made}
    existing = [key for key in distinct if key not in ids]
    if existing:
        query = select(variant.c.recipe_hash, variant.c.id).where(
            variant.c.source == source, variant.c.recipe_hash.in_(existing)
        )
        ids |= {row.recipe_hash: row.id for row in connection.execute(query)}
    asked = {(ids[want.recipe_hash], want.profile or ""): want.eager for want in wants}
    connection.execute(
        _ASK_EAGERLY if any(asked.values()) else _ASK,
        [
            {"asset_id": asset_id, "variant_id": variant_id, "profile": profile, "eager": eager}
            for (variant_id, profile), eager in asked.items()
        ],
    )
    return [rows.to_leased(row) for row in made] if lease is not None else []


def _row(source: bytes, want: WantedVariant, *, started: int) -> dict[str, object]:
    return {
        "id": uuid4(),
        "source": source,
        "recipe_hash": want.recipe_hash,
        "recipe": dict(want.recipe),
        "state": "pending",
        "attempts": started,
        "unfinished": started,
        "fence": started,
    }
