"""Variants, and who asked for them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from metadata.schema.base import NOW, TIME, asset_id, metadata

variant = Table(
    "variant",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", ForeignKey("blob.sha256"), nullable=False),
    Column("recipe_hash", LargeBinary, nullable=False),
    Column("recipe", JSONB, nullable=False),
    Column("blob", ForeignKey("blob.sha256")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("unfinished", Integer, nullable=False),
    Column("lease_until", TIME),
    Column("fence", BigInteger, nullable=False),
    Column("next_attempt_at", TIME, nullable=False, server_default=NOW),
    Column("error_kind", Text),
    Column("error_detail", Text),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("finished_at", TIME),
    UniqueConstraint("source", "recipe_hash"),
    CheckConstraint("state IN ('pending', 'ready', 'failed')", name="state"),
    CheckConstraint("(state = 'ready') = (blob IS NOT NULL)", name="ready_has_blob"),
    Index("ix_variant_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index("ix_variant_blob", "blob", "id", postgresql_where=text("blob IS NOT NULL")),
)

asset_variant = Table(
    "asset_variant",
    metadata,
    asset_id(),
    Column("variant_id", ForeignKey("variant.id", ondelete="CASCADE"), primary_key=True),
    Column("profile", Text, primary_key=True),  # '' when asked for by parameters: a key column cannot be null
    Column("eager", Boolean, nullable=False),
    Index("ix_asset_variant_variant_id", "variant_id", "asset_id"),
)
