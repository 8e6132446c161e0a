"""The file format of a staged entry: one file for one upload.

    body                  from offset 0, as it was sent
    manifest              JSON
    trailer, 2,096 bytes  attempt slot A · attempt slot B · footer

The footer holds the lengths and a CRC of the manifest and of itself: a file that was cut, extended or written half does
not pass for an entry. The body's own hash is in the manifest; whoever stores the body checks it.

Attempts are counted in place, so counting needs no new space: a write goes to the slot that holds the older record,
with the next sequence number. A torn write leaves a slot whose CRC does not hold, and the older record counts. Both
slots gone means a fresh count. The records are not synced: they are there for processes that die, and a power cut may
take back the last of them.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core.errors import Corrupt
from core.model import Attempts, FailureReason, Manifest
from storage.staging import manifest as manifest_json
from storage.staging.manifest import compact

SLOT_BYTES = 1024
SLOT_HEADER = struct.Struct("<QHI")  # sequence, length of the record, CRC of all that
FOOTER = struct.Struct("<8sQIIxxxxxxxxxxxxxxxxxxxxI")  # magic, body length, manifest length, manifest CRC, footer CRC
MAGIC = b"MILLRAC1"
MAX_KIND = 32
"""Characters of a reason's kind that an attempt record keeps."""
TRAILER_BYTES = 2 * SLOT_BYTES + FOOTER.size
MAX_MANIFEST_BYTES = 16 << 20
"""More than any limits on labels and tags let through: a broken length must not take memory."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What the end of an entry says. `sequence` numbers the attempt record, 0 when there is none."""

    size: int
    manifest_length: int
    manifest_crc: int
    attempts: Attempts
    sequence: int

    @property
    def slots_offset(self) -> int:
        return self.size + self.manifest_length


def encode_tail(manifest: Manifest) -> bytes:
    """Everything after the body of a new entry."""
    text = manifest_json.encode(manifest)
    footer = FOOTER.pack(MAGIC, manifest.size, len(text), zlib.crc32(text), 0)
    footer = footer[:-4] + struct.pack("<I", zlib.crc32(footer[:-4]))
    return text + _FRESH_SLOTS + footer


def read_trailer(descriptor: int) -> Trailer:
    """
    Raises:
        Corrupt: when the file does not end as an entry does.
        OSError: when it cannot be read.
    """
    end = os.fstat(descriptor).st_size
    data = os.pread(descriptor, TRAILER_BYTES, max(end - TRAILER_BYTES, 0))
    if len(data) < TRAILER_BYTES:
        raise Corrupt("the file is shorter than an entry's trailer")
    footer = data[-FOOTER.size :]
    magic, size, length, manifest_crc, footer_crc = FOOTER.unpack(footer)
    if magic != MAGIC or footer_crc != zlib.crc32(footer[:-4]):
        raise Corrupt("the file does not end with an entry's footer")
    if size + length + TRAILER_BYTES != end or length > MAX_MANIFEST_BYTES:
        raise Corrupt(f"the footer's lengths do not add up to the {end} bytes of the file")
    slots = [_decode_slot(data[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES)]
    sequence, attempts = max((slot for slot in slots if slot), key=lambda slot: slot[0], default=(0, Attempts()))
    return Trailer(size, length, manifest_crc, attempts, sequence)


def read_manifest(descriptor: int, trailer: Trailer) -> Manifest:
    """
    Raises:
        Corrupt: when the manifest is not the one that was written.
        OSError: when it cannot be read.
    """
    text = os.pread(descriptor, trailer.manifest_length, trailer.size)
    if len(text) != trailer.manifest_length or zlib.crc32(text) != trailer.manifest_crc:
        raise Corrupt("the manifest's CRC does not hold")
    manifest = manifest_json.decode(text)
    if manifest.size != trailer.size:
        raise Corrupt("the manifest's size is not the body's")
    return manifest


def write_attempts(descriptor: int, attempts: Attempts) -> None:
    """Write the record into the slot that is not the latest. What is on disk decides, not what the caller read once."""
    trailer = read_trailer(descriptor)
    slot = _encode_slot(trailer.sequence + 1, attempts)
    # Record n lies in slot (n + 1) % 2: encode_tail puts number 1 into the first.
    offset = trailer.slots_offset + SLOT_BYTES * (trailer.sequence % 2)
    if os.pwrite(descriptor, slot, offset) != SLOT_BYTES:
        raise OSError("an attempt record was written short")


def _encode_slot(sequence: int, attempts: Attempts) -> bytes:
    """The reason's words are cut as needed: a record always fits."""
    room = SLOT_BYTES - SLOT_HEADER.size
    if attempts.failure is not None:
        reason = FailureReason(attempts.failure.kind[:MAX_KIND], attempts.failure.detail[:room])
        attempts = replace(attempts, failure=reason)
    record = _encode_attempts(attempts)
    while len(record) > room and attempts.failure is not None:
        # One character takes up to twelve bytes of JSON, so cutting by a twelfth of the excess never cuts too much.
        cut = -(-(len(record) - room) // 12)
        reason = replace(attempts.failure, detail=attempts.failure.detail[:-cut])
        attempts = replace(attempts, failure=reason)
        record = _encode_attempts(attempts)
    head = struct.pack("<QH", sequence, len(record))
    return (head + struct.pack("<I", zlib.crc32(head + record)) + record).ljust(SLOT_BYTES, b"\0")


def _decode_slot(slot: bytes) -> tuple[int, Attempts] | None:
    sequence, length, crc = SLOT_HEADER.unpack_from(slot)
    record = slot[SLOT_HEADER.size : SLOT_HEADER.size + length]
    head = struct.pack("<QH", sequence, length)
    if sequence == 0 or len(record) != length or crc != zlib.crc32(head + record):
        return None
    try:
        return sequence, _decode_attempts(record)
    except (ValueError, KeyError, TypeError):
        return None


def _encode_attempts(attempts: Attempts) -> bytes:
    fields: dict[str, Any] = {
        "total": attempts.total,
        "unfinished": attempts.unfinished,
        "running": attempts.running,
        "started_at": attempts.started_at.isoformat() if attempts.started_at else None,
        "due_at": attempts.due_at.isoformat() if attempts.due_at else None,
        "failure": [attempts.failure.kind, attempts.failure.detail] if attempts.failure else None,
    }
    return compact(fields).encode("ascii")


def _decode_attempts(record: bytes) -> Attempts:
    fields = json.loads(record)
    return Attempts(
        total=fields["total"],
        unfinished=fields["unfinished"],
        running=fields["running"],
        started_at=datetime.fromisoformat(fields["started_at"]) if fields["started_at"] else None,
        due_at=datetime.fromisoformat(fields["due_at"]) if fields["due_at"] else None,
        failure=FailureReason(*fields["failure"]) if fields["failure"] else None,
    )


_FRESH_SLOTS = _encode_slot(1, Attempts()) + bytes(SLOT_BYTES)
"""Of an entry that nobody has worked on."""
