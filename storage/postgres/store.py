"""Objects in PostgreSQL, in chunk rows or large objects: one thing to run and to back up, for stores of modest size.

Creation is decided by a unique index, visibility by one small transaction, deletion by one statement that takes rows,
chunks and large object together. Everything is one short exchange with the server: no connection is held while a body
arrives or a client reads slowly, but for the few snapshots of storage/postgres/reading.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import Any, BinaryIO

from sqlalchemy import Connection, text

from core.breaker import BreakerState
from core.errors import AlreadyExists, Misconfigured, NotFound, StoreUnavailable
from core.failpoints import failpoint
from database.transactions import Database
from storage.backend import Backend
from storage.interface import Span, Stored
from storage.object_keys import require_legal
from storage.postgres.errors import KeyTaken, meaning, named
from storage.postgres.options import PostgresOptions
from storage.postgres.reading import Readers
from storage.postgres.schema import establish, require
from storage.postgres.writing import NewObject, Upload, put_whole, remove, sweep
from storage.reading import verified_blocks
from storage.served_here import ServedHere

BATCH_BYTES = 1 << 20
TRIES = 4
PAGE = 500
DELETE_KEYS = 1000
DELETE_BYTES = 256 << 20
"""Objects of more than this together are deleted in several transactions: each has to end in time."""

_HEAD = text("SELECT key, size, sha256, touched_at FROM blob_object WHERE key = :key AND state = 'stored'")
_PAGE = text("""
SELECT key, size, sha256, touched_at FROM blob_object
WHERE state = 'stored' AND key > :after AND key >= :prefix AND starts_with(key, :prefix)
  AND (:beyond = '' OR key < :beyond)
