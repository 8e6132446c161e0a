"""Garbage says whether gc may be deleting it.

Of what is there already that is not known: it counts as given out.

Revision ID: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("garbage", sa.Column("given_out", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.alter_column("garbage", "given_out", server_default=sa.false())
    hash_of_key = sa.text("split_part(key, '.', 1)")
    op.create_index("ix_garbage_blob", "garbage", [hash_of_key], postgresql_where=sa.text("NOT given_out"))


def downgrade() -> None:
    op.drop_index("ix_garbage_blob", "garbage")
    op.drop_column("garbage", "given_out")
