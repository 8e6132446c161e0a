"""A host says with its heartbeat how many connections its processes may open.

Revision ID: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("host", sa.Column("connections", sa.Integer()))


def downgrade() -> None:
    op.drop_column("host", "connections")