ORDER BY key LIMIT :page
""")
_NAMED = text("SELECT id, size FROM blob_object WHERE key = ANY (:keys) AND state = 'stored' ORDER BY id")


class PostgresStore(ServedHere):
    def __init__(self, name: str, options: PostgresOptions) -> None:
        """
        Raises:
            Misconfigured: there is no URL.
        """
        self.name = name
        self._options = options
        self._chunk_size = int(options.chunk_size)
        self._batch = max(BATCH_BYTES // self._chunk_size, 1) * self._chunk_size
        self._database = self._pool(options.pool_size)
        snapshots = self._pool(options.reader_snapshots) if options.reader_snapshots else None
        self._readers = Readers(
            name, self._database, snapshots, options.snapshot_seconds, options.snapshot_idle_seconds
        )
        self._ready = False
        self._preparing = Lock()

    @property
    def breaker(self) -> BreakerState:
        return self._database.breaker.state

    def establish(self) -> None:
        with named(self.name):
            establish(self._database, self._options.schema_name)

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        require_legal(key)
        self._prepare()
        new = NewObject(key, size, sha256, media_type, self._chunk_size)
        threshold = self._options.large_object_threshold
        large = threshold is not None and size > threshold
        if size <= self._batch and not large:
            return self._put_whole(new, b"".join(verified_blocks(body, size=size, sha256=sha256, block=max(size, 1))))
        return self._put_in_batches(new, body, large)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        require_legal(key)
        self._prepare()
        return self._readers.open(key, span)

    def head(self, key: str) -> Stored:
        require_legal(key)
        self._prepare()
        with named(f"{self.name}: {key}"):
            found = self._database.read(_rows, _HEAD, key=key)
        if not found:
            raise NotFound(f"{self.name} has no object {key}")
        return found[0]

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        self._prepare()
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
        while True:
            with named(f"{self.name}: scan"):
                page = self._database.read(_rows, _PAGE, prefix=prefix, beyond=beyond, after=after, page=PAGE)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].key

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, DELETE_KEYS)):
            for key in batch:
                require_legal(key)
            self._prepare()
            with named(f"{self.name}: delete"):
                for ids in _groups(self._database.read(_find, batch)):
                    self._database.write(remove, ids, "stored")

    def sweep_unfinished(self) -> int:
        self._prepare()
        swept = 0
        with named(f"{self.name}: sweep"):
            while self._database.run(sweep, self._options.unfinished_timeout):
                swept += 1
        return swept

    def close(self) -> None:
        self._database.close()
        if self._readers.snapshots:
            self._readers.snapshots.close()

    def _put_whole(self, new: NewObject, data: bytes) -> Stored:
        for _ in range(TRIES):
            failpoint("postgres.before-put", new.key)
            with named(f"{self.name}: {new.key}"):
                stored_at = put_whole(self._database, new, data)
            failpoint("postgres.after-put", new.key)
            found = _stored(new, stored_at) if stored_at else self._taken_by(new)
            if found:
                return found
        raise StoreUnavailable(f"{self.name}: others keep making and deleting {new.key}")

    def _put_in_batches(self, new: NewObject, body: BinaryIO, large: bool) -> Stored:
        blocks = verified_blocks(body, size=new.size, sha256=new.sha256, block=self._batch)
        found = self._taken_by(new)
        if found:  # the body has to be good all the same
            for _ in blocks:
                pass
            return found
        with named(f"{self.name}: {new.key}"):
            upload = Upload(self._database, new, large_object=large)
        try:
            failpoint("postgres.after-begin", new.key)
            for block in blocks:
                with named(f"{self.name}: {new.key}"):
                    upload.append(block)
                failpoint("postgres.after-batch", new.key)
            failpoint("postgres.before-publish", new.key)
            with named(f"{self.name}: {new.key}"):
                stored_at = upload.publish()
        except BaseException as error:
            upload.abandon()
            found = self._taken_by(new) if isinstance(error, KeyTaken) else None
            if found is None:
                raise
            return found
        failpoint("postgres.after-publish", new.key)
        return _stored(new, stored_at)

    def _taken_by(self, new: NewObject) -> Stored | None:
        """The object that has the key, if it is the wanted one; None: there is none."""
        try:
            found = self.head(new.key)
        except NotFound:
            return None
        if (found.size, found.sha256) != (new.size, new.sha256):
            raise AlreadyExists(f"{new.key} holds other bytes")
        return found

    def _prepare(self) -> None:
        """Look for the tables, once, at the first use."""
        if self._ready:
            return
        with self._preparing, named(self.name):
            if not self._ready:
                require(self._database, self._options.schema_name)
                self._ready = True

    def _pool(self, size: int) -> Database:
        options = self._options
        if options.url is None:
            raise Misconfigured(f"stores.{self.name}.url: missing")
        return Database(
            options.url,
            pool_size=size,
            pool_timeout=options.pool_timeout,
            deadline_seconds=options.operation_timeout,
            settings={"search_path": options.schema_name, "bytea_output": "hex"},
            translate=meaning,
        )


def _rows(connection: Connection, /, statement: Any, **values: object) -> list[Stored]:
    return [
        Stored(key=row.key, size=row.size, modified_at=row.touched_at, sha256=bytes(row.sha256))
        for row in connection.execute(statement, values)
    ]


def _find(connection: Connection, keys: list[str]) -> list[tuple[int, int]]:
    return [(row.id, row.size) for row in connection.execute(_NAMED, {"keys": keys})]


def _groups(found: list[tuple[int, int]]) -> Iterator[list[int]]:
    """The ids, in groups of at most `DELETE_BYTES` together or of one object."""
    group: list[int] = []
    total = 0
    for number, size in found:
        if group and total + size > DELETE_BYTES:
            yield group
            group, total = [], 0
        group.append(number)
        total += size
    if group:
        yield group


def _stored(new: NewObject, stored_at: datetime) -> Stored:
    return Stored(key=new.key, size=new.size, modified_at=stored_at, sha256=new.sha256)


BACKEND = Backend(PostgresOptions, PostgresStore)
