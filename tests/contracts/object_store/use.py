"""The store's methods in the short forms that tests want."""

from __future__ import annotations

import hashlib
import io

from storage.interface import ObjectStore, Span, Stored

MIB = 1 << 20


def fill(store: ObjectStore, key: str, data: bytes = b"bytes") -> Stored:
    return store.put(key, io.BytesIO(data), size=len(data), sha256=sha256(data), media_type="image/png")


def read(store: ObjectStore, key: str, span: Span | None = None) -> bytes:
    with store.open(key, span) as body:
        return body.read()


def keys(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [found.key for found in store.scan(prefix, after=after)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Zeros(io.RawIOBase):
    """A body of any length that takes no memory, in reads of odd sizes."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        count = min(count if count >= 0 else self.left, self.left, 700_001)
        self.left -= count
        return bytes(count)
