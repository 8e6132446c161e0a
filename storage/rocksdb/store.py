"""Objects in an embedded RocksDB, cut into chunks: for one host without any service, and many small bodies.

One process owns it: creation is decided under a lock of that process, and all other processes only read
(storage/rocksdb/database.py). The record of an object is written last, in one batch, so an object is there whole or not
at all; chunks without a record are named (storage/rocksdb/records.py) and removed when the owner next opens.

With `sync_to_disk` the write-ahead log is synced before `put` and `delete` return, which covers all that was written
before.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

from core import clock
from core.breaker import BreakerState
from core.errors import AlreadyExists, MillraceError, NotFound, StoreFull, StoreUnavailable
from core.failpoints import failpoint
from storage.backend import Backend
from storage.free_space import FreeSpace
from storage.interface import Span, Stored
from storage.object_keys import require_legal
from storage.reading import stops_at, verified_blocks
from storage.rocksdb.body import Body
from storage.rocksdb.database import Database, Owner, Reader, require_library
from storage.rocksdb.errors import translated
from storage.rocksdb.options import RocksdbOptions
from storage.rocksdb.records import (
    RECORD,
    WRITING,
    Record,
    chunk_name,
    new_id,
    record_name,
    writing_name,
)
from storage.served_here import ServedHere

if TYPE_CHECKING:
    from rocksdict import Rdict, WriteBatch

DELETE_BATCH = 100


class RocksdbStore(ServedHere):
    def __init__(self, name: str, options: RocksdbOptions, database: Database) -> None:
        self.name = name
        self._options = options
        self._database = database
        self._space = FreeSpace(name, options.root, options)
        self._deciding = Lock()
        """Held by whoever looks whether a record is there and then changes that."""
        self._writing: set[bytes] = set()
        """Bodies that living threads of this process write."""
        self._swept = False

    @classmethod
    def owned(cls, name: str, options: RocksdbOptions) -> RocksdbStore:
        """For the process that writes."""
        require_library(name)
        return cls(name, options, Owner(name, options.root / "db", options))

    @classmethod
    def beside_its_owner(cls, name: str, options: RocksdbOptions) -> RocksdbStore:
        """For all other processes: `put`, `delete` and `sweep_unfinished` are `StoreUnavailable`."""
        require_library(name)
        return cls(name, options, Reader(name, options.root / "db", options))

    @property
    def breaker(self) -> BreakerState:
        return "closed"

    def establish(self) -> None:
        self._database.establish()

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: bytes, media_type: str) -> Stored:
        require_legal(key)
        database = self._to_write()
        self._space.require(size)
        record = Record(size, sha256, int(self._options.chunk_size), new_id(), media_type, clock.now())
        found = self._write(database, key, record, body)
        if self._options.sync_to_disk:
            with self._writes(key):
                failpoint("rocksdb.before-sync", key)
                database.flush_wal(True)  # for a record that was found, too: its writer may have died before this
        if (found.size, found.sha256) != (size, sha256):
            raise AlreadyExists(f"{key} holds other bytes")
        return _stored(key, found)

    def open(self, key: str, span: Span | None = None) -> AbstractContextManager[BinaryIO]:
        require_legal(key)
        views = iter(self._database.views())
        for database in views:
            with self._errors(key):
                view = database.iter()
                view.seek(record_name(key))
                view.status()
                data = view.value() if view.valid() and view.key() == record_name(key) else None
            if data is not None:
                record = Record.decode(key, data)
                start, stop = (0, record.size) if span is None else (span.start, stops_at(span, record.size))
                body = Body(view, record, self._subject(key), start, stop, views)
                return io.BufferedReader(body, record.chunk_size)
        raise NotFound(f"{self.name} has no object {key}")

    def head(self, key: str) -> Stored:
        require_legal(key)
        for database in self._database.views():
            found = self._find(database, key)
            if found is not None:
                return _stored(key, found)
        raise NotFound(f"{self.name} has no object {key}")

    def scan(self, prefix: str = "", *, after: str = "") -> Iterator[Stored]:
        *_, database = self._database.views()
        begins = record_name(prefix)
        with self._errors("scan"):
            view = database.iter()
            view.seek(max(begins, record_name(after)))
        while True:
            with self._errors("scan"):
                view.status()
                if not view.valid() or not view.key().startswith(begins):
                    return
                key, data = view.key()[len(RECORD) :].decode("ascii"), view.value()
                view.next()
            if key > after:
                yield _stored(key, Record.decode(key, data))

    def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, DELETE_BATCH)):
            for key in batch:
                require_legal(key)
            database = self._to_write()
            with self._deciding:
                for key in batch:
                    self._delete(database, key)
            if self._options.sync_to_disk:
                with self._writes("delete"):
                    database.flush_wal(True)  # or a loss of power could bring back what no row names any more

    def sweep_unfinished(self) -> int:
        return self._sweep(self._database.to_write())

    def close(self) -> None:
        """Used again, it opens again."""
        self._swept = False
        self._database.close()

    def _to_write(self) -> Rdict:
        """Opened, and swept once: nobody else can be writing, so whatever is unfinished and not ours is left over."""
        database = self._database.to_write()
        if not self._swept:
            self._swept = True
            self._sweep(database)
        return database

    def _find(self, database: Rdict, key: str) -> Record | None:
        with self._errors(key):
            data = database.get(record_name(key))
        return None if data is None else Record.decode(key, data)

    def _write(self, database: Rdict, key: str, record: Record, body: BinaryIO) -> Record:
        """Returns the record that has the key in the end: this one, unless another was first."""
        self._writing.add(record.body)
        try:
            try:
                last = self._write_chunks(database, key, record, body)
                with self._writes(key):
                    failpoint("rocksdb.before-record", key)
            except BaseException:
                with suppress(MillraceError):  # a later sweep does it
                    self._discard(database, record.body)
                raise
            # When this fails, only RocksDB knows whether it is in the log: what to discard is decided by what it holds.
            found = self._publish(database, key, record, last)
            if found is not record:
                self._discard(database, record.body)
            return found
        finally:
            self._writing.discard(record.body)

    def _write_chunks(self, database: Rdict, key: str, record: Record, body: BinaryIO) -> WriteBatch:
        """Writes all chunks but the last, which comes with the record: a body of one chunk is one write."""
        blocks = verified_blocks(body, size=record.size, sha256=record.sha256, block=record.chunk_size)
        batch = _batch()
        for number, block in enumerate(blocks):
            batch.put(chunk_name(record.body, number), block)
            if number == record.chunks - 1:
                continue  # the body is right once the iterator has ended
            if number == 0:
                batch.put(writing_name(record.body), key.encode())
            with self._writes(key):
                failpoint("rocksdb.before-write", key)
                database.write(batch)
            batch = _batch()
        return batch

    def _publish(self, database: Rdict, key: str, record: Record, last: WriteBatch) -> Record:
        last.put(record_name(key), record.encode())
        if record.chunks > 1:
            last.delete(writing_name(record.body))
        with self._deciding:
            found = self._find(database, key)
            if found is not None:
                return found
            with self._writes(key):
                database.write(last)
        failpoint("rocksdb.after-record", key)
        return record

    def _delete(self, database: Rdict, key: str) -> None:
        found = self._find(database, key)
        if found is None:
            return
        batch = _batch()
        batch.delete(record_name(key))
        for number in range(found.chunks):
            batch.delete(chunk_name(found.body, number))
        with self._writes(key):
            database.write(batch)

    def _sweep(self, database: Rdict) -> int:
        with self._errors("sweep"):
            left = [name[len(WRITING) :] for name in _names(database, WRITING)]
            ended = [body for body in left if body not in self._writing]
            # A writer forgets itself after its name is gone, so a name that is still there is nobody's.
            unfinished = [body for body in ended if database.get(writing_name(body)) is not None]
        for body in unfinished:
            self._discard(database, body)
        return len(unfinished)

    def _discard(self, database: Rdict, body: bytes) -> None:
        """Remove the chunks of a body that has no record, then its name."""
        with self._errors("discard"):
            batch = _batch()
            for name in _names(database, chunk_name(body, 0)[:-4]):
                batch.delete(name)
            batch.delete(writing_name(body))
            database.write(batch)

    @contextmanager
    def _writes(self, subject: str) -> Iterator[None]:
        """After an error RocksDB refuses every write until it is opened anew. Of a full disk it recovers by itself."""
        try:
            with self._errors(subject):
                yield
        except StoreFull:
            raise
        except StoreUnavailable:
            self.close()
            raise

    def _subject(self, key: str) -> str:
        return f"{self.name}: {key}"

    def _errors(self, subject: str) -> AbstractContextManager[None]:
        return translated(self._subject(subject))


def _batch() -> WriteBatch:
    from rocksdict import WriteBatch

    return WriteBatch(raw_mode=True)


def _names(database: Rdict, prefix: bytes) -> Iterator[bytes]:
    view = database.iter()
    view.seek(prefix)
    while view.valid() and view.key().startswith(prefix):
        yield view.key()
        view.next()
    view.status()


def _stored(key: str, record: Record) -> Stored:
    return Stored(key=key, size=record.size, modified_at=record.created_at, sha256=record.sha256)


BACKEND = Backend(RocksdbOptions, RocksdbStore.beside_its_owner, RocksdbStore.owned)
