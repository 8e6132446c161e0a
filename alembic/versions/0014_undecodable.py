"""A source that cannot be decoded is one failure, however many variants were asked of it.

Revision ID: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("failure", sa.Column("source", sa.LargeBinary()))
    op.drop_constraint(op.f("ck_failure_subject"), "failure")
    op.create_check_constraint(op.f("ck_failure_subject"), "failure", "subject IN ('ingest', 'variant', 'source')")


def downgrade() -> None:
    op.execute("DELETE FROM failure WHERE subject = 'source'")
    op.drop_constraint(op.f("ck_failure_subject"), "failure")
    op.create_check_constraint(op.f("ck_failure_subject"), "failure", "subject IN ('ingest', 'variant')")
    op.drop_column("failure", "source")
