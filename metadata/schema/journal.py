"""What is yet to be written down beside the bytes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, LargeBinary, Table, Uuid

from metadata.schema.base import metadata

catalogue_event = Table(
    "catalogue_event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("asset_id", Uuid),
    Column("variant_id", Uuid),  # alone: it is rendered; with an asset: that one asked for it
    Column("path_hash", LargeBinary),  # a path whose counter nothing else tells of any more
)
