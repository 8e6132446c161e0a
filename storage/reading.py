"""Bodies on their way in and out: verified while they are read, bounded by a span, bytes never held whole.

Every backend and every download reads through `verified_blocks`, so size and hash are checked in one place.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Self

from core.errors import Corrupt, InvalidRange
from storage.interface import Span
from storage.os_errors import translated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 20


def verified_blocks(body: BinaryIO, *, size: int, sha256: bytes, block: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the body in blocks of exactly `block` bytes, the last one shorter.

    The last block is held back until the whole body is known to be right, so a consumer that publishes only after the
    iterator has ended never publishes anything else. One read looks beyond the end.

    Raises:
        Corrupt: the body is shorter or longer than `size`, or hashes to something else.
    """
    digest = hashlib.sha256()
    left = size
    for data in promised_blocks(body, size=size, block=block):
        digest.update(data)
        left -= len(data)
        if not left:
            require_hash(digest.digest(), sha256)
        yield data
    if not size:
        require_hash(digest.digest(), sha256)


def promised_blocks(body: BinaryIO, *, size: int, block: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The same without a hash: for who takes one beside writing, and publishes after `require_hash`.

    Raises:
        Corrupt: the body is shorter or longer than `size`.
    """
    left = size
    while left:
        wanted = min(block, left)
        data = _read_fully(body, wanted)
        left -= len(data)
        if len(data) < wanted:
            raise Corrupt(f"the body ends after {size - left} of {size} bytes")
        if not left:
            _require_end(body, size)
        yield data
    if not size:
        _require_end(body, size)


def require_hash(found: bytes, promised: bytes) -> None:
    """
    Raises:
        Corrupt: they differ.
    """
    if found != promised:
        raise Corrupt(f"the body's SHA-256 is {found.hex()} and not the promised {promised.hex()}")


class HashBeside:
    """SHA-256 of blocks in a thread, while their writer writes and syncs them. At most `BEHIND` blocks are in memory
    for it: enough to hash a body of a few MiB while the disk syncs it."""

    BEHIND = 8

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._behind: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, block: bytes) -> None:
        if len(self._behind) == self.BEHIND:
            self._behind.popleft().result()
        self._behind.append(self._thread.submit(self._digest.update, block))

    def digest(self) -> bytes:
        while self._behind:
            self._behind.popleft().result()
        return self._digest.digest()


def stops_at(span: Span, size: int) -> int:
    """Where the span ends in an object of `size` bytes.

    Raises:
        InvalidRange: it starts at or beyond the end, is empty or negative.
    """
    check_span(span)
    if span.start >= size:
        raise InvalidRange(f"the range starts at {span.start} and the object has {size} bytes")
    return size if span.stop is None else min(span.stop, size)


def check_span(span: Span) -> None:
    if span.start < 0 or (span.stop is not None and span.stop <= span.start):
        raise InvalidRange(f"not a range of bytes: {span.start} to {span.stop}")


class ObjectFile(io.RawIOBase):
    """A stored file that takes over its descriptor and reports the store's errors instead of the system's.

    Whole, it seeks and its `fileno` is the file's; between `start` and `stop` it only reads forward.
    """

    def __init__(self, descriptor: int, subject: str, *, start: int = 0, stop: int | None = None) -> None:
        self._descriptor = descriptor
        self._subject = subject
        self._position = start
        """Of a span; whole, the descriptor has one of its own."""
        self._stop = stop

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stop is None

    def fileno(self) -> int:
        if self._stop is not None:
            raise io.UnsupportedOperation("a span of a file has no descriptor of its own")
        return self._descriptor

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        with translated(self._subject):
            if self._stop is None:
                return os.readv(self._descriptor, [target])
            count = os.preadv(self._descriptor, [target[: self._stop - self._position]], self._position)
        self._position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """As much as was asked for, where there is as much: a local file reads short at its end only. The inherited
        ways take a copy, or many reads of 8 KiB."""
        if self._stop is None:
            return super().read(-1 if size is None else size) or b""
        left = self._stop - self._position
        with translated(self._subject):
            data = os.pread(self._descriptor, left if size is None or size < 0 else min(size, left), self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._stop is not None:
            raise io.UnsupportedOperation("a span of a file only reads forward")
        return os.lseek(self._descriptor, offset, whence)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _require_end(body: BinaryIO, size: int) -> None:
    if body.read(1):
        raise Corrupt(f"the body is longer than the promised {size} bytes")


def _read_fully(body: BinaryIO, count: int) -> bytes:
    """`count` bytes, or fewer at the end; a body may return less than was asked for at any time."""
    block = body.read(count)
    if len(block) == count or not block:
        return block
    parts = [block]
    missing = count - len(block)
    while missing and (more := body.read(missing)):
        parts.append(more)
        missing -= len(more)
    return b"".join(parts)
