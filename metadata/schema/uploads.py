"""What became of uploads, and what failed."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text, Uuid, text

from metadata.schema.base import NOW, TIME, metadata

upload = Table(
    "upload",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("host_id", Uuid, nullable=False),
    Column("asset_id", Uuid, nullable=False),
    Column("path_text", Text),  # null once purged
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("accepted_at", TIME, nullable=False),
    Column("recorded_at", TIME),
    CheckConstraint("state IN ('announced', 'recorded')", name="state"),
    Index("ix_upload_announced", "host_id", postgresql_where=text("state = 'announced'")),
    Index("ix_upload_asset_id", "asset_id"),
    Index("ix_upload_recorded_at", "recorded_at", postgresql_where=text("state = 'recorded'")),
)

failure = Table(
    "failure",
    metadata,
    Column("id", Uuid, primary_key=True),  # the upload's, the variant's, or one that follows from the source
    Column("subject", Text, nullable=False),
    Column("host_id", Uuid),
    Column("path_text", Text),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("failed_at", TIME, nullable=False, server_default=NOW),
    Column("wish", Text),
    Column("source", LargeBinary),  # that cannot be decoded; keeps nothing alive
    CheckConstraint("subject IN ('ingest', 'variant', 'source')", name="subject"),
    CheckConstraint("wish IN ('retry', 'discard')", name="wish"),
    Index("ix_failure_newest", text("failed_at DESC"), text("id DESC")),
    Index("ix_failure_host_id", "host_id"),
)
