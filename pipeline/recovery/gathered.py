"""What the catalogue says and what the stores hold, side by side in one file of this host, for asking it anything.

Memory is bounded whatever there is; the disk holds the newest lines and about 200 bytes for each object.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from core.model import BlobFacts, Replica
from metadata.journal.journal_records import Deleted, Fact, Recorded, Rendered
from pipeline.journal.lines import Line
from pipeline.journal.newest import BATCH, NewestLines, translated
from storage.interface import Stored

F = TypeVar("F", bound=Fact)

_SCHEMA = """
CREATE TABLE object (blob BLOB, store TEXT, generation INTEGER, size INTEGER, modified_at REAL);
CREATE TABLE named (blob BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX object_blob ON object (blob);
CREATE INDEX line_kind ON line (kind);
CREATE INDEX line_place ON line (place) WHERE place IS NOT NULL;
CREATE TABLE displaced AS
    SELECT key FROM line WHERE kind = 'Recorded' AND EXISTS (
        SELECT 1 FROM line AS other
        WHERE other.place = line.place AND (other.version, other.key) < (line.version, line.key));
CREATE UNIQUE INDEX displaced_key ON displaced (key);
"""
_UNNAMED = "FROM object WHERE NOT EXISTS (SELECT 1 FROM named WHERE named.blob = object.blob)"


@dataclass(frozen=True, slots=True)
class Unnamed:
    """An object of which no line tells."""

    store: str
    key: str
    size: int
    modified_at: datetime

    @property
    def sha256(self) -> bytes:
        return bytes.fromhex(self.key.partition(".")[0])


class Gathered:
    def __init__(self, directory: Path) -> None:
        self._newest = NewestLines(directory)
        self._sqlite: sqlite3.Connection = self._newest.sqlite
        self.generation = 0
        """The highest that any object carries."""
        with translated():
            self._sqlite.executescript(_SCHEMA)

    @property
    def version(self) -> int:
        return self._newest.highest

    def close(self) -> None:
        self._newest.__exit__()

    def add_lines(self, lines: Iterable[Line]) -> int:
        """Returns how many. What a line names stays named, though a later one takes its place: the bytes of what was
        purged are nobody's loss."""
        count = 0
        waiting = iter(lines)
        while batch := list(islice(waiting, BATCH)):
            self._newest.add(batch)
            blobs = [(sha256,) for line in batch for sha256 in _blobs(line.fact)]
            with translated():
                self._sqlite.executemany("INSERT OR IGNORE INTO named VALUES (?)", blobs)
            count += len(batch)
        return count

    def add_objects(self, store: str, found: Sequence[tuple[bytes, int, Stored]]) -> None:
        """Each with the hash and the generation that its key says."""
        rows = [(sha256, store, number, one.size, one.modified_at.timestamp()) for sha256, number, one in found]
        self.generation = max([self.generation, *(number for _, number, _ in found)])
        with translated():
            self._sqlite.executemany("INSERT INTO object VALUES (?, ?, ?, ?, ?)", rows)

    def complete(self) -> None:
        """Nothing is added any more."""
        with translated():
            self._sqlite.executescript(_INDEXES)

    def count(self, kind: type[Fact]) -> int:
        return self._number("SELECT count(*) FROM line WHERE kind = ?", kind.__name__)

    def facts(self, kind: type[F]) -> Iterator[list[F]]:
        """In batches; assets that have their own number in their path, and no other."""
        query = "SELECT text FROM line WHERE kind = ? AND key NOT IN (SELECT key FROM displaced) ORDER BY rowid"
        for batch in self._facts(query, kind.__name__):
            yield [one for one in batch if isinstance(one, kind)]

    def displaced(self) -> list[Recorded]:
        """Assets whose number in their path an earlier one has: both were recorded by databases that did not know of
        each other. In the order in which they were recorded."""
        query = "SELECT text FROM line WHERE key IN (SELECT key FROM displaced) ORDER BY version"
        return [one for batch in self._facts(query) for one in batch if isinstance(one, Recorded)]

    def replicas(self, blobs: Iterable[BlobFacts]) -> Mapping[bytes, list[Replica]]:
        """Where the bytes are, as far as their size says: of each store the newest object."""
        facts = {one.sha256: one for one in blobs}
        found: dict[tuple[bytes, str], Replica] = {}
        names = list(facts)
        for start in range(0, len(names), 500):
            part = names[start : start + 500]
            query = f"SELECT blob, store, generation, size FROM object WHERE blob IN ({','.join('?' * len(part))})"  # noqa: S608 - question marks
            with translated():
                for sha256, store, generation, size in self._sqlite.execute(query, part):
                    known = found.get((sha256, store))
                    if size == facts[sha256].size and (known is None or known.generation < generation):
                        found[sha256, store] = Replica(facts[sha256], store, generation)
        by_blob: dict[bytes, list[Replica]] = {}
        for replica in found.values():
            by_blob.setdefault(replica.blob.sha256, []).append(replica)
        return by_blob

    def unnamed(self) -> Iterator[Unnamed]:
        columns = "store, blob, generation, size, modified_at"
        with translated():
            for store, sha256, number, size, at in self._sqlite.execute(
                f"SELECT {columns} {_UNNAMED} ORDER BY 1, 2, 3"
            ):
                yield Unnamed(store, f"{sha256.hex()}.{number}", size, datetime.fromtimestamp(at, UTC))

    def count_unnamed(self) -> tuple[int, int]:
        """How many, and their bytes."""
        return self._number(f"SELECT count(*) {_UNNAMED}"), self._number(f"SELECT coalesce(sum(size), 0) {_UNNAMED}")

    def _facts(self, query: str, *values: Any) -> Iterator[list[Fact]]:
        with translated():
            cursor = self._sqlite.execute(query, values)
            while rows := cursor.fetchmany(BATCH):
                yield [Line.parse(text).fact for (text,) in rows]

    def _number(self, query: str, *values: Any) -> int:
        with translated():
            return int(self._sqlite.execute(query, values).fetchone()[0])


def _blobs(fact: Fact) -> Iterator[bytes]:
    match fact:
        case Recorded(asset):
            yield asset.blob.sha256
        case Deleted(blob=bytes(sha256)):
            yield sha256
        case Rendered(source, _, output):
            yield from (source, output.sha256)
