"""Bodies on their way in and out: begun again when they must be, sent in small writes, never believed when cut."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from core.errors import Corrupt
from storage.os_errors import translated as os_translated
from storage.reading import BLOCK_BYTES, verified_blocks
from storage.s3.deadline import Deadline
from storage.s3.errors import Outage, translated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody

_SPOOL = "temporary files of this host (TMPDIR)"


def read_whole(body: BinaryIO, *, size: int, sha256: bytes) -> memoryview:
    """A small body, verified, in memory once.

    Raises:
        Corrupt: it is not what was promised.
    """
    whole = bytearray(size)
    at = 0
    for block in verified_blocks(body, size=size, sha256=sha256):
        whole[at : at + len(block)] = block
        at += len(block)
    return memoryview(whole)


@contextmanager
def rewindable(body: BinaryIO) -> Iterator[Callable[[], BinaryIO]]:
    """Each call gives the body from its present position on, again."""
    if body.seekable():
        start = body.tell()

        def rewound() -> BinaryIO:
            body.seek(start)
            return body

        yield rewound
        return
    with _Spooled(body) as spooled:
        yield spooled.rewound


class _Spooled(io.RawIOBase):
    """A stream that cannot seek. What was read of it stays in a temporary file without a name."""

    def __init__(self, body: BinaryIO) -> None:
        self._body = body
        self._read = 0
        self._at = 0
        with os_translated(_SPOOL):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def rewound(self) -> BinaryIO:
        self._at = 0
        with os_translated(_SPOOL):
            self._file.seek(0)
        return self  # type: ignore[return-value]  # a raw stream is a body

    def read(self, count: int = -1, /) -> bytes:
        if self._at < self._read:
            with os_translated(_SPOOL):
                block = self._file.read(count)
            if not block:
                raise Corrupt("the spooled body is shorter than what was written")
            self._at += len(block)
            return block
        block = self._body.read(count)
        with os_translated(_SPOOL):
            self._file.write(block)
        self._read += len(block)
        self._at = self._read
        return block

    def close(self) -> None:
        self._file.close()
        super().close()


class PartReader:
    """Fills one buffer after the other with a body and hashes all of it."""

    def __init__(self, body: BinaryIO, digest: Callable[[memoryview], None]) -> None:
        self._body = body
        self._digest = digest
        self._at = 0

    def fill(self, part: memoryview) -> None:
        """
        Raises:
            Corrupt: the body ends before the part does.
        """
        filled = 0
        while filled < len(part):
            block = self._body.read(min(BLOCK_BYTES, len(part) - filled))
            if not block:
                raise Corrupt(f"the body ends after {self._at + filled} bytes")
            part[filled : filled + len(block)] = block
            filled += len(block)
        self._digest(part)
        self._at += filled


def outgoing(data: memoryview, deadline: Deadline) -> BinaryIO:
    """Bytes in memory as botocore sends them: read in small pieces, each of which has the time-out for itself, where
    one big write would have it as a whole. They end with the deadline."""
    return _Outgoing(data, deadline)  # type: ignore[return-value]  # a raw stream is a body


class _Outgoing(io.RawIOBase):
    def __init__(self, data: memoryview, deadline: Deadline) -> None:
        self._data = data
        self._deadline = deadline
        self._at = 0

    def __len__(self) -> int:
        return len(self._data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._deadline.check("a body")
        target = memoryview(buffer).cast("B")
        piece = self._data[self._at : self._at + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


class Download(io.RawIOBase):
    """The answer's body; a connection that breaks or stalls is `Outage` and never a short object."""

    def __init__(self, body: StreamingBody, subject: str, failed: Callable[[], None]) -> None:
        self._body = body
        self._subject = subject
        self._failed = failed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        try:
            with translated(self._subject):
                data = self._body.read(len(target))
        except Outage:
            self._failed()
            raise
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()
