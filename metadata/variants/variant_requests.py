"""Which asset asks for which variant. A variant belongs to its source blob: one that exists is only linked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import Connection, func, null, or_, select
from sqlalchemy.dialects.postgresql import insert

from core.model import LeasedVariant, WantedVariant
from database.session import with_next
from metadata import rows
from metadata.blobs import undecodable
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
    leased ones; those of a source that cannot be decoded fail as they are made. The caller holds what keeps gc from the
    source (`metadata/blobs/collection.py`)."""
    if not wants:
        return []
    distinct = {want.recipe_hash: want for want in wants}
    made: list[rows.AnyRow] = []
    ids: dict[bytes, UUID] = {}
    while absent := [distinct[key] for key in sorted(distinct) if key not in ids]:
        new = _made(connection, source, absent, lease)
        made += new
        ids |= {row.recipe_hash: row.id for row in new}
        ids |= _kept(connection, source, [key for key in distinct if key not in ids])
    asked = {(ids[want.recipe_hash], want.profile or ""): want.eager for want in wants}
    with_next(
        connection,
        _ASK_EAGERLY if any(asked.values()) else _ASK,
        [
            {"asset_id": asset_id, "variant_id": variant_id, "profile": profile, "eager": eager}
            for (variant_id, profile), eager in asked.items()
        ],
    )
    return [rows.to_leased(row) for row in made if row.state == "pending"] if lease is not None else []


def _made(
    connection: Connection, source: bytes, wants: Sequence[WantedVariant], lease: timedelta | None
) -> Sequence[rows.AnyRow]:
    return connection.execute(
        insert(variant)
        .values(undecodable.born(null() if lease is None else func.clock_timestamp() + lease))
        .on_conflict_do_nothing(index_elements=[variant.c.source, variant.c.recipe_hash])
        .returning(*rows.LEASED, variant.c.recipe_hash, variant.c.state),
        [_row(source, one, started=int(lease is not None)) for one in wants],
    ).all()


def _kept(connection: Connection, source: bytes, hashes: Sequence[bytes]) -> dict[bytes, UUID]:
    """Return the ids of those variants that are there and stay until COMMIT. One that failed may be forgotten just now,
    and is to be made anew."""
    if not hashes:
        return {}
    query = select(variant.c.recipe_hash, variant.c.id).where(
        variant.c.source == source, variant.c.recipe_hash.in_(hashes)
    )
    held = query.order_by(variant.c.recipe_hash).with_for_update(read=True, key_share=True)
    return {row.recipe_hash: row.id for row in connection.execute(held)}


def _row(source: bytes, want: WantedVariant, *, started: int) -> dict[str, object]:
    return {
        "id": uuid4(),
        "source": source,
        "recipe_hash": want.recipe_hash,
        "recipe": dict(want.recipe),
        **undecodable.marks(source, want),
        "attempts": started,
        "unfinished": started,
        "fence": started,
    }
