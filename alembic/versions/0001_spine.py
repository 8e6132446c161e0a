"""The spine: assets, blobs and their replicas, variants, uploads, failures, tombstones.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from metadata.ltree import LTREE

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS ltree")
    op.execute(sa.schema.CreateSequence(sa.Sequence("generation_seq", data_type=sa.BigInteger)))
    op.create_table(
        "blob",
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("gc_after", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(sha256) = 32", name=op.f("ck_blob_sha256")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob")),
    )
    op.create_index(
        "ix_blob_gc_after", "blob", ["gc_after"], unique=False, postgresql_where=sa.text("gc_after IS NOT NULL")
    )
    op.create_table(
        "failure",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=True),
        sa.Column("path_text", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("wish", sa.Text(), nullable=True),
        sa.CheckConstraint("subject IN ('ingest', 'variant')", name=op.f("ck_failure_subject")),
        sa.CheckConstraint("wish IN ('retry', 'discard')", name=op.f("ck_failure_wish")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failure")),
    )
    op.create_index("ix_failure_host_id", "failure", ["host_id"], unique=False)
    op.create_index(
        "ix_failure_newest",
        "failure",
        [sa.literal_column("failed_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "garbage",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_garbage")),
    )
    op.create_table(
        "host",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host")),
    )
    op.create_table(
        "path_counter",
        sa.Column("path_hash", sa.LargeBinary(), nullable=False),
        sa.Column("next", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("path_hash", name=op.f("pk_path_counter")),
    )
    op.create_table(
        "tombstone",
        sa.Column("asset_id", sa.Uuid(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=True),
        sa.Column("path_hash", sa.LargeBinary(), nullable=True),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("asset_id", name=op.f("pk_tombstone")),
    )
    op.create_index("ix_tombstone_deleted_at", "tombstone", ["deleted_at"], unique=False)
    op.create_table(
        "upload",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host_id", sa.Uuid(), nullable=False),
        sa.Column("asset_id", sa.Uuid(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('announced', 'recorded')", name=op.f("ck_upload_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload")),
    )
    op.create_index(
        "ix_upload_announced", "upload", ["host_id"], unique=False, postgresql_where=sa.text("state = 'announced'")
    )
    op.create_index("ix_upload_asset_id", "upload", ["asset_id"], unique=False)
    op.create_index(
        "ix_upload_recorded_at", "upload", ["recorded_at"], unique=False, postgresql_where=sa.text("state = 'recorded'")
    )
    op.create_table(
        "asset",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("path", LTREE(), nullable=False),
        sa.Column("path_text", sa.Text(), nullable=False),
        sa.Column("path_hash", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=True),
        sa.Column("orientation", sa.SmallInteger(), nullable=False),
        sa.Column("has_alpha", sa.Boolean(), nullable=False),
        sa.Column("alt", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["blob"], ["blob.sha256"], name=op.f("fk_asset_blob_blob")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_asset")),
        sa.UniqueConstraint("path_hash", "entry", name=op.f("uq_asset_path_hash_entry")),
    )
    op.create_index("ix_asset_blob", "asset", ["blob"], unique=False)
    op.create_index(
        "ix_asset_newest",
        "asset",
        ["path_hash", sa.literal_column("accepted_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index("ix_asset_path", "asset", ["path"], unique=False, postgresql_using="gist")
    op.create_table(
        "replica",
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reserved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('pending', 'healthy')", name=op.f("ck_replica_state")),
        sa.ForeignKeyConstraint(["blob"], ["blob.sha256"], name=op.f("fk_replica_blob_blob")),
        sa.PrimaryKeyConstraint("blob", "store", name=op.f("pk_replica")),
    )
    op.create_index(
        "ix_replica_pending", "replica", ["reserved_at"], unique=False, postgresql_where=sa.text("state = 'pending'")
    )
    op.create_table(
        "variant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.Column("recipe_hash", sa.LargeBinary(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("unfinished", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("error_kind", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'ready') = (blob IS NOT NULL)", name=op.f("ck_variant_ready_has_blob")),
        sa.CheckConstraint("state IN ('pending', 'ready', 'failed')", name=op.f("ck_variant_state")),
        sa.ForeignKeyConstraint(["blob"], ["blob.sha256"], name=op.f("fk_variant_blob_blob")),
        sa.ForeignKeyConstraint(["source"], ["blob.sha256"], name=op.f("fk_variant_source_blob")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variant")),
        sa.UniqueConstraint("source", "recipe_hash", name=op.f("uq_variant_source_recipe_hash")),
    )
    op.create_index("ix_variant_blob", "variant", ["blob"], unique=False, postgresql_where=sa.text("blob IS NOT NULL"))
    op.create_index(
        "ix_variant_due", "variant", ["next_attempt_at"], unique=False, postgresql_where=sa.text("state = 'pending'")
    )
    op.create_table(
        "asset_variant",
        sa.Column("asset_id", sa.Uuid(), nullable=False),
        sa.Column("variant_id", sa.Uuid(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("eager", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset_id"],
            ["asset.id"],
            name=op.f("fk_asset_variant_asset_id_asset"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variant.id"], name=op.f("fk_asset_variant_variant_id_variant"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("asset_id", "variant_id", "profile", name=op.f("pk_asset_variant")),
    )
    op.create_index("ix_asset_variant_variant_id", "asset_variant", ["variant_id"], unique=False)
    op.create_table(
        "label",
        sa.Column("asset_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset_id"],
            ["asset.id"],
            name=op.f("fk_label_asset_id_asset"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("asset_id", "key", name=op.f("pk_label")),
    )
    op.create_index("ix_label_lookup", "label", ["key", "value"], unique=False)
    op.create_table(
        "tag",
        sa.Column("asset_id", sa.Uuid(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["asset_id"],
            ["asset.id"],
            name=op.f("fk_tag_asset_id_asset"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("asset_id", "value", name=op.f("pk_tag")),
    )
    op.create_index("ix_tag_lookup", "tag", ["value"], unique=False)


def downgrade() -> None:
    """The extension stays: others may use it."""
    for table in (
        "tag",
        "label",
        "asset_variant",
        "variant",
        "replica",
        "asset",
        "upload",
        "tombstone",
        "path_counter",
        "host",
        "garbage",
        "failure",
        "blob",
    ):
        op.drop_table(table)
    op.execute(sa.schema.DropSequence(sa.Sequence("generation_seq")))
