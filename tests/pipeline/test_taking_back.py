"""The other replica turns out to be bad only after this one was dropped: what gc has not begun to delete comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from core.errors import StoreUnavailable
from core.model import Asset, Replica
from core.sections import Placement
from pipeline.replicas import repair, sources
from tests.pictures import encoded, photo
from tests.pipeline.line import Line
from tests.pipeline.test_last_copy import read
from tests.pipeline.test_placement import held_by, lined

PICTURE = encoded(photo(320, 240), "JPEG")


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = lined(tmp_path, database_url, Placement(store="main", replicas=("far",)))
    yield made
    made.close()


@pytest.fixture
def asset(line: Line) -> Asset:
    return line.bring("/bare/a.jpg", PICTURE)


def dropped(line: Line, asset: Asset, tmp_path: Path) -> Replica:
    """Drop the replica in one of two stores, when no process knows yet that the other one's bytes are wrong; return
    the other."""
    far, main = line.services.metadata.blobs.replicas(asset.blob.sha256)
    [file] = (tmp_path / "far" / "objects").rglob(far.key)
    file.write_bytes(PICTURE[:-1] + b"?")
    assert line.services.metadata.stores.drop(main, far)
    return far


def test_what_is_dropped_comes_back_when_nothing_else_is_good(line: Line, asset: Asset, tmp_path: Path) -> None:
    far = dropped(line, asset, tmp_path)
    sources.mark(line.services, far, "corrupt", "its bytes are wrong")
    assert line.services.metadata.blobs.garbage(10) == []
    assert repair.repair(line.services) == 2, "the one is right, and the other is made from it"
    assert read(line, asset) == PICTURE
    line.collect()
    assert held_by(line, asset.blob) == ["far", "main"]


def test_what_no_rule_asks_for_goes_again_once_it_was_of_use(line: Line, tmp_path: Path) -> None:
    asset = line.bring("/bare/a.jpg", PICTURE)
    [fast] = line.services.metadata.blobs.reserve([(asset.blob, "fast")], timedelta(0))
    far, main = line.services.metadata.blobs.replicas(asset.blob.sha256)
    with line.services.store("main").open(main.key) as body:
        line.services.store("fast").put(
            fast.replica.key, body, size=asset.blob.size, sha256=asset.blob.sha256, media_type=asset.blob.media_type
        )
    line.services.metadata.repairs.ensure(asset.blob.sha256, "fast", timedelta(0))
    line.services.metadata.repairs.done(fast.replica)
    assert line.services.metadata.stores.drop(fast.replica, main)
    for one in (far, main):
        sources.mark(line.services, one, "corrupt", "said somebody")
    assert repair.repair(line.services) == 3
    line.collect()
    assert held_by(line, asset.blob) == ["far", "main"]
    assert list(line.services.store("fast").scan()) == []


def given_out(line: Line) -> None:
    assert len(line.services.metadata.blobs.garbage(10)) == 1


def deleted(line: Line) -> None:
    line.collect()


@pytest.mark.parametrize("gone", [given_out, deleted])
def test_what_somebody_may_be_deleting_does_not(
    line: Line, asset: Asset, tmp_path: Path, gone: Callable[[Line], None]
) -> None:
    far = dropped(line, asset, tmp_path)
    gone(line)
    sources.mark(line.services, far, "corrupt", "its bytes are wrong")
    assert repair.repair(line.services) == 0
    with pytest.raises(StoreUnavailable):
        read(line, asset)
    line.collect()
    assert list(line.services.store("main").scan()) == []
