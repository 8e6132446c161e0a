"""How often PostgreSQL is asked: each message is a wait, of 20 ms where it lies that far away.

What a process asks once, or at most once a second, is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.model import Details
from core.sections import Variants
from tests.metadata.cut import CuttingProxy
from tests.pictures import encoded, photo
from tests.pipeline.line import Line

PICTURE = encoded(photo(320, 240), "JPEG")
SAID = Details("alt", {"a": "1", "b": "2"}, ("x", "y"))
STATES = "FROM store"


class Asked:
    def __init__(self, line: Line, proxy: CuttingProxy) -> None:
        self.line = line
        self._proxy = proxy

    def begin(self) -> None:
        self._proxy.asked.clear()

    def count(self) -> int:
        return sum(not one.rstrip().endswith(STATES) for one in self._proxy.asked)


@pytest.fixture
def asked(
    tmp_path: Path, database_url: str, services_directory: Path, request: pytest.FixtureRequest
) -> Iterator[Asked]:
    with CuttingProxy(database_url, services_directory) as proxy:
        line = Line(tmp_path, proxy.url, variants=Variants(eager=getattr(request, "param", "fleet")))
        line.derive(line.bring("/first", encoded(photo(100), "JPEG")).blob.sha256)
        yield Asked(line, proxy)
        line.services.close()


@pytest.mark.parametrize(
    ("path", "key", "limit"), [("/bare/a", None, 4), ("/a", None, 5), ("/bare/a", "key", 5), ("/a", "key", 6)]
)
def test_an_ingest(asked: Asked, path: str, key: str | None, limit: int) -> None:
    manifest = asked.line.accept(path, PICTURE, key=key, details=SAID)
    asked.begin()
    asked.line.ingest(manifest.id)
    assert asked.count() <= limit
    asset = asked.line.services.metadata.assets.by_id(manifest.asset_id)
    assert asset is not None
    assert asset.details == SAID


def test_bytes_that_are_there_already(asked: Asked) -> None:
    asked.line.bring("/a", PICTURE)
    manifest = asked.line.accept("/b", PICTURE)
    asked.begin()
    asked.line.ingest(manifest.id)
    assert asked.count() <= 6


@pytest.mark.parametrize("asked", ["inline"], indirect=True)
def test_an_ingest_that_renders(asked: Asked) -> None:
    manifest = asked.line.accept("/a", PICTURE)
    asked.begin()
    asked.line.ingest(manifest.id)
    assert asked.count() <= 8


def test_a_derive(asked: Asked) -> None:
    asset = asked.line.bring("/a", PICTURE)
    asked.begin()
    asked.line.derive(asset.blob.sha256)
    assert asked.count() <= 6
    assert {one.state.value for one in asked.line.variants(asset).values()} == {"ready"}


def test_a_derive_that_finds_nothing(asked: Asked) -> None:
    asset = asked.line.bring("/a", PICTURE)
    asked.line.derive(asset.blob.sha256)
    asked.begin()
    asked.line.derive(asset.blob.sha256)
    assert asked.count() == 1
