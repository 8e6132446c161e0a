"""Indexes and a running sum, so that no question reads more the more there is.

`promoted_bytes` is written by a trigger, so that no way in which a copy comes or goes can forget it, and only added to,
so that no transaction waits for its rows.

Revision ID: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NOTE_PROMOTED = """
    CREATE FUNCTION note_promoted() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        size bigint := (SELECT blob.size FROM blob WHERE sha256 = coalesce(NEW.blob, OLD.blob));
        came int := (NEW.promoted_at IS NOT NULL)::int;
        went int := (OLD.promoted_at IS NOT NULL)::int;
        came_unfilled int := (NEW.promoted_at IS NOT NULL AND NEW.state <> 'healthy')::int;
        went_unfilled int := (OLD.promoted_at IS NOT NULL AND OLD.state <> 'healthy')::int;
    BEGIN
        INSERT INTO promoted_bytes (store, bytes, unfilled)
            VALUES (coalesce(NEW.store, OLD.store), size * (came - went), size * (came_unfilled - went_unfilled));
        RETURN NULL;
    END $$
"""
TRIGGERS = {
    "promoted_came": "AFTER INSERT ON replica FOR EACH ROW WHEN (NEW.promoted_at IS NOT NULL)",
    "promoted_went": "AFTER DELETE ON replica FOR EACH ROW WHEN (OLD.promoted_at IS NOT NULL)",
    "promoted_changed": """AFTER UPDATE OF state, promoted_at ON replica FOR EACH ROW WHEN (
        (OLD.promoted_at IS NULL) <> (NEW.promoted_at IS NULL)
        OR NEW.promoted_at IS NOT NULL AND (OLD.state = 'healthy') <> (NEW.state = 'healthy'))""",
}
SUM_UP = """
    INSERT INTO promoted_bytes (store, bytes, unfilled)
    SELECT store, sum(size), coalesce(sum(size) FILTER (WHERE state <> 'healthy'), 0)
    FROM replica JOIN blob ON sha256 = blob WHERE promoted_at IS NOT NULL GROUP BY store
"""

Index = tuple[str, str, list[str | sa.TextClause], str | None]

HEALTHY, PROMOTED = "state = 'healthy'", "promoted_at IS NOT NULL"
READ = sa.text("last_verified_at NULLS FIRST")
NEW: list[Index] = [
    ("ix_replica_store", "replica", ["store", "blob"], "state <> 'pending'"),
    ("ix_replica_sick", "replica", ["blob", "store"], "state IN ('missing', 'corrupt')"),
    ("ix_replica_stands_for", "replica", ["stands_for", "blob"], "stands_for IS NOT NULL"),
    ("ix_garbage_key", "garbage", ["store", "key"], None),
    ("ix_job_finished_at", "job", ["finished_at"], "finished_at IS NOT NULL"),
]
WIDER: list[tuple[Index, Index]] = [
    (
        ("ix_replica_scrub", "replica", [READ], HEALTHY),
        ("ix_replica_scrub", "replica", ["store", READ, "blob"], HEALTHY),
    ),
    (
        ("ix_replica_promoted", "replica", ["store"], PROMOTED),
        ("ix_replica_promoted", "replica", ["store", "promoted_at", "blob"], PROMOTED),
    ),
    (("ix_asset_blob", "asset", ["blob"], None), ("ix_asset_blob", "asset", ["blob", "id"], None)),
    (
        ("ix_variant_blob", "variant", ["blob"], "blob IS NOT NULL"),
        ("ix_variant_blob", "variant", ["blob", "id"], "blob IS NOT NULL"),
    ),
    (
        ("ix_asset_variant_variant_id", "asset_variant", ["variant_id"], None),
        ("ix_asset_variant_variant_id", "asset_variant", ["variant_id", "asset_id"], None),
    ),
]


def _make(index: Index) -> None:
    name, table, columns, where = index
    op.create_index(name, table, columns, postgresql_where=None if where is None else sa.text(where))


def upgrade() -> None:
    for narrow, wide in WIDER:
        op.drop_index(narrow[0], narrow[1])
        _make(wide)
    for index in NEW:
        _make(index)
    op.create_table(
        "promoted_bytes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("unfilled", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promoted_bytes")),
    )
    op.execute(NOTE_PROMOTED)
    for name, when in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION note_promoted()")
    op.execute(SUM_UP)


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON replica")
    op.execute("DROP FUNCTION note_promoted")
    op.drop_table("promoted_bytes")
    for name, table, _, _ in NEW:
        op.drop_index(name, table)
    for narrow, wide in WIDER:
        op.drop_index(wide[0], wide[1])
        _make(narrow)
