"""Until when a host has told of all that it accepted.

Revision ID: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("host", sa.Column("told_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("host", "told_until")
