"""Which upload on this host an Idempotency-Key's asset id stands for: a hint shared by all processes of the host.

A file of fixed size in the staging directory: buckets of slots, each an asset id and an upload id. It is lossy on
purpose. A lost, torn or overwritten slot only means that a repeated key is taken in once more and settled by ingest;
a stale one is seen by whoever looks at the upload it names. So it needs no lock, no sync and no cleaning.
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

FILE = ".keys"
ID = 16
SLOT = 2 * ID
SLOTS = 16
BUCKET = SLOT * SLOTS
BUCKETS = 1 << 14
"""262,144 slots, 8 MiB, sparse until used: enough for a backlog of 100,000 keyed uploads."""


class KeyIndex:
    def __init__(self, staging: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(staging / FILE, flags, 0o600)
        if os.fstat(self._file).st_size < BUCKET * BUCKETS:
            os.ftruncate(self._file, BUCKET * BUCKETS)

    def recall(self, asset_id: UUID) -> list[UUID]:
        """Uploads that once stood for this asset, newest first."""
        slots = self._slots(asset_id)
        found = {UUID(bytes=slot[ID:]) for slot in slots if slot[:ID] == asset_id.bytes}
        return sorted(found, key=lambda upload_id: upload_id.bytes, reverse=True)

    def remember(self, asset_id: UUID, upload_id: UUID) -> None:
        """Takes an empty slot, or the one with the oldest upload. A full disk changes nothing: it stays a hint."""
        slots = self._slots(asset_id)
        index = min(range(SLOTS), key=lambda number: slots[number][ID:])
        try:
            os.pwrite(self._file, asset_id.bytes + upload_id.bytes, self._offset(asset_id) + index * SLOT)
        except OSError:
            return

    def close(self) -> None:
        os.close(self._file)

    def _slots(self, asset_id: UUID) -> list[bytes]:
        try:
            bucket = os.pread(self._file, BUCKET, self._offset(asset_id))
        except OSError:
            bucket = b""
        bucket = bucket.ljust(BUCKET, b"\0")
        return [bucket[start : start + SLOT] for start in range(0, BUCKET, SLOT)]

    @staticmethod
    def _offset(asset_id: UUID) -> int:
        return int.from_bytes(asset_id.bytes[:4]) % BUCKETS * BUCKET
