"""How an object comes into being.

A small body is one statement. A larger one is written in batches, each committed, below a pending row that names what
it has so far; the last statement makes it visible. Guarantees: nothing is visible before all of it is durable; what a
killed writer leaves is named by its pending row, and `sweep` removes it.

The commits of batches do not wait for the disk. The last one does, and with it all before. `written` is checked by
every step, so a batch that was lost with a crash of the server, or came twice, ends the upload.
"""

from __future__ import annotations

from binascii import b2a_base64
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import Connection, Row, TextClause, text

from core.errors import DatabaseUnavailable, Forbidden, StoreUnavailable
from database.deadline import deadline
from database.transactions import Database
from storage.postgres.errors import GONE

ABANDON_SECONDS = 5
"""What is not removed by then is left to the sweep."""

_WHOLE = text("""
WITH object AS (
    INSERT INTO blob_object (key, size, sha256, media_type, chunk_size, written, state)
    VALUES (:key, :size, :sha256, :media_type, :chunk_size, :size, 'stored')
    ON CONFLICT (key) WHERE state = 'stored' DO NOTHING
    RETURNING id, touched_at
), chunk AS (
    INSERT INTO blob_chunk (object_id, number, data)
    SELECT object.id, number, substr(:data, number * :chunk_size + 1, :chunk_size)
    FROM object, generate_series(0, :chunks - 1) AS number
)
SELECT touched_at FROM object
""")
_BEGIN = text("""
INSERT INTO blob_object (key, size, sha256, media_type, chunk_size, written, state, large_object)
VALUES (:key, :size, :sha256, :media_type, :chunk_size, 0, 'pending', CASE WHEN :large THEN lo_create(0) END)
RETURNING id, large_object, set_config('synchronous_commit', 'off', true)
""")
_PUBLISH = text("""
UPDATE blob_object SET state = 'stored', touched_at = now()
WHERE id = :id AND state = 'pending' AND written = size
RETURNING touched_at
""")
_REMOVE = text("""
WITH object AS (
    DELETE FROM blob_object WHERE id = ANY (:ids) AND state = :state
    RETURNING large_object
), large AS (
    SELECT lo_unlink(large_object) AS unlinked
    FROM object JOIN pg_largeobject_metadata AS present ON present.oid = large_object
)
SELECT (SELECT count(*) FROM object) AS removed, (SELECT count(unlinked) FROM large) AS unlinked
""")
_ABANDONED = text("""
SELECT id FROM blob_object WHERE state = 'pending' AND touched_at < now() - make_interval(secs => :seconds)
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
""")


# Several statements in one message are one transaction. A chunk in a statement of its own is work for the server by a
# third less than a value that it has to cut up. The bytes go in first; below a pending row they harm nobody if the last
# statement finds it changed.
_CHUNK_IS_IN = "INSERT INTO blob_chunk (object_id, number, data) VALUES (:id, :first + {number}, :data_{number}); "
_LARGE_OBJECT_IS_IN = "SELECT lo_put(:large_object, :offset, :data); "
_BATCH_IS_IN = """
UPDATE blob_object SET written = written + :length, touched_at = now()
WHERE id = :id AND state = 'pending' AND written = :offset
RETURNING id, set_config('synchronous_commit', 'off', true)
"""
_APPEND_LARGE = text(_LARGE_OBJECT_IS_IN + _BATCH_IS_IN)


@lru_cache(maxsize=64)
def _append_chunks(count: int) -> TextClause:
    return text("".join(_CHUNK_IS_IN.format(number=number) for number in range(count)) + _BATCH_IS_IN)


@dataclass(frozen=True, slots=True)
class NewObject:
    """What is known of an object before its first byte."""

    key: str
    size: int
    sha256: bytes
    media_type: str
    chunk_size: int

    @property
    def values(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "size": self.size,
            "sha256": self.sha256,
            "media_type": self.media_type,
            "chunk_size": self.chunk_size,
        }


class Encoded:
    """Bytes for psycopg2, which sends values as text: by itself in hexadecimal digits, twice their length. Base64
    between dollars is shorter and needs no search for quotes; client and server together work a third less."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data

    def __conform__(self, protocol: object) -> Self:
        del protocol  # psycopg2 asks for no other than its own
        return self

    def getquoted(self) -> bytes:
        return b"decode($$" + b2a_base64(self._data, newline=False) + b"$$, 'base64')"


def put_whole(database: Database, new: NewObject, data: bytes) -> datetime | None:
    """When it was stored; None: the key is taken."""
    row = database.write(_one, _WHOLE, new.values | {"data": Encoded(data), "chunks": len(_cut(data, new.chunk_size))})
    if row is None:
        return None
    stored_at: datetime = row.touched_at
    return stored_at


class Upload:
    """An object in the making. After an error it can only be abandoned."""

    def __init__(self, database: Database, new: NewObject, *, large_object: bool) -> None:
        self._database = database
        self._chunk_size = new.chunk_size
        row = database.write(_one, _BEGIN, new.values | {"large": large_object})
        assert row is not None
        self._id: int = row.id
        self._large_object: int | None = row.large_object
        self._offset = 0

    def append(self, data: bytes) -> None:
        """All but the last of these are whole chunks."""
        values: dict[str, Any] = {"id": self._id, "offset": self._offset, "length": len(data)}
        if self._large_object is not None:
            values |= {"large_object": self._large_object, "data": Encoded(data)}
            row = self._database.write(_one, _APPEND_LARGE, values)
        else:
            chunks = _cut(data, self._chunk_size)
            values |= {f"data_{number}": Encoded(chunk) for number, chunk in enumerate(chunks)}
            values["first"] = self._offset // self._chunk_size
            row = self._database.write(_one, _append_chunks(len(chunks)), values)
        _require(row)
        self._offset += len(data)

    def publish(self) -> datetime:
        """
        Raises:
            KeyTaken: by another object.
        """
        stored_at: datetime = _require(self._database.write(_one, _PUBLISH, {"id": self._id})).touched_at
        return stored_at

    def abandon(self) -> None:
        with suppress(DatabaseUnavailable, StoreUnavailable, Forbidden), deadline(ABANDON_SECONDS):
            self._database.write(remove, [self._id], "pending")


def remove(connection: Connection, ids: list[int], state: str) -> int:
    """Rows, chunks and large objects in one statement. One that somebody else unlinked must not keep the row."""
    removed: int = connection.execute(_REMOVE, {"ids": ids, "state": state}).one().removed
    return removed


def sweep(connection: Connection, seconds: float) -> int:
    """Remove one object that nobody has written to for so long; 0: there is none."""
    ids = list(connection.scalars(_ABANDONED, {"seconds": seconds}))
    return remove(connection, ids, "pending") if ids else 0


def _one(connection: Connection, statement: Any, values: dict[str, Any]) -> Row[Any] | None:
    return connection.execute(statement, values).one_or_none()


def _require(row: Row[Any] | None) -> Row[Any]:
    if row is None:
        raise StoreUnavailable(GONE)
    return row


def _cut(data: bytes, chunk_size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + chunk_size] for start in range(0, len(data), chunk_size)]
