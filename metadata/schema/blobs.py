"""Bytes, where they lie, and what is to be removed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    Table,
    Text,
    text,
)

from metadata.schema.base import NOW, TIME, metadata

generation_seq = Sequence("generation_seq", data_type=BigInteger, metadata=metadata)

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

promoted_bytes = Table(  # how much the copies for faster reading take: the sum over a store
    "promoted_bytes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("store", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("unfilled", BigInteger, nullable=False),  # of them
)
