"""A line with two stores and a catalogue, and what is written down in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metadata.journal.journal_records import Fact
from pipeline.journal import segments
from pipeline.journal.lines import Line
from storage.interface import ObjectStore
from tests.pictures import encoded, photo
from tests.pipeline.line import Line as Pipeline
from tests.pipeline.test_placement import stores


def lined(home: Path, database_url: str, **options: object) -> Pipeline:
    return Pipeline(home, database_url, stores=stores(home), **options)


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Pipeline]:
    made = lined(tmp_path, database_url)
    yield made
    made.close()


def bring(line: Pipeline, path: str, number: int = 0) -> None:
    line.bring(path, encoded(photo(40 + number, 30), "JPEG"))


def read(store: ObjectStore) -> list[Line]:
    return [Line.parse(text) for one in segments.current(store) for text in segments.lines(store, one)]


def facts(line: Pipeline, store: str = "main") -> list[Fact]:
    """The last word on each."""
    newest: dict[str, Line] = {}
    for one in sorted(read(line.services.store(store)), key=lambda one: one.version):
        newest[one.key] = one
    return [one.fact for one in newest.values()]


def keys(line: Pipeline, store: str = "main") -> list[str]:
    return [one.key for one in line.services.store(store).scan("catalog/")]
