"""Assets under their paths, and what is left of deleted ones."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from metadata.ltree import LTREE
from metadata.schema.base import NOW, TIME, asset_id, metadata

asset = Table(
    "asset",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("path", LTREE, nullable=False),
    Column("path_text", Text, nullable=False),
    Column("path_hash", LargeBinary, nullable=False),
    Column("entry", Integer, nullable=False),
    Column("blob", ForeignKey("blob.sha256"), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("frames", Integer),
    Column("orientation", SmallInteger, nullable=False),
    Column("has_alpha", Boolean, nullable=False),
    Column("alt", Text),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("upload_id", Uuid, nullable=False),
    Column("accepted_at", TIME, nullable=False),  # PostgreSQL's time, see metadata/times.py
    Column("accepted_by_host_at", TIME, nullable=False),  # what the clock of the host said then
    Column("created_at", TIME, nullable=False, server_default=NOW),
    UniqueConstraint("path_hash", "entry"),
    Index("ix_asset_path", "path", postgresql_using="gist"),
    Index("ix_asset_newest", "path_hash", text("accepted_at DESC"), text("id DESC")),
    Index("ix_asset_blob", "blob", "id"),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("asset_id", Uuid, primary_key=True),
    Column("path_text", Text),  # null once purged, as path_hash and blob are
    Column("path_hash", LargeBinary),
    Column("entry", Integer, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("upload_id", Uuid, nullable=False),
    Column("deleted_at", TIME, nullable=False, server_default=NOW),
    Column("blob", LargeBinary),  # for a purge that comes later; keeps nothing alive
    Index("ix_tombstone_deleted_at", "deleted_at"),
    Index("ix_tombstone_path_hash", "path_hash", "entry"),
)

path_counter = Table(
    "path_counter",
    metadata,
    Column("path_hash", LargeBinary, primary_key=True),
    Column("next", Integer, nullable=False),
)

label = Table(
    "label",
    metadata,
    asset_id(),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("ix_label_lookup", "key", "value"),
)

tag = Table(
    "tag",
    metadata,
    asset_id(),
    Column("value", Text, primary_key=True),
    Index("ix_tag_lookup", "value"),
)
