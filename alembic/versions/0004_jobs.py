"""Stores can be drained while everything runs, and long work is a job that anybody can go on with.

Revision ID: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
UNFINISHED = "state IN ('queued', 'running', 'paused')"


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("successor", sa.Text(), nullable=True),
        sa.Column("changed_at", TIME, nullable=False, server_default=sa.text("now()")),
        sa.CheckConstraint("state IN ('active', 'draining', 'read-only')", name=op.f("ck_store_state")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_store")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("wish", sa.Text(), nullable=True),
        sa.Column("cursor", postgresql.JSONB(), nullable=False),
        sa.Column("progress", postgresql.JSONB(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIME, nullable=False, server_default=sa.text("now()")),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'paused', 'cancelled', 'done', 'failed')", name=op.f("ck_job_state")
        ),
        sa.CheckConstraint("wish IN ('pause', 'cancel')", name=op.f("ck_job_wish")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_index("uq_job_unfinished", "job", ["kind", "subject"], unique=True, postgresql_where=sa.text(UNFINISHED))
    op.create_index("ix_job_due", "job", ["lease_until"], postgresql_where=sa.text("state IN ('queued', 'running')"))
    op.create_index("ix_job_newest", "job", [sa.text("created_at DESC"), sa.text("id DESC")])


def downgrade() -> None:
    op.drop_table("job")
    op.drop_table("store")
