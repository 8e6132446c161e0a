"""Long work over whole stores."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from metadata.schema.base import NOW, TIME, metadata

job = Table(
    "job",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("arguments", JSONB, nullable=False),
    Column("subject", Text, nullable=False),  # the arguments as one text: an unfinished job is there once
    Column("state", Text, nullable=False),
    Column("wish", Text),
    Column("cursor", JSONB, nullable=False),
    Column("progress", JSONB, nullable=False),
    Column("error", Text),
    Column("lease_until", TIME),
    Column("fence", BigInteger, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("started_at", TIME),
    Column("finished_at", TIME),
    CheckConstraint("state IN ('queued', 'running', 'paused', 'cancelled', 'done', 'failed')", name="state"),
    CheckConstraint("wish IN ('pause', 'cancel')", name="wish"),
    Index(
        "uq_job_unfinished",
        "kind",
        "subject",
        unique=True,
        postgresql_where=text("state IN ('queued', 'running', 'paused')"),
    ),
    Index("ix_job_due", "lease_until", postgresql_where=text("state IN ('queued', 'running')")),
    Index("ix_job_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    Index("ix_job_newest", text("created_at DESC"), text("id DESC")),
)
