"""Which objects were deleted, by their generations alone: a store that comes from an older copy brings them back.

Revision ID: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deleted_object",
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("generation", "store", name=op.f("pk_deleted_object")),
    )
    op.create_index("ix_deleted_object_deleted_at", "deleted_object", ["deleted_at"])


def downgrade() -> None:
    op.drop_table("deleted_object")
