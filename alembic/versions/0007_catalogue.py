"""What the catalogue is to be told waits in a table of its own.

Nothing is filled in here: a catalogue that is not there yet is begun with everything there is.

Revision ID: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalogue_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("asset_id", sa.Uuid()),
        sa.Column("variant_id", sa.Uuid()),
        sa.Column("path_hash", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalogue_event")),
    )


def downgrade() -> None:
    op.drop_table("catalogue_event")
