"""What was purged goes from every host that kept a copy for rendering, whenever that comes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.model import Asset
from metadata.paths import AssetPath
from pipeline import copies
from pipeline.assets import deletion
from pipeline.replicas import sources
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

SECRET = encoded(photo(320, 240), "JPEG")
OTHER = encoded(photo(300, 200), "JPEG")


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> Iterator[Callable[[str], Line]]:
    """Hosts that share a store which is none of theirs."""
    made: list[Line] = []

    def make(name: str) -> Line:
        made.append(Line(tmp_path / name, database_url, stores={"main": {"kind": "postgres"}}))
        return made[-1]

    yield make
    for line in made:
        line.close()


def render_from(line: Line, asset: Asset) -> None:
    with sources.local_file(line.services, asset.blob.sha256):
        pass


def holds(line: Line, data: bytes) -> bool:
    files = (path for path in line.settings.home.rglob("*") if path.is_file() and "staging" not in path.parts)
    return data in [path.read_bytes() for path in files]


def purge(line: Line, asset: Asset) -> None:
    deletion.delete(line.services, AssetPath.from_text(asset.path), asset.entry, purge=True)
    line.collect()


def forget(line: Line) -> int:
    (line.settings.home / "cache/originals/lock").write_bytes(b"")  # as if it were long ago
    return copies.forget_gone(line.services)


def test_purged_bytes_go_from_every_host_also_from_one_that_was_away(host: Callable[[str], Line]) -> None:
    here, away = host("here"), host("away")
    secret, other = here.bring("/bare/secret.jpg", SECRET), here.bring("/bare/other.jpg", OTHER)
    for line in (here, away):
        for asset in (secret, other):
            render_from(line, asset)
        assert forget(line) == 0
    purge(here, secret)
    assert forget(here) == 1
    assert (holds(here, SECRET), holds(here, OTHER)) == (False, True)
    assert holds(away, SECRET)
    assert (forget(away), forget(away)) == (1, 0)
    assert (holds(away, SECRET), holds(away, OTHER)) == (False, True)


def test_what_another_asset_holds_stays_until_that_goes_too(host: Callable[[str], Line]) -> None:
    line = host("here")
    first, second = line.bring("/bare/a.jpg", SECRET), line.bring("/bare/b.jpg", SECRET)
    render_from(line, first)
    purge(line, first)
    assert forget(line) == 0
    purge(line, second)
    assert forget(line) == 1


def test_a_copy_that_came_after_the_purge_goes_as_well(host: Callable[[str], Line]) -> None:
    """Write the copy after the purge, as a download does that had begun before."""
    line = host("here")
    asset = line.bring("/bare/a.jpg", SECRET)
    render_from(line, asset)
    [copy] = (line.settings.home / "cache/originals").glob("*.copy")
    purge(line, asset)
    copy.unlink()
    assert forget(line) == 0
    copy.write_bytes(SECRET)
    assert forget(line) == 1


def test_what_a_dead_download_left_goes_too(host: Callable[[str], Line]) -> None:
    line = host("here")
    asset = line.bring("/bare/a.jpg", OTHER)
    render_from(line, asset)
    (line.settings.home / "cache/originals" / ("ab" * 32 + ".part")).write_bytes(SECRET)
    forget(line)
    forget(line)
    assert (holds(line, SECRET), holds(line, OTHER)) == (False, True)


def test_one_process_of_a_host_does_it_at_a_time(host: Callable[[str], Line]) -> None:
    line = host("here")
    assert not line.services.copies.is_due(0), "there was no download yet"
    render_from(line, line.bring("/bare/a.jpg", SECRET))
    assert [line.services.copies.is_due(60) for _ in range(3)] == [True, False, False]


def test_without_the_database_everything_stays(host: Callable[[str], Line], monkeypatch: pytest.MonkeyPatch) -> None:
    line = host("here")
    render_from(line, line.bring("/bare/a.jpg", SECRET))

    def away(_hashes: object) -> frozenset[bytes]:
        raise Unavailable("away")

    monkeypatch.setattr(line.services.metadata.blobs, "known", away)
    with pytest.raises(Unavailable):
        forget(line)
    assert holds(line, SECRET)
