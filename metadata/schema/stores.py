"""What is said of stores, and which rules are in force."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from metadata.schema.base import NOW, TIME, metadata

store = Table(
    "store",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("successor", Text),  # takes what a draining store would have taken
    Column("changed_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("state IN ('active', 'draining', 'read-only')", name="state"),
)

identified_store = Table(
    "identified_store",
    metadata,
    Column("name", Text, primary_key=True),  # it got its marker once, and is not taken for a new one again
    Column("identified_at", TIME, nullable=False, server_default=NOW),
)

placement_rules = Table(
    "placement_rules",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),  # the only row
    Column("fingerprint", LargeBinary, nullable=False),
    Column("said", JSONB, nullable=False),
    Column("since", TIME, nullable=False, server_default=NOW),
    CheckConstraint("one", name="one"),
)
