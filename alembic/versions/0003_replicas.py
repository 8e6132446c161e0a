"""Replicas can be wanted, missing or corrupt, and are repaired; what was found of them is kept.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("replica", sa.Column("next_check_at", TIME, nullable=True))
    op.add_column("replica", sa.Column("failed_checks", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.drop_constraint(op.f("ck_replica_state"), "replica")
    op.create_check_constraint(
        op.f("ck_replica_state"), "replica", "state IN ('pending', 'healthy', 'missing', 'corrupt')"
    )
    op.create_index(
        "ix_replica_repair", "replica", ["next_check_at"], postgresql_where=sa.text("state IN ('missing', 'corrupt')")
    )
    op.create_table(
        "verify_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("at", TIME, nullable=False, server_default=sa.text("now()")),
        sa.CheckConstraint(
            "result IN ('wanted', 'missing', 'corrupt', 'repaired', 'unrepaired')", name=op.f("ck_verify_event_result")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verify_event")),
    )
    op.create_index("ix_verify_event_blob", "verify_event", ["blob", "at"])
    op.create_index("ix_verify_event_at", "verify_event", ["at"])


def downgrade() -> None:
    op.drop_table("verify_event")
    op.execute("DELETE FROM replica WHERE state IN ('missing', 'corrupt')")
    op.drop_index("ix_replica_repair", "replica")
    op.drop_constraint(op.f("ck_replica_state"), "replica")
    op.create_check_constraint(op.f("ck_replica_state"), "replica", "state IN ('pending', 'healthy')")
    op.drop_column("replica", "failed_checks")
    op.drop_column("replica", "next_check_at")
