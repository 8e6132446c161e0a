"""A bounded, seekable reader over the first bytes of an open file, with a position of its own.

Decoders and the store see the body of a staged entry and never what follows it. Any number of views read one
descriptor at once (`pread`), and closing a view leaves the descriptor open. A view of a closed file raises ValueError
instead of reading the file that took over the descriptor's number. A disk that cannot read is `Unavailable`: never the
upload's fault.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from core.failpoints import failpoint
from storage.staging.space import translated

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined, unused-ignore]  # typeshed: from 3.12 on

BUFFER_BYTES = 1 << 16


def view(file: io.FileIO, length: int) -> BinaryIO:
    """Read the first `length` bytes of `file`. `fileno()` is the file's own descriptor."""
    return io.BufferedReader(_Bounded(file, length), BUFFER_BYTES)


class _Bounded(io.RawIOBase):
    def __init__(self, file: io.FileIO, length: int) -> None:
        self._file = file
        self._length = length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        target = memoryview(buffer).cast("B")[: max(self._length - self._position, 0)]
        if not target:
            return 0
        with translated("reading an entry"):
            failpoint("staging.before-read")
            count = os.preadv(self.fileno(), [target], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("a position cannot be negative")
        self._position = base + offset
        return self._position
