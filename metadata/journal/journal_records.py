"""What the catalogue keeps: all that a database made anew must be told, since no store could tell it.

Which replicas there are is no part of it: that is what the stores themselves show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Text, func, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB

from core.model import Asset, BlobFacts, WantedVariant
from metadata import rows
from metadata.schema import asset, asset_variant, blob, path_counter, tombstone, upload, variant


@dataclass(frozen=True, slots=True)
class Recorded:
    """An asset that lives."""

    asset: Asset
    fingerprint: bytes
    upload_id: UUID
    host_id: UUID | None
    """None: its upload is forgotten already."""
    eager: Sequence[WantedVariant] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """`path` and `blob` are None once it was purged."""

    asset_id: UUID
    path: str | None
    entry: int
    fingerprint: bytes
    upload_id: UUID
    deleted_at: datetime
    blob: bytes | None


@dataclass(frozen=True, slots=True)
class Asked:
    """An asset asked for a variant; not for the eager ones, which are a part of it."""

    asset_id: UUID
    source: bytes
    want: WantedVariant


@dataclass(frozen=True, slots=True)
class Rendered:
    source: bytes
    want: WantedVariant
    output: BlobFacts


@dataclass(frozen=True, slots=True)
class Counter:
    """The number of a path's next entry."""

    path_hash: bytes
    next: int


Fact = Recorded | Deleted | Asked | Rendered | Counter
Named = tuple[UUID | None, UUID | None] | bytes
"""An asset, a variant, both, or a path by its hash."""


def look_up(connection: Connection, latest: Mapping[Named, int]) -> list[tuple[int, Fact]]:
    """Assets before tombstones: one that is deleted in between is found as both, and what is told last counts."""
    pairs = [name for name in latest if isinstance(name, tuple)]
    assets = [asset_id for asset_id, variant_id in pairs if asset_id is not None and variant_id is None]
    variants = [variant_id for asset_id, variant_id in pairs if asset_id is None and variant_id is not None]
    asked = [(one, other) for one, other in pairs if one is not None and other is not None]
    hashes = [name for name in latest if isinstance(name, bytes)]
    found: dict[Named, Fact] = {}
    if assets:
        found |= {(one.asset.id, None): one for one in _recorded(connection, assets)}
        found |= {(one.asset_id, None): one for one in _deleted(connection, assets)}
    if variants:
        found |= dict(_rendered(connection, variants))
    several = dict(_asked(connection, asked)) if asked else {}
    if hashes:
        found |= {one.path_hash: one for one in _counters(connection, hashes)}
    told = [(latest[name], fact) for name, fact in found.items()]
    return told + [(latest[name], fact) for name, wants in several.items() for fact in wants]


def _recorded(connection: Connection, ids: Sequence[UUID]) -> Iterator[Recorded]:
    one = func.jsonb_build_object(
        "profile", asset_variant.c.profile, "hash", func.encode(variant.c.recipe_hash, "hex", type_=Text),
        "recipe", variant.c.recipe,
    )  # fmt: skip
    eager = (
        select(func.jsonb_agg(one, type_=JSONB))
        .join_from(asset_variant, variant, variant.c.id == asset_variant.c.variant_id)
        .where(asset_variant.c.asset_id == asset.c.id, asset_variant.c.eager)
        .scalar_subquery()
    )
    query = rows.assets().add_columns(upload.c.host_id, eager.label("eager"))
    query = query.outerjoin(upload, upload.c.id == asset.c.upload_id).where(asset.c.id.in_(ids))
    for row in connection.execute(query):
        wants = [
            WantedVariant(bytes.fromhex(want["hash"]), want["recipe"], want["profile"] or None, eager=True)
            for want in row.eager or ()
        ]
        yield Recorded(rows.to_asset(row), row.fingerprint, row.upload_id, row.host_id, wants)


def _deleted(connection: Connection, ids: Sequence[UUID]) -> Iterator[Deleted]:
    columns = (tombstone.c[name] for name in Deleted.__dataclass_fields__ if name != "path")
    query = select(*columns, tombstone.c.path_text.label("path")).where(tombstone.c.asset_id.in_(ids))
    for row in connection.execute(query):
        yield Deleted(**row._asdict())


def _rendered(connection: Connection, ids: Sequence[UUID]) -> Iterator[tuple[Named, Fact]]:
    query = select(variant, blob.c.size, blob.c.media_type).join_from(variant, blob, blob.c.sha256 == variant.c.blob)
    for row in connection.execute(query.where(variant.c.id.in_(ids))):
        output = BlobFacts(row.blob, row.size, row.media_type)
        yield (None, row.id), Rendered(row.source, WantedVariant(row.recipe_hash, row.recipe), output)


def _asked(connection: Connection, pairs: Sequence[tuple[UUID, UUID]]) -> Mapping[Named, list[Asked]]:
    """One for each profile under which it was asked for."""
    query = select(asset_variant, variant.c.source, variant.c.recipe_hash, variant.c.recipe)
    query = query.join_from(asset_variant, variant, variant.c.id == asset_variant.c.variant_id)
    chosen = tuple_(asset_variant.c.asset_id, asset_variant.c.variant_id).in_(pairs)
    found: dict[Named, list[Asked]] = {}
    for row in connection.execute(query.where(chosen, ~asset_variant.c.eager)):
        want = WantedVariant(row.recipe_hash, row.recipe, row.profile or None)
        found.setdefault((row.asset_id, row.variant_id), []).append(Asked(row.asset_id, row.source, want))
    return found


def _counters(connection: Connection, hashes: Sequence[bytes]) -> Iterator[Counter]:
    query: Any = select(path_counter.c.path_hash, path_counter.c.next).where(path_counter.c.path_hash.in_(hashes))
    for row in connection.execute(query):
        yield Counter(*row)
