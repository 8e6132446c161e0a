"""Copies for faster reading as tests make them: promoted up to a bound, and filled."""

from __future__ import annotations

from collections.abc import Sequence

from core.model import Replica
from metadata.blobs.promotion import Promotion
from metadata.facade import Metadata
from tests.metadata.made import NO_TIME

SIZE = 100
ROOM = 3 * SIZE


def promote(metadata: Metadata, blobs: Sequence[bytes], up_to: int = ROOM, max_bytes: int = SIZE) -> Promotion:
    return metadata.tiers.promote(blobs, "hot", up_to=up_to, max_bytes=max_bytes)


def fill(metadata: Metadata) -> list[Replica]:
    """As the repair of what is due does."""
    filled = []
    for due in metadata.repairs.due(100, NO_TIME):
        filled.append(metadata.repairs.begin(due))
        metadata.repairs.done(filled[-1])
    return filled


def copies(metadata: Metadata, store: str = "hot") -> list[bytes]:
    return [one.blob.sha256 for one in metadata.stores.page(store, b"", 100) if one.promoted]


def healthy(metadata: Metadata, sha256: bytes) -> list[str]:
    return [one.store for one in metadata.blobs.replicas(sha256)]
