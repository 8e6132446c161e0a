"""The installation, its hosts and its processes."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Integer, Interval, Table, Text, Uuid, text

from metadata.schema.base import NOW, TIME, metadata

installation = Table(
    "installation",
    metadata,
    Column("one", Boolean, primary_key=True, server_default=text("true")),  # the only row
    Column("id", Uuid, nullable=False),
    CheckConstraint("one", name="one"),
)

host = Table(
    "host",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("last_seen", TIME, nullable=False, server_default=NOW),
    Column("clock_offset", Interval),  # what PostgreSQL's clock is ahead of the host's
    Column("connections", Integer),  # that its processes may open at most
    Column("told_until", TIME),  # all that it had accepted by then is announced, or was recorded or given up
)

worker = Table(
    "worker",
    metadata,
    Column("host", Text, primary_key=True),  # its id, or its name where it has no staging
    Column("queues", Text, primary_key=True),
    Column("connections", Integer, nullable=False),  # that it may open at most
    Column("last_seen", TIME, nullable=False, server_default=NOW),
)

reader = Table(
    "reader",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("last_seen", TIME, nullable=False, server_default=NOW),  # any of its readers
)

turn = Table(
    "turn",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", Uuid, nullable=False),
    Column("ends_at", TIME, nullable=False),
)
