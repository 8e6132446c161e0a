"""A tombstone knows what its asset held, and is found by its path: a purge may come after the delete.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tombstone", sa.Column("blob", sa.LargeBinary(), nullable=True))
    op.create_index("ix_tombstone_path_hash", "tombstone", ["path_hash", "entry"])


def downgrade() -> None:
    op.drop_index("ix_tombstone_path_hash", "tombstone")
    op.drop_column("tombstone", "blob")
