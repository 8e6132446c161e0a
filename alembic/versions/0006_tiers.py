"""Replicas that no rule asks for by name: copies for faster reading, and those that stand for a store's own.

Revision ID: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

EXCLUSIVE = "ck_replica_promoted_stands_for_none"


def upgrade() -> None:
    op.add_column("blob", sa.Column("last_read_at", sa.DateTime(timezone=True)))
    op.add_column("replica", sa.Column("promoted_at", sa.DateTime(timezone=True)))
    op.add_column("replica", sa.Column("stands_for", sa.Text()))
    op.create_check_constraint(op.f(EXCLUSIVE), "replica", "promoted_at IS NULL OR stands_for IS NULL")
    promoted = sa.text("promoted_at IS NOT NULL")
    op.create_index("ix_replica_promoted", "replica", ["store"], postgresql_where=promoted)


def downgrade() -> None:
    """What stands for another store's replica is one that nothing asks for, from here on."""
    op.drop_index("ix_replica_promoted", "replica")
    op.drop_constraint(op.f(EXCLUSIVE), "replica", type_="check")
    op.drop_column("replica", "stands_for")
    op.drop_column("replica", "promoted_at")
    op.drop_column("blob", "last_read_at")
