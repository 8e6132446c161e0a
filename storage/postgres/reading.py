"""How an object is read: in pieces, each one exchange with the server, so that no connection waits for a slow client.

What fits one piece is read when it is opened. Of a larger object the reader holds a snapshot where one is free, and so
keeps what it opened; where none is, or once it was held for too long, it reads on by the object's id, which is never
used again: a deletion then ends it with `NotFound`, and never with other bytes.
"""

from __future__ import annotations

import io
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlalchemy import Connection, text

from core.errors import Corrupt, DatabaseUnavailable, NotFound, StoreUnavailable
from database.snapshot import Snapshot, SnapshotLost
from database.transactions import Database
from storage.interface import Span
from storage.postgres.errors import named
from storage.reading import check_span, stops_at

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE_BYTES = 1 << 20
BUFFER_BYTES = 1 << 16
TRIES = 4
_FARTHEST = 1 << 62
"""Keeps sums in the range of a bigint; no object is so large."""

_PIECE = text("""
SELECT object.id, object.size, part.number, part.data
FROM (
    SELECT *, least(CAST(:start AS bigint) + :count, greatest(size, :start)) AS stop FROM blob_object
    WHERE id = coalesce(
        CAST(:id AS bigint), (SELECT named.id FROM blob_object AS named WHERE named.key = :key AND state = 'stored')
    )
) AS object LEFT JOIN LATERAL (
    SELECT 0 AS number, lo_get(object.large_object, :start, CAST(object.stop - :start AS integer)) AS data
    WHERE object.large_object IS NOT NULL
    UNION ALL
    SELECT chunk.number, CASE
        WHEN edge.start >= :start AND edge.start + object.chunk_size <= object.stop THEN chunk.data
        ELSE substr(
            chunk.data,
            CAST(greatest(:start - edge.start, 0) AS integer) + 1,
            CAST(object.stop - greatest(:start, edge.start) AS integer)
        ) END
    FROM blob_chunk AS chunk, LATERAL (SELECT chunk.number * CAST(object.chunk_size AS bigint) AS start) AS edge
    WHERE chunk.object_id = object.id
      AND chunk.number BETWEEN :start / object.chunk_size AND (object.stop - 1) / object.chunk_size
) AS part ON true
""")
_IS_THERE = text("SELECT true FROM blob_object WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Piece:
    id: int
    size: int
    parts: list[memoryview]

    @property
    def length(self) -> int:
        return sum(map(len, self.parts))


def read_piece(connection: Connection, *, key: str, id: int | None, start: int, count: int) -> Piece | None:  # noqa: A002 - the column's name
    """Up to `count` bytes of the object that has this id, or else this key. None: it is not there."""
    rows = connection.execute(_PIECE, {"id": id, "key": key, "start": start, "count": count}).all()
    if not rows:
        return None
    found = sorted((row for row in rows if row.data is not None), key=lambda row: row.number)
    return Piece(rows[0].id, rows[0].size, [memoryview(row.data).cast("B") for row in found])


@dataclass(frozen=True, slots=True)
class Readers:
    """Opens objects of one store. `snapshots` has the connections that readers may hold."""

    store: str
    database: Database
    snapshots: Database | None
    seconds: float
    idle_seconds: float

    def open(self, key: str, span: Span | None) -> BinaryIO:
        if span is not None:
            check_span(span)
        start = min(span.start, _FARTHEST) if span else 0
        count = min(span.stop - start, PIECE_BYTES) if span and span.stop is not None else PIECE_BYTES
        for _ in range(TRIES):
            with named(f"{self.store}: {key}"):
                first = self.database.read(read_piece, key=key, id=None, start=start, count=max(count, 0))
            if first is None:
                raise NotFound(f"{self.store} has no object {key}")
            stop = stops_at(span, first.size) if span else first.size
            if stop - start <= PIECE_BYTES:
                return self._reader(key, first, start, stop, None)
            with suppress(_Gone):
                return self._reader(key, first, start, stop, self._snapshot(first.id))
        raise StoreUnavailable(f"{self.store}: others keep deleting and making {key}")

    def _reader(self, key: str, first: Piece, start: int, stop: int, snapshot: Snapshot | None) -> BinaryIO:
        raw = ObjectReader(self, key, first, start=start, stop=stop, snapshot=snapshot)
        return io.BufferedReader(raw, BUFFER_BYTES)

    def _snapshot(self, id: int) -> Snapshot | None:  # noqa: A002 - the column's name
        """Without one an object can be read too, so a reader that gets none goes without."""
        if self.snapshots is None:
            return None
        try:
            snapshot = self.snapshots.snapshot(seconds=self.seconds, idle_seconds=self.idle_seconds)
        except (DatabaseUnavailable, StoreUnavailable):  # the server may have no more connections for us
            return None
        if snapshot is None:
            return None
        try:
            if snapshot.read(_is_there, id):
                return snapshot
        except (DatabaseUnavailable, StoreUnavailable):
            snapshot.close()
            return None
        except BaseException:
            snapshot.close()
            raise
        snapshot.close()
        raise _Gone


class ObjectReader(io.RawIOBase):
    """Reads forward from `start` to `stop`; holds one piece."""

    def __init__(
        self, readers: Readers, key: str, first: Piece, *, start: int, stop: int, snapshot: Snapshot | None
    ) -> None:
        self._readers = readers
        self._key = key
        self._id = first.id
        self._next = start
        self._stop = stop
        self._snapshot = snapshot
        self._parts: deque[memoryview] = deque()
        self._accept(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        if not self._parts and self._next < self._stop:
            self._accept(self._fetch())
        filled = 0
        while self._parts and filled < len(target):
            part = self._parts.popleft()
            count = min(len(target) - filled, len(part))
            target[filled : filled + count] = part[:count]
            filled += count
            if count < len(part):
                self._parts.appendleft(part[count:])
        return filled

    def close(self) -> None:
        self._parts.clear()
        self._let_go()
        super().close()

    def _accept(self, piece: Piece | None) -> None:
        if piece is None:
            raise NotFound(f"{self._readers.store}: {self._key} was deleted while it was read")
        if piece.length != min(PIECE_BYTES, self._stop - self._next):
            raise Corrupt(f"{self._readers.store}: bytes of {self._key} are missing after {self._next}")
        self._parts.extend(piece.parts)
        self._next += piece.length
        if self._next == self._stop:
            self._let_go()

    def _fetch(self) -> Piece | None:
        wanted: dict[str, Any] = {"key": self._key, "id": self._id, "start": self._next}
        wanted["count"] = min(PIECE_BYTES, self._stop - self._next)
        with named(f"{self._readers.store}: {self._key}"):
            if self._snapshot:
                try:
                    return self._snapshot.read(read_piece, **wanted)
                except SnapshotLost:
                    self._let_go()
            return self._readers.database.read(read_piece, **wanted)

    def _let_go(self) -> None:
        if self._snapshot:
            self._snapshot.close()
        self._snapshot = None


class _Gone(Exception):
    """The object was deleted before its reader had a snapshot."""


def _is_there(connection: Connection, id: int) -> bool:  # noqa: A002 - the column's name
    return connection.scalar(_IS_THERE, {"id": id}) is not None
