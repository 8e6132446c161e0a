"""Which stores got their marker, so that none of them is taken for a new one because it looks empty.

Revision ID: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "identified_store",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("identified_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identified_store")),
    )


def downgrade() -> None:
    op.drop_table("identified_store")
