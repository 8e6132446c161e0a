"""An installation has an id, which its stores carry, and replicas are read anew in the order of their age.

Revision ID: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("one", sa.Boolean(), nullable=False, server_default=sa.text("true")),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_installation_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_installation")),
    )
    op.create_index(
        "ix_replica_scrub",
        "replica",
        [sa.text("last_verified_at NULLS FIRST")],
        postgresql_where=sa.text("state = 'healthy'"),
    )


def downgrade() -> None:
    op.drop_index("ix_replica_scrub", "replica")
    op.drop_table("installation")
