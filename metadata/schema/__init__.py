"""The tables: columns, keys and indexes only.

`asset.id` is what the children of an asset point to before the asset itself is inserted: in the metadata transaction
the row of `path_counter` is locked last, and the asset needs its number. So those foreign keys are checked at COMMIT.
"""

from __future__ import annotations

from metadata.schema.assets import asset, label, path_counter, tag, tombstone
from metadata.schema.base import NOW, TIME, metadata
from metadata.schema.blobs import blob, deleted_object, garbage, generation_seq, promoted_bytes, replica, verify_event
from metadata.schema.fleet import host, installation, reader, turn, worker
from metadata.schema.jobs import job
from metadata.schema.journal import catalogue_event
from metadata.schema.stores import identified_store, placement_rules, store
from metadata.schema.uploads import failure, upload
from metadata.schema.variants import asset_variant, variant

__all__ = [
    "NOW",
    "TIME",
    "asset",
    "asset_variant",
    "blob",
    "catalogue_event",
    "deleted_object",
    "failure",
    "garbage",
    "generation_seq",
    "host",
    "identified_store",
    "installation",
    "job",
    "label",
    "metadata",
    "path_counter",
    "placement_rules",
    "promoted_bytes",
    "reader",
    "replica",
    "store",
    "tag",
    "tombstone",
    "turn",
    "upload",
    "variant",
    "verify_event",
    "worker",
]
