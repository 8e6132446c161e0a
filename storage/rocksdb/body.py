"""A stored body on its way out, one chunk in memory at a time.

It reads through one iterator of RocksDB, which is a consistent view: what is deleted or written after it was made does
not show, in the owner and in a reader. A reader's was seen to lose track in the middle of a large body (as in rocksdb
#12190): what is missing there is looked for in its next view before it counts as missing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.errors import Corrupt
from storage.rocksdb.errors import translated
from storage.rocksdb.records import Record, chunk_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from rocksdict import Rdict, RdictIter


class Body(io.RawIOBase):
    """Reads forward from `start` to `stop`."""

    def __init__(
        self, chunks: RdictIter, record: Record, subject: str, start: int, stop: int, later: Iterator[Rdict]
    ) -> None:
        """`later`: further views of the same database, newer ones."""
        self._chunks: RdictIter | None = chunks
        self._later = later
        self._record = record
        self._subject = subject
        self._position = start
        self._stop = stop
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        if self._position >= self._stop:
            return 0
        if not self._chunk:
            self._chunk = self._read()
        count = min(len(target), len(self._chunk))
        target[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        self._position += count
        return count

    def _read(self) -> memoryview:
        """What the span wants of the chunk at the present position."""
        size = self._record.chunk_size
        number, skip = divmod(self._position, size)
        wanted = chunk_name(self._record.body, number)
        if self._chunks is None:
            raise ValueError("read of a closed body")
        with translated(self._subject):
            data = _value(self._chunks, wanted)
            while len(data) != min(size, self._record.size - number * size):
                database = next(self._later, None)
                if database is None:
                    raise Corrupt(f"{self._subject}: chunk {number} is missing or torn")
                self._chunks = database.iter()
                data = _value(self._chunks, wanted)
        return memoryview(data)[skip : skip + self._stop - self._position]

    def close(self) -> None:
        self._chunks = None  # lets go of the view
        super().close()


def _value(view: RdictIter, name: bytes) -> bytes:
    """Empty where there is none."""
    view.seek(name)
    view.status()
    return view.value() if view.valid() and view.key() == name else b""
