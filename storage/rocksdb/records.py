"""What lies under which key in the database.

    c <id> <number>   one chunk of a body; `id` is 16 bytes that no other body has or had, `number` 4 bytes from 0
    r <key>           the record of an object: it exists when this does
    w <id>            a body is being written whose record is not there yet

Ids grow with time, so new chunks lie behind old ones and compaction leaves the old ones alone. A record and the end of
its `w` are one batch. After a crash, `w` names every chunk that nothing will ever read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import uuid_utils

from core.errors import Corrupt

CHUNK, RECORD, WRITING = b"c", b"r", b"w"
ID_BYTES = 16


def new_id() -> bytes:
    return uuid_utils.uuid7().bytes


def chunk_name(body: bytes, number: int) -> bytes:
    return CHUNK + body + number.to_bytes(4)


def record_name(key: str) -> bytes:
    return RECORD + key.encode("ascii")


def writing_name(body: bytes) -> bytes:
    return WRITING + body


@dataclass(frozen=True, slots=True)
class Record:
    size: int
    sha256: bytes
    chunk_size: int
    body: bytes
    """The id of its chunks."""
    media_type: str
    created_at: datetime

    @property
    def chunks(self) -> int:
        return -(-self.size // self.chunk_size)

    def encode(self) -> bytes:
        fields = {
            "size": self.size,
            "sha256": self.sha256.hex(),
            "chunk_size": self.chunk_size,
            "body": self.body.hex(),
            "media_type": self.media_type,
            "created_at": self.created_at.timestamp(),
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, key: str, data: bytes) -> Record:
        """
        Raises:
            Corrupt: it is none of ours.
        """
        try:
            found = json.loads(data)
            return cls(
                found["size"],
                bytes.fromhex(found["sha256"]),
                found["chunk_size"],
                bytes.fromhex(found["body"]),
                found["media_type"],
                datetime.fromtimestamp(found["created_at"], UTC),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"the record of {key} cannot be read: {error}") from error
