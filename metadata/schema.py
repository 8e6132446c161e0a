"""The tables: columns, keys and indexes only.

`asset.id` is what the children of an asset point to before the asset itself is inserted: in the metadata transaction
the row of `path_counter` is locked last, and the asset needs its number. So those foreign keys are checked at COMMIT.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from metadata.ltree import LTREE

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

TIME = DateTime(timezone=True)
NOW = func.now()

generation_seq = Sequence("generation_seq", data_type=BigInteger, metadata=metadata)

host = Table(
    "host",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("last_seen", TIME, nullable=False, server_default=NOW),
    Column("clock_offset", Interval),  # what PostgreSQL's clock is ahead of the host's
    Column("connections", Integer),  # that its processes may open at most
    Column("told_until", TIME),  # all that it had accepted by then is announced, or was recorded or given up
)

upload = Table(
    "upload",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("host_id", Uuid, nullable=False),
    Column("asset_id", Uuid, nullable=False),
    Column("path_text", Text),  # null once purged
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("accepted_at", TIME, nullable=False),
    Column("recorded_at", TIME),
    CheckConstraint("state IN ('announced', 'recorded')", name="state"),
    Index("ix_upload_announced", "host_id", postgresql_where=text("state = 'announced'")),
    Index("ix_upload_asset_id", "asset_id"),
    Index("ix_upload_recorded_at", "recorded_at", postgresql_where=text("state = 'recorded'")),
)

blob = Table(
    "blob",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("gc_after", TIME),  # set: look from then on whether anything still refers to it
    Column("last_read_at", TIME),  # coarse; null: not since that is written down
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    Index("ix_blob_gc_after", "gc_after", postgresql_where=text("gc_after IS NOT NULL")),
)

replica = Table(
    "replica",
    metadata,
    Column("blob", ForeignKey("blob.sha256"), primary_key=True),
    Column("store", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reserved_at", TIME, nullable=False, server_default=NOW),
    Column("last_verified_at", TIME),
    Column("next_check_at", TIME),  # when a missing or corrupt one is due for repair
    Column("failed_checks", Integer, nullable=False, server_default=text("0")),
    # Set: a copy for faster reading, which no rule asks for and which may go any time. When it was read last, coarsely.
    Column("promoted_at", TIME),
    Column("stands_for", Text),  # the store that a rule names and whose bytes a policy moved here
    CheckConstraint("state IN ('pending', 'healthy', 'missing', 'corrupt')", name="state"),
    CheckConstraint("promoted_at IS NULL OR stands_for IS NULL", name="promoted_stands_for_none"),
    Index("ix_replica_pending", "reserved_at", postgresql_where=text("state = 'pending'")),
    Index("ix_replica_repair", "next_check_at", postgresql_where=text("state IN ('missing', 'corrupt')")),
    Index("ix_replica_store", "store", "blob", postgresql_where=text("state <> 'pending'")),
    Index("ix_replica_sick", "blob", "store", postgresql_where=text("state IN ('missing', 'corrupt')")),
    Index("ix_replica_promoted", "store", "promoted_at", "blob", postgresql_where=text("promoted_at IS NOT NULL")),
    Index("ix_replica_stands_for", "stands_for", "blob", postgresql_where=text("stands_for IS NOT NULL")),
    Index(
        "ix_replica_scrub",
        "store",
        text("last_verified_at NULLS FIRST"),
        "blob",
        postgresql_where=text("state = 'healthy'"),
    ),
)

verify_event = Table(
    "verify_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("blob", LargeBinary, nullable=False),  # no foreign key: history outlives what it tells of
    Column("store", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("result", Text, nullable=False),
    Column("detail", Text),
    Column("at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("result IN ('wanted', 'missing', 'corrupt', 'repaired', 'unrepaired')", name="result"),
    Index("ix_verify_event_blob", "blob", "at"),
    Index("ix_verify_event_at", "at"),
)

store = Table(
    "store",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("successor", Text),  # takes what a draining store would have taken
    Column("changed_at", TIME, nullable=False, server_default=NOW),
    CheckConstraint("state IN ('active', 'draining', 'read-only')", name="state"),
)

garbage = Table(
    "garbage",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("store", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("given_out", Boolean, nullable=False, server_default=text("false")),  # to who deletes it
    Index("ix_garbage_key", "store", "key"),
    Index("ix_garbage_blob", text("split_part(key, '.', 1)"), postgresql_where=text("NOT given_out")),
)

deleted_object = Table(
    "deleted_object",
    metadata,
    Column("generation", BigInteger, primary_key=True, autoincrement=False),  # says which, and not what it was
    Column("store", Text, primary_key=True),
    Column("deleted_at", TIME, nullable=False, server_default=NOW),
    Index("ix_deleted_object_deleted_at", "deleted_at"),
)

asset = Table(
    "asset",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("path", LTREE, nullable=False),
    Column("path_text", Text, nullable=False),
    Column("path_hash", LargeBinary, nullable=False),
    Column("entry", Integer, nullable=False),
    Column("blob", ForeignKey("blob.sha256"), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("frames", Integer),
    Column("orientation", SmallInteger, nullable=False),
    Column("has_alpha", Boolean, nullable=False),
    Column("alt", Text),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("upload_id", Uuid, nullable=False),
    Column("accepted_at", TIME, nullable=False),  # PostgreSQL's time, see metadata/times.py
    Column("accepted_by_host_at", TIME, nullable=False),  # what the clock of the host said then
    Column("created_at", TIME, nullable=False, server_default=NOW),
    UniqueConstraint("path_hash", "entry"),
    Index("ix_asset_path", "path", postgresql_using="gist"),
    Index("ix_asset_newest", "path_hash", text("accepted_at DESC"), text("id DESC")),
    Index("ix_asset_blob", "blob", "id"),
)

tombstone = Table(
    "tombstone",
    metadata,
    Column("asset_id", Uuid, primary_key=True),
    Column("path_text", Text),  # null once purged, as path_hash and blob are
    Column("path_hash", LargeBinary),
    Column("entry", Integer, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("upload_id", Uuid, nullable=False),
    Column("deleted_at", TIME, nullable=False, server_default=NOW),
    Column("blob", LargeBinary),  # for a purge that comes later; keeps nothing alive
    Index("ix_tombstone_deleted_at", "deleted_at"),
    Index("ix_tombstone_path_hash", "path_hash", "entry"),
)

path_counter = Table(
    "path_counter",
    metadata,
    Column("path_hash", LargeBinary, primary_key=True),
    Column("next", Integer, nullable=False),
)


def _asset_id() -> Column[object]:
    key = ForeignKey("asset.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED")
    return Column("asset_id", key, primary_key=True)


label = Table(
    "label",
    metadata,
    _asset_id(),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("ix_label_lookup", "key", "value"),
)

tag = Table(
    "tag",
    metadata,
    _asset_id(),
    Column("value", Text, primary_key=True),
    Index("ix_tag_lookup", "value"),
)

variant = Table(
    "variant",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source", ForeignKey("blob.sha256"), nullable=False),
    Column("recipe_hash", LargeBinary, nullable=False),
    Column("recipe", JSONB, nullable=False),
    Column("blob", ForeignKey("blob.sha256")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("unfinished", Integer, nullable=False),
    Column("lease_until", TIME),
    Column("fence", BigInteger, nullable=False),
    Column("next_attempt_at", TIME, nullable=False, server_default=NOW),
    Column("error_kind", Text),
    Column("error_detail", Text),
    Column("created_at", TIME, nullable=False, server_default=NOW),
    Column("finished_at", TIME),
    UniqueConstraint("source", "recipe_hash"),
    CheckConstraint("state IN ('pending', 'ready', 'failed')", name="state"),
    CheckConstraint("(state = 'ready') = (blob IS NOT NULL)", name="ready_has_blob"),
    Index("ix_variant_due", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index("ix_variant_blob", "blob", "id", postgresql_where=text("blob IS NOT NULL")),
)

asset_variant = Table(
    "asset_variant",
    metadata,
    _asset_id(),
    Column("variant_id", ForeignKey("variant.id", ondelete="CASCADE"), primary_key=True),
    Column("profile", Text, primary_key=True),  # '' when asked for by parameters: a key column cannot be null
    Column("eager", Boolean, nullable=False),
    Index("ix_asset_variant_variant_id", "variant_id", "asset_id"),
)

failure = Table(
    "failure",
    metadata,
    Column("id", Uuid, primary_key=True),  # the upload's, the variant's, or one that follows from the source
    Column("subject", Text, nullable=False),
    Column("host_id", Uuid),
    Column("path_text", Text),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("failed_at", TIME, nullable=False, server_default=NOW),
    Column("wish", Text),
    Column("source", LargeBinary),  # that cannot be decoded; keeps nothing alive
    CheckConstraint("subject IN ('ingest', 'variant', 'source')", name="subject"),
    CheckConstraint("wish IN ('retry', 'discard')", name="wish"),
    Index("ix_failure_newest", text("failed_at DESC"), text("id DESC")),
    Index("ix_failure_host_id", "host_id"),
)
