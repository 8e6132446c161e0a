"""Bytes that may be the last of their kind are not given up because one reading of them went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from core.errors import Corrupt, StoreUnavailable
from core.model import Asset, Replica
from pipeline.replicas import repair, sources
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(320, 240), "JPEG")


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = Line(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def asset(line: Line) -> Asset:
    return line.bring("/bare/a.jpg", PICTURE)


def replica_of(line: Line, asset: Asset) -> Replica:
    [replica] = line.services.metadata.blobs.replicas(asset.blob.sha256)
    return replica


def read(line: Line, asset: Asset) -> bytes:
    with sources.stream(line.services, asset.blob.sha256) as body:
        return body.read()


def test_a_copy_that_was_damaged_on_its_way_condemns_nothing(
    line: Line, asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def damaged(*_: object, **__: object) -> Iterator[BinaryIO]:
        raise Corrupt("a bit has flipped")
        yield

    before = replica_of(line, asset)
    monkeypatch.setattr(line.services.copies, "open", damaged)
    with pytest.raises(StoreUnavailable), sources.local_file(line.services, asset.blob.sha256):
        pytest.fail("given out")
    assert replica_of(line, asset) == before
    assert read(line, asset) == PICTURE


def test_a_replica_that_was_marked_by_mistake_recovers(line: Line, asset: Asset) -> None:
    before = replica_of(line, asset)
    sources.mark(line.services, before, "corrupt", "said somebody")
    assert line.services.metadata.blobs.replicas(asset.blob.sha256) == []
    assert repair.repair(line.services) == 1
    assert replica_of(line, asset) == before


def test_the_last_replica_is_not_collected_though_it_is_wrong(line: Line, asset: Asset, tmp_path: Path) -> None:
    """Most of it may be good, and a person can look at it."""
    broken = replica_of(line, asset)
    [file] = (tmp_path / "store").rglob(broken.key)
    file.write_bytes(PICTURE[:-1] + b"?")
    sources.mark(line.services, broken, "corrupt", "it is")
    assert repair.repair(line.services) == 0
    line.collect()
    assert file.read_bytes() == PICTURE[:-1] + b"?"
