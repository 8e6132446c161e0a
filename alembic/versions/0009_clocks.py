"""When an asset was accepted is PostgreSQL's time; what the host's own clock said stays beside it.

Revision ID: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("host", sa.Column("clock_offset", sa.Interval()))
    op.add_column("asset", sa.Column("accepted_by_host_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE asset SET accepted_by_host_at = accepted_at")
    op.alter_column("asset", "accepted_by_host_at", nullable=False)


def downgrade() -> None:
    op.drop_column("asset", "accepted_by_host_at")
    op.drop_column("host", "clock_offset")
