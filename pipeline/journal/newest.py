"""The last word on each thing, out of any number of lines, in a file of this host.

Memory is bounded by SQLite's cache; the disk holds each line once, so about as much as the newest lines are together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from core.errors import Unavailable
from metadata.journal.journal_records import Asked, Deleted, Recorded, Rendered
from pipeline.journal.lines import Line

BATCH = 1000
_CACHE_KIB = 64 << 10
_SCHEMA = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -{_CACHE_KIB};
CREATE TABLE line (
    key TEXT PRIMARY KEY, version INTEGER NOT NULL, kind TEXT NOT NULL, about TEXT, blob BLOB, deleted_at TEXT,
    place TEXT, text TEXT NOT NULL
);
"""
_ADD = """
INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
    version = excluded.version, kind = excluded.kind, about = excluded.about, blob = excluded.blob,
    deleted_at = excluded.deleted_at, place = excluded.place, text = excluded.text
WHERE excluded.version >= line.version
"""


class NewestLines:
    """Made in a directory that its owner removes."""

    def __init__(self, directory: Path) -> None:
        with translated():
            self.sqlite = sqlite3.connect(directory / "lines", isolation_level=None)
            self.sqlite.executescript(_SCHEMA)
        self.highest = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sqlite.close()

    def add(self, lines: Iterable[Line]) -> None:
        """
        Raises:
            Unavailable: no room for it on this host.
        """
        with translated():
            self.sqlite.executemany(_ADD, map(self._row, lines))

    def drop_finished(self, before: datetime) -> None:
        """What no rebuild needs: tombstones from before that time, and what was made of and for assets that are gone.
        Right only where no older line is kept elsewhere, or what is dropped here could come back from there."""
        with translated():
            self.sqlite.executescript(
                """
                CREATE INDEX IF NOT EXISTS line_blob ON line (blob) WHERE kind = 'Recorded';
                DELETE FROM line WHERE kind = 'Asked' AND NOT EXISTS (
                    SELECT 1 FROM line AS asset WHERE asset.key = line.about AND asset.kind = 'Recorded');
                DELETE FROM line WHERE kind = 'Rendered' AND NOT EXISTS (
                    SELECT 1 FROM line AS asset WHERE asset.blob = line.blob AND asset.kind = 'Recorded');
                """
            )
            self.sqlite.execute("DELETE FROM line WHERE kind = 'Deleted' AND deleted_at < ?", [_time(before)])

    def texts(self) -> Iterator[str]:
        with translated():
            for (text,) in self.sqlite.execute("SELECT text FROM line ORDER BY key"):
                yield text

    def count(self) -> int:
        with translated():
            return int(self.sqlite.execute("SELECT count(*) FROM line").fetchone()[0])

    def _row(self, line: Line) -> tuple[Any, ...]:
        about = blob = deleted_at = place = None
        match line.fact:
            case Recorded(asset):
                blob, place = asset.blob.sha256, f"{asset.entry} {asset.path}"
            case Deleted(path=path, entry=entry):
                deleted_at, place = _time(line.fact.deleted_at), path and f"{entry} {path}"
            case Asked(asset_id):
                about = f"asset {asset_id}"
            case Rendered(source):
                blob = source
        self.highest = max(self.highest, line.version)
        kind = type(line.fact).__name__
        return line.key, line.version, kind, about, blob, deleted_at, place, line.text


def _time(at: datetime) -> str:
    """Such that they are in order as texts."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"no room for what the catalogue says on this host: {error}") from None
