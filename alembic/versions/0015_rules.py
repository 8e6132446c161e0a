"""The placement rules in force.

Nothing is filled in here: the first process that asks puts its own in force.

Revision ID: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "placement_rules",
        sa.Column("one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("said", JSONB(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_placement_rules")),
        sa.CheckConstraint("one", name=op.f("ck_placement_rules_one")),
    )


def downgrade() -> None:
    op.drop_table("placement_rules")
